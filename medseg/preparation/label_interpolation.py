"""Label maps resampled by interpolating each label: nnU-Net's way from one stage of a cascade to the next.

Source: batchgenerators 0.25.5, augmentations/utils.py, `resize_segmentation`; nnU-Net 2.8.1, default_resampling.py.
Older releases of batchgenerators wrote labels of at least one half in ascending order, which differs where three meet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["labels_by_interpolation", "upper_nearest"]


def labels_by_interpolation(array: NDArray[Any], shape: Sequence[int], thick: int | None = None) -> NDArray[Any]:
    """A label map of another shape and the same extent: the label whose share, interpolated linearly, is largest.

    Of equal shares the nearest neighbour's wins if it is among them, else the lowest value.

    Args:
        array: integers `(I, J, K)` or `(I, J)`.
        shape: the new one.
        thick: an axis along which slices are resampled one by one, and each new one takes the nearest.

    Example:
        >>> labels_by_interpolation(np.array([[0, 0, 2, 2]]), (1, 2)).tolist()
        [[0, 2]]
    """
    if array.shape == tuple(shape):
        return array
    if thick is not None:
        flat = tuple(n for axis, n in enumerate(shape) if axis != thick)
        slices = np.stack([labels_by_interpolation(each, flat) for each in np.moveaxis(array, thick, 0)])
        return np.moveaxis(slices[upper_nearest(len(slices), shape[thick])], 0, thick)
    nearest = _resized(array.astype(np.float64), shape, 0).astype(array.dtype)
    found, best = np.zeros(tuple(shape), dtype=array.dtype), np.zeros(tuple(shape))
    neighbour_leads = np.zeros(tuple(shape), dtype=bool)
    for value in np.unique(array):
        share = _resized((array == value).astype(np.float64), shape, 1)
        more, own = share > best, nearest == value
        neighbour_leads = np.where(more, own, neighbour_leads | (own & (share == best)))
        found[more] = value
        best[more] = share[more]
    return np.where(neighbour_leads, nearest, found)


def upper_nearest(size: int, new_size: int) -> NDArray[np.intp]:
    """The nearest sample of each new one; half-way the upper one, as in nnU-Net.

    Example:
        >>> upper_nearest(2, 3).tolist()
        [0, 1, 1]
    """
    nearest: NDArray[np.intp] = np.minimum((np.arange(new_size) + 0.5) * (size / new_size), size - 1).astype(np.intp)
    return nearest


def _resized(values: NDArray[np.float64], shape: Sequence[int], order: int) -> NDArray[np.float64]:
    factors = [n / m for n, m in zip(shape, values.shape, strict=True)]
    out = ndimage.zoom(values, factors, order=order, mode="nearest", grid_mode=True)
    return np.asarray(np.clip(out, values.min(), values.max()))
