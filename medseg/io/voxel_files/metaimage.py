"""Reading MetaImage (`.mha`, `.mhd`): a text header of `Key = value` lines, then the voxels, or the name of their file.

Header as documented by MetaIO (itk.org/Wiki/MetaIO/Documentation). LPS on disk.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medseg.errors import ReadError
from medseg.io.voxel_files.lps_grid import LpsImage, checked_sizes, detached_file, numbered_files, volume_of
from medseg.io.voxel_files.streams import Encoding, read_start
from medseg.volume import Volume

__all__ = ["read_metaimage"]

_HEADER_LIMIT = 1 << 20
_DTYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    # As MetaIO reads them: 4 bytes for long, 8 for long long.
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}


def read_metaimage(path: Path) -> Volume:
    """A MetaImage file, axes `[i, j, k]` in ITK's order; several values per voxel become leading channels.

    Raises:
        ReadError: if the header is damaged, or voxels are missing or truncated.
    """
    fields, end, listed = _fields(path)
    rank = _whole(fields, "NDims", path)
    if not 2 <= rank <= 4:
        raise ReadError(f"{path} has NDims = {rank}; expected 2, 3 or 4 axes")
    sizes = tuple(_wholes(fields, "DimSize", rank, path))
    values = _whole(fields, "ElementNumberOfChannels", path) if "ElementNumberOfChannels" in fields else 1
    if values > 1 and rank == 4:
        raise ReadError(f"{path} has four axes and {values} values per voxel; split it into volumes first")
    kind = fields.get("ElementType", "").removesuffix("_ARRAY")
    if kind not in _DTYPES:
        raise ReadError(f"{path} has voxels of type {kind[:40]!r}; expected one of {', '.join(_DTYPES)}")
    big_endian = _truth(fields, "BinaryDataByteOrderMSB", path) or _truth(fields, "ElementByteOrderMSB", path)
    voxels, offset, encoding = _place(fields, end, listed, path)
    spatial = min(rank, 3)
    affine, known = _affine(fields, rank, spatial, path)
    channel_axis = 0 if values != 1 else 3 if rank == 4 else None
    return volume_of(
        LpsImage(
            voxels,
            np.dtype((">" if big_endian else "<") + _DTYPES[kind]),
            checked_sizes((values, *sizes) if channel_axis == 0 else sizes, path),
            channel_axis,
            affine,
            "ElementSpacing, TransformMatrix and Offset",
            encoding,
            offset,
            spacing_known=known,
        ),
        path,
    )


def _fields(path: Path) -> tuple[dict[str, str], int, list[str]]:
    """The header's keys and values, its length in bytes, and the file names in the lines that follow a LIST."""
    start = read_start(path, _HEADER_LIMIT, "raw")
    fields: dict[str, str] = {}
    position = 0
    while position < len(start):
        stop = start.find(b"\n", position)
        stop = len(start) if stop < 0 else stop
        line = start[position:stop].decode("latin-1").strip()
        position = stop + 1
        key, mark, value = line.partition("=")
        if not mark:
            if line:
                break
            continue
        fields[key.strip()] = value.strip()
        # The last key of every header, as the voxels may follow immediately.
        if key.strip() == "ElementDataFile":
            is_list = value.strip().upper().startswith("LIST")
            names = start[position:].decode("latin-1").splitlines() if is_list else []
            return fields, position, [name.strip() for name in names if name.strip()]
    raise ReadError(f"{path} is not a MetaImage file: it has no line 'ElementDataFile = ...'; check what it is")


def _place(fields: dict[str, str], end: int, listed: list[str], path: Path) -> tuple[tuple[Path, ...], int, Encoding]:
    name = fields["ElementDataFile"]
    local = name.upper() == "LOCAL"
    if name.upper().split()[:1] == ["LIST"]:
        names = listed
    elif "%" in name:
        names = numbered_files(name.split(), path)
    else:
        names = [name]
    files = (path,) if local else tuple(detached_file(path, each) for each in names or [""])
    voxels = files[0]
    before = _whole(fields, "HeaderSize", path) if "HeaderSize" in fields else 0
    offset = end if local else 0
    encoding: Encoding = "zlib" if _truth(fields, "CompressedData", path) else "raw"
    if not _truth(fields, "BinaryData", path, True):
        encoding = "text"
    elif before == -1 and not local and encoding == "raw":
        rank = len(fields.get("DimSize", "").split())
        values = _whole(fields, "ElementNumberOfChannels", path) if "ElementNumberOfChannels" in fields else 1
        size = np.dtype(_DTYPES[fields["ElementType"].removesuffix("_ARRAY")]).itemsize
        promised = math.prod(_wholes(fields, "DimSize", rank, path)) * values * size
        offset = max(voxels.stat().st_size - promised // len(files), 0)
    elif before > 0 and not local:
        offset = before
    if encoding == "zlib" and read_start(voxels, offset + 2, "raw")[offset:] == b"\x1f\x8b":
        encoding = "gzip"
    return files, offset, encoding


def _affine(fields: dict[str, str], rank: int, spatial: int, path: Path) -> tuple[NDArray[np.float64], bool]:
    """Index to mm in LPS, of the first `spatial` axes."""

    def numbers(names: tuple[str, ...], count: int) -> list[float] | None:
        name = next((n for n in names if n in fields), None)
        if name is None:
            return None
        try:
            found = [float(word) for word in fields[name].split()]
        except ValueError:
            found = []
        if len(found) != count or not all(map(math.isfinite, found)):
            raise ReadError(f"{path} has {name} = {fields[name][:80]!r}; expected {count} numbers")
        return found

    spacing = numbers(("ElementSpacing", "ElementSize"), rank)
    directions = numbers(("TransformMatrix", "Rotation", "Orientation"), rank * rank)
    origin = numbers(("Offset", "Position", "Origin"), rank)
    affine = np.eye(4)
    # A row of the matrix is the direction of an axis.
    matrix = np.eye(rank) if directions is None else np.reshape(directions, (rank, rank))
    with np.errstate(all="ignore"):
        affine[:spatial, :spatial] = matrix[:spatial, :spatial].T * np.array(spacing or [1.0] * rank)[:spatial]
    affine[:spatial, 3] = (origin or [0.0] * rank)[:spatial]
    return affine, spacing is not None


def _truth(fields: dict[str, str], key: str, path: Path, otherwise: bool = False) -> bool:
    text = fields.get(key, str(otherwise)).strip().lower()
    # Like MetaIO, only the first letter counts.
    if text[:1] not in ("t", "f", "1", "0"):
        raise ReadError(f"{path} has {key} = {text[:40]!r}; expected True or False")
    return text[0] in "t1"


def _whole(fields: dict[str, str], key: str, path: Path) -> int:
    return _wholes(fields, key, 1, path)[0]


def _wholes(fields: dict[str, str], key: str, count: int, path: Path) -> list[int]:
    text = fields.get(key, "")
    try:
        found = [int(word) for word in text.split()]
    except ValueError:
        found = []
    if len(found) != count or not all(abs(n) < 2**60 for n in found):
        raise ReadError(f"{path} has {key} = {text[:80]!r}; expected {count} whole number{'s' * (count > 1)}")
    return found
