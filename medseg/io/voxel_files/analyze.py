"""Analyze 7.5 headers (`.hdr` next to `.img`): voxels and spacing, but no reliable orientation.

Layout as in the Mayo Clinic's `dbh.h`; SPM's extensions: more data types, and a scale factor in `funused1`.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medseg.errors import ReadError
from medseg.io.plausible import affine_fault, rescale_fault
from medseg.io.voxel_files.nifti_header import StoredImage, checked_shape, no_spacing
from medseg.io.voxel_files.spm_mat import spm_affine, spm_file_of
from medseg.volume import Finding

__all__ = ["parse_analyze"]

_DTYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 130: "i1", 132: "u2", 136: "u4"}
# The `originator` field, which SPM uses for the voxel at the origin.
_ORIGIN = 253
_NAMES = {1: "single bits", 32: "complex numbers", 128: "colours"}


def parse_analyze(raw: bytes, path: Path) -> StoredImage:
    """Parse the 348 bytes of an Analyze 7.5 header.

    The affine is nibabel's: SPM's `.mat` beside the file if there is one; otherwise the axes are assumed to be left,
    anterior, superior, around SPM's origin or the centre, with a finding `no_orientation`. Programs fill in the
    `orient` byte inconsistently, so it is not used.

    Raises:
        ReadError: if the header is damaged, or its data type is not supported.
    """
    order = next((o for o in "<>" if len(raw) >= 348 and struct.unpack_from(f"{o}i", raw)[0] == 348), "")
    if not order:
        raise ReadError(f"{path} is not an Analyze header: it does not begin with its size of 348; check what it is")
    rank, *sizes = struct.unpack_from(f"{order}8h", raw, 40)
    (code,) = struct.unpack_from(f"{order}h", raw, 70)
    spacing = [abs(float(s)) for s in struct.unpack_from(f"{order}3f", raw, 80)]
    offset, scale = struct.unpack_from(f"{order}2f", raw, 108)
    if not 2 <= rank <= 7:
        raise ReadError(f"{path} has a damaged Analyze header ({rank} axes); convert or download it again")
    shape = checked_shape(tuple(sizes[:rank]), path)
    if code not in _DTYPES:
        what = _NAMES.get(code, f"voxels of type {code}")
        raise ReadError(f"{path} contains {what}, which are not supported in Analyze files; convert it to NIfTI first")
    if not (math.isfinite(offset) and 0 <= offset < 2**40):
        raise ReadError(f"{path} has a damaged Analyze header (voxels at byte {offset}); convert or download it again")
    used = spacing[: min(rank, 3)]
    # Many programs write zero for 'unknown'.
    known = any(s > 0 for s in used)
    spacing = [s or 1.0 for s in spacing[: len(used)]] + [1.0] * (3 - len(used))
    findings = [] if all(s > 0 for s in used) else [no_spacing(path, [n for n, s in enumerate(used) if s == 0])]
    affine, found = _affine(raw, order, shape, spacing, path)
    if fault := affine_fault(affine, shape[:3]):
        raise ReadError(f"{path} has, by its pixdim or .mat, {fault}; correct its header")
    findings.append(found)
    known = known or found.kind == "spm_mat"
    slope = 1.0 if scale == 0 or math.isnan(scale) else float(scale)
    if fault := rescale_fault(slope, 0.0):
        raise ReadError(f"{path} has a scale factor (funused1) of {slope:g}; expected {fault}: correct its header")
    if slope != 1.0:
        text = f"{path} has a scale factor of {slope:g} as SPM writes it, which is applied"
        findings.append(Finding("scaled", text, (str(path),)))
    dtype = np.dtype(order + _DTYPES[code])
    return StoredImage(shape, dtype, int(offset), slope, 0.0, affine, known, tuple(findings), in_second_file=True)


def _affine(
    raw: bytes, order: str, shape: tuple[int, ...], spacing: list[float], path: Path
) -> tuple[NDArray[np.float64], Finding]:
    """The affine, and the finding that says where it comes from."""
    mat = spm_file_of(path)
    if mat is not None and (stored := spm_affine(mat)) is not None:
        return stored, Finding(
            "spm_mat", f"the position of {path} is that of {mat.name}, as SPM writes it", (str(mat),)
        )
    sizes = np.array([*shape[:3], 1][:3])
    origin = np.array(struct.unpack_from(f"{order}3h", raw, _ORIGIN), np.float64)
    # SPM counts from 1. A field that was never filled in, or holds something else, is not used.
    is_set = origin.any() and bool(((origin > -sizes) & (origin < 2 * sizes)).all())
    origin = origin - 1 if is_set else (sizes - 1) / 2
    affine = np.diag([-spacing[0], spacing[1], spacing[2], 1.0])
    affine[:3, 3] = -affine[:3, :3] @ origin
    unread = f", and {mat.name} beside it is none of SPM's" if mat is not None else ""
    text = f"{path} is an Analyze file, which has no orientation{unread}; its axes are assumed to be left, anterior, "
    return affine, Finding("no_orientation", f"{text}superior", (str(path),))
