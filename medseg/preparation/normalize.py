"""Grey levels -> what a network sees: clip, subtract, divide; one `Scale` per channel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import GeometryError, ReadError
from medseg.preparation.background import above, frame_level, other_than
from medseg.preparation.padding import Range, measured_only, padding_ranges
from medseg.volume import Metadata

if TYPE_CHECKING:
    from medseg.preparation.plan import Plan
    from medseg.preparation.plan_fields import ChannelPlan

__all__ = [
    "BACKGROUND_SHARE",
    "Scale",
    "background_value",
    "body_statistics",
    "measured_scales",
    "normalize",
    "scales_for",
]

# A grey level that fills this share of an image is background (air, a black frame, a stripped skull).
BACKGROUND_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Scale:
    """How one channel is normalised: `(clip(x, low, high) - mean) / std`; no clip is low = -inf, high = inf."""

    low: float
    high: float
    mean: float
    std: float


UNCHANGED = Scale(-math.inf, math.inf, 0.0, 1.0)


def normalize(array: NDArray[Any], scales: Sequence[Scale]) -> NDArray[np.float32]:
    """Normalised grey levels.

    Args:
        array: `(C, I, J, K)` or `(C, I, J)`, any real dtype, grey levels as stored.
        scales: one per channel.

    Returns:
        float32, same shape, a new array.

    Raises:
        GeometryError: if the number of channels differs from the number of scales.

    Example:
        >>> normalize(np.array([[[-1350.0, 150.0]]]), [Scale(-1350, 150, -600, 750)]).tolist()
        [[[-1.0, 1.0]]]
    """
    if array.shape[0] != len(scales):
        raise GeometryError(f"array of shape {array.shape} has {array.shape[0]} channels, the plan has {len(scales)}")
    out = np.empty(array.shape, dtype=np.float32)
    for target, channel, scale in zip(out, array, scales, strict=True):
        if math.isinf(scale.low) and math.isinf(scale.high):
            np.subtract(channel, np.float32(scale.mean), out=target)
        else:
            np.clip(channel, np.float32(scale.low), np.float32(scale.high), out=target)
            target -= np.float32(scale.mean)
        target /= np.float32(scale.std)
    return out


def scales_for(array: NDArray[Any], plan: Plan, padding: Sequence[Range] = ()) -> tuple[Scale, ...]:
    """The scale of each channel of a case on the network grid.

    Args:
        array: `(C, I, J, K)` or `(C, I, J)`, grey levels as `to_network_grid` gives them.
        plan: its `normalization` decides; 'zscore' and 'unit' channels are measured on this case. With
            `normalize_on: native` they are normalised already, and no scale changes them.
        padding: lowest and highest grey levels of voxels nobody measured, see `stated_padding`; plans whose background
            is 'common' measure them all the same, as they always did.

    Returns:
        One `Scale` per channel.

    Raises:
        GeometryError: if the number of channels differs from the plan's.
        ReadError: for values outside 0..255 in a channel of kind 'rgb'.
    """
    if plan.normalize_on == "native":
        return (UNCHANGED,) * len(array)
    return measured_scales(array, plan, padding)


def measured_scales(
    array: NDArray[Any], plan: Plan, padding: Sequence[Range] = (), mask: NDArray[np.bool_] | None = None
) -> tuple[Scale, ...]:
    """`scales_for`, on whatever grid the plan normalises; `mask` is what the region 'mask' measures."""
    if array.shape[0] != plan.in_channels:
        raise GeometryError(f"image has {array.shape[0]} channel(s), the plan expects {plan.in_channels}")
    measured = [
        channel if each.region == "box" else channel[mask] if each.region == "mask" and mask is not None else None
        for channel, each in zip(array, plan.normalization, strict=True)
    ]
    each_channel = zip(array, plan.normalization, measured, strict=True)
    return tuple(_scale(channel, each, padding, values) for channel, each, values in each_channel)


def _scale(channel: NDArray[Any], plan: ChannelPlan, padding: Sequence[Range], values: NDArray[Any] | None) -> Scale:
    if plan.kind in ("clip", "window"):
        low = -math.inf if plan.low is None else plan.low
        high = math.inf if plan.high is None else plan.high
        return Scale(low, high, plan.mean or 0.0, plan.std or 1.0)
    if plan.kind == "none":
        return UNCHANGED
    if plan.kind == "rgb":
        low, high = float(channel.min()), float(channel.max())
        if low < 0 or high > 255:
            raise ReadError(
                f"the image holds grey levels from {low:g} to {high:g}, but the plan's normalization 'rgb' takes 0 to "
                "255; predict with images of 8 bits, or plan another normalization"
            )
        mean, std = (0.0, 1.0) if plan.mean is None or plan.std is None else (plan.mean, plan.std)
        return Scale(-math.inf, math.inf, 255 * mean, 255 * std)
    if plan.kind == "unit":
        measured = _measured(channel, plan, padding) if values is None else values
        low = float(measured.min())
        return Scale(-math.inf, math.inf, low, max(float(measured.max()) - low, 1e-8))
    mean, std = mean_and_std(_measured(channel, plan, padding) if values is None else values)
    return Scale(-math.inf, math.inf, mean, std)


def _measured(channel: NDArray[Any], plan: ChannelPlan, padding: Sequence[Range]) -> NDArray[Any]:
    """The voxels that 'zscore' and 'unit' measure."""
    if plan.background == "common":
        return foreground(channel)
    values = measured_only(channel, (*padding, *padding_ranges(channel, Metadata())))
    if plan.region == "all":
        return values
    if isinstance(plan.background, float):
        return above(values, plan.background)
    return other_than(values, frame_level(channel).value)


def body_statistics(channel: NDArray[Any]) -> tuple[float, float]:
    """Mean and standard deviation of the voxels that are not background.

    Background is the most common value, if it fills at least 20% of the image. A constant image gives std 1.

    Args:
        channel: any shape.

    Example:
        >>> body_statistics(np.array([0, 0, 0, 1, 3]))
        (2.0, 1.0)
    """
    return mean_and_std(foreground(channel))


def mean_and_std(values: NDArray[Any]) -> tuple[float, float]:
    """Mean and standard deviation in double precision; a constant image gives std 1."""
    mean = float(values.mean(dtype=np.float64))
    std = float(values.std(dtype=np.float64))
    return mean, std if std > 1e-6 else 1.0


def foreground(channel: NDArray[Any]) -> NDArray[Any]:
    """`(n,)` all values but the background, see `background_value`; all of them where there is nothing else."""
    flat = channel.reshape(-1)
    background = background_value(flat)
    if background is None:
        return flat
    inside = flat[flat != background]
    return inside if inside.size else flat


def background_value(flat: NDArray[Any]) -> float | None:
    """The most common value, if it fills at least 20% of the voxels; else None.

    Args:
        flat: `(n,)`.

    Example:
        >>> background_value(np.array([0, 0, 0, 1, 3]))
        0.0
    """
    # A value that fills 20% holds one of these order statistics; an odd step visits all phases of the axes.
    sample = flat[:: max(1, flat.size // 50_000) | 1]
    ranks = np.unique(np.linspace(0, sample.size - 1, 2 * math.ceil(1 / BACKGROUND_SHARE) + 1).astype(np.intp))
    candidates = np.unique(np.partition(sample, ranks)[ranks])
    counts = [int(np.count_nonzero(flat == value)) for value in candidates]
    best = int(np.argmax(counts))
    return float(candidates[best]) if counts[best] >= BACKGROUND_SHARE * flat.size else None
