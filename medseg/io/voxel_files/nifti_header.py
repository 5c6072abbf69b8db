"""What the header of a NIfTI-1 or NIfTI-2 file says: voxels, scaling, place in the patient.

The affine is the sform where its code is set, else the qform (NIfTI-1 standard, methods 3 and 2).
"""

from __future__ import annotations

import itertools
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import ReadError
from medseg.volume import Finding

__all__ = ["StoredImage", "checked_shape", "parse_nifti"]

_UNITS_IN_MM = {1: ("meter", 1e3), 3: ("micron", 1e-3)}
_TIME_UNITS = (8, 16, 24)
# Intents whose last axes are parts of one value: vectors, matrices, colours (nifti1.h).
_VECTOR_INTENTS = frozenset({1004, 1005, 1006, 1007, 1008, 1009, 1010, 2003, 2004, 2005})


@dataclass(frozen=True, slots=True)
class StoredImage:
    """A header, understood.

    Args:
        shape: of the stored array, at least two axes.
        dtype: of the stored voxels, byte order included; structured for colours.
        offset: bytes before the voxels in the file that holds them.
        slope, inter: voxel value = stored value * slope + inter.
        affine: `(4, 4)`, voxel index to mm, RAS+.
        spacing_known: False where the header says nothing about size.
        findings: irregularities of the header.
        in_second_file: whether the voxels lie in an `.img` beside it.
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
    """The first 540 (or, of NIfTI-1, 348) bytes of a file, understood.

    Raises:
        ReadError: damaged header, no usable affine, complex numbers, or fewer than two axes.
    """
    from nibabel.spatialimages import HeaderDataError

    header = _header_of(raw, path)
    try:
        # Coordinates and scaling are looked at as numbers below, so numpy's warnings about them say nothing new.
        with np.errstate(all="ignore"):
            dtype, offset = header.get_data_dtype(), int(header.get_data_offset())
            slope, inter = header.get_slope_inter()
            shape = checked_shape(header.get_data_shape(), path)
            affine, known, findings = _affine_of(header, path)
    except ReadError:
        raise
    except (HeaderDataError, ValueError, KeyError, ArithmeticError) as error:
        raise _damaged(error, path) from None
    if dtype.kind == "c":
        raise ReadError(f"{path} holds complex numbers; write their magnitude into a file of its own first")
    pair = bytes(header["magic"])[:2] == b"ni"
    if offset < 0 or (not pair and offset < int(header["sizeof_hdr"])):
        raise ReadError(f"{path} has a damaged NIfTI header (voxels at byte {offset}); convert or download it again")
    return StoredImage(
        shape,
        dtype,
        offset,
        1.0 if slope is None else float(slope),
        0.0 if inter is None else float(inter),
        affine,
        known,
        findings + _time_points(header, shape, path),
        pair,
    )


def checked_shape(shape: tuple[int, ...], path: Path) -> tuple[int, ...]:
    """The shape as plain integers.

    Raises:
        ReadError: fewer than two axes, an empty one, or more voxels than any file holds.
    """
    plain = tuple(int(n) for n in shape)
    if len(plain) < 2 or min(plain) < 1 or math.prod(plain) >= 2**60:
        raise ReadError(f"{path} has shape {plain}: expected at least two axes, none of them empty or absurdly long")
    return plain


def _damaged(error: Exception, path: Path) -> ReadError:
    reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    return ReadError(f"{path} has a damaged NIfTI header ({reason}); convert or download it again")


def _header_of(raw: bytes, path: Path) -> Any:
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
            # Only the header proper, as extensions say nothing about voxels and may be damaged on their own.
            header = kinds[second, pair](raw[: 540 if second else 348], check=False)
            # Small faults are mended without the lines that nibabel prints about them.
            header.check_fix(logger=_quiet_logger())
            return header
    except (HeaderDataError, WrapStructError, ValueError, KeyError, OSError, OverflowError) as error:
        raise _damaged(error, path) from None


def _quiet_logger() -> logging.Logger:
    logger = logging.getLogger(__name__)
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return logger


def _time_points(header: Any, shape: tuple[int, ...], path: Path) -> tuple[Finding, ...]:
    if len(shape) < 4 or shape[3] < 2 or int(header["intent_code"]) in _VECTOR_INTENTS:
        return ()
    unit, step = int(header["xyzt_units"]) & 0x38, float(header["pixdim"][4])
    if not (step > 0 and (unit in _TIME_UNITS or (unit == 0 and step != 1))):
        return ()
    text = f"{path} holds {shape[3]} time points, {step:g} apart; they are read as channels of one volume"
    return (Finding("time_points", text, (str(path),)),)


def _affine_of(header: Any, path: Path) -> tuple[NDArray[np.float64], bool, tuple[Finding, ...]]:
    from nibabel.spatialimages import HeaderDataError

    findings = []
    candidates: dict[str, NDArray[np.float64]] = {}
    try:
        if int(header["sform_code"]) > 0:
            candidates["sform"] = np.asarray(header.get_sform(), np.float64)
        if int(header["qform_code"]) > 0:
            candidates["qform"] = np.asarray(header.get_qform(), np.float64)
    except (HeaderDataError, ValueError, ArithmeticError) as error:
        findings.append(Finding("damaged_qform", f"the qform of {path} cannot be used: {error}", (str(path),)))
    usable = {name: affine for name, affine in candidates.items() if _is_usable(affine)}
    known = True
    if usable:
        name, affine = next(iter(usable.items()))
        if name != "sform" and "sform" in candidates:
            findings.append(
                Finding("damaged_sform", f"the sform of {path} is singular; its qform is used", (str(path),))
            )
        if len(usable) == 2:
            findings.extend(_differences(usable["sform"], usable["qform"], header.get_data_shape(), path))
    elif candidates:
        raise ReadError(f"{path} has a singular {' and '.join(candidates)}: no position in the patient can be found")
    else:
        zooms = np.array([*map(float, header.get_zooms()), 1.0, 1.0])[:3]
        if not (np.isfinite(zooms).all() and (zooms > 0).all()):
            raise ReadError(f"{path} has no orientation and a spacing of {tuple(zooms)}; expected positive numbers")
        affine = np.diag([*zooms, 1.0])
        known = bool((zooms != 1).any()) or int(header["xyzt_units"]) & 7 != 0
        text = (
            f"{path} does not say how it lies in the patient (sform_code and qform_code are 0); its axes are taken "
            "as right, anterior, superior"
        )
        if known:
            findings.append(Finding("no_orientation", text, (str(path),)))
    code = int(header["xyzt_units"]) & 7
    if code in _UNITS_IN_MM:
        unit, factor = _UNITS_IN_MM[code]
        affine = np.diag([factor, factor, factor, 1.0]) @ affine
        findings.append(Finding("unit", f"{path} is in {unit}s; converted to mm", (str(path),)))
    if not _is_usable(affine):
        spacing = tuple(float(s) for s in np.linalg.norm(affine[:3, :3], axis=0))
        raise ReadError(f"{path} has a spacing of {spacing} mm, which cannot be worked with; correct its header")
    return affine, known, tuple(findings)


def _differences(
    sform: NDArray[np.float64], qform: NDArray[np.float64], shape: tuple[int, ...], path: Path
) -> list[Finding]:
    size = [int(n) - 1 for n in (*shape, 1, 1)[:3]]
    corners = np.array([*itertools.product(*((0, n) for n in size))], np.float64)
    apart = np.linalg.norm((corners @ (sform - qform)[:3, :3].T) + (sform - qform)[:3, 3], axis=1)
    worst = int(np.argmax(apart))
    # A quaternion in single precision is itself off by a few tenths of a voxel near 180 degrees.
    if apart[worst] <= 0.5 * float(np.linalg.norm(sform[:3, :3], axis=0).min()):
        return []
    place = tuple(int(n) for n in corners[worst])
    text = f"sform and qform of {path} differ by up to {apart[worst]:.2f} mm, at voxel {place}; the sform is used"
    return [Finding("sform_qform_differ", text, (str(path),))]


def _is_usable(affine: NDArray[np.float64]) -> bool:
    # Beyond this the numbers are no millimetres, and products of them overflow.
    return bool((np.abs(affine) < 1e9).all()) and abs(float(np.linalg.det(affine[:3, :3]))) > 1e-12
