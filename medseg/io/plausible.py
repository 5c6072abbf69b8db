"""Plausible ranges of the numbers in a header, wider than any biomedical image needs, and the reasons for them.

A number outside them is damage or a wrong unit. It is refused when the header is read, by the name of its field: used,
it would lead to a grid that fills the memory, to infinite voxels, or to a mask in the wrong place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FARTHEST_MM",
    "LARGEST_MM",
    "MOST_PLANES",
    "SMALLEST_MM",
    "affine_fault",
    "likely_unit",
    "place_fault",
    "rescale_fault",
    "spacing_fault",
]

# From 0.1 nm, an atom, below the pixels of electron microscopes, to 10 m, above the field of view of any scanner.
SMALLEST_MM, LARGEST_MM = 1e-7, 1e4
# Serial sections may have pixels of 0.25 um and be 5 mm apart, a ratio of 20,000.
_MOST_UNEQUAL = 1e5
# 10 km: patients are within metres of the origin, but microscopes count nanometres along a brain of a centimetre,
# and some files call them millimetres.
FARTHEST_MM = 1e7
# Tiny numbers stored as 64-bit integers have slopes of 1e-25 and less, counts and becquerels of 1e10 and more; beyond
# these limits the values exceed single precision.
_SMALLEST_SLOPE, _LARGEST_SLOPE, _LARGEST_INTERCEPT = 1e-30, 1e20, 1e20
# Axes this close to a plane span no volume.
_FLATTEST = 1e-6
# A whole body in slices of 0.2 mm; larger gaps are not filled.
MOST_PLANES = 10_000


def spacing_fault(spacing_mm: Sequence[float]) -> str:
    """The expected range if the spacing is impossible, otherwise ''.

    Args:
        spacing_mm: distance between neighbouring voxels along some axes, in mm.
    """
    # Comparisons with NaN are false.
    if all(SMALLEST_MM <= s <= LARGEST_MM for s in spacing_mm):
        return ""
    return f"{SMALLEST_MM:g} to {LARGEST_MM:g} mm, the smallest and largest voxels of any image"


def likely_unit(factor: float) -> str:
    """The unit of sizes that are `factor` times the expected ones in millimetres.

    Example:
        >>> likely_unit(0.0012), likely_unit(0.1), likely_unit(900), likely_unit(1e6)
        ('metres', 'centimetres', 'micrometres', 'nanometres')
    """
    units = {1e-3: "metres", 1e-1: "centimetres", 1e3: "micrometres", 1e6: "nanometres"}
    return units[min(units, key=lambda each: abs(math.log(factor / each)))]


def place_fault(position_mm: Sequence[float]) -> str:
    """The expected range if the position in mm is impossible, otherwise ''."""
    if all(abs(p) <= FARTHEST_MM for p in position_mm):
        return ""
    return f"numbers within {FARTHEST_MM:g} mm of the origin"


def rescale_fault(slope: float, intercept: float) -> str:
    """The expected range if `value = slope * stored + intercept` has impossible factors, otherwise ''."""
    if not _SMALLEST_SLOPE <= abs(slope) <= _LARGEST_SLOPE:
        return f"a scale factor of {_SMALLEST_SLOPE:g} to {_LARGEST_SLOPE:g}"
    if not abs(intercept) <= _LARGEST_INTERCEPT:
        return f"an offset within {_LARGEST_INTERCEPT:g} of zero"
    return ""


def affine_fault(affine: NDArray[np.float64], shape: Sequence[int]) -> str:
    """What is wrong with a grid, e.g. 'voxels of 1 x 1 x 1e+30 mm; expected ...'; '' if it is plausible.

    Args:
        affine: (4, 4), voxel index to mm.
        shape: of the grid, 2 or 3 axes; the spacing of an axis with one voxel is often arbitrary, so only its range
            counts.
    """
    place = affine[:3, 3]
    if fault := place_fault(place.tolist()):
        return f"its first voxel at {_numbers(place)} mm; expected {fault}"
    with np.errstate(all="ignore"):
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        units = affine[:3, :3] / lengths
    voxels = f"voxels of {' x '.join(f'{s:g}' for s in lengths[: len(shape)])} mm"
    if fault := spacing_fault(lengths.tolist()):
        return f"{voxels}; expected {fault}"
    if not abs(float(np.linalg.det(units))) > _FLATTEST:
        axes = ", ".join(_numbers(column) for column in affine[:3, :3].T)
        return f"axes that span no volume ({axes}); expected three different directions"
    used = [s for s, n in zip(lengths.tolist(), shape, strict=False) if n > 1]
    if used and max(used) > _MOST_UNEQUAL * min(used):
        return f"{voxels}; expected sides that differ by a factor of at most {_MOST_UNEQUAL:g}"
    return ""


def _numbers(values: NDArray[np.float64]) -> str:
    return f"({', '.join(f'{v:.4g}' if math.isfinite(v) else str(v) for v in values.tolist())})"
