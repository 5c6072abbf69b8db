"""NIfTI-1, NIfTI-2 and Analyze 7.5: single files and pairs, uncompressed or gzipped.

The header is parsed first (`nifti_header`, `analyze`); the voxels then go directly into the final array.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.disk.atomic import atomic_path
from medseg.errors import GeometryError, ReadError, WriteError
from medseg.io.formats import format_of, has_voxels_elsewhere, header_file_of, stem_of, voxel_file_of
from medseg.io.voxel_files.analyze import parse_analyze
from medseg.io.voxel_files.nifti_header import StoredImage, parse_nifti
from medseg.io.voxel_files.spm_mat import spm_affine, spm_file_of
from medseg.io.voxel_files.streams import VoxelBlock, is_gzip, read_block, read_start
from medseg.volume import Finding, Metadata, Volume

__all__ = ["read_nifti", "write_nifti"]

Array = NDArray[Any]
_SCANNER = 1
# Number of voxels scaled at a time, so that a whole volume never exists as doubles.
_PIECE = 1 << 20
_BLOCK_BYTES = 1 << 20


def read_nifti(path: Path) -> Volume:
    """A NIfTI or Analyze file as stored, with scaling applied.

    Integers stay integers unless the header scales them by a fraction. A fourth (or fifth) axis becomes leading
    channels, with a finding `time_points` if it is time; a file with two axes gives a 2D volume. An affine with a
    negative determinant is kept.

    Args:
        path: `.nii`, `.nii.gz`, or the `.hdr` or `.img` of a pair.

    Raises:
        ReadError: if the file is truncated or damaged, has no usable affine, complex numbers or too many axes, or does
            not fit into memory.
    """
    head = header_file_of(path) or path
    raw = read_start(head, 540, "gzip" if is_gzip(head) else "raw")
    paired = has_voxels_elsewhere(head)
    is_nifti = raw[4:7] in (b"n+2", b"ni2") or raw[344:347] in (b"n+1", b"ni1")
    stored = parse_analyze(raw, head) if paired and not is_nifti else parse_nifti(raw, head)
    voxels = voxel_file_of(head) if stored.in_second_file else head
    if voxels is None:
        raise ReadError(f"{head} has no voxel file; expected {stem_of(head)}.img in the same folder")
    zipped = is_gzip(voxels)
    # Before decompression the position of the voxels is unknown, so everything before them is skipped afterwards.
    place = {"skip": stored.offset} if zipped else {"offset": stored.offset}
    block = VoxelBlock(voxels, stored.dtype, math.prod(stored.shape), "gzip" if zipped else "raw", **place)
    flat, surplus = read_block(block)
    findings = list(stored.findings)
    mat = spm_file_of(head)
    if is_nifti and mat is not None and spm_affine(mat) is not None:
        text = f"{mat.name} beside {head} holds a position as SPM writes it, which is not used; the header's is"
        findings.append(Finding("spm_mat", text, (str(mat),)))
    if surplus:
        text = f"{voxels} has more voxels than its header of shape {stored.shape}; the rest is ignored"
        findings.append(Finding("surplus_data", text, (str(voxels),)))
    array, channels = _arranged(_scaled(_plain(flat), stored), stored, path)
    metadata = Metadata(source=str(path))
    try:
        return Volume(array, stored.affine, channels, metadata, tuple(findings), spacing_known=stored.spacing_known)
    except GeometryError as error:
        raise ReadError(f"{path} cannot be used: {error}") from None


def _plain(flat: Array) -> Array:
    if flat.dtype.names:
        # RGB and RGBA voxels; alpha is not anatomical information.
        return np.stack([flat[name] for name in ("R", "G", "B")])
    return flat.astype(np.float64) if flat.dtype.kind == "f" and flat.dtype.itemsize > 8 else flat


def _scaled(flat: Array, stored: StoredImage) -> Array:
    slope, inter = stored.slope, stored.inter
    if (slope, inter) == (1.0, 0.0):
        return flat
    if flat.dtype.kind in "iu" and slope.is_integer() and inter.is_integer() and max(abs(slope), abs(inter)) < 2**31:
        ends = [int(v) * int(slope) + int(inter) for v in (flat.min(), flat.max())]
        for dtype in (flat.dtype, np.dtype(np.int16), np.dtype(np.int32), np.dtype(np.int64)):
            info = np.iinfo(dtype)
            if info.min <= min(ends) and max(ends) <= info.max:
                out = flat if dtype == flat.dtype else np.empty(flat.shape, dtype)
                if slope != 1 or out is not flat:
                    np.multiply(flat, int(slope), out=out, dtype=np.int64, casting="unsafe")
                return np.add(out, int(inter), out=out, dtype=np.int64, casting="unsafe")
    out = np.empty(flat.shape, np.float64 if flat.dtype == np.float64 else np.float32)
    pieces = (out.reshape(-1), flat.reshape(-1))
    with np.errstate(all="ignore"):
        for start in range(0, flat.size, _PIECE):
            here = slice(start, start + _PIECE)
            # Doubles first: a slope of 2.3e-10 on 32-bit integers would lose the labels in single precision.
            pieces[0][here] = pieces[1][here].astype(np.float64) * slope + inter
    return out


def _arranged(flat: Array, stored: StoredImage, path: Path) -> tuple[Array, int]:
    """Channels first, from the flat array (or one per colour) in the order on disk."""
    shape = stored.shape
    extra = [n for n in shape[3:] if n > 1]
    if len(extra) > bool(flat.ndim == 1):
        raise ReadError(f"{path} has shape {shape}: at most one channel axis is supported; split it first")
    spatial = shape[:3]
    if flat.ndim == 2:
        return np.moveaxis(flat.T.reshape((*spatial, len(flat)), order="F"), -1, 0), len(flat)
    if not extra:
        return flat.reshape(spatial, order="F"), 0
    return np.moveaxis(flat.reshape((*spatial, extra[0]), order="F"), -1, 0), extra[0]


def write_nifti(volume: Volume, path: Path) -> None:
    """Write `.nii` or `.nii.gz`; channels become the fourth axis. Equal volumes give equal bytes.

    Sform and qform both store the affine; a sheared one, which a quaternion cannot express, only the sform. Unsigned,
    signed and floating types are kept; bool becomes uint8, float16 float32, and 64-bit integers int32 if they fit.

    Raises:
        WriteError: if the disk is full, permission is missing, NIfTI cannot store the values, or the name is a pair.
    """
    import nibabel as nib

    found = format_of(path)
    if found is None or found.name != "nifti":
        raise WriteError(f"cannot write {path}: pairs of .hdr and .img are only read; write .nii.gz instead")
    array = np.moveaxis(volume.array, 0, -1) if volume.channels else volume.array
    if volume.channels and volume.dims == 2:
        array = array[:, :, None, :]
    if array.size == 0:
        raise WriteError(f"cannot write {path}: the volume of shape {volume.shape} has no voxels")
    dtype = _writable_dtype(array, path)
    kind: Any = nib.Nifti1Header if max(array.shape) < 2**15 else nib.Nifti2Header
    header = kind()
    header.set_data_dtype(dtype)
    header.set_data_shape(array.shape)
    header.set_slope_inter(1.0, 0.0)
    zooms = (*volume.spacing_mm, 1.0, 1.0)[: min(array.ndim, 3)]
    header.set_zooms((*zooms, *[1.0] * (array.ndim - len(zooms))))
    if volume.spacing_known:
        header.set_xyzt_units("mm")
        header.set_sform(volume.affine, _SCANNER)
        gram = volume.affine[:3, :3] / np.linalg.norm(volume.affine[:3, :3], axis=0)
        # A quaternion cannot express shear, so a sheared grid is stored in the sform only.
        if np.allclose(gram.T @ gram, np.eye(3), atol=1e-4):
            header.set_qform(volume.affine, _SCANNER)
    head = BytesIO()
    header.write_to(head)
    start = head.getvalue().ljust(
        int(header.get_data_offset()) or (540 if kind is nib.Nifti2Header else 348) + 4, b"\0"
    )
    # Buffered: an unbuffered file may write less than it is given, which the compressor does not check.
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        if not path.name.lower().endswith(".gz"):
            _write_all(file, start, array, dtype)
            return
        from isal import igzip_threaded

        # The gzip header contains neither name nor time, and blocks of a fixed size are compressed independently: equal
        # volumes give equal bytes, whatever the number of threads.
        opened: Any = igzip_threaded.open
        threads = min(4, os.cpu_count() or 1)
        with opened(file, "wb", compresslevel=2, threads=threads, block_size=_BLOCK_BYTES) as zipped:
            _write_all(zipped, start, array, dtype)


def _write_all(file: Any, start: bytes, array: Array, dtype: np.dtype[Any]) -> None:
    file.write(start)
    for piece in _voxel_pieces(array, dtype):
        file.write(piece)


def _voxel_pieces(array: Array, dtype: np.dtype[Any]) -> Iterator[memoryview]:
    """The voxels in the order on disk, some slices at a time, so that a large volume is not copied."""
    depth = max(1, _BLOCK_BYTES // max(1, array[..., 0].size * dtype.itemsize))
    # In an array with interleaved slices each memory access fetches parts of several, so many are copied at once. The
    # pieces have a fixed size, because the compressed bytes depend on it.
    taken = depth if array.flags.f_contiguous else depth * max(1, 32 // depth)
    for first in range(0, array.shape[-1], taken):
        slab = np.asarray(array[..., first : first + taken], dtype=dtype, order="F")
        for k in range(0, slab.shape[-1], depth):
            piece: Any = slab[..., k : k + depth].reshape(-1, order="F").view(np.uint8)
            yield memoryview(piece)


def _writable_dtype(array: Array, path: Path) -> np.dtype[Any]:
    if array.dtype == bool:
        return np.dtype(np.uint8)
    if array.dtype == np.float16:
        return np.dtype(np.float32)
    if array.dtype.kind in "iu" and array.dtype.itemsize == 8:
        # Many viewers do not open 64-bit integers.
        fits = array.min() >= np.iinfo(np.int32).min and array.max() <= np.iinfo(np.int32).max
        return np.dtype(np.int32) if fits else array.dtype
    if array.dtype.kind not in "iuf" or array.dtype.itemsize > 8:
        raise WriteError(f"cannot write {path}: NIfTI cannot store {array.dtype}; convert the array first")
    return array.dtype.newbyteorder("=")
