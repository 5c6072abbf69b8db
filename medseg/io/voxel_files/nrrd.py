"""Reading NRRD (`.nrrd`, `.nhdr`): spatial axes, the channel axis, and the position of the voxels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medseg.errors import ReadError
from medseg.io.voxel_files.lps_grid import LpsImage, checked_sizes, detached_file, numbered_files, volume_of
from medseg.io.voxel_files.nrrd_header import NrrdFields, read_fields
from medseg.io.voxel_files.streams import Encoding
from medseg.volume import Finding, Volume

__all__ = ["read_nrrd"]

_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_DTYPES = {name: dtype for dtype, names in _TYPES.items() for name in names}
_ENCODINGS: dict[str, Encoding] = {
    "raw": "raw",
    "gzip": "gzip",
    "gz": "gzip",
    "bzip2": "bzip2",
    "bz2": "bzip2",
    "txt": "text",
    "text": "text",
    "ascii": "text",
}
# World axes as multiples of left, posterior, superior.
_SPACES = {
    "left-posterior-superior": (1, 1, 1),
    "lps": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1),
    "ras": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1),
    "las": (1, -1, 1),
}
_SPATIAL_KINDS = frozenset({"domain", "space", "???", "none", ""})
_UNITS_IN_MM = {"m": 1e3, "cm": 10.0, "um": 1e-3, "µm": 1e-3, "nm": 1e-6}


def read_nrrd(path: Path) -> Volume:
    """A NRRD file, axes in the order on disk; a non-spatial axis (colour, vector, list, time) becomes channels.

    Raises:
        ReadError: if the header is damaged, voxels are missing, truncated or complex, or the variant is not supported
            (hex, blocks).
    """
    fields = read_fields(path)
    rank = fields.whole("dimension")
    sizes = checked_sizes(fields.wholes("sizes", rank) if 0 < rank <= 16 else (rank,) * 6, path)
    kinds = fields.words("kinds") or [""] * rank
    if len(kinds) != rank:
        raise ReadError(f"{path} has {len(kinds)} kinds for {rank} axes; correct its header")
    if "complex" in kinds:
        raise ReadError(f"{path} contains complex numbers; save their magnitude as a separate file first")
    space_rank = _space_rank(fields, path)
    vectors = fields.vectors("space directions", rank, space_rank) if space_rank else None
    if vectors is not None:
        spatial = [a for a, vector in enumerate(vectors) if vector is not None]
    else:
        spatial = [a for a, kind in enumerate(kinds) if kind in _SPATIAL_KINDS]
    # The fourth axis of an image written with four spatial axes.
    spatial = spatial[:3] if len(spatial) == 4 else spatial
    if len(spatial) not in (2, 3):
        raise ReadError(f"{path} has {len(spatial)} spatial axes, of sizes {sizes}; expected 2 or 3")
    others = [a for a in range(rank) if a not in spatial and sizes[a] > 1]
    if len(others) > 1:
        raise ReadError(f"{path} has sizes {sizes}: at most one channel axis is supported; split it first")
    kept = sorted(spatial + others)
    with np.errstate(all="ignore"):
        affine, known, findings = _affine(fields, spatial, vectors, space_rank, path)
    if others and kinds[others[0]] == "time":
        text = f"{path} has {sizes[others[0]]} time points; they are read as channels of one volume"
        findings.append(Finding("time_points", text, (str(path),)))
    dtype = _dtype(fields, path)
    voxels, encoding, offset, skip = _place(fields, int(np.prod(sizes, dtype=object)) * dtype.itemsize, path)
    return volume_of(
        LpsImage(
            voxels,
            dtype,
            tuple(sizes[a] for a in kept),
            kept.index(others[0]) if others else None,
            affine,
            "'spacings' and 'axis mins'" if vectors is None else "'space directions' and 'space origin'",
            encoding,
            offset,
            skip,
            known,
            tuple(findings),
        ),
        path,
    )


def _dtype(fields: NrrdFields, path: Path) -> np.dtype[np.generic]:
    name, endian = fields.text("type"), fields.text("endian")
    if name not in _DTYPES:
        raise ReadError(f"{path} has voxels of type {name[:40]!r}; expected integers, float or double")
    if _DTYPES[name][1] != "1" and endian not in ("little", "big") and fields.text("encoding") not in ("txt", "ascii"):
        raise ReadError(f"{path} has 'endian: {endian[:40]}'; expected little or big, as the order cannot be guessed")
    return np.dtype((">" if endian == "big" else "<") + _DTYPES[name])


def _space_rank(fields: NrrdFields, path: Path) -> int:
    """Number of world axes: 0 if the header has none."""
    name = fields.text("space")
    if not name:
        rank = fields.whole("space dimension", 0)
    elif name.endswith("-time") or (len(name) == 4 and name.endswith("t")):
        rank = 4
    else:
        rank = 3
    if rank not in (0, 2, 3, 4):
        raise ReadError(f"{path} is in a space of {rank} dimensions; expected 2, 3 or 4")
    return rank


def _affine(
    fields: NrrdFields,
    spatial: list[int],
    vectors: tuple[tuple[float, ...] | None, ...] | None,
    space_rank: int,
    path: Path,
) -> tuple[NDArray[np.float64], bool, list[Finding]]:
    """Index along the spatial axes to mm in LPS, whether the spacing is known, and findings."""
    affine = np.eye(4)
    findings = []
    count, known = len(spatial), True
    if vectors is not None:
        for column, axis in enumerate(spatial):
            vector = (vectors[axis] or ())[:3]
            affine[: len(vector), column] = vector
        origin = fields.vectors("space origin", 1, space_rank)
        place = ((origin[0] or ()) if origin else ())[:3]
        affine[: len(place), 3] = place
        if count == 2 and space_rank >= 3:
            normal = np.cross(affine[:3, 0], affine[:3, 1])
            length = float(np.linalg.norm(normal))
            affine[:3, 2] = normal / length if length > 0 else normal
    else:
        rank = len(fields.words("sizes"))
        spacings = fields.numbers("spacings", rank)
        minima = fields.numbers("axis mins", rank)
        cells = [word == "cell" for word in fields.words("centers")] or [False] * rank
        known = spacings is not None
        for column, axis in enumerate(spatial):
            step = spacings[axis] if spacings is not None else 1.0
            affine[column, column] = step
            if minima is not None and minima[axis] == minima[axis]:
                affine[column, 3] = minima[axis] + (step / 2 if cells[axis : axis + 1] == [True] else 0.0)
    name = fields.text("space").removesuffix("-time")
    name = name[:3] if len(name) == 4 and name.endswith("t") else name
    if name in _SPACES:
        affine = np.diag([*_SPACES[name], 1.0]) @ affine
    elif count == 3 and known:
        text = f"{path} has no anatomical orientation ('space: {name[:40]}'); its axes are assumed to be left, "
        findings.append(Finding("no_orientation", f"{text}posterior, superior", (str(path),)))
    units = fields.words("space units")
    factors = {_UNITS_IN_MM.get(unit, 1.0) for unit in units[:3]}
    if vectors is not None and len(factors) == 1 and factors != {1.0}:
        affine = np.diag([*[factors.pop()] * 3, 1.0]) @ affine
        findings.append(Finding("unit", f"{path} is in {units[0]}; converted to mm", (str(path),)))
    return affine, known, findings


def _place(fields: NrrdFields, promised: int, path: Path) -> tuple[tuple[Path, ...], Encoding, int, int]:
    """Files, encoding, bytes before the (compressed) voxels, bytes to drop after decompression."""
    encoding = _ENCODINGS.get(fields.text("encoding"))
    if encoding is None:
        known = ", ".join(_ENCODINGS)
        raise ReadError(f"{path} has 'encoding: {fields.text('encoding')[:40]}'; expected one of {known}")
    name = fields.values.get("data file", "")
    if name.lower().split()[:1] == ["list"]:
        names = list(fields.listed) or [""]
    elif "%" in name:
        names = numbered_files(name.split(), path)
    else:
        names = [name] if name else []
    files, offset = (tuple(detached_file(path, each) for each in names), 0) if names else ((path,), fields.end)
    voxels = files[0]
    lines, skip = fields.whole("line skip", 0), fields.whole("byte skip", 0)
    if lines < 0 or skip < -1 or (skip == -1 and encoding != "raw") or (skip and encoding == "text"):
        raise ReadError(f"{path} skips {lines} lines and {skip} bytes before its voxels, which is not supported")
    if lines:
        offset = _after_lines(voxels, offset, lines)
    if skip == -1:
        return files, encoding, max(voxels.stat().st_size - promised // len(files), 0), 0
    return (files, encoding, offset + skip, 0) if encoding == "raw" else (files, encoding, offset, skip)


def _after_lines(voxels: Path, offset: int, lines: int) -> int:
    with voxels.open("rb") as file:
        file.seek(offset)
        for _ in range(lines):
            if not file.readline(1 << 20):
                raise ReadError(f"{voxels} has fewer than the {lines} lines that come before its voxels")
        return file.tell()
