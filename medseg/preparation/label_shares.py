"""Label maps on a coarser grid: each new voxel takes the label that fills most of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.preparation.label_ranks import ROUNDING, Ranks
from medseg.resampling import voxel_shares

__all__ = ["labels_by_share"]

# Voxels of the old grid that are worked on at a time.
SLAB_VOXELS = 2**22
# Larger values are numbered first: they would need too long a list of boxes.
LARGEST = 65535


def labels_by_share(
    array: NDArray[Any], shape: Sequence[int], ties: Literal["lower", "upper", "unbiased"]
) -> NDArray[Any]:
    """The label that fills the largest part of each new voxel, with the outer edges kept.

    Each label is averaged within its own box only, and slab by slab, so that a hundred labels need little more memory
    and time than one that fills the image.

    Args:
        array: `(I, J, K)` or `(I, J)`, non-negative integers.
        shape: the new shape.
        ties: of labels with equal shares, the one of lower or of upper value; or 'unbiased': what is undecided is
            settled so that boundaries stay in place and components keep their volume, see `Ranks.balance`.

    Returns:
        `shape`, same dtype.

    Example:
        >>> labels_by_share(np.array([[0, 0, 0, 3, 3, 3, 3, 5, 5]]), (1, 3), "lower").tolist()
        [[0, 3, 5]]
        >>> half = np.array([[0, 1, 1, 1], [0, 1, 1, 1], [0, 1, 1, 1], [0, 1, 1, 1]])
        >>> labels_by_share(half, (2, 2), "lower").tolist(), labels_by_share(half, (2, 2), "unbiased").tolist()
        ([[0, 1], [0, 1]], [[0, 1], [1, 1]])
    """
    if array.max() > LARGEST:
        values, numbers = np.unique(array, return_inverse=True)
        return np.asarray(values[labels_by_share(numbers.reshape(array.shape), shape, ties)])
    # The axis that is slowest in memory comes first.
    layout = sorted(range(array.ndim), key=lambda a: -abs(array.strides[a]))
    turned, size = array.transpose(layout), [shape[a] for a in layout]
    rest = int(array.min())
    ranks = Ranks.of(size, array.dtype, rest)
    n_in, n_out = turned.shape[0], size[0]
    step = max(1, SLAB_VOXELS * n_out // max(1, turned.size))
    for begin in range(0, n_out, step):
        end = min(begin + step, n_out)
        rows = slice(begin * n_in // n_out, -(-end * n_in // n_out))
        _rank(turned, rows, ranks.rows(begin, end), begin, rest)
    ranks = ranks.transpose([layout.index(axis) for axis in range(array.ndim)])
    if ties == "unbiased":
        ranks.balance(rest)
    elif ties == "upper":
        ranks.take_second(ranks.most - ranks.next <= ROUNDING)
    return ranks.first


def _rank(array: NDArray[Any], rows: slice, ranks: Ranks, begin: int, rest: int) -> None:
    """Rank the labels of the new voxels of a slab, which begins at row `begin` and lies within `rows` of the array."""
    part = array[rows]
    size = [*ranks.whole]
    shape = ranks.first.shape
    total = np.zeros(shape, dtype=np.float32)
    for number, box in enumerate(ndimage.find_objects(part), start=1):
        if box is None or number == rest:
            continue
        start = [rows.start + box[0].start, *(b.start for b in box[1:])]
        share, corner = _share(part[box] == number, start, array.shape, size)
        where, share = _inside(share, [corner[0] - begin, *corner[1:]], shape)
        total[where] += share
        ranks.add(where, number, share)
    # The lowest label, nearly always the background, gets what the others leave.
    ranks.add((...,), rest, 1 - total)


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
