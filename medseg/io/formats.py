"""Which reader a file belongs to, and what its case is called."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import Literal

from medseg.disk.directory_walk import files_below, is_hidden
from medseg.errors import ReadError

__all__ = [
    "READABLE",
    "Kind",
    "check_source",
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
    "stem_of",
    "voxel_file_of",
]

Kind = Literal["nifti", "itk", "raster", "dicom", "zip", ""]

_KINDS: dict[str, Kind] = {
    ".nii.gz": "nifti",
    ".nii": "nifti",
    ".hdr.gz": "nifti",
    ".hdr": "nifti",
    ".img.gz": "nifti",
    ".img": "nifti",
    ".nrrd": "itk",
    ".nhdr": "itk",
    ".mha": "itk",
    ".mhd": "itk",
    ".png": "raster",
    ".jpg": "raster",
    ".jpeg": "raster",
    ".tif": "raster",
    ".tiff": "raster",
    ".dcm": "dicom",
    ".dicom": "dicom",
    ".ima": "dicom",
    ".zip": "zip",
}
# Suffixes of voxels whose header lies in a file of its own; DICOM files are called .img, too.
_VOXELS = {".img": (".hdr",), ".img.gz": (".hdr.gz", ".hdr")}
# Headers that may, or do, have their voxels in a second file.
_HEADERS = frozenset({".hdr", ".hdr.gz", ".mhd", ".nhdr"})
_ANNOTATIONS = frozenset({".json", ".xml"})
_PROBABILITIES = ".npz"
# What often lies beside images; any other suffix may be part of the name of a DICOM file.
_NOT_DICOM = _ANNOTATIONS | {
    *(".txt", ".csv", ".html", ".htm", ".pdf", ".md", ".py", ".log", ".yaml", ".yml", ".gif", ".bmp"),
}
# Discs may add a version (';1'), Siemens calls it DIRFILE.
_DIRECTORY_NAME = re.compile(r"(?:dicomdir|dirfile)(?:[.;].*)?", re.IGNORECASE)
_DIRECTORY_CLASS = re.compile(rb"1\.2\.840\.10008\.1\.3\.10(?![.\d])")
READABLE = (
    "NIfTI (.nii, .nii.gz), Analyze (.hdr with .img), NRRD (.nrrd, .nhdr), MetaImage (.mha, .mhd), PNG, JPEG, TIFF, "
    "DICOM or a zip"
)


def _suffix_of(path: Path) -> str:
    name = path.name.lower()
    return next((suffix for suffix in _KINDS if name.endswith(suffix) and name != suffix), "")


def kind_of(path: Path) -> Kind:
    """The reader that the suffix asks for; '' where the suffix says nothing (DICOM files often have none).

    An `.img` is the second half of a pair where its `.hdr` lies beside it, and says nothing elsewhere.
    """
    suffix = _suffix_of(path)
    if suffix in _VOXELS and header_file_of(path) is None:
        return ""
    return _KINDS.get(suffix, "")


def is_image_file(path: Path) -> bool:
    """Whether the suffix is that of an image other than DICOM."""
    return kind_of(path) in ("nifti", "itk", "raster")


def is_annotation_file(path: Path) -> bool:
    """Whether the suffix is one of those that annotation tools write; what the file holds, its content says."""
    return path.suffix.lower() in _ANNOTATIONS


def is_probability_file(path: Path) -> bool:
    """Whether the suffix is that of stored probabilities, which `medseg predict --save-probabilities` writes."""
    return path.suffix == _PROBABILITIES


def may_be_dicom(path: Path) -> bool:
    """Whether the name leaves room for a DICOM file; those of many archives have no suffix, or any."""
    return path.suffix.lower() not in _NOT_DICOM and kind_of(path) in ("dicom", "")


def has_voxels_elsewhere(path: Path) -> bool:
    """Whether the suffix is that of a header whose voxels lie, or may lie, in a second file."""
    return _suffix_of(path) in _HEADERS


def voxel_file_of(header: Path) -> Path | None:
    """The `.img` or `.img.gz` that belongs to an `.hdr`; None where there is none."""
    return _beside(header, (".img", ".img.gz"))


def header_file_of(voxels: Path) -> Path | None:
    """The `.hdr` or `.hdr.gz` that belongs to an `.img`; None where there is none."""
    return _beside(voxels, _VOXELS.get(_suffix_of(voxels), ()))


def _beside(path: Path, suffixes: tuple[str, ...]) -> Path | None:
    names = [stem_of(path) + made for suffix in suffixes for made in (suffix, suffix.upper())]
    return next((path.with_name(name) for name in names if path.with_name(name).is_file()), None)


def stem_of(path: Path) -> str:
    """The file name without its image suffix: 'ct.nii.gz' and 'ct.png' give 'ct', 'IM0001' stays."""
    suffix = _suffix_of(path)
    return path.name[: -len(suffix)] if suffix else path.name


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
    """Whether a file is the table of contents of a CD or the like (DICOMDIR, PS3.10 section 8), a damaged one too.

    By its name, by its class in the file's meta information, or, where both are lacking, by its first element.
    """
    if _DIRECTORY_NAME.fullmatch(path.name):
        return True
    try:
        with path.open("rb") as file:
            start = file.read(1024)
    except OSError:
        return False
    # Group 0004 stands in nothing else.
    return _DIRECTORY_CLASS.search(start) is not None or (start[:2] == b"\4\0" and start[3:4] in (b"\x11", b"\x12"))


def is_there(path: Path) -> bool:
    """Whether a file or folder of that name exists; no for names that no disk can hold, as damaged lists name them."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def check_source(source: Path) -> None:
    """Refuse what is neither a file nor a folder before anything opens it: a pipe would be waited for without end.

    Raises:
        ReadError: missing, a broken link or one that goes round in circles, a pipe or device, or not to be looked at.
    """
    try:
        mode = source.stat().st_mode
    except FileNotFoundError:
        what = "is a link to something that does not exist" if source.is_symlink() else "does not exist"
        raise ReadError(f"{source} {what}; check the path") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ReadError(f"{source} cannot be looked at: {reason}; check the path") from None
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ReadError(f"{source} is a device or pipe; expected a file or folder")


def image_files(folder: Path, recursive: bool = False) -> list[Path]:
    """The NIfTI, Analyze, NRRD, MetaImage, PNG, JPEG and TIFF files of a folder, sorted; hidden ones left out.

    A pair of `.hdr` and `.img` counts once, by its header; a header without voxels not at all, as other programs use
    that suffix for other things.

    Raises:
        ReadError: if the folder cannot be looked into.
    """
    try:
        found = files_below(folder)[0] if recursive else [p for p in folder.iterdir() if p.is_file()]
    except OSError as error:
        raise ReadError(f"{folder} cannot be looked into: {error.strerror or error}") from None
    return sorted(p for p in found if _is_whole_image(p) and not is_hidden(p))


def _is_whole_image(path: Path) -> bool:
    suffix = _suffix_of(path)
    if suffix in (".hdr", ".hdr.gz"):
        return voxel_file_of(path) is not None
    return suffix not in _VOXELS and _KINDS.get(suffix) in ("nifti", "itk", "raster")
