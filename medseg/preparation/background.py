"""Which grey levels of a channel are background: decided once for a data set, and written into its plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["FrameLevel", "Rule", "above", "background_of_set", "frame_level", "other_than"]

# How background is found in one image: the level around what it shows, or the most common one.
Rule = Literal["frame", "common"]
# An image may show something up to all corners of one side.
CORNERS_THAT_AGREE = 0.5
# Of the span of the grey levels: frames of compressed photographs are 0 in one picture and 1 or 2 in the next.
SAME_LEVEL = 0.02
# Whether less than this of an image is left out changes its mean by hundredths of a standard deviation.
LEAST_SHARE = 0.005
# Interpolating between equal values rounds them; in float32 one step is 6e-8.
ROUNDING = 5e-7


@dataclass(frozen=True, slots=True)
class FrameLevel:
    """The grey level around what one channel of one case shows, see `frame_level`.

    Args:
        value: the grey level; None where there is none.
        share: of the image that has this value.
        minimum, maximum: of the channel.
    """

    value: float | None
    share: float
    minimum: float
    maximum: float

    @property
    def is_darkest(self) -> bool:
        """Whether nothing of note is darker."""
        return self.value is not None and self.value - self.minimum <= SAME_LEVEL * (self.maximum - self.minimum)


def frame_level(channel: NDArray[Any]) -> FrameLevel:
    """The grey level that surrounds what an image shows: that of its corners, else its minimum.

    It does not depend on how much of the image it fills, and it is never the maximum: saturation is not background.

    Args:
        channel: `(I, J[, K])`, finite.

    Returns:
        Its value is what half of the corners share, the darker one of two, unless that is the maximum; else the
        minimum. None for a constant image, which shows nothing else.

    Example:
        >>> frame_level(np.array([[0, 0, 0], [0, 7, 9], [0, 0, 0]])).value
        0.0
    """
    low, high = float(channel.min()), float(channel.max())
    if low == high:
        return FrameLevel(None, 0.0, low, high)
    corners, counts = np.unique(channel[np.ix_(*[(0, -1)] * channel.ndim)], return_counts=True)
    most = float(corners[counts.argmax()])
    shared = most != high and counts.max() >= CORNERS_THAT_AGREE * counts.sum()
    value = most if shared else low
    return FrameLevel(value, float(np.mean(channel == value)), low, high)


def background_of_set(frames: Sequence[FrameLevel]) -> float | Literal["frame"] | None:
    """What a plan says about the background of a channel.

    Args:
        frames: of every case.

    Returns:
        The grey level at and below which all cases have their background; 'frame' where each case has a value of its
        own, as images have that were normalised before, or one in the midst of its grey levels; None where nine of ten
        cases have no background worth mentioning.

    Example:
        >>> background_of_set([FrameLevel(0.0, 0.3, 0.0, 255.0)] * 3)
        0.0
        >>> background_of_set([FrameLevel(-3.6, 0.8, -3.6, 5.0), FrameLevel(-2.4, 0.7, -2.4, 6.0)])
        'frame'
    """
    known = [frame for frame in frames if frame.value is not None]
    if sum(frame.share >= LEAST_SHARE for frame in known) < 0.1 * len(known) or not known:
        return None
    levels = np.array([frame.value for frame in known], dtype=float)
    # A few cases without a frame, whose darkest voxel is brighter, decide nothing.
    low, high = np.quantile(levels, [0.05, 0.95], method="nearest")
    span = np.median([frame.maximum - frame.minimum for frame in known])
    dark = np.mean([frame.is_darkest for frame in known])
    return float(high) if dark > 0.9 and high - low <= SAME_LEVEL * span else "frame"


def above(values: NDArray[Any], background: float) -> NDArray[Any]:
    """`(n,)` the values above a grey level, which interpolation may have rounded; all where there are none."""
    flat = values.reshape(-1)
    inside = flat[flat > background + ROUNDING * abs(background)]
    return inside if inside.size else flat


def other_than(values: NDArray[Any], background: float | None) -> NDArray[Any]:
    """`(n,)` the values that differ from a grey level, or all where there are none; None: there is no background."""
    flat = values.reshape(-1)
    if background is None:
        return flat
    slack = ROUNDING * abs(background)
    inside = flat[(flat < background - slack) | (flat > background + slack)]
    return inside if inside.size else flat
