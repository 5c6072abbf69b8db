"""Where the windows over an image lie, what each counts for, and the axis along which they are worked off.

The windows lie on the product of one list of starts per axis and the Gaussian is a product over axes, so the sum of
the weights is a product too. Each window's weights are therefore divided by that sum beforehand, axis by axis, and the
result needs neither a weight map of the image's size nor a last division.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import torch
from torch import Tensor

__all__ = ["blend_weights", "stream_axis", "window_starts"]


def window_starts(length: int, patch: int, overlap: float) -> tuple[int, ...]:
    """First voxels of evenly spread windows: the first touches one border, the last the other.

    Neighbours overlap by at least `overlap` of a patch (0 <= overlap < 1); one window where the patch covers the axis.

    Example:
        >>> window_starts(10, 4, 0.5)
        (0, 2, 4, 6)
    """
    if length <= patch:
        return (0,)
    step = max(1, int(patch * (1 - overlap)))
    count = ceil((length - patch) / step) + 1
    return tuple(round(n * (length - patch) / (count - 1)) for n in range(count))


def blend_weights(length: int, patch: int, overlap: float) -> dict[int, Tensor]:
    """Start -> weights (patch,) along one axis; over all windows they sum to 1 at every voxel.

    A Gaussian with standard deviation patch / 8, centred in the window; at the window's border it is still exp(-8),
    so no voxel is without weight.
    """
    offset = torch.arange(patch, dtype=torch.float64) - (patch - 1) / 2
    gaussian = torch.exp(-0.5 * (offset / (patch / 8)) ** 2)
    starts = window_starts(length, patch, overlap)
    total = torch.zeros(max(length, patch), dtype=torch.float64)
    for start in starts:
        total[start : start + patch] += gaussian
    return {start: (gaussian / total[start : start + patch]).float() for start in starts}


def stream_axis(shape: Sequence[int], patch_size: Sequence[int]) -> int:
    """The axis with the most patches; windows in its order leave the fewest logits open at a time.

    A patch with two sizes on a volume means slices `[..., k]`, one after the other.

    Example:
        >>> stream_axis((200, 300, 90), (96, 96, 32)), stream_axis((512, 512, 30), (256, 256))
        (1, 2)
    """
    if len(patch_size) < len(shape):
        return len(shape) - 1
    return max(range(len(shape)), key=lambda axis: shape[axis] / patch_size[axis])
