"""Label maps on a coarser grid: each new voxel takes the label that fills most of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.resampling import voxel_shares

__all__ = ["by_turns", "labels_by_share"]

# Voxels of the old grid that are worked on at a time.
SLAB_VOXELS = 2**22
# Shares that are equal differ by rounding only; no share of a voxel that matters is smaller.
ROUNDING = 1e-5


def labels_by_share(
    array: NDArray[Any], shape: Sequence[int], ties: Literal["lower", "upper", "unbiased"]
) -> NDArray[Any]:
    """The label that fills the largest part of each new voxel, with the outer edges kept.

    Each label is averaged within its own box only, and slab by slab, so that a hundred labels need little more memory
    and time than one that fills the image.

    Args:
        array: `(I, J, K)` or `(I, J)`, non-negative integers.
        shape: the new shape.
        ties: of labels with equal shares, the one of lower or of upper value, or by turns, so that on the whole no
            boundary moves.

    Returns:
        `shape`, same dtype.

    Example:
        >>> labels_by_share(np.array([[0, 0, 0, 3, 3, 3, 3, 5, 0]]), (1, 3), "lower").tolist()
        [[0, 3, 3]]
        >>> labels_by_share(np.ones((4, 4), int).cumsum(1) // 2, (2, 2), "unbiased").tolist()
        [[0, 2], [1, 1]]
    """
    # The axis that is slowest in memory comes first.
    layout = sorted(range(array.ndim), key=lambda a: -abs(array.strides[a]))
    turned, size = array.transpose(layout), [shape[a] for a in layout]
    out = np.empty(size, dtype=array.dtype)
    n_in, n_out = turned.shape[0], size[0]
    step = max(1, SLAB_VOXELS * n_out // max(1, turned.size))
    for begin in range(0, n_out, step):
        end = min(begin + step, n_out)
        rows = slice(begin * n_in // n_out, -(-end * n_in // n_out))
        out[begin:end] = _slab(turned, rows, begin, (end - begin, *size[1:]), size, ties)
    return out.transpose(np.argsort(layout))


def by_turns(shape: Sequence[int], first: int = 0) -> NDArray[np.bool_]:
    """Every second voxel along each axis, as on a chessboard; `first` is the index of the first one along axis 0."""
    turn = np.zeros((1,) * len(shape), dtype=bool)
    for axis, n in enumerate(shape):
        odd = (np.arange(n) + (first if axis == 0 else 0)) % 2 == 1
        turn = turn ^ odd.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return turn


def _slab(
    array: NDArray[Any], rows: slice, begin: int, shape: Sequence[int], size: Sequence[int], ties: str
) -> NDArray[Any]:
    """Rows `begin` and following of the result, which lie within `rows` of the array."""
    part = array[rows]
    values = _values(part)
    if len(values) == 1:
        return np.full(shape, values[0], dtype=array.dtype)
    # The lowest label, nearly always the background, gets what the others leave.
    numbers = part if values[0] == 0 and values[-1] < 65536 else np.searchsorted(values, part).astype(np.int32)
    boxes = ndimage.find_objects(numbers)
    best, total = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.float32)
    low, high = np.zeros(shape, dtype=numbers.dtype), np.zeros(shape, dtype=numbers.dtype)
    for number, box in enumerate(boxes, start=1):
        if box is None:
            continue
        start = [rows.start + box[0].start, *(b.start for b in box[1:])]
        share, corner = _share(numbers[box] == number, start, array.shape, size)
        where, share = _inside(share, [corner[0] - begin, *corner[1:]], shape)
        total[where] += share
        wins, level = share > best[where] + ROUNDING, np.abs(share - best[where]) <= ROUNDING
        level &= share > ROUNDING
        best[where][wins] = share[wins]
        low[where][wins] = number
        high[where][wins | level] = number
    rest = 1 - total
    wins = rest > best + ROUNDING
    low[wins | (rest >= best - ROUNDING)] = 0
    high[wins] = 0
    chosen = low if ties == "lower" else high if ties == "upper" else np.where(by_turns(shape, begin), high, low)
    return chosen if numbers is part else values[chosen].astype(array.dtype)


def _values(part: NDArray[Any]) -> NDArray[Any]:
    if part.max() < 65536:
        return np.flatnonzero(np.bincount(part.reshape(-1)))
    return np.unique(part)


def _share(
    mask: NDArray[np.bool_], start: Sequence[int], old: Sequence[int], new: Sequence[int]
) -> tuple[NDArray[np.float32], list[int]]:
    """Part of each new voxel that a mask fills, within the new voxels it touches, and the first of these.

    Args:
        mask: a piece of the old grid.
        start: its first voxel.
        old, new: voxels of both grids along each axis.
    """
    share: NDArray[Any] = mask
    corner = list(start)
    for axis in sorted(range(mask.ndim), key=lambda a: new[a] / old[a]):
        n_in, n_out, n = old[axis], new[axis], mask.shape[axis]
        if n_in == n_out:
            continue
        begin, end = start[axis] * n_out // n_in, -(-(start[axis] + n) * n_out // n_in)
        first, weights = (each[begin:end] for each in voxel_shares(n_in, n_out))
        corner[axis] = begin
        sums = np.zeros([end - begin if a == axis else m for a, m in enumerate(share.shape)], dtype=np.float32)
        for step, weight in enumerate(weights.T):
            index = first + step - start[axis]
            counted = np.where((index >= 0) & (index < n), weight, np.float32(0))
            taken = share.take(np.clip(index, 0, n - 1), axis=axis)
            sums += taken * counted.reshape([-1 if a == axis else 1 for a in range(mask.ndim)])
        share = sums
    return share.astype(np.float32, copy=False), corner


def _inside(
    share: NDArray[np.float32], corner: Sequence[int], shape: Sequence[int]
) -> tuple[tuple[slice, ...], NDArray[np.float32]]:
    """The place of a piece on a slab of `shape`, and what of it lies there: rows beside belong to other slabs."""
    first = [max(0, c) for c in corner]
    last = [min(n, c + m) for n, c, m in zip(shape, corner, share.shape, strict=True)]
    where = tuple(slice(f, e) for f, e in zip(first, last, strict=True))
    return where, share[tuple(slice(f - c, e - c) for f, e, c in zip(first, last, corner, strict=True))]
