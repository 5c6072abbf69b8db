"""Resampling to another spacing or onto another grid; the affine moves with the array.

Resampling keeps the outer edges of the image: n_out = max(1, round(n * s_in / s_target)), the actual new spacing is
n * s_in / n_out, and samples are at half-pixel centres.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.errors import GeometryError
from medseg.volume import Volume

__all__ = [
    "average_array",
    "nearest_by_turns",
    "nearest_indices",
    "resample",
    "resample_affine",
    "resample_array",
    "resample_like",
    "resampled_shape",
    "voxel_shares",
]

Array = NDArray[Any]
# Number of voxels interpolated at a time, small compared with the image.
SLAB_VOXELS = 2**20
# Part of a voxel, far above rounding, that decides between two voxels that are equally near.
_NUDGE = 1e-6


def resampled_shape(shape: Sequence[int], spacing: Sequence[float], target: Sequence[float]) -> tuple[int, ...]:
    """Voxels per axis after resampling from `spacing` to `target` with the outer edges kept."""
    return tuple(max(1, round(n * s / t)) for n, s, t in zip(shape, spacing, target, strict=True))


def resample_affine(affine: NDArray[np.float64], shape: Sequence[int], new_shape: Sequence[int]) -> NDArray[np.float64]:
    """The affine after resampling `shape` to `new_shape` with the outer edges kept."""
    scale = np.ones(3)
    scale[: len(shape)] = np.divide(shape, new_shape)
    matrix = np.diag([*scale, 1.0])
    matrix[:3, 3] = (scale - 1.0) / 2.0
    return np.asarray(affine @ matrix)


def resample_array(array: Array, new_shape: Sequence[int], order: int) -> Array:
    """Resample the last `len(new_shape)` axes with edges kept, half-pixel centres and clamped borders.

    Args:
        array: `(..., I, J, K)` or `(..., I, J)`.
        new_shape: the target spatial shape.
        order: 0 nearest (dtype kept; ties go to the lower index), 1 linear (float32).
    """
    if order == 0:
        return _axis_by_axis(array, new_shape, _nearest)
    return _axis_by_axis(array, new_shape, _linear).astype(np.float32, copy=False)


def average_array(array: Array, new_shape: Sequence[int]) -> NDArray[np.float32]:
    """The mean over each new voxel of the last `len(new_shape)` axes, with the outer edges kept.

    Old voxels that a new one cuts count by the part inside, so that nothing moves and no voxel is left out.

    Args:
        array: `(..., I, J, K)` or `(..., I, J)`.
        new_shape: the target spatial shape.

    Example:
        >>> average_array(np.array([[0.0, 3.0, 6.0]]), (1, 2)).tolist()
        [[1.0, 5.0]]
    """
    return _axis_by_axis(array, new_shape, _averaged).astype(np.float32, copy=False)


def nearest_by_turns(array: Array, new_shape: Sequence[int]) -> Array:
    """`resample_array` of order 0 without a shift: half-way between two voxels the lower or the upper one, by turns.

    Args:
        array: `(I, J, K)` or `(I, J)`.
        new_shape: the target shape.

    Returns:
        `new_shape`, same dtype.

    Example:
        >>> nearest_by_turns(np.array([[1, 2, 3, 4], [1, 2, 3, 4]]), (2, 2)).tolist()
        [[1, 4], [2, 3]]
    """
    if tuple(new_shape) == array.shape:
        return array
    lower, upper = (
        array[np.ix_(*(nearest_indices(n, m)[side] for n, m in zip(array.shape, new_shape, strict=True)))]
        for side in (0, 1)
    )
    return np.where(sum(np.indices(tuple(new_shape), sparse=True)) % 2 == 1, upper, lower)


def voxel_shares(n_in: int, n_out: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """What each old voxel along an axis contributes to each new one of the same extent.

    Args:
        n_in, n_out: old and new voxels.

    Returns:
        `(n_out,)` the first old voxel of each new one, and `(n_out, m)` the parts of the new voxel that it and those
        behind it fill; they sum to 1, and beyond the last old voxel they are 0.

    Example:
        >>> first, shares = voxel_shares(3, 2)
        >>> first.tolist(), (3 * shares).round().tolist()
        ([0, 1], [[2.0, 1.0, 0.0], [1.0, 2.0, 0.0]])
    """
    # In units of 1 / n_out of an old voxel, edges are whole numbers.
    begin = np.arange(n_out) * n_in
    first = begin // n_out
    edges = (first[:, None] + np.arange(-(-n_in // n_out) + 1)) * n_out
    inside = np.minimum(begin[:, None] + n_in, edges + n_out) - np.maximum(begin[:, None], edges)
    return first, (np.maximum(inside, 0) / n_in).astype(np.float32)


def _axis_by_axis(array: Array, new_shape: Sequence[int], change: Callable[[Array, int, int], Array]) -> Array:
    """`change(array, axis, voxels)` for each of the last axes whose length changes."""
    if array.ndim == 1:
        return np.asarray(_axis_by_axis(array[None], new_shape, change)[0])
    lead = array.ndim - len(new_shape)
    # `take` copies arrays that are not C-contiguous, which is slow across memory order, so axes are put in order first.
    layout = sorted(range(array.ndim), key=lambda a: -abs(array.strides[a]))
    out = array.transpose(layout)
    # Axes that shrink come first, so that later ones have less to do.
    for wanted in sorted(range(len(new_shape)), key=lambda a: new_shape[a] / array.shape[lead + a]):
        axis = layout.index(lead + wanted)
        if out.shape[axis] != new_shape[wanted]:
            out = change(out, axis, new_shape[wanted])
    return out.transpose(np.argsort(layout))


def _positions(n_in: int, n_out: int) -> NDArray[np.float64]:
    return np.clip((np.arange(n_out) + 0.5) * (n_in / n_out) - 0.5, 0, n_in - 1)


def nearest_indices(n_in: int, n_out: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Along an axis, the old voxel nearest to each new one; half-way between two of them the lower and the upper one.

    Example:
        >>> [each.tolist() for each in nearest_indices(6, 3)]
        [[0, 2, 4], [1, 3, 5]]
    """
    lower = np.ceil(_positions(n_in, n_out) - 0.5).astype(np.intp)
    # Seen from the other end, the upper of two neighbours is the lower one.
    return lower, n_in - 1 - lower[::-1]


def _nearest(array: Array, axis: int, n_out: int) -> Array:
    return array.take(nearest_indices(array.shape[axis], n_out)[0], axis=axis)


def _linear(array: Array, axis: int, n_out: int) -> Array:
    n_in = array.shape[axis]
    position = _positions(n_in, n_out)
    low = np.minimum(position.astype(np.intp), max(n_in - 2, 0))
    fraction = _along((position - low).astype(np.float32), axis, array.ndim)
    high = np.minimum(low + 1, n_in - 1)
    new = np.empty([n_out if a == axis else n for a, n in enumerate(array.shape)], dtype=np.float32)
    for rows in _slabs(array.shape, axis, new.size):
        below = array[rows].take(low, axis=axis).astype(np.float32, copy=False)
        above = array[rows].take(high, axis=axis).astype(np.float32, copy=False)
        above -= below
        above *= fraction
        above += below
        new[rows] = above
    return new


def _averaged(array: Array, axis: int, n_out: int) -> Array:
    n_in = array.shape[axis]
    first, shares = voxel_shares(n_in, n_out)
    new = np.zeros([n_out if a == axis else n for a, n in enumerate(array.shape)], dtype=np.float32)
    for rows in _slabs(array.shape, axis, new.size):
        for step, share in enumerate(shares.T):
            part = array[rows].take(np.minimum(first + step, n_in - 1), axis=axis).astype(np.float32)
            part *= _along(share, axis, array.ndim)
            new[rows] += part
    return new


def _slabs(shape: Sequence[int], axis: int, size: int) -> Iterator[tuple[slice, ...]]:
    """The array in slabs across another axis than `axis`, so that intermediate arrays stay small."""
    across = max((a for a in range(len(shape)) if a != axis), key=lambda a: (shape[a] > 1, -a))
    step = max(1, SLAB_VOXELS * shape[across] // max(1, size))
    for first in range(0, shape[across], step):
        yield (*[slice(None)] * across, slice(first, first + step))


def _along(line: Array, axis: int, dims: int) -> Array:
    return line.reshape([-1 if a == axis else 1 for a in range(dims)])


def resample(volume: Volume, spacing_mm: Sequence[float], order: int = 1) -> Volume:
    """The volume at (approximately) `spacing_mm`, outer edges kept; a sheared volume stays sheared.

    Args:
        volume: any volume with a known spacing.
        spacing_mm: target spacing per spatial axis.
        order: 1 for images (linear, float32), 0 for labels (nearest, see `nearest_by_turns`).

    Raises:
        GeometryError: if the spacing is unknown, not positive, or of another rank.
    """
    if not volume.spacing_known:
        raise GeometryError(f"{volume!r} has no known spacing, so it cannot be resampled to {tuple(spacing_mm)} mm")
    if len(spacing_mm) != volume.dims or min(spacing_mm) <= 0:
        raise GeometryError(f"spacing {tuple(spacing_mm)} mm does not fit {volume!r}: one positive value per axis")
    shape = resampled_shape(volume.shape, volume.spacing_mm, spacing_mm)
    if order:
        array = resample_array(volume.array, shape, order)
    elif volume.channels:
        array = np.stack([nearest_by_turns(each, shape) for each in volume.array])
    else:
        array = nearest_by_turns(volume.array, shape)
    return replace(volume, array=array, affine=resample_affine(volume.affine, volume.shape, shape))


def resample_like(volume: Volume, reference: Volume, order: int = 1, outside: float = 0.0) -> Volume:
    """The volume on the reference's grid, in any orientation.

    Args:
        volume: 3D volume, with or without channels.
        reference: 3D volume that defines the grid.
        order: 1 linear, 0 nearest (half-way between two voxels the lower or the upper one, by turns).
        outside: value where the reference extends beyond the volume.

    Raises:
        GeometryError: if either is not 3D or has no known spacing.
    """
    for each in (volume, reference):
        if each.dims != 3 or not each.spacing_known:
            raise GeometryError(f"resampling to another grid needs 3D volumes with known spacing, found {each!r}")
    if volume.same_geometry(reference):
        kept = volume.array if order == 0 else volume.array.astype(np.float32)
        return replace(volume, array=kept, affine=reference.affine)
    matrix = np.linalg.inv(volume.affine) @ reference.affine
    inside = _inside(matrix, volume.shape, reference.shape)

    def one(array: Array) -> Array:
        # scipy's own `constant` mode would also cut off the outer half of every border voxel.
        if order == 0:
            sampled = _nearest_like(array, matrix, reference.shape)
        else:
            sampled = ndimage.affine_transform(
                array.astype(np.float32), matrix[:3, :3], matrix[:3, 3], reference.shape, order=order, mode="nearest"
            )
        sampled[~inside] = outside
        return np.asarray(sampled)

    array = np.stack([one(c) for c in volume.array]) if volume.channels else one(volume.array)
    return replace(volume, array=array, affine=reference.affine)


def _nearest_like(array: Array, matrix: NDArray[np.float64], shape: Sequence[int]) -> Array:
    """The nearest voxels; of every second one, as on a chessboard, those half-way come from the other side."""
    out = np.empty(tuple(shape), dtype=array.dtype)
    for first in product((0, 1), repeat=3):
        part = out[tuple(slice(n, None, 2) for n in first)]
        if part.size:
            nudge = _NUDGE if sum(first) % 2 else -_NUDGE
            offset = matrix[:3, :3] @ first + matrix[:3, 3] + nudge
            part[:] = ndimage.affine_transform(array, 2 * matrix[:3, :3], offset, part.shape, order=0, mode="nearest")
    return out


def _inside(matrix: NDArray[np.float64], source: Sequence[int], shape: Sequence[int]) -> NDArray[np.bool_]:
    """Which voxels of a grid of `shape` are within the outer edges of a grid `source`; `matrix` maps index to index."""
    result = np.empty(tuple(shape), dtype=bool)
    j, k = np.arange(shape[1])[:, None], np.arange(shape[2])
    edge = 0.5 + 1e-4  # a point on the edge must not be lost to rounding
    for i in range(shape[0]):
        plane = np.ones(tuple(shape[1:]), dtype=bool)
        for axis, n in enumerate(source):
            position = matrix[axis, 0] * i + matrix[axis, 1] * j + matrix[axis, 2] * k + matrix[axis, 3]
            plane &= (position >= -edge) & (position <= n - 1 + edge)
        result[i] = plane
    return result
