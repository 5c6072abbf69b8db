"""Left and right lung, where a mask names only lung."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["split_sides"]

# The smaller lung has at least this share of the larger one's volume, or it is a piece of it.
_SECOND_LUNG = 0.15
# Lungs that touch are narrow there: the thinnest sagittal slice has at most this share of the largest one's area.
_WAIST = 0.5


def split_sides(
    mask: NDArray[np.bool_], affine: NDArray[np.float64]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]] | None:
    """The left and the right lung of a mask of both.

    Where the two largest connected parts lie side by side, each is a lung, and smaller parts go to the nearer of the
    two. Lungs that touch (in front of the heart, behind it) are cut in the thinnest slice between them, across the
    voxel axis closest to left-right.

    Args:
        mask: `(I, J, K)`, lungs of both sides.
        affine: `(4, 4)`, voxel index to mm, RAS+: x grows towards the patient's right.

    Returns:
        The left and the right lung, together the mask; None where the two cannot be separated: one lung, or none.

    Example:
        >>> mask = np.zeros((20, 8, 8), bool)
        >>> mask[2:8], mask[11:18] = True, True
        >>> left, right = split_sides(mask, np.eye(4))
        >>> np.flatnonzero(left.any((1, 2))).tolist()
        [2, 3, 4, 5, 6, 7]
    """
    if not mask.any():
        return None
    axis = int(np.abs(affine[0, :3] / np.linalg.norm(affine[:3, :3], axis=0)).argmax())
    to_right = affine[0, axis] > 0
    parts, count = ndimage.label(mask)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    first, *rest = np.argsort(-sizes, kind="stable")[:2].tolist()
    low = None
    if rest and sizes[rest[0]] >= _SECOND_LUNG * sizes[first]:
        low = _two_parts(parts, first, rest[0], axis)
    if low is None:
        low = _cut(mask, axis)
    if low is None:
        return None
    high = mask & ~low
    return (low, high) if to_right else (high, low)


def _two_parts(parts: NDArray[np.int32], one: int, other: int, axis: int) -> NDArray[np.bool_] | None:
    """The part of lower index along the axis, with the small parts near it."""
    places = [_profile(parts == part, axis) for part in (one, other)]
    middle = [float(np.average(np.arange(len(p)), weights=p)) for p in places]
    # One above the other is a lung in pieces, not two lungs.
    reach = [np.flatnonzero(p) for p in places]
    overlap = min(r[-1] for r in reach) - max(r[0] for r in reach)
    if overlap > 0.5 * min(len(r) for r in reach):
        return None
    lower, upper = (one, other) if middle[0] < middle[1] else (other, one)
    rest = (parts > 0) & (parts != one) & (parts != other)
    low = parts == lower
    if rest.any():
        border = (max(middle) + min(middle)) / 2
        index = np.arange(parts.shape[axis]).reshape([-1 if a == axis else 1 for a in range(parts.ndim)])
        low |= rest & (index < border)
    return np.asarray(low & (parts != upper))


def _cut(mask: NDArray[np.bool_], axis: int) -> NDArray[np.bool_] | None:
    """The voxels before the thinnest slice between two bulges, or None where there is no waist."""
    profile = _profile(mask, axis)
    inside = np.flatnonzero(profile)
    start, stop = inside[0], inside[-1] + 1
    third = (stop - start) // 4
    middle = profile[start + third : stop - third]
    if not len(middle):
        return None
    waist = start + third + int(middle.argmin())
    sides = profile[start:waist].max(initial=0), profile[waist:stop].max(initial=0)
    if profile[waist] > _WAIST * min(sides):
        return None
    index = np.arange(mask.shape[axis]).reshape([-1 if a == axis else 1 for a in range(mask.ndim)])
    return np.asarray(mask & (index < waist))


def _profile(mask: NDArray[np.bool_], axis: int) -> NDArray[np.int64]:
    return np.asarray(mask.sum(axis=tuple(a for a in range(mask.ndim) if a != axis)))
