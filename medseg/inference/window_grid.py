"""Where the windows over an image lie, what each counts for, and the axis along which they are worked off.

The windows lie on the product of one list of starts per axis and the weights are a product over axes, so their sum is a
product too. Each window's weights are therefore divided by that sum beforehand, axis by axis, and the
result needs neither a weight map of the image's size nor a last division. nnU-Net's weights, which half precision
rounds, are not a product: of these the sum is an array.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.preparation.plan import Plan

__all__ = ["Windows", "blend_weights", "half_weights", "stream_axis", "window_starts"]


@dataclass(frozen=True, slots=True)
class Windows:
    """Size, places and weights of the windows over an image.

    Args:
        patch_size: voxels of a window, 2 or 3 numbers.
        overlap: least fraction of a window shared with its neighbour, in [0, 1).
        starts, weights: see `medseg.preparation.plan_fields.WindowPlan`.
        padding: around an image that is shorter than a window: the 'minimum' of each channel, or 'zero'.

    Example:
        >>> Windows.of(medseg.load_model("runs/lung/model").info.plan).weights
        'gaussian'
    """

    patch_size: tuple[int, ...]
    overlap: float = 0.5
    starts: Literal["whole_step", "real_step"] = "whole_step"
    weights: Literal["gaussian", "impulse", "half", "uniform"] = "gaussian"
    padding: Literal["minimum", "zero"] = "minimum"

    @classmethod
    def of(cls, plan: Plan, overlap: float | None = None) -> Windows:
        """The windows of a plan; `overlap` takes the place of the plan's where it is given."""
        windows = plan.windows
        return cls(
            plan.patch_size,
            windows.overlap if overlap is None else overlap,
            windows.starts,
            windows.weights,
            plan.padding,
        )

    def along(self, axis: int, length: int) -> dict[int, NDArray[np.float32]]:
        """Start -> weights of the windows along an axis of `length` voxels; beyond the patch's axes, single voxels."""
        patch = self.patch_size[axis] if axis < len(self.patch_size) else 1
        return blend_weights(length, patch, self.overlap, self.starts, self.weights)

    def rounded(self, shape: Sequence[int]) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        """Of weights that are not a product over axes those of a window, and their sum over all windows; else None.

        Both have a single voxel along axes beyond the patch's.
        """
        if self.weights != "half":
            return None
        patch = self.patch_size
        held = half_weights(patch).astype(np.float32)
        total = np.zeros([max(n, p) for n, p in zip(shape, patch, strict=False)], dtype=np.float32)
        starts = [window_starts(n, p, self.overlap, self.starts) for n, p in zip(shape, patch, strict=False)]
        for corner in product(*starts):
            total[tuple(slice(c, c + p) for c, p in zip(corner, patch, strict=True))] += held
        beyond = (...,) + (None,) * (len(shape) - len(patch))
        return held[beyond], total[beyond]


def window_starts(length: int, patch: int, overlap: float, starts: str = "whole_step") -> tuple[int, ...]:
    """First voxels of evenly spread windows: the first touches one border, the last the other.

    Neighbours overlap by at least `overlap` of a patch (0 <= overlap < 1); one window where the patch covers the axis.
    There are as few as a step of patch * (1 - overlap) voxels allows: rounded down for 'whole_step', as it is for
    'real_step'.

    Source:
        'real_step': nnU-Net 2.8.1, sliding_window_prediction.py, compute_steps_for_sliding_window.

    Example:
        >>> window_starts(10, 4, 0.5)
        (0, 2, 4, 6)
        >>> window_starts(12, 5, 0.5), window_starts(12, 5, 0.5, "real_step")
        ((0, 2, 4, 5, 7), (0, 2, 5, 7))
    """
    if length <= patch:
        return (0,)
    step = max(1, patch * (1 - overlap))
    count = ceil((length - patch) / (int(step) if starts == "whole_step" else step)) + 1
    if starts == "whole_step":
        return tuple(round(n * (length - patch) / (count - 1)) for n in range(count))
    # Divided first, as in nnU-Net: of 700 lengths the last bit moves one window of a few by a voxel.
    apart = (length - patch) / (count - 1)
    return tuple(round(n * apart) for n in range(count))


def blend_weights(
    length: int, patch: int, overlap: float, starts: str = "whole_step", weights: str = "gaussian"
) -> dict[int, NDArray[np.float32]]:
    """Start -> float32 weights (patch,) along one axis; over all windows they sum to 1 at every voxel.

    'gaussian': with standard deviation patch / 8, centred in the window; at the window's border it is still exp(-8), so
    no voxel is without weight. 'impulse' and 'half': the same around voxel patch // 2. 'uniform': 1.
    """
    centre = patch // 2 if weights in ("impulse", "half") else (patch - 1) / 2
    offset = np.arange(patch, dtype=np.float64) - centre
    line = np.ones_like(offset) if weights == "uniform" else np.exp(-0.5 * (offset / (patch / 8)) ** 2)
    corners = window_starts(length, patch, overlap, starts)
    total = np.zeros(max(length, patch))
    for start in corners:
        total[start : start + patch] += line
    return {start: (line / total[start : start + patch]).astype(np.float32) for start in corners}


def half_weights(patch: Sequence[int]) -> NDArray[np.float16]:
    """nnU-Net's weights of a window, `(*patch)`: what half precision makes 0 counts as the smallest that is not.

    Source:
        nnU-Net 2.8.1, sliding_window_prediction.py, compute_gaussian, with a largest weight of 10.

    Example:
        >>> weights = half_weights((8, 8, 8))
        >>> weights.dtype, weights.max().item(), bool((weights > 0).all())
        (dtype('float16'), 10.0, True)
    """
    impulse = np.zeros(tuple(patch))
    impulse[tuple(n // 2 for n in patch)] = 1
    spread = ndimage.gaussian_filter(impulse, [n / 8 for n in patch], 0, mode="constant", cval=0)
    spread /= spread.max() / 10
    # By way of single precision, as torch rounds.
    weights: NDArray[np.float16] = spread.astype(np.float32).astype(np.float16)
    weights[weights == 0] = weights[weights != 0].min()
    return weights


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
