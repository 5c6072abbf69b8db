"""Changes of grey levels as they are stored, before normalisation: another window, other colours.

Images are (C, I, J[, K]) float32, of which 0 and 1 are the ends of each channel's range: the window or the range of the
plan, or the 0 and 255 of a photograph. Values may lie beyond it before, and not after.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medseg.augmentation.change import DrawnChange, IntensityChange
from medseg.config.intensity import HueConfig, RandomWindowConfig, SaturationConfig
from medseg.errors import ConfigError

__all__ = ["Hue", "RandomWindow", "Saturation"]

# ITU-R BT.601: how much red, green and blue add to the grey of a colour.
LUMA = (0.299, 0.587, 0.114)


class RandomWindow(IntensityChange[RandomWindowConfig]):
    """Another window on grey levels. Strength: its width, shift: the move of its centre; both in widths of the range.

    Example:
        >>> window = RandomWindow(RandomWindowConfig())
        >>> window.apply(torch.tensor([[[-0.5, 0.0, 0.5, 1.5]]]), DrawnChange((2.0,), shifts=(0.0,))).tolist()
        [[[0.0, 0.25, 0.5, 1.0]]]
    """

    on_range: ClassVar[bool] = True

    @property
    def strength(self) -> tuple[float, float]:
        return self.settings.width

    def draw_between(self, rng: np.random.Generator, low: float, high: float, count: int) -> NDArray[np.float64]:
        return np.exp(rng.uniform(math.log(low), math.log(high), count))

    def draw_shifts(self, rng: np.random.Generator, channels: int) -> tuple[float, ...]:
        return tuple(rng.uniform(-self.settings.shift, self.settings.shift, channels).tolist())

    def apply(self, image: Tensor, drawn: DrawnChange) -> Tensor:
        for channel, width, shift in zip(image, drawn.strengths, drawn.shifts, strict=True):
            channel.sub_(0.5 + shift).div_(width).add_(0.5).clamp_(0, 1)
        return image


class Hue(IntensityChange[HueConfig]):
    """Colours turned around the axis from black to white. Strength: the turn, 1 for a full one, as channel 0 has it.

    A third of a turn makes green of red. The mean of the three channels is kept, except where a colour would leave the
    range from 0 to 1.

    Raises:
        ConfigError: an image whose channels are not three.

    Example:
        >>> red = torch.tensor([1.0, 0, 0]).view(3, 1, 1)
        >>> Hue(HueConfig()).apply(red, DrawnChange((1 / 3,) * 3)).round().flatten().tolist()
        [0.0, 1.0, 0.0]
    """

    on_range: ClassVar[bool] = True

    @property
    def strength(self) -> tuple[float, float]:
        return -self.settings.turn, self.settings.turn

    def draw_between(self, rng: np.random.Generator, low: float, high: float, count: int) -> NDArray[np.float64]:
        return np.full(count, rng.uniform(low, high))

    def apply(self, image: Tensor, drawn: DrawnChange) -> Tensor:
        _require_colours(image, "hue")
        angle = 2 * math.pi * drawn.strengths[0]
        # Rodrigues' rotation about (1, 1, 1) / sqrt(3): a circulant matrix.
        same = (1 + 2 * math.cos(angle)) / 3
        forward, backward = ((1 - math.cos(angle)) / 3 + sign * math.sin(angle) / math.sqrt(3) for sign in (1, -1))
        turn = image.new_tensor([[same, backward, forward], [forward, same, backward], [backward, forward, same]])
        return (turn @ image.flatten(1)).view_as(image).clamp_(0, 1)


class Saturation(IntensityChange[SaturationConfig]):
    """The distance of colours from their grey (ITU-R BT.601) times a factor. Strength: the factor, as channel 0 has it.

    Raises:
        ConfigError: an image whose channels are not three.

    Example:
        >>> red = torch.tensor([1.0, 0, 0]).view(3, 1, 1)
        >>> [round(v, 3) for v in Saturation(SaturationConfig()).apply(red, DrawnChange((0.0,) * 3)).flatten().tolist()]
        [0.299, 0.299, 0.299]
    """

    on_range: ClassVar[bool] = True

    @property
    def strength(self) -> tuple[float, float]:
        return self.settings.factor

    def draw_between(self, rng: np.random.Generator, low: float, high: float, count: int) -> NDArray[np.float64]:
        return np.full(count, math.exp(rng.uniform(math.log(low), math.log(high))))

    def apply(self, image: Tensor, drawn: DrawnChange) -> Tensor:
        _require_colours(image, "saturation")
        grey = torch.tensordot(image.new_tensor(LUMA), image, dims=1)
        return image.sub_(grey).mul_(drawn.strengths[0]).add_(grey).clamp_(0, 1)


def _require_colours(image: Tensor, name: str) -> None:
    if image.shape[0] != 3:
        raise ConfigError(f"{name} changes colours, but the image has {image.shape[0]} channel(s), expected 3")
