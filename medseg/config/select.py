"""`data.select`: which series of a DICOM study is a channel of the model's input."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from medseg.config.part import Part, Range
from medseg.config.patterns import Pattern

__all__ = ["SelectRule"]

Short = Annotated[str, Field(max_length=200)]
ShortPattern = Annotated[Pattern, Field(max_length=200)]


class SelectRule(Part):
    """Which series of a DICOM study is a channel of the model's input; a key that is not given is not checked.

    `name`: of the channel; names such as 'FLAIR', 'T1c' or 'CT' also select the series.
    `modality`: as in DICOM (CT, MR, PT).
    `body_part`, `description`: regular expressions for the first 64 characters of BodyPartExamined and
    SeriesDescription, ignoring case; one that could take forever to match is refused.
    `min_slices`: series with fewer slices are left out.
    `thickness_mm`: lowest and highest slice thickness.
    `orientation`: of the slices.
    `contrast`: whether a contrast agent was given.
    `derived`: whether derived and secondary images are accepted like originals.
    `reference`: the other channels are resampled to this one's grid.
    """

    name: Short = ""
    modality: Short | None = None
    body_part: ShortPattern | None = None
    description: ShortPattern | None = None
    min_slices: Annotated[int, Field(ge=1, le=10**6)] | None = None
    thickness_mm: Range | None = None
    orientation: Literal["axial", "coronal", "sagittal"] | None = None
    contrast: bool | None = None
    derived: bool = False
    reference: bool = False
