"""Where the patient is: the box outside of which an image holds air, a black frame or nothing at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from medseg.preparation.plan import Plan

__all__ = ["body_box", "box_without_air", "hounsfield_channels", "labels_inside"]

# Voxels along each axis that are averaged: the noise of air goes, and what is thin stays.
BLOCK = 4
# Blocks that are kept on every side of what was found; training labels have to do with half of them.
MARGIN = 2
# Hounsfield units between air (-1000) and the darkest lungs that come in blocks.
AIR = -900.0


def body_box(array: NDArray[Any], hounsfield: Sequence[bool], margin: int = MARGIN) -> tuple[slice, ...]:
    """The box of all that is not empty, with a margin of 8 voxels; the whole image where nothing is found.

    A voxel is empty in a channel if it holds exactly the value that all corners share (a stripped skull, a frame), or
    in a channel in Hounsfield units if the 4 x 4 x 4 voxels around it are darker than -900 on average (air). In other
    units -900 may be tissue. Only planes that are empty in all channels from one side to the other are left out, so a
    hole in the patient is kept, and so is whatever is not known for sure to be empty, the noise around a head in MR for
    instance.

    Args:
        array: `(C, I, J[, K])`, grey levels on the network's grid, finite.
        hounsfield: per channel, whether its grey levels are Hounsfield units, see `hounsfield_channels`.
        margin: blocks of 4 voxels that are kept on every side.

    Example:
        >>> array = np.full((1, 64, 64), -1000.0)
        >>> array[0, 30:40, 20:60] = 40.0
        >>> body_box(array, (True,))
        (slice(20, 48, None), slice(12, 64, None))
    """
    spatial = array.shape[1:]
    first, last = np.array(spatial), np.zeros(len(spatial), dtype=int)
    for channel, in_hounsfield in zip(array, hounsfield, strict=True):
        for axis, planes in enumerate(_filled(channel, in_hounsfield)):
            where = np.flatnonzero(planes)
            if where.size:
                first[axis] = min(first[axis], where[0])
                last[axis] = max(last[axis], where[-1] + 1)
    if (first >= last).any():
        return tuple(slice(0, n) for n in spatial)
    edge = BLOCK * margin
    return tuple(
        slice(int(max(0, f - edge)), int(min(n, z + edge))) for f, z, n in zip(first, last, spatial, strict=True)
    )


def box_without_air(array: NDArray[np.float32], plan: Plan) -> tuple[slice, ...]:
    """`body_box` of an image that its plan normalised before resampling, of whose channels all are CT.

    Args:
        array: `(C, I, J[, K])`, normalised.
        plan: says how.

    Returns:
        The box; the whole image where a channel's normalisation is not that of a CT, or leaves no air to be seen.
    """
    if any(each.kind != "clip" for each in plan.normalization):
        return tuple(slice(0, n) for n in array.shape[1:])
    levels = np.empty_like(array)
    for target, channel, each in zip(levels, array, plan.normalization, strict=True):
        np.multiply(channel, np.float32(each.std or 1), out=target)
        target += np.float32(each.mean or 0)
        if target.min() >= AIR:
            return tuple(slice(0, n) for n in array.shape[1:])
    return body_box(levels, (True,) * len(levels))


def hounsfield_channels(plan: Plan) -> tuple[bool, ...]:
    """Per channel, whether grey levels come to the network's grid in Hounsfield units.

    They are those of CT. A plan that does not name the modality tells them by normalisation with the same numbers for
    all cases ('clip' and 'window').
    """
    if plan.normalize_on == "native":
        return (False,) * plan.in_channels
    modalities = [rule.modality for rule in plan.select] or [None] * plan.in_channels
    return tuple(
        modality.upper() == "CT" if modality else channel.kind in ("clip", "window")
        for modality, channel in zip(modalities, plan.normalization, strict=True)
    )


def labels_inside(array: NDArray[Any], labels: NDArray[Any], hounsfield: Sequence[bool]) -> bool:
    """Whether all labelled voxels lie in the body's box, with half its margin.

    Args:
        array: `(C, I, J[, K])`, grey levels on the network's grid, where prediction looks for the box.
        labels: `(I, J[, K])` there, 0 is unlabelled.
        hounsfield: as for `body_box`.
    """
    held = labels[body_box(array, hounsfield, MARGIN // 2)]
    return int(np.count_nonzero(held)) == int(np.count_nonzero(labels))


def _filled(channel: NDArray[Any], hounsfield: bool) -> list[NDArray[np.bool_]]:
    """Per axis, which planes are not empty."""
    corners = channel[np.ix_(*[(0, -1)] * channel.ndim)]
    filled = channel != corners.flat[0] if (corners == corners.flat[0]).all() else np.ones(channel.shape, dtype=bool)
    if not hounsfield or channel.min() >= AIR:
        return [np.asarray(filled.any(axis=_others(axis, channel.ndim))) for axis in range(channel.ndim)]
    blocks: NDArray[Any] = channel
    any_filled: NDArray[np.bool_] = filled
    for axis, n in enumerate(channel.shape):
        edges = np.arange(0, n, BLOCK)
        counts = np.diff(np.append(edges, n)).astype(np.float32)
        shape = [-1 if a == axis else 1 for a in range(channel.ndim)]
        blocks = np.add.reduceat(blocks, edges, axis=axis, dtype=np.float32) / counts.reshape(shape)
        any_filled = np.logical_or.reduceat(any_filled, edges, axis=axis)
    solid = (blocks >= AIR) & any_filled
    planes = [np.flatnonzero(solid.any(axis=_others(axis, channel.ndim))) for axis in range(channel.ndim)]
    return [np.isin(np.arange(n) // BLOCK, each) for each, n in zip(planes, channel.shape, strict=True)]


def _others(axis: int, dims: int) -> tuple[int, ...]:
    return tuple(a for a in range(dims) if a != axis)
