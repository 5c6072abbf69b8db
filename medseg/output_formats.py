"""The formats that medseg writes: `predict --format` and `convert --format` take their names here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medseg.errors import ConfigError
from medseg.file_formats import FILE_FORMATS
from medseg.lookup import nearest_hint

__all__ = [
    "MASK_FORMATS",
    "OUTPUT_FORMATS",
    "OutputFormat",
    "check_format",
    "file_names",
    "format_of_name",
    "several_formats",
]


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """A format that medseg writes.

    Args:
        name: the value of `--format`.
        content: 'voxels': a file of voxels; 'slices': a DICOM series, a folder; 'object': a DICOM object that refers to
            the series it was drawn on; 'annotations': the file of an annotation tool.
        suffix: of the files written; '' for a folder.
        suffix_among_objects: of the files written where a case gets several DICOM objects; '' if it is `suffix`.
        asked_by: suffixes of a target that select this format; DICOM objects share one, which selects SEG.
        for_masks: whether `predict` writes it as well.
    """

    name: str
    content: Literal["voxels", "slices", "object", "annotations"]
    suffix: str
    suffix_among_objects: str = ""
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
        OutputFormat(each.output, "voxels", each.suffixes[0], "", each.asked_by, each.for_masks)
        for each in FILE_FORMATS
        if each.output
    ),
    OutputFormat("dicom", "slices", ""),
    OutputFormat("dicom-seg", "object", ".dcm", ".seg.dcm", (".dcm",), for_masks=True),
    OutputFormat("rtstruct", "object", ".dcm", ".rtstruct.dcm", for_masks=True),
    OutputFormat("labelme", "annotations", ".json", asked_by=(".json",)),
    OutputFormat("cvat", "annotations", ".xml", asked_by=(".xml",)),
    OutputFormat("supervisely", "annotations", ".json"),
    OutputFormat("coco", "annotations", ".json"),
)
# What a prediction found, rather than its label map.
_RESULTS = (
    OutputFormat("sr", "object", ".sr.dcm", for_masks=True),
    OutputFormat("capture", "object", ".capture.dcm", for_masks=True),
)
OUTPUT_FORMATS = {each.name: each for each in _ALL}
"""Name -> format: what `convert` writes."""
MASK_FORMATS = {each.name: each for each in (*_ALL, *_RESULTS) if each.for_masks}
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


def several_formats(names: str | None) -> tuple[str, ...]:
    """The formats of `predict` that a text such as 'dicom-seg,sr' names, each once, in the order of `MASK_FORMATS`.

    Args:
        names: joined by commas; None for ().

    Raises:
        ConfigError: if one of them is not known.

    Example:
        >>> several_formats("sr, dicom-seg")
        ('dicom-seg', 'sr')
    """
    if names is None:
        return ()
    asked = [name.strip() for name in names.split(",")]
    for name in asked:
        check_format(name, MASK_FORMATS)
    return tuple(name for name in MASK_FORMATS if name in asked)


def file_names(case: str, kinds: Sequence[str]) -> dict[str, str]:
    """Format -> name of the file that `predict` writes of a case.

    Args:
        case: name of the case.
        kinds: keys of `MASK_FORMATS`.

    Example:
        >>> file_names("chest", ["dicom-seg"]), file_names("chest", ["dicom-seg", "sr"])
        ({'dicom-seg': 'chest.dcm'}, {'dicom-seg': 'chest.seg.dcm', 'sr': 'chest.sr.dcm'})
    """
    formats = [MASK_FORMATS[kind] for kind in kinds]
    several = sum(each.needs_series for each in formats) > 1
    return {each.name: f"{case}{(each.suffix_among_objects if several else '') or each.suffix}" for each in formats}


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
