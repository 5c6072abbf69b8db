"""Images and label maps on the network's grid, interpolated as a plan says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.preparation.deskew import sample
from medseg.preparation.plan_fields import ImagePlan, LabelPlan
from medseg.resampling import resample_array
from medseg.volume import Volume

__all__ = ["resample_image", "resample_labels", "sample_image"]


def resample_image(array: NDArray[Any], shape: Sequence[int], plan: ImagePlan) -> NDArray[Any]:
    """The channels of an image, resampled with the outer edges kept, half-pixel centres and held borders.

    Args:
        array: `(C, I, J, K)` or `(C, I, J)`.
        shape: the new `(I, J, K)` or `(I, J)`.
        plan: order and clipping.

    Returns:
        float32; of order 0 the dtype of `array`.

    Source:
        Cubic splines equal `skimage.transform.resize(order=3, mode="edge", anti_aliasing=False)`, as in nnU-Net 2.8.1,
        default_resampling.py; `clip` is that function's.
    """
    if plan.order < 3:
        return resample_array(array, shape, plan.order)
    factors = [new / old for new, old in zip(shape, array.shape[1:], strict=True)]
    out = np.empty((len(array), *shape), dtype=np.float32)
    for target, channel in zip(out, array, strict=True):
        ndimage.zoom(
            channel.astype(np.float64), factors, output=target, order=plan.order, mode="nearest", grid_mode=True
        )
    return _clipped(out, array, plan)


def sample_image(volume: Volume, grid: Volume, plan: ImagePlan) -> NDArray[Any]:
    """`resample_image` onto a grid of other axes; beside the image lies the lowest value of each channel."""
    return _clipped(sample(volume, grid, plan.order).array, volume.array, plan)


def resample_labels(array: NDArray[Any], shape: Sequence[int], plan: LabelPlan) -> NDArray[Any]:
    """A label map, resampled as `resample_image` does, by nearest neighbour; same dtype.

    Example:
        >>> [resample_labels(np.array([[1, 2]]), (1, 1), LabelPlan(ties=ties)).item() for ties in ("lower", "upper")]
        [1, 2]
    """
    if plan.ties == "lower":
        return resample_array(array, shape, order=0)
    # Seen from the other end, the upper of two neighbours is the lower one.
    ends = (slice(None, None, -1),) * len(shape)
    return np.asarray(resample_array(array[ends], shape, order=0)[ends])


def _clipped(out: NDArray[Any], array: NDArray[Any], plan: ImagePlan) -> NDArray[Any]:
    if plan.order < 3 or not plan.clip:
        return out
    return np.stack([np.clip(each, channel.min(), channel.max()) for each, channel in zip(out, array, strict=True)])
