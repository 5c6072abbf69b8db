"""Parses the header of a NIfTI-1 or NIfTI-2 file: voxel layout, scaling, position in the patient.

The affine is the sform if its code is set, else the qform (NIfTI-1 standard, methods 3 and 2).
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import ReadError
from medseg.io.plausible import affine_fault, rescale_fault
from medseg.volume import Finding

__all__ = ["StoredImage", "checked_shape", "no_spacing", "parse_nifti"]

_UNITS_IN_MM = {1: ("meter", 1e3), 3: ("micron", 1e-3)}
_FIELDS = {"sform": "srow_x, srow_y, srow_z", "qform": "pixdim, quatern_b, qoffset_x"}
# Size of the header -> where the voxels of a single file begin without extensions (nifti1.h, nifti2.h).
_FIRST_VOXEL = {348: 352, 540: 544}
_TIME_UNITS = (8, 16, 24)
# Intents whose last axes are parts of one value: vectors, matrices, colours (nifti1.h).
_VECTOR_INTENTS = frozenset({1004, 1005, 1006, 1007, 1008, 1009, 1010, 2003, 2004, 2005})


@dataclass(frozen=True, slots=True)
class StoredImage:
    """A parsed header.

    Args:
        shape: of the stored array, at least two axes.
        dtype: of the stored voxels, including byte order; structured for colours.
        offset: bytes before the voxels in the file that contains them.
        slope, inter: voxel value = stored value * slope + inter.
        affine: `(4, 4)`, voxel index to mm, RAS+.
        spacing_known: False if the header has no information about size.
        findings: irregularities of the header.
        in_second_file: whether the voxels are in a separate `.img`.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    slope: float
    inter: float
    affine: NDArray[np.float64]
    spacing_known: bool
    findings: tuple[Finding, ...]
    in_second_file: bool = False


def parse_nifti(raw: bytes, path: Path) -> StoredImage:
    """Parse the first 540 (or, of NIfTI-1, 348) bytes of a file.

    Raises:
        ReadError: if the header is damaged, has no usable affine, complex numbers or fewer than two axes.
    """
    from nibabel.spatialimages import HeaderDataError

    header, pixdim = _header_of(raw, path)
    try:
        # Coordinates and scaling are checked below, so numpy's warnings about them add nothing.
        with np.errstate(all="ignore"):
            dtype, offset = header.get_data_dtype(), int(header.get_data_offset())
            slope, inter = _rescale_of(header, path)
            shape = checked_shape(header.get_data_shape(), path)
            affine, known, findings = _affine_of(header, pixdim, shape, path)
    except ReadError:
        raise
    except (HeaderDataError, ValueError, KeyError, ArithmeticError) as error:
        raise _damaged(error, path) from None
    if dtype.kind == "c":
        raise ReadError(f"{path} contains complex numbers; save their magnitude as a separate file first")
    pair = bytes(header["magic"])[:2] == b"ni"
    if offset == 0 and not pair:
        offset = _FIRST_VOXEL[int(header["sizeof_hdr"])]
        text = f"{path} says that its voxels begin at byte 0 (vox_offset); they are read from byte {offset} on"
        findings = (*findings, Finding("vox_offset", text, (str(path),)))
    if offset < 0 or (not pair and offset < int(header["sizeof_hdr"])):
        raise ReadError(f"{path} has a damaged NIfTI header (voxels at byte {offset}); convert or download it again")
    return StoredImage(
        shape,
        dtype,
        offset,
        slope,
        inter,
        affine,
        known,
        findings + _time_points(header, shape, path),
        pair,
    )


def checked_shape(shape: tuple[int, ...], path: Path) -> tuple[int, ...]:
    """The shape as plain integers.

    Raises:
        ReadError: if there are fewer than two axes, an empty one, or more voxels than any file has.
    """
    plain = tuple(int(n) for n in shape)
    if len(plain) < 2 or min(plain) < 1 or math.prod(plain) >= 2**60:
        raise ReadError(f"{path} has shape {plain}: expected at least two axes, none of them empty or absurdly long")
    return plain


def no_spacing(path: Path, axes: Sequence[int]) -> Finding:
    """The finding about axes (from 0) whose spacing the header does not say."""
    names = " and ".join(f"pixdim[{axis + 1}]" for axis in axes)
    text = f"{path} does not say its spacing ({names} is 0); 1 mm is assumed"
    return Finding("no_spacing", text, (str(path),))


def _damaged(error: Exception, path: Path) -> ReadError:
    reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    return ReadError(f"{path} has a damaged NIfTI header ({reason}); convert or download it again")


def _header_of(raw: bytes, path: Path) -> tuple[Any, NDArray[np.float64]]:
    """The header with minor faults repaired, and its three spacings as stored."""
    import nibabel as nib
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    sizes = {int.from_bytes(raw[:4], "little"), int.from_bytes(raw[:4], "big")}
    if not sizes & {348, 540}:
        raise ReadError(f"{path} is not a NIfTI file: its header does not begin with 348 or 540; check what it is")
    second = 540 in sizes
    pair = (raw[4:7] if second else raw[344:347]) in (b"ni1", b"ni2")
    kinds: dict[tuple[bool, bool], Any] = {
        (False, False): nib.Nifti1Header,
        (False, True): nib.nifti1.Nifti1PairHeader,
        (True, False): nib.Nifti2Header,
        (True, True): nib.nifti2.Nifti2PairHeader,
    }
    try:
        with np.errstate(all="ignore"):
            # Only the header itself, because extensions do not affect voxels and may be damaged separately.
            header = kinds[second, pair](raw[: 540 if second else 348], check=False)
            pixdim = np.array(header["pixdim"][1:4], np.float64)
            # Repairs minor header faults; nibabel's log is silenced meanwhile.
            header.check_fix(logger=_quiet_logger())
            return header, pixdim
    except (HeaderDataError, WrapStructError, ValueError, KeyError, OSError, OverflowError) as error:
        raise _damaged(error, path) from None


def _quiet_logger() -> logging.Logger:
    logger = logging.getLogger(__name__)
    logger.propagate = False  # else its lines reach the console as our own
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return logger


def _time_points(header: Any, shape: tuple[int, ...], path: Path) -> tuple[Finding, ...]:
    if len(shape) < 4 or shape[3] < 2 or int(header["intent_code"]) in _VECTOR_INTENTS:
        return ()
    unit, step = int(header["xyzt_units"]) & 0x38, float(header["pixdim"][4])
    if not (step > 0 and (unit in _TIME_UNITS or (unit == 0 and step != 1))):
        return ()
    text = f"{path} has {shape[3]} time points, {step:g} apart; they are read as channels of one volume"
    return (Finding("time_points", text, (str(path),)),)


def _rescale_of(header: Any, path: Path) -> tuple[float, float]:
    """Slope and intercept; a slope of 0 or NaN means no scaling (nifti1.h, and what nibabel writes)."""
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or math.isnan(slope):
        return 1.0, 0.0
    if fault := rescale_fault(slope, inter):
        raise ReadError(f"{path} has scl_slope = {slope:g} and scl_inter = {inter:g}; expected {fault}: correct them")
    return slope, inter


def _affine_of(
    header: Any, pixdim: NDArray[np.float64], shape: tuple[int, ...], path: Path
) -> tuple[NDArray[np.float64], bool, tuple[Finding, ...]]:
    from nibabel.spatialimages import HeaderDataError

    findings = []
    unit, factor = _UNITS_IN_MM.get(int(header["xyzt_units"]) & 7, ("", 1.0))
    in_mm = np.diag([factor, factor, factor, 1.0])
    # nibabel reads a spacing of 0 (unknown) as 1 mm; an axis of one voxel needs no spacing.
    absent = [axis < len(shape) and shape[axis] > 1 and pixdim[axis] == 0 for axis in range(3)]
    candidates: dict[str, NDArray[np.float64]] = {}
    try:
        if int(header["sform_code"]) > 0:
            candidates["sform"] = in_mm @ np.asarray(header.get_sform(), np.float64)
        if int(header["qform_code"]) > 0:
            scale = np.diag([*(0.0 if gone else 1.0 for gone in absent), 1.0])
            candidates["qform"] = in_mm @ np.asarray(header.get_qform(), np.float64) @ scale
    except (HeaderDataError, ValueError, ArithmeticError) as error:
        findings.append(Finding("damaged_qform", f"the qform of {path} cannot be used: {error}", (str(path),)))
    faults = {name: affine_fault(affine, shape[:3]) for name, affine in candidates.items()}
    usable = {name: affine for name, affine in candidates.items() if not faults[name]}
    known = True
    if usable:
        name, affine = next(iter(usable.items()))
        if name != "sform" and "sform" in candidates:
            text = f"the sform of {path} is singular or impossible ({faults['sform']}); its qform is used"
            findings.append(Finding("damaged_sform", text, (str(path),)))
        if len(usable) == 2:
            findings.extend(_differences(usable["sform"], usable["qform"], header.get_data_shape(), path))
    elif candidates:
        name, fault = next(iter(faults.items()))
        raise ReadError(f"{path} has a singular or impossible {name} ({_FIELDS[name]}): {fault}; correct its header")
    else:
        zooms = np.array([*map(float, header.get_zooms()), 1.0, 1.0])[:3]
        # Programs set all of them to 0 for 'unknown'; single zeros are damage.
        unsaid = absent[: len(shape)] == [n > 1 for n in shape[:3]]
        # As nibabel reads such files: the first axis runs from right to left, around the centre.
        affine = in_mm @ np.asarray(header.get_base_affine(), np.float64)
        affine = affine @ np.diag([*(float(unsaid or not gone) for gone in absent), 1.0])
        if fault := affine_fault(affine, shape[:3]):
            raise ReadError(f"{path} has no orientation, and by its pixdim {fault}; correct its header")
        known = not unsaid and (bool((zooms != 1).any()) or int(header["xyzt_units"]) & 7 != 0)
        text = (
            f"{path} has no orientation (sform_code and qform_code are 0); its axes are assumed to be left, anterior, "
            "superior"
        )
        if known:
            findings.append(Finding("no_orientation", text, (str(path),)))
        else:
            affine = np.eye(4)
        if unsaid:
            findings.append(no_spacing(path, [axis for axis, gone in enumerate(absent) if gone]))
    if unit:
        findings.append(Finding("unit", f"{path} is in {unit}s; converted to mm", (str(path),)))
    return affine, known, tuple(findings)


def _differences(
    sform: NDArray[np.float64], qform: NDArray[np.float64], shape: tuple[int, ...], path: Path
) -> list[Finding]:
    size = [int(n) - 1 for n in (*shape, 1, 1)[:3]]
    corners = np.array([*itertools.product(*((0, n) for n in size))], np.float64)
    apart = np.linalg.norm((corners @ (sform - qform)[:3, :3].T) + (sform - qform)[:3, 3], axis=1)
    worst = int(np.argmax(apart))
    # A quaternion in single precision can be off by a few tenths of a voxel near 180 degrees.
    if apart[worst] <= 0.5 * float(np.linalg.norm(sform[:3, :3], axis=0).min()):
        return []
    place = tuple(int(n) for n in corners[worst])
    text = f"sform and qform of {path} differ by up to {apart[worst]:.2f} mm, at voxel {place}; the sform is used"
    return [Finding("sform_qform_differ", text, (str(path),))]
