"""NRRD and MetaImage by SimpleITK: LPS on disk and in ITK, RAS+ from here on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import ReadError, WriteError
from medseg.geometry import flip_lps_ras
from medseg.io.atomic import atomic_path
from medseg.volume import Metadata, Volume

__all__ = ["read_itk", "write_itk"]


def read_itk(path: Path) -> Volume:
    """A NRRD or MetaImage file, axes `[i, j, k]` in ITK's order; vector voxels become leading channels.

    Raises:
        ReadError: damaged file, missing data file, complex numbers, or more axes than channels explain.
    """
    import SimpleITK as sitk

    if not path.is_file():
        raise ReadError(f"{path} does not exist")
    _check_stream(path)
    try:
        image: Any = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise ReadError(f"{path} cannot be read ({_reason(error)}); convert or download it again") from None
    array = sitk.GetArrayFromImage(image)
    if array.dtype.kind == "c":
        raise ReadError(f"{path} holds complex numbers; write their magnitude into a file of its own first")
    channels = image.GetNumberOfComponentsPerPixel()
    dims = image.GetDimension()
    # GetArrayFromImage gives [(t,) k, j, i (, component)].
    if channels > 1 or image.GetPixelIDValue() >= sitk.sitkVectorUInt8:
        array = np.moveaxis(array, -1, 0)
        array = array.transpose(0, *range(array.ndim - 1, 0, -1))
        channels = array.shape[0]
    else:
        array, channels = array.T, 0
    if dims == 4:
        if channels:
            raise ReadError(f"{path} has four axes and vector voxels; split it into volumes first")
        array, dims = np.moveaxis(array, -1, 0), 3
        channels = array.shape[0]
        if channels == 1:
            array, channels = array[0], 0
    affine = np.eye(4)
    direction = np.array(image.GetDirection()).reshape(image.GetDimension(), -1)[:dims, :dims]
    affine[:dims, :dims] = direction * np.array(image.GetSpacing())[:dims]
    affine[:dims, 3] = image.GetOrigin()[:dims]
    return Volume(array, flip_lps_ras(affine), channels, Metadata(source=str(path)))


def _check_stream(path: Path) -> None:
    """Refuse damaged compressed voxels: ITK only prints a line and hands out what it could decompress."""
    from isal import igzip, isal_zlib

    decompress: dict[str, Any] = {"gzip": igzip.decompress, "zlib": isal_zlib.decompress}
    damaged: Any = (EOFError, isal_zlib.error, igzip.BadGzipFile)
    try:
        raw = path.read_bytes()
        head, voxels, kind = raw, b"", ""
        if path.suffix.lower() == ".nrrd":
            blank = re.search(rb"\r?\n\r?\n", raw)
            head, voxels = (raw[: blank.start()], raw[blank.end() :]) if blank else (raw, b"")
            kind = (
                "gzip"
                if blank and b"encoding: gz" in head and b"data file:" not in head and b"datafile:" not in head
                else ""
            )
        elif path.suffix.lower() == ".mha":
            head, mark, voxels = raw.partition(b"ElementDataFile = LOCAL")
            voxels = voxels.partition(b"\n")[2]
            kind = "zlib" if mark and b"CompressedData = True" in head else ""
        if kind:
            decompress[kind](voxels)
    except damaged as error:
        raise ReadError(f"{path} is damaged or cut short ({error}); copy or download it again") from None
    except OSError as error:
        raise ReadError(f"{path} cannot be read: {error.strerror or error}") from None


def _reason(error: RuntimeError) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].removeprefix("ERROR: ") if lines else "no reason given"


def write_itk(volume: Volume, path: Path) -> None:
    """Write `.nrrd` or `.mha`, compressed; channels become vector components.

    Raises:
        WriteError: disk full, no permission, sheared grid, or a suffix that needs two files.
    """
    import SimpleITK as sitk

    if path.suffix.lower() in (".mhd", ".nhdr"):
        whole = {".mhd": ".mha", ".nhdr": ".nrrd"}[path.suffix.lower()]
        raise WriteError(
            f"cannot write {path}: {path.suffix} needs a second file for the voxels; write {whole} instead"
        )
    array: NDArray[Any] = volume.array
    if array.dtype == bool or array.dtype == np.float16:
        array = array.astype(np.uint8 if array.dtype == bool else np.float32)
    lps = flip_lps_ras(volume.affine)
    matrix = lps[: volume.dims, : volume.dims]
    spacing = np.array(volume.spacing_mm)
    direction = matrix / spacing
    if not np.allclose(direction.T @ direction, np.eye(volume.dims), atol=1e-3):
        raise WriteError(
            f"cannot write {path}: its axes are not at right angles in {path.suffix}; write .nii.gz instead"
        )
    lead = int(bool(volume.channels))
    order = [*range(array.ndim - 1, lead - 1, -1), *range(lead)]
    image: Any = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(order)), isVector=bool(lead))
    image.SetSpacing([float(s) for s in spacing])
    image.SetOrigin([float(o) for o in lps[: volume.dims, 3]])
    image.SetDirection([float(d) for d in direction.ravel()])
    with atomic_path(path) as temporary:
        try:
            sitk.WriteImage(image, str(temporary), useCompression=True)
        except RuntimeError as error:
            raise WriteError(f"cannot write {path}: {_reason(error)}; is the disk full or read-only?") from None
