"""The formats of files that medseg reads and writes: suffixes, and which code handles each. Torch-free, on floor 0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["FILE_FORMATS", "FileFormat", "Kind"]

Kind = Literal["nifti", "itk", "raster", "dicom", "zip", ""]
"""Formats of one kind share their conventions; '' is none of them."""


@dataclass(frozen=True, slots=True)
class FileFormat:
    """A format of files and the code that reads and writes it.

    Args:
        name: a short name, unique among the formats.
        kind: formats of one kind share their conventions.
        suffixes: in lower case; the first one with which a whole volume can be written comes first.
        title: how messages list it, with its suffixes.
        reader: 'module:function', imported on first use, which takes a path; '' if another part of medseg reads it.
        writer: 'module:function', imported on first use, which takes a `Volume` and a path; '' if `medseg.write` cannot
            write it.
        output: what `convert --format` calls it; '' if that does not write it.
        asked_by: suffixes of a target that select it for output.
        for_masks: whether `predict --format` writes it as well.
    """

    name: str
    kind: Kind
    suffixes: tuple[str, ...]
    title: str
    reader: str = ""
    writer: str = ""
    output: str = ""
    asked_by: tuple[str, ...] = ()
    for_masks: bool = False


_VOXEL_FILES = "medseg.io.voxel_files"
_NIFTI = (f"{_VOXEL_FILES}.nifti:read_nifti", f"{_VOXEL_FILES}.nifti:write_nifti")
_RASTER = (f"{_VOXEL_FILES}.raster:read_raster", f"{_VOXEL_FILES}.raster:write_raster")
_ITK = (f"{_VOXEL_FILES}.itk:read_itk", f"{_VOXEL_FILES}.itk:write_itk")
# A new file format is a row here and a module with its reader and writer.
FILE_FORMATS = (
    FileFormat(
        "nifti", "nifti", (".nii.gz", ".nii"), "NIfTI (.nii, .nii.gz)", *_NIFTI, "nifti", (".nii.gz", ".nii"), True
    ),
    FileFormat("analyze", "nifti", (".hdr.gz", ".hdr", ".img.gz", ".img"), "Analyze (.hdr with .img)", *_NIFTI),
    FileFormat("nrrd", "itk", (".nrrd", ".nhdr"), "NRRD (.nrrd, .nhdr)", *_ITK, "nrrd", (".nrrd",)),
    FileFormat("metaimage", "itk", (".mha", ".mhd"), "MetaImage (.mha, .mhd)", *_ITK, "mha", (".mha",)),
    FileFormat("png", "raster", (".png",), "PNG", *_RASTER, "png", (".png",), True),
    FileFormat("jpeg", "raster", (".jpg", ".jpeg"), "JPEG", *_RASTER),
    FileFormat("tiff", "raster", (".tif", ".tiff"), "TIFF", *_RASTER, "tiff", (".tif", ".tiff")),
    FileFormat("bmp", "raster", (".bmp",), "BMP", _RASTER[0]),
    FileFormat("gif", "raster", (".gif",), "GIF", _RASTER[0]),
    FileFormat("dicom", "dicom", (".dcm", ".dicom", ".ima"), "DICOM"),
    FileFormat("zip", "zip", (".zip",), "a zip"),
)
"""Every format, in the order in which messages list them."""
