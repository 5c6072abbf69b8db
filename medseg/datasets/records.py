"""Records that every layout of a data set is read into: cases and the files of their labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from medseg.io.label_maps import LabelSource
from medseg.volume import Finding

__all__ = ["Case", "Layout"]


@dataclass(frozen=True, slots=True)
class Case:
    """One case: a file per channel, its labels, the patient (`group`) and the split the dataset gives ('' for none).

    `series`: SeriesInstanceUID of the image, where the path is a DICOM study that may hold several. `annotated`: names
    of the labels that are annotated; None: all of them.
    """

    name: str
    images: tuple[Path, ...]
    labels: tuple[LabelSource, ...]
    group: str = ""
    split: str = ""
    series: str = ""
    annotated: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """The contents of a data set as read from its layout."""

    name: str
    cases: tuple[Case, ...]
    labels: Mapping[str, int | tuple[int, ...]] | None = None
    ignore: int | tuple[int, ...] | None = None
    channel_names: tuple[str, ...] = ()
    folds: tuple[tuple[str, ...], ...] = ()
    train_folds: tuple[tuple[str, ...], ...] = ()
    findings: tuple[Finding, ...] = ()
