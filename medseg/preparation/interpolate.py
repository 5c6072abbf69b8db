"""Images and label maps on the network's grid, interpolated as a plan says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.preparation.deskew import sample
from medseg.preparation.label_interpolation import labels_by_interpolation, upper_nearest
from medseg.preparation.label_shares import labels_by_share
from medseg.preparation.plan_fields import ImagePlan, LabelPlan
from medseg.resampling import average_array, nearest_by_turns, resample_affine, resample_array
from medseg.volume import Volume

__all__ = ["averaged_for", "coarser_axes", "resample_image", "resample_labels", "sample_image", "thick_axis"]

# Along an axis that gets coarser than this, interpolation between neighbours would skip voxels.
COARSER = 1.5


def thick_axis(spacing: Sequence[float], target: Sequence[float]) -> int | None:
    """The axis along which voxels are more than 3 times as long as along another, before or else after resampling.

    None where there is none, or where two axes share that length.

    Source:
        nnU-Net 2.8.1, default_resampling.py, `determine_do_sep_z_and_axis`.

    Example:
        >>> thick_axis((1, 1, 5), (1, 1, 1)), thick_axis((1, 1, 2), (1, 1, 1)), thick_axis((1, 5, 5), (1, 1, 1))
        (2, None, None)
    """
    for each in (spacing, target):
        if max(each) > 3 * min(each):
            found = [axis for axis, s in enumerate(each) if math.isclose(s, max(each), rel_tol=1e-6)]
            return found[0] if len(found) == 1 else None
    return None


def resample_image(
    array: NDArray[Any], shape: Sequence[int], plan: ImagePlan, thick: int | None = None
) -> NDArray[Any]:
    """The channels of an image, resampled with the outer edges kept, half-pixel centres and held borders.

    Args:
        array: `(C, I, J, K)` or `(C, I, J)`.
        shape: the new `(I, J, K)` or `(I, J)`.
        plan: order, clipping and what averages the image along axes that get coarser than 1.5 times.
        thick: spatial axis across which slices are resampled one by one; along it, each takes the nearest.

    Returns:
        float32; of order 0 the dtype of `array` where nothing is averaged.

    Source:
        Cubic splines equal `skimage.transform.resize(order=3, mode="edge", anti_aliasing=False)`, as in nnU-Net 2.8.1,
        default_resampling.py; `clip` is that function's, and 'gaussian' has the width of its `anti_aliasing`.
    """
    if thick is not None:
        return _slice_by_slice(array, shape, plan, thick)
    smooth = _prefiltered(array, shape, plan)
    if plan.order < 3:
        return resample_array(smooth, shape, plan.order)
    factors = [new / old for new, old in zip(shape, smooth.shape[1:], strict=True)]
    out = np.empty((len(array), *shape), dtype=np.float32)
    for target, channel in zip(out, smooth, strict=True):
        ndimage.zoom(
            channel.astype(np.float64), factors, output=target, order=plan.order, mode="nearest", grid_mode=True
        )
    return _clipped(out, array, plan)


def _slice_by_slice(array: NDArray[Any], shape: Sequence[int], plan: ImagePlan, thick: int) -> NDArray[Any]:
    slices = np.moveaxis(array, 1 + thick, 0)
    flat = tuple(n for axis, n in enumerate(shape) if axis != thick)
    nearest = upper_nearest(len(slices), shape[thick])
    out = np.empty((shape[thick], len(array), *flat), dtype=np.float32)
    for source in np.unique(nearest):
        seen = slices[source]
        out[nearest == source] = seen if seen.shape[1:] == flat else resample_image(seen, flat, plan)
    return np.moveaxis(out, 0, 1 + thick)


def coarser_axes(old: Sequence[int], new: Sequence[int]) -> tuple[bool, ...]:
    """Which axes lose so many samples that details between them would be lost, or would show as what they are not.

    Example:
        >>> coarser_axes((30, 30, 30), (30, 20, 19))
        (False, False, True)
    """
    return tuple(n > COARSER * m for n, m in zip(old, new, strict=True))


def _prefiltered(array: NDArray[Any], shape: Sequence[int], plan: ImagePlan) -> NDArray[Any]:
    coarser = coarser_axes(array.shape[1:], shape)
    if plan.prefilter == "none" or not any(coarser):
        return array
    if plan.prefilter == "area":
        return average_array(
            array, [m if each else n for n, m, each in zip(array.shape[1:], shape, coarser, strict=True)]
        )
    smooth: NDArray[Any] = array.astype(np.float32)
    for axis, (n, m, each) in enumerate(zip(array.shape[1:], shape, coarser, strict=True), start=1):
        if each:
            smooth = ndimage.gaussian_filter1d(smooth, (n / m - 1) / 2, axis=axis, mode="nearest")
    return smooth


def averaged_for(volume: Volume, grid: Volume, plan: ImagePlan) -> Volume:
    """A volume averaged, as the plan says, along those of its axes on which the voxels of `grid` are wider.

    Interpolating it on `grid` afterwards then neither skips voxels nor shows what lies between them as something else.

    Args:
        volume: `(C, I, J, K)`.
        grid: 3D, of any orientation, without voxels.
        plan: of its parts, `prefilter`.

    Returns:
        A volume of the same place, with fewer voxels where 'area' averages; itself where nothing does.

    Example:
        >>> fine = Volume(np.ones((1, 9, 9, 9)), np.eye(4), 1)
        >>> coarse = Volume(np.ones((3, 9, 9)), np.diag([3, 1, 1, 1]))
        >>> averaged_for(fine, coarse, ImagePlan(prefilter="area")).shape
        (3, 9, 9)
    """
    steps = np.linalg.solve(volume.affine[:3, :3], grid.affine[:3, :3])
    # Of a turned voxel as many of the volume's voxels as a box of the same spread: of equally fine grids always one.
    widths = np.linalg.norm(steps, axis=1)
    shape = [max(1, round(n / max(width, 1.0))) for n, width in zip(volume.shape, widths, strict=True)]
    array = _prefiltered(volume.array, shape, plan)
    if array is volume.array:
        return volume
    return replace(volume, array=array, affine=resample_affine(volume.affine, volume.shape, array.shape[1:]))


def sample_image(volume: Volume, grid: Volume, plan: ImagePlan) -> NDArray[Any]:
    """`resample_image` onto a grid of other axes; beside the image lies the lowest value of each channel."""
    return _clipped(sample(volume, grid, plan.order).array, volume.array, plan)


def resample_labels(
    array: NDArray[Any], shape: Sequence[int], plan: LabelPlan, thick: int | None = None
) -> NDArray[Any]:
    """A label map, resampled with the outer edges kept, as `plan` says; same dtype.

    `thick`, of the method 'linear': the axis along which each slice takes the nearest one.

    Example:
        >>> [resample_labels(np.array([[1, 2]]), (1, 1), LabelPlan(ties=ties)).item() for ties in ("lower", "upper")]
        [1, 2]
        >>> resample_labels(np.array([[1, 1, 2, 2, 2, 2]]), (1, 2), LabelPlan(method="area")).tolist()
        [[1, 2]]
    """
    if tuple(shape) == array.shape:
        return array
    if plan.method == "linear":
        return labels_by_interpolation(array, shape, thick)
    if plan.method == "area":
        return labels_by_share(array, shape, plan.ties)
    if plan.ties == "unbiased":
        return nearest_by_turns(array, shape)
    # Seen from the other end, the upper of two neighbours is the lower one.
    ends = (slice(None, None, -1 if plan.ties == "upper" else 1),) * len(shape)
    return np.asarray(resample_array(array[ends], shape, order=0)[ends])


def _clipped(out: NDArray[Any], array: NDArray[Any], plan: ImagePlan) -> NDArray[Any]:
    if plan.order < 3 or not plan.clip:
        return out
    return np.stack([np.clip(each, channel.min(), channel.max()) for each, channel in zip(out, array, strict=True)])
