"""The intensity changes: noise, blur, brightness, contrast, low resolution, gamma, sharpening, bias field.

Settings with their defaults are in `medseg.config.intensity`. Images are normalised, (C, I, J[, K]) float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from torch import Tensor

from medseg.augmentation.change import DrawnChange, IntensityChange
from medseg.augmentation.range_changes import Hue, RandomWindow, Saturation
from medseg.config.intensity import (
    BiasFieldConfig,
    BlurConfig,
    BrightnessConfig,
    ContrastConfig,
    GammaConfig,
    IntensityConfig,
    LowResolutionConfig,
    NoiseConfig,
    SharpenConfig,
)

__all__ = [
    "CHANGES",
    "BiasField",
    "Blur",
    "Brightness",
    "Contrast",
    "Gamma",
    "LowResolution",
    "LowResolutionTies",
    "Noise",
    "Sharpen",
    "build_change",
]

LowResolutionTies = Literal["unbiased", "upper"]
"""Which of two equally near voxels a reduced image takes: either by turns, or the upper one, as older runs do."""

# Beyond three standard deviations a Gaussian weighs under 0.5%; two serve an augmentation as well and cost less.
BLUR_REACH = 2.0


class Noise(IntensityChange[NoiseConfig]):
    """White Gaussian noise. Strength: its standard deviation, in units of the normalised image.

    Example:
        >>> noise = Noise(NoiseConfig(std=0.3))
        >>> noise.apply(torch.zeros(1, 8, 8), DrawnChange((0.2,), variant=7)).shape
        torch.Size([1, 8, 8])
    """

    @property
    def strength(self) -> tuple[float, float]:
        return 0.0, self.settings.std

    def draw_variant(self, rng: np.random.Generator) -> int:
        """Seed of the noise itself."""
        return int(rng.integers(2**62))

    def apply(self, image: Tensor, drawn: DrawnChange) -> Tensor:
        generator = torch.Generator(device="cpu").manual_seed(drawn.variant)
        noise = torch.randn(image.shape, generator=generator).to(image.device)
        return image.addcmul_(noise, _column(drawn.strengths, image))


class Blur(IntensityChange[BlurConfig]):
    """Gaussian blur, border voxels repeated outside. Strength: the standard deviation, in voxels.

    Example:
        >>> Blur(BlurConfig()).apply(torch.ones(1, 8, 8), DrawnChange((0.7,))).mean().item()
        1.0
    """

    @property
    def strength(self) -> tuple[float, float]:
        return self.settings.sigma

    def apply(self, image: Tensor, drawn: DrawnChange) -> Tensor:
        return torch.stack([_blurred(c, sigma) for c, sigma in zip(image, drawn.strengths, strict=True)])


class Brightness(IntensityChange[BrightnessConfig]):
    """All values times a factor. Strength: the factor.

    Example:
        >>> Brightness(BrightnessConfig()).apply(torch.ones(1, 1, 2), DrawnChange((1.5,))).tolist()
        [[[1.5, 1.5]]]
    """

    @property
    def strength(self) -> tuple[float, float]:
        return self.settings.factor

    def apply(self, image: Tensor, drawn: DrawnChange) -> Tensor:
        return image.mul_(_column(drawn.strengths, image))


class Contrast(IntensityChange[ContrastConfig]):
    """The distance from the channel's mean times a factor, clipped to the channel's range. Strength: the factor.

    Example:
        >>> Contrast(ContrastConfig()).apply(torch.tensor([[[0.0, 2, 3, 7]]]), DrawnChange((0.5,))).tolist()
        [[[1.5, 2.5, 3.0, 5.0]]]
    """

    @property
    def strength(self) -> tuple[float, float]:
        return self.settings.factor

    def apply(self, image: Tensor, drawn: DrawnChange) -> Tensor:
        for channel, factor in zip(image, drawn.strengths, strict=True):
            low, high = channel.aminmax()
            mean = channel.mean()
            channel.sub_(mean).mul_(factor).add_(mean).clamp_(low, high)
        return image


class LowResolution(IntensityChange[LowResolutionConfig]):
    """Reduced (nearest neighbour) and enlarged again (linear). Strength: the zoom, at most 1.

    Args:
        settings: from the configuration.
        ties: `unbiased`; `upper` moves the image by half a voxel where a length is halved exactly.

    Example:
        >>> LowResolution(LowResolutionConfig()).apply(torch.rand(1, 8, 8), DrawnChange((0.5,))).shape
        torch.Size([1, 8, 8])
    """

    def __init__(self, settings: LowResolutionConfig, ties: LowResolutionTies = "unbiased") -> None:
        super().__init__(settings)
        self.ties = ties

    @property
    def strength(self) -> tuple[float, float]:
        return self.settings.zoom

    def apply(self, image: Tensor, drawn: DrawnChange) -> Tensor:
        return torch.stack([_coarsened(c, zoom, self.ties) for c, zoom in zip(image, drawn.strengths, strict=True)])


class Gamma(IntensityChange[GammaConfig]):
    """Values between minimum and maximum raised to an exponent, mean and standard deviation restored.

    Strength: the exponent, drawn log-uniformly. Variant 1: it acts on the inverted image.

    Example:
        >>> Gamma(GammaConfig()).apply(torch.tensor([[[0.0, 1.0]]]), DrawnChange((1.4,))).tolist()
        [[[0.0, 1.0]]]
    """

    @property
    def strength(self) -> tuple[float, float]:
        return self.settings.exponent

    def draw_between(self, rng: np.random.Generator, low: float, high: float, count: int) -> NDArray[np.float64]:
        return np.exp(rng.uniform(float(np.log(low)), float(np.log(high)), count))

    def draw_variant(self, rng: np.random.Generator) -> int:
        return int(rng.random() < 0.5)

    def apply(self, image: Tensor, drawn: DrawnChange) -> Tensor:
        for channel, exponent in zip(image, drawn.strengths, strict=True):
            _raise_to(channel, exponent, inverted=drawn.variant == 1)
        return image


class Sharpen(IntensityChange[SharpenConfig]):
    """An unsharp mask: image + amount * (image - blurred image). Strength: the amount.

    Example:
        >>> Sharpen(SharpenConfig()).apply(torch.ones(1, 8, 8), DrawnChange((0.7,))).mean().item()
        1.0
    """

    @property
    def strength(self) -> tuple[float, float]:
        return self.settings.amount

    def apply(self, image: Tensor, drawn: DrawnChange) -> Tensor:
        blurred = torch.stack([_blurred(channel, self.settings.sigma) for channel in image])
        return image.addcmul_(image - blurred, _column(drawn.strengths, image))


class BiasField(IntensityChange[BiasFieldConfig]):
    """The distance from the channel's minimum times exp(polynomial), the shading of MR coils.

    Strength: the factor of the coefficients, which are uniform in [-1, 1] and shared by all channels, as one coil
    received them. Variant: the seed of the coefficients.

    Source:
        RandomBiasField of TorchIO (Perez-Garcia et al. 2021), after Van Leemput et al., IEEE TMI 18 (1999); without
        the constant term, which is `brightness`.

    Example:
        >>> BiasField(BiasFieldConfig()).apply(torch.rand(1, 8, 8), DrawnChange((0.3,), variant=5)).shape
        torch.Size([1, 8, 8])
    """

    @property
    def strength(self) -> tuple[float, float]:
        return 0.0, self.settings.coefficient

    def draw_variant(self, rng: np.random.Generator) -> int:
        return int(rng.integers(2**62))

    def apply(self, image: Tensor, drawn: DrawnChange) -> Tensor:
        powers = np.arange(self.settings.order + 1)
        degrees = np.indices((len(powers),) * (image.ndim - 1)).sum(axis=0)
        field = np.random.default_rng(drawn.variant).uniform(-1, 1, degrees.shape)
        field[(degrees == 0) | (degrees > self.settings.order)] = 0
        for axis, size in enumerate(image.shape[1:]):
            places = np.linspace(-1, 1, size) if size > 1 else np.zeros(1)
            field = np.moveaxis(np.tensordot(places[:, None] ** powers, field, axes=(1, axis)), 0, axis)
        exponent = torch.as_tensor(field, dtype=image.dtype, device=image.device)
        for channel, strength in zip(image, drawn.strengths, strict=True):
            low = channel.min()
            channel.sub_(low).mul_((exponent * strength).exp_()).add_(low)
        return image


CHANGES: dict[str, type[IntensityChange[Any]]] = {
    "noise": Noise,
    "blur": Blur,
    "brightness": Brightness,
    "contrast": Contrast,
    "low_resolution": LowResolution,
    "gamma": Gamma,
    "sharpen": Sharpen,
    "bias_field": BiasField,
    "random_window": RandomWindow,
    "hue": Hue,
    "saturation": Saturation,
}
"""Name, as in `augmentation.extra` -> the class that carries the change out."""


def build_change(
    settings: IntensityConfig, low_resolution_ties: LowResolutionTies = "unbiased"
) -> IntensityChange[Any]:
    """The change that these settings are for.

    Args:
        settings: of one change.
        low_resolution_ties: of the plan, for `low_resolution`.

    Example:
        >>> type(build_change(NoiseConfig(std=0.3))).__name__
        'Noise'
    """
    if isinstance(settings, LowResolutionConfig):
        return LowResolution(settings, low_resolution_ties)
    return CHANGES[settings.name](settings)


def _column(values: Sequence[float], image: Tensor) -> Tensor:
    return torch.tensor(values, dtype=image.dtype, device=image.device).view(-1, *[1] * (image.ndim - 1))


def _blurred(channel: Tensor, sigma: float) -> Tensor:
    """Separable Gaussian, border voxels repeated outside; shifted sums, as so short a kernel needs no convolution."""
    reach = max(1, math.ceil(BLUR_REACH * sigma))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights /= weights.sum()
    for axis, size in enumerate(channel.shape):
        index = torch.arange(-reach, size + reach, device=channel.device).clamp_(0, size - 1)
        padded = channel.index_select(axis, index)
        channel = padded.narrow(axis, 0, size) * float(weights[0])
        for shift in range(1, 2 * reach + 1):
            channel.add_(padded.narrow(axis, shift, size), alpha=float(weights[shift]))
    return channel


def _coarsened(channel: Tensor, zoom: float, ties: LowResolutionTies) -> Tensor:
    small = [max(1, round(size * zoom)) for size in channel.shape]
    if small == list(channel.shape):
        return channel
    if ties == "upper":
        reduced = functional.interpolate(channel[None, None], size=small, mode="nearest-exact")
    else:
        reduced = channel[None, None]
        for axis, size in enumerate(small, start=2):
            reduced = reduced.index_select(axis, _nearest_by_turns(reduced.shape[axis], size).to(channel.device))
    mode = "trilinear" if channel.ndim == 3 else "bilinear"
    return functional.interpolate(reduced, size=tuple(channel.shape), mode=mode, align_corners=False)[0, 0]


def _nearest_by_turns(before: int, after: int) -> Tensor:
    """(after,) the old voxel nearest to each new one along an axis; of two equally near ones either, by turns.

    Equally near ones come at places an odd number apart, so that whether a place is even takes turns.
    """
    place = torch.arange(after)
    index, rest = (2 * place + 1) * before // (2 * after), (2 * place + 1) * before % (2 * after)
    return index - ((rest == 0) & (place % 2 == 0)).to(index.dtype)


def _raise_to(channel: Tensor, exponent: float, inverted: bool) -> None:
    """In place: values between minimum and maximum raised to the exponent; mean and standard deviation restored."""
    low, high = (float(value) for value in channel.aminmax())
    if high <= low:
        return
    std, mean = _std_mean(channel)
    if inverted:
        channel.neg_().add_(high)
    else:
        channel.sub_(low)
    channel.div_(high - low).clamp_(0, 1).pow_(exponent)
    if inverted:
        channel.neg_()
    new_std, new_mean = _std_mean(channel)
    channel.sub_(new_mean).mul_(std / max(new_std, 1e-8)).add_(mean)


def _std_mean(channel: Tensor) -> tuple[float, float]:
    """What torch.std_mean(channel, correction=0) gives, in an eighth of its time; both count in double precision."""
    values = channel.flatten().to(torch.float64)
    mean = values.mean()
    values.sub_(mean)
    return float((values.dot(values) / values.numel()).sqrt().float()), float(mean.float())
