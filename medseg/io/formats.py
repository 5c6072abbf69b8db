"""Which reader a file belongs to, and what its case is called."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from medseg.errors import ReadError

__all__ = ["READABLE", "Kind", "has_dicom_magic", "image_files", "is_hidden", "kind_of", "stem_of"]

Kind = Literal["nifti", "itk", "raster", "dicom", "zip", ""]

_KINDS: dict[str, Kind] = {
    ".nii.gz": "nifti",
    ".nii": "nifti",
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
READABLE = "NIfTI (.nii, .nii.gz), NRRD (.nrrd, .nhdr), MetaImage (.mha, .mhd), PNG, JPEG, TIFF, DICOM or a zip"


def _suffix_of(path: Path) -> str:
    name = path.name.lower()
    return next((suffix for suffix in _KINDS if name.endswith(suffix) and name != suffix), "")


def kind_of(path: Path) -> Kind:
    """The reader that the suffix asks for; '' where the suffix says nothing (DICOM files often have none)."""
    return _KINDS.get(_suffix_of(path), "")


def stem_of(path: Path) -> str:
    """The file name without its image suffix: 'ct.nii.gz' and 'ct.png' give 'ct', 'IM0001' stays."""
    suffix = _suffix_of(path)
    return path.name[: -len(suffix)] if suffix else path.name


def is_hidden(path: Path) -> bool:
    """Names that no person gave: '._x.nii.gz' of macOS archives, '.DS_Store', temporary files."""
    return path.name.startswith(".") or "__MACOSX" in path.parts


def has_dicom_magic(path: Path) -> bool:
    """Whether the file is DICOM: 'DICM' after the preamble, or, in old files, a data set from the first byte.

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
    # Without a preamble the first element is (0002,00xx) or (0008,00xx), little endian.
    return len(start) > 8 and start[0] in (2, 8) and start[1] == 0 and start[3] == 0 and start[2] < 0x20


def image_files(folder: Path, recursive: bool = False) -> list[Path]:
    """The NIfTI, NRRD, MetaImage, PNG, JPEG and TIFF files of a folder, sorted; hidden ones left out."""
    found = folder.rglob("*") if recursive else folder.iterdir()
    return sorted(p for p in found if kind_of(p) in ("nifti", "itk", "raster") and not is_hidden(p) and p.is_file())
