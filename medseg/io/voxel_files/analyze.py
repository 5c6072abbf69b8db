"""Analyze 7.5 headers (`.hdr` next to `.img`): voxels and spacing, but no reliable orientation.

Layout as in the Mayo Clinic's `dbh.h`; SPM's extensions: more data types, and a scale factor in `funused1`.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np

from medseg.errors import ReadError
from medseg.io.plausible import affine_fault, rescale_fault
from medseg.io.voxel_files.nifti_header import StoredImage, checked_shape
from medseg.volume import Finding

__all__ = ["parse_analyze"]

_DTYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 130: "i1", 132: "u2", 136: "u4"}
_NAMES = {1: "single bits", 32: "complex numbers", 128: "colours"}


def parse_analyze(raw: bytes, path: Path) -> StoredImage:
    """Parse the 348 bytes of an Analyze 7.5 header.

    The axes are assumed to be right, anterior, superior, with a finding `no_orientation`: programs fill in the `orient`
    byte and SPM's origin inconsistently, so they are not used.

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
    affine = np.diag([*spacing, 1.0])
    if fault := affine_fault(affine, shape[:3]):
        raise ReadError(f"{path} has, by its pixdim, {fault}; correct its header")
    text = f"{path} is an Analyze file, which has no orientation; its axes are assumed to be right, "
    findings = [Finding("no_orientation", f"{text}anterior, superior", (str(path),))]
    slope = 1.0 if scale == 0 or math.isnan(scale) else float(scale)
    if fault := rescale_fault(slope, 0.0):
        raise ReadError(f"{path} has a scale factor (funused1) of {slope:g}; expected {fault}: correct its header")
    if slope != 1.0:
        text = f"{path} has a scale factor of {slope:g} as SPM writes it, which is applied"
        findings.append(Finding("scaled", text, (str(path),)))
    dtype = np.dtype(order + _DTYPES[code])
    return StoredImage(shape, dtype, int(offset), slope, 0.0, affine, known, tuple(findings), in_second_file=True)
