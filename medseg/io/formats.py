"""The kinds of files: which reader and writer a file belongs to, by suffix and content, and the name of its case."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from medseg.disk.directory_walk import files_below, is_hidden
from medseg.errors import ReadError
from medseg.file_formats import FILE_FORMATS, FileFormat, Kind
from medseg.volume import Volume

__all__ = [
    "READABLE",
    "archives_below",
    "check_source",
    "format_of",
    "has_dicom_magic",
    "has_voxels_elsewhere",
    "header_file_of",
    "image_files",
    "is_annotation_file",
    "is_dicom_directory",
    "is_image_file",
    "is_probability_file",
    "is_there",
    "kind_of",
    "may_be_dicom",
    "reader_of",
    "stem_of",
    "voxel_file_of",
    "writer_of",
]

_BY_SUFFIX = {suffix: each for each in FILE_FORMATS for suffix in each.suffixes}
# Suffixes of voxel files with a separate header; DICOM files can end in .img as well.
_VOXELS = {".img": (".hdr",), ".img.gz": (".hdr.gz", ".hdr")}
# Headers that have, or may have, their voxels in a second file.
_HEADERS = frozenset({".hdr", ".hdr.gz", ".mhd", ".nhdr"})
_ANNOTATIONS = frozenset({".json", ".xml"})
_PROBABILITIES = ".npz"
# Files often found next to images; any other suffix may be part of the name of a DICOM file.
_NOT_DICOM = _ANNOTATIONS | {
    *(".txt", ".csv", ".html", ".htm", ".pdf", ".md", ".py", ".log", ".yaml", ".yml"),
}
# CDs may append a version (';1'); Siemens calls the file DIRFILE.
_DIRECTORY_NAME = re.compile(r"(?:dicomdir|dirfile)(?:[.;].*)?", re.IGNORECASE)
_DIRECTORY_CLASS = re.compile(rb"1\.2\.840\.10008\.1\.3\.10(?![.\d])")
READABLE = f"{', '.join(each.title for each in FILE_FORMATS[:-1])} or {FILE_FORMATS[-1].title}"


def _suffix_of(path: Path) -> str:
    name = path.name.lower()
    return next((suffix for suffix in _BY_SUFFIX if name.endswith(suffix) and name != suffix), "")


def kind_of(path: Path) -> Kind:
    """The reader that the suffix selects; '' if the suffix is not known (DICOM files often have none).

    An `.img` is the second half of a pair if its `.hdr` is next to it; otherwise its suffix means nothing.
    """
    suffix = _suffix_of(path)
    if suffix in _VOXELS and header_file_of(path) is None:
        return ""
    return _BY_SUFFIX[suffix].kind if suffix else ""


def format_of(path: Path) -> FileFormat | None:
    """The format that the suffix selects, whether or not the file exists; None if the suffix is not known."""
    return _BY_SUFFIX.get(_suffix_of(path))


def reader_of(path: Path) -> Callable[[Path], Volume] | None:
    """The function that reads the volume of a file into RAS+; None for DICOM, zips and everything else."""
    found = format_of(path) if kind_of(path) else None
    return _imported(found.reader) if found and found.reader else None


def writer_of(path: Path) -> Callable[[Volume, Path], None] | None:
    """The function that writes a volume to a file of this name; None if the suffix selects no writer."""
    found = format_of(path) if kind_of(path) else None
    return _imported(found.writer) if found and found.writer else None


def _imported(place: str) -> Any:
    module, function = place.split(":")
    return getattr(import_module(module), function)


def is_image_file(path: Path) -> bool:
    """Whether the suffix belongs to an image other than DICOM."""
    found = format_of(path) if kind_of(path) else None
    return found is not None and found.reader != ""


def is_annotation_file(path: Path) -> bool:
    """Whether annotation tools use this suffix; the content decides whether the file is an annotation."""
    return path.suffix.lower() in _ANNOTATIONS


def is_probability_file(path: Path) -> bool:
    """Whether the suffix is that of stored probabilities, which `medseg predict --save-probabilities` writes."""
    return path.suffix == _PROBABILITIES


def may_be_dicom(path: Path) -> bool:
    """Whether a file of this name can be DICOM; in many archives DICOM files have no suffix, or any."""
    return path.suffix.lower() not in _NOT_DICOM and kind_of(path) in ("dicom", "")


def has_voxels_elsewhere(path: Path) -> bool:
    """Whether the suffix belongs to a header whose voxels are, or may be, in a second file."""
    return _suffix_of(path) in _HEADERS


def voxel_file_of(header: Path) -> Path | None:
    """The `.img` or `.img.gz` of an `.hdr`; None if there is none."""
    return _beside(header, (".img", ".img.gz"))


def header_file_of(voxels: Path) -> Path | None:
    """The `.hdr` or `.hdr.gz` of an `.img`; None if there is none."""
    return _beside(voxels, _VOXELS.get(_suffix_of(voxels), ()))


def _beside(path: Path, suffixes: tuple[str, ...]) -> Path | None:
    names = [stem_of(path) + made for suffix in suffixes for made in (suffix, suffix.upper())]
    return next((path.with_name(name) for name in names if path.with_name(name).is_file()), None)


def stem_of(path: Path) -> str:
    """The file name without its image suffix: 'ct.nii.gz', 'ct.seg.nrrd' and 'ct.png' give 'ct'; 'IM0001' stays."""
    suffix = _suffix_of(path)
    stem = path.name[: -len(suffix)] if suffix else path.name
    # 3D Slicer marks its segmentations so.
    return stem[:-4] if suffix == ".nrrd" and stem.lower().endswith(".seg") and len(stem) > 4 else stem


def has_dicom_magic(path: Path, strictly: bool = False) -> bool:
    """Whether the file is DICOM: 'DICM' after the preamble, or, unless `strictly`, a data set from the first byte.

    Raises:
        ReadError: if the file cannot be opened.
    """
    try:
        with path.open("rb") as file:
            start = file.read(132)
    except OSError as error:
        raise ReadError(f"{path} cannot be read: {error.strerror or error}") from None
    if start[128:132] == b"DICM":
        return True
    if strictly:
        return False
    # Without a preamble, as in old files, the first element is (0002,00xx) or (0008,00xx), little endian.
    return len(start) > 8 and start[0] in (2, 8) and start[1] == 0 and start[3] == 0 and start[2] < 0x20


def is_dicom_directory(path: Path) -> bool:
    """Whether a file is a DICOM directory (DICOMDIR, PS3.10 section 8), possibly damaged.

    Decided by its name, by its class in the file meta information, or, if both are missing, by its first element.
    """
    if _DIRECTORY_NAME.fullmatch(path.name):
        return True
    try:
        with path.open("rb") as file:
            start = file.read(1024)
    except OSError:
        return False
    # Group 0004 occurs in no other object.
    return _DIRECTORY_CLASS.search(start) is not None or (start[:2] == b"\4\0" and start[3:4] in (b"\x11", b"\x12"))


def is_there(path: Path) -> bool:
    """Whether a file or folder of that name exists; False for names that no file system allows, as in damaged lists."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def check_source(source: Path) -> None:
    """Refuse anything but a file or folder before it is opened: reading a pipe would wait forever.

    Raises:
        ReadError: if it is missing, a broken or circular link, a pipe or device, or cannot be accessed.
    """
    try:
        mode = source.stat().st_mode
    except FileNotFoundError:
        what = "is a link to something that does not exist" if source.is_symlink() else "does not exist"
        raise ReadError(f"{source} {what}; check the path") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ReadError(f"{source} cannot be accessed: {reason}; check the path") from None
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ReadError(f"{source} is a device or pipe; expected a file or folder")


def image_files(folder: Path, recursive: bool = False) -> list[Path]:
    """The image files of a folder that are not DICOM (NIfTI, NRRD, PNG, ...), sorted; hidden ones are skipped.

    A pair of `.hdr` and `.img` counts once, by its header. A header without voxels does not count, because other
    programs use that suffix for other purposes.

    Raises:
        ReadError: if the folder cannot be listed.
    """
    try:
        found = files_below(folder)[0] if recursive else [p for p in folder.iterdir() if p.is_file()]
    except OSError as error:
        raise ReadError(f"{folder} cannot be listed: {error.strerror or error}") from None
    return sorted(p for p in found if _is_whole_image(p) and not is_hidden(p))


def archives_below(folder: Path) -> list[Path]:
    """The zips in a folder and its sub-folders, sorted; hidden ones are skipped."""
    return sorted(p for p in files_below(folder)[0] if kind_of(p) == "zip" and not is_hidden(p))


def _is_whole_image(path: Path) -> bool:
    suffix = _suffix_of(path)
    if suffix in (".hdr", ".hdr.gz"):
        return voxel_file_of(path) is not None
    return suffix not in _VOXELS and is_image_file(path)
