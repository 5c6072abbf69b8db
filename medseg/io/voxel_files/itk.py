"""NRRD and MetaImage: LPS on disk, RAS+ in memory.

Readers and writers are medseg's own: ITK crashes on some damaged headers, returns half-read voxels for others, and
reports success for a NRRD file whose last bytes did not fit onto the disk.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.disk.atomic import atomic_path
from medseg.errors import ReadError, WriteError
from medseg.geometry import flip_lps_ras
from medseg.io.formats import format_of, has_voxels_elsewhere
from medseg.volume import Volume

__all__ = ["read_itk", "write_itk"]

# numpy's kinds and sizes -> names in NRRD and MetaImage.
_NAMES = {
    "i1": ("int8", "MET_CHAR"),
    "u1": ("uint8", "MET_UCHAR"),
    "i2": ("int16", "MET_SHORT"),
    "u2": ("uint16", "MET_USHORT"),
    "i4": ("int32", "MET_INT"),
    "u4": ("uint32", "MET_UINT"),
    "i8": ("int64", "MET_LONG_LONG"),
    "u8": ("uint64", "MET_ULONG_LONG"),
    "f4": ("float", "MET_FLOAT"),
    "f8": ("double", "MET_DOUBLE"),
}
_LEVEL = 2


def read_itk(path: Path) -> Volume:
    """A NRRD or MetaImage file as stored, axes in ITK's order; several values per voxel become channels.

    Raises:
        ReadError: if the header is damaged, voxels are missing, truncated, damaged or complex, or there are too many
            axes.
    """
    if not path.is_file():
        raise ReadError(f"{path} does not exist")
    if _is_nrrd(path):
        from medseg.io.voxel_files.nrrd import read_nrrd

        return read_nrrd(path)
    from medseg.io.voxel_files.metaimage import read_metaimage

    return read_metaimage(path)


def _is_nrrd(path: Path) -> bool:
    found = format_of(path)
    return found is not None and found.name == "nrrd"


def write_itk(volume: Volume, path: Path) -> None:
    """Write `.nrrd` or `.mha`, compressed; channels become the components of a voxel. Equal volumes give equal bytes.

    Raises:
        WriteError: if the disk is full, permission is missing, the grid is sheared, values are not real, or the suffix
            needs two files.
    """
    suffix = path.suffix.lower()
    if has_voxels_elsewhere(path):
        whole = ".nrrd" if _is_nrrd(path) else ".mha"
        raise WriteError(f"cannot write {path}: {suffix} needs a second file for the voxels; write {whole} instead")
    array: NDArray[Any] = volume.array
    if array.dtype == bool or array.dtype == np.float16:
        array = array.astype(np.uint8 if array.dtype == bool else np.float32)
    kind = f"{array.dtype.kind}{array.dtype.itemsize}"
    if kind not in _NAMES or array.size == 0:
        raise WriteError(f"cannot write {path}: {suffix} cannot store {array.dtype} voxels of shape {volume.shape}")
    lps = flip_lps_ras(volume.affine)
    spacing = np.array(volume.spacing_mm)
    direction = lps[: volume.dims, : volume.dims] / spacing
    if not np.allclose(direction.T @ direction, np.eye(volume.dims), atol=1e-3):
        raise WriteError(
            f"cannot write {path}: its axes are not at right angles in {path.suffix}; write .nii.gz instead"
        )
    # Components of a voxel are first in the file, then i, j, k.
    lead = int(bool(volume.channels))
    order = [*range(array.ndim - 1, lead - 1, -1), *range(lead)]
    voxels = np.ascontiguousarray(array.transpose(order), array.dtype.newbyteorder("<"))
    header, content = _nrrd(volume, kind, lps, voxels) if _is_nrrd(path) else _meta(volume, kind, lps, voxels)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(header.encode("ascii"))
        file.write(content)


def _nrrd(volume: Volume, kind: str, lps: NDArray[np.float64], voxels: NDArray[Any]) -> tuple[str, bytes]:
    from isal import igzip

    dims = volume.dims
    vectors = [_vector(column[:dims]) for column in lps[:dims, :dims].T]
    several = [volume.channels] if volume.channels else []
    lines = [
        "NRRD0004",
        f"type: {_NAMES[kind][0]}",
        f"dimension: {dims + len(several)}",
        "space: left-posterior-superior" if dims == 3 else "space dimension: 2",
        f"sizes: {' '.join(map(str, [*several, *volume.shape]))}",
        f"space directions: {' '.join(['none'] * len(several) + vectors)}",
        f"kinds: {' '.join(['vector'] * len(several) + ['domain'] * dims)}",
        "endian: little",
        "encoding: gzip",
        f"space origin: {_vector(lps[:dims, 3])}",
    ]
    return "\n".join([*lines, "", ""]), igzip.compress(voxels.reshape(-1).view(np.uint8), _LEVEL, mtime=0)


def _meta(volume: Volume, kind: str, lps: NDArray[np.float64], voxels: NDArray[Any]) -> tuple[str, bytes]:
    from isal import isal_zlib

    dims = volume.dims
    spacing = np.array(volume.spacing_mm)
    # A row of the matrix is the direction of an axis.
    matrix = (lps[:dims, :dims] / spacing).T
    content = isal_zlib.compress(voxels.reshape(-1).view(np.uint8), _LEVEL)
    fields = {
        "ObjectType": "Image",
        "NDims": str(dims),
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "True",
        "CompressedDataSize": str(len(content)),
        "TransformMatrix": _words(matrix.ravel()),
        "Offset": _words(lps[:dims, 3]),
        "ElementSpacing": _words(spacing),
        "DimSize": " ".join(map(str, volume.shape)),
        **({"ElementNumberOfChannels": str(volume.channels)} if volume.channels else {}),
        "ElementType": _NAMES[kind][1],
        "ElementDataFile": "LOCAL",
    }
    return "".join(f"{name} = {value}\n" for name, value in fields.items()), content


def _words(numbers: NDArray[np.float64]) -> str:
    # The shortest exact representation; a negative zero becomes zero.
    return " ".join(repr(float(number) + 0.0) for number in numbers)


def _vector(numbers: NDArray[np.float64]) -> str:
    return f"({_words(numbers).replace(' ', ',')})"
