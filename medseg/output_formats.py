"""The formats that medseg writes: `predict --format` and `convert --format` take their names here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medseg.errors import ConfigError
from medseg.file_formats import FILE_FORMATS
from medseg.lookup import nearest_hint

__all__ = ["MASK_FORMATS", "OUTPUT_FORMATS", "OutputFormat", "check_format", "format_of_name"]


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """A format that medseg writes.

    Args:
        name: the value of `--format`.
        content: 'voxels': a file of voxels; 'slices': a DICOM series, a folder; 'object': a DICOM object that refers to
            the series it was drawn on; 'annotations': the file of an annotation tool.
        suffix: of the files written; '' for a folder.
        asked_by: suffixes of a target that select this format; DICOM objects share one, which selects SEG.
        for_masks: whether `predict` writes it as well.
    """

    name: str
    content: Literal["voxels", "slices", "object", "annotations"]
    suffix: str
    asked_by: tuple[str, ...] = ()
    for_masks: bool = False

    @property
    def needs_series(self) -> bool:
        """Whether writing it requires the DICOM series that was segmented."""
        return self.content == "object"

    @property
    def holds_labels_only(self) -> bool:
        """Whether it can only store label maps, not images."""
        return self.content in ("object", "annotations")


_ALL = (
    *(
        OutputFormat(each.output, "voxels", each.suffixes[0], each.asked_by, each.for_masks)
        for each in FILE_FORMATS
        if each.output
    ),
    OutputFormat("dicom", "slices", ""),
    OutputFormat("dicom-seg", "object", ".dcm", (".dcm",), for_masks=True),
    OutputFormat("rtstruct", "object", ".dcm", for_masks=True),
    OutputFormat("labelme", "annotations", ".json", (".json",)),
    OutputFormat("cvat", "annotations", ".xml", (".xml",)),
    OutputFormat("supervisely", "annotations", ".json"),
    OutputFormat("coco", "annotations", ".json"),
)
OUTPUT_FORMATS = {each.name: each for each in _ALL}
"""Name -> format: what `convert` writes."""
MASK_FORMATS = {each.name: each for each in _ALL if each.for_masks}
"""Name -> format: what `predict` writes."""
_ASKED_BY = {suffix: each for each in _ALL for suffix in each.asked_by}


def check_format(name: str | None, formats: dict[str, OutputFormat]) -> None:
    """Refuse an unknown output format.

    Args:
        name: the requested format; None is accepted.
        formats: `OUTPUT_FORMATS` or `MASK_FORMATS`.

    Raises:
        ConfigError: naming the known formats.
    """
    if name is not None and name not in formats:
        choices = f"{', '.join(formats)}{nearest_hint(name, formats)}"
        raise ConfigError(f"format {name!r} is not known; choose one of {choices}")


def format_of_name(target: Path) -> OutputFormat | None:
    """The format that a target's suffix selects, None if it selects none.

    Example:
        >>> format_of_name(Path("study.NII.GZ")).name
        'nifti'
        >>> format_of_name(Path("study")) is None
        True
    """
    both = "".join(target.suffixes[-2:]).lower()
    return _ASKED_BY.get(both) or _ASKED_BY.get(target.suffix.lower())
