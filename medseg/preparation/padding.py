"""Voxels that nobody measured: padding, and what lies outside a scanner's field of view."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.volume import Metadata, Volume

__all__ = ["Range", "in_ranges", "measured_only", "padding_mask", "padding_of", "padding_ranges", "stated_padding"]

# Hounsfield units: the lowest that a CT of 12 bits stores; air is at -1000.
LOWEST_HU = -1024.0
Range = tuple[float, float]


def stated_padding(metadata: Metadata, channels: int) -> tuple[Range, ...]:
    """The grey levels that the file calls padding, `()` or one range.

    Of several channels the file of one speaks, so what another may have measured, such as 0, is not taken for padding.
    """
    known = metadata.padding
    return ((known[0], known[-1]),) if known and (channels <= 1 or known[-1] < LOWEST_HU) else ()


def padding_ranges(channel: NDArray[Any], metadata: Metadata, channels: int = 1) -> tuple[Range, ...]:
    """The grey levels, lowest and highest, that mark voxels nobody measured.

    Args:
        channel: `(I, J[, K])`, finite, grey levels as stored.
        metadata: of its volume; `padding` and `modality` are used.
        channels: of the volume.

    Returns:
        What the file calls padding. And below -1024, in a CT or where the modality is not known: the minimum, if a
        corner holds it. In a CT all that is nearer to it than to -1024 counts as well, as interpolation blurs the rim.

    Example:
        >>> padding_ranges(np.array([[-3024, -3024], [-1000, 40]]), Metadata(modality="CT"))
        ((-inf, -2024.0),)
    """
    stated, low = stated_padding(metadata, channels), _lowest_at_a_corner(channel, metadata)
    if low is None or low >= LOWEST_HU:
        return stated
    return (*stated, (-math.inf, (low + LOWEST_HU) / 2) if metadata.modality == "CT" else (low, low))


def padding_of(volume: Volume) -> tuple[Range, ...]:
    """`padding_ranges` of the first channel of a volume."""
    first = volume.array[0] if volume.channels else volume.array
    return padding_ranges(first, volume.metadata, volume.channels)


def padding_mask(
    channel: NDArray[Any], metadata: Metadata, channels: int = 1, within: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_] | None:
    """Which voxels nobody measured; None where all were.

    Args:
        channel, metadata, channels: as for `padding_ranges`. Where the minimum is -1024, which air may have as well,
            only what is connected with a corner counts.
        within: `(I, J[, K])`, the voxels that matter; others may be left False. None: all matter.
    """
    ranges = padding_ranges(channel, metadata, channels)
    if ranges:
        return in_ranges(channel, ranges)
    return _floor_at_corners(channel, within) if _lowest_at_a_corner(channel, metadata) == LOWEST_HU else None


def measured_only(values: NDArray[Any], ranges: Sequence[Range]) -> NDArray[Any]:
    """`(n,)` the values outside the ranges; all of them where there are none."""
    flat = values.reshape(-1)
    if not ranges:
        return flat
    inside: NDArray[Any] = flat[~in_ranges(flat, ranges)]
    return inside if inside.size else flat


def in_ranges(values: NDArray[Any], ranges: Sequence[Range]) -> NDArray[np.bool_]:
    """Which values lie in one of the ranges, their ends included."""
    mask = np.zeros(values.shape, dtype=bool)
    for low, high in ranges:
        mask |= values == low if low == high else (values >= low) & (values <= high)
    return mask


def _lowest_at_a_corner(channel: NDArray[Any], metadata: Metadata) -> float | None:
    """The minimum, if it is at most -1024 and a corner holds it.

    A field of view is convex, so whatever of a box lies outside of it holds a corner of the box.
    """
    if metadata.modality not in ("CT", "") or channel.dtype.kind == "u":
        return None
    low = float(channel.min())
    return low if low <= LOWEST_HU and (_corners(channel) == low).any() else None


def _floor_at_corners(channel: NDArray[Any], within: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
    """What holds -1024 and is connected with a corner of its plane; planes without a voxel of `within` stay False."""
    mask = np.zeros_like(channel, dtype=bool)
    # Planes that lie in one piece in memory; every section of a convex field of view is convex.
    axis = int(np.argmax(np.abs(channel.strides))) if channel.ndim == 3 else None
    planes = [...] if axis is None else [(slice(None),) * axis + (n,) for n in range(channel.shape[axis])]
    for plane in planes:
        candidates = channel[plane] == LOWEST_HU
        if within is not None and not (candidates & within[plane]).any():
            continue
        parts, count = ndimage.label(candidates)
        outside = np.zeros(count + 1, dtype=bool)
        outside[_corners(parts)] = True
        outside[0] = False
        mask[plane] = outside[parts]
    return mask


def _corners(array: NDArray[Any]) -> NDArray[Any]:
    return array[np.ix_(*[(0, -1)] * array.ndim)]
