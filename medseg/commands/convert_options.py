"""Options of `medseg convert`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medseg.errors import ConfigError
from medseg.io.dicom.grid import Irregular
from medseg.output_formats import OUTPUT_FORMATS, check_format

__all__ = ["ConvertOptions"]


@dataclass(frozen=True, slots=True)
class ConvertOptions:
    """How to convert.

    Args:
        format: a key of `OUTPUT_FORMATS`; None: the target's suffix decides, and for a folder the source's kind.
        series: SeriesInstanceUID, where the source, or else the reference, has several.
        irregular: missing or uneven DICOM slices, as for `medseg.read`.
        reference: the DICOM study that a label map was drawn on: needed to write SEG and RTSTRUCT and to read RTSTRUCT,
            and gives written DICOM series their patient.
        labels: YAML or JSON file with `name: value`, for label maps whose labels have no names.
        anonymize: copy DICOM objects without the patient (PS3.15 Basic Profile).
        overwrite: replace existing files.
        copy_grid: an image of the same shape whose affine each volume gets, its voxels unmoved.
        strict: refuse a SEG or RTSTRUCT of which a segment or ROI cannot be read, instead of leaving that one out.
        timestamps: date written SEG and RTSTRUCT now, instead of at the study's date.
        scribbles: width in pixels of the lines and points of annotations; what is not drawn gets the value to ignore,
            that of `labels` or 255. None: lines and points are skipped.

    Raises:
        ConfigError: for a format that does not exist, or a width below 1.
    """

    format: str | None = None
    series: str | None = None
    irregular: Irregular = "error"
    reference: Path | None = None
    labels: Path | None = None
    anonymize: bool = False
    overwrite: bool = False
    copy_grid: Path | None = None
    strict: bool = False
    timestamps: bool = False
    scribbles: int | None = None

    def __post_init__(self) -> None:
        check_format(self.format, OUTPUT_FORMATS)
        if self.scribbles is not None and self.scribbles < 1:
            raise ConfigError(f"scribbles of {self.scribbles} pixels cannot be drawn; give a width from 1")
