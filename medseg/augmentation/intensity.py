"""Grey-level augmentation of normalised images: noise, blur, brightness, contrast, gamma, low resolution.

Which of them, and how strongly, is drawn per sample; strengths are drawn per channel, since channels of one study
(say T1 and T2) change independently of each other. Defaults follow nnU-Net (Isensee et al. 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor

from medseg.config import AugmentationConfig
from medseg.errors import ConfigError

__all__ = ["IntensityAugment", "IntensityParams"]

Range = tuple[float, float]
Strengths = tuple[float, ...] | None
# Beyond three standard deviations a Gaussian weighs under 0.5%; two sigma serve an augmentation as well and cost less.
BLUR_REACH = 2.0


@dataclass(frozen=True)
class IntensityParams:
    """One drawn change; None where a kind was not drawn, else one strength per channel.

    Attributes:
        noise: standard deviation of white noise, in units of the normalised image.
        noise_seed: of the noise itself, so that it can be replayed.
        blur: sigma of a Gaussian, in voxels.
        brightness: factor on all values.
        contrast: factor on the distance from the channel's mean; the range of values is kept.
        low_resolution: zoom, at most 1, to which the image is reduced (nearest) and enlarged again (linear).
        gamma: exponent on the values between minimum and maximum; mean and standard deviation are kept.
        gamma_inverted: whether the exponent acts on the negative of the image.
    """

    noise: Strengths = None
    noise_seed: int = 0
    blur: Strengths = None
    brightness: Strengths = None
    contrast: Strengths = None
    low_resolution: Strengths = None
    gamma: Strengths = None
    gamma_inverted: bool = False


class IntensityAugment:
    """Draws and applies grey-level changes, in 2D and 3D; probabilities are per sample, ranges uniform.

    Args:
        noise_probability, noise_std: white noise whose standard deviation is drawn in [0, noise_std].
        blur_probability, blur_sigma: Gaussian, sigma in voxels.
        brightness_probability, brightness: factor.
        contrast_probability, contrast: factor.
        gamma_probability, gamma: exponent, drawn log-uniformly; half of the time on the inverted image.
        low_resolution_probability, low_resolution: zoom, in (0, 1].

    Raises:
        ConfigError: a range that is not two positive numbers, the smaller first.

    Example:
        >>> augment = IntensityAugment(noise_probability=1.0)
        >>> params = augment.draw(np.random.default_rng(0), channels=1)
        >>> augment.apply(torch.zeros(1, 8, 8, 8), params).shape
        torch.Size([1, 8, 8, 8])
    """

    def __init__(
        self,
        *,
        noise_probability: float = 0.15,
        noise_std: float = 0.15,
        blur_probability: float = 0.1,
        blur_sigma: Range = (0.5, 1.0),
        brightness_probability: float = 0.15,
        brightness: Range = (0.75, 1.25),
        contrast_probability: float = 0.15,
        contrast: Range = (0.75, 1.25),
        gamma_probability: float = 0.25,
        gamma: Range = (0.7, 1.5),
        low_resolution_probability: float = 0.1,
        low_resolution: Range = (0.5, 1.0),
    ) -> None:
        for name, (first, last) in (
            ("blur_sigma", blur_sigma),
            ("brightness", brightness),
            ("contrast", contrast),
            ("gamma", gamma),
            ("low_resolution", low_resolution),
        ):
            if not 0 < first <= last:
                raise ConfigError(
                    f"augmentation.{name} is {(first, last)}, expected two positive numbers, smaller first"
                )
        if low_resolution[1] > 1:
            raise ConfigError(f"augmentation.low_resolution is {low_resolution}, expected zooms of at most 1")
        self.noise_probability = noise_probability
        self.noise_std = noise_std
        self.blur_probability = blur_probability
        self.blur_sigma = blur_sigma
        self.brightness_probability = brightness_probability
        self.brightness = brightness
        self.contrast_probability = contrast_probability
        self.contrast = contrast
        self.gamma_probability = gamma_probability
        self.gamma = gamma
        self.low_resolution_probability = low_resolution_probability
        self.low_resolution = low_resolution

    @classmethod
    def from_config(cls, config: AugmentationConfig) -> IntensityAugment:
        """The augmentation that a configuration asks for."""
        return cls(
            noise_probability=config.noise_probability,
            noise_std=config.noise_std,
            blur_probability=config.blur_probability,
            blur_sigma=config.blur_sigma,
            brightness_probability=config.brightness_probability,
            brightness=config.brightness,
            contrast_probability=config.contrast_probability,
            contrast=config.contrast,
            gamma_probability=config.gamma_probability,
            gamma=config.gamma,
            low_resolution_probability=config.low_resolution_probability,
            low_resolution=config.low_resolution,
        )

    def draw(self, rng: np.random.Generator, channels: int) -> IntensityParams:
        """One random change for an image of that many channels; `rng` is the only source of randomness."""

        def maybe(probability: float, low: float, high: float) -> Strengths:
            if rng.random() >= probability:
                return None
            return tuple(float(value) for value in rng.uniform(low, high, channels))

        noise = maybe(self.noise_probability, 0.0, self.noise_std)
        blur = maybe(self.blur_probability, *self.blur_sigma)
        brightness = maybe(self.brightness_probability, *self.brightness)
        contrast = maybe(self.contrast_probability, *self.contrast)
        low_resolution = maybe(self.low_resolution_probability, *self.low_resolution)
        exponents = maybe(self.gamma_probability, float(np.log(self.gamma[0])), float(np.log(self.gamma[1])))
        gamma = None if exponents is None else tuple(float(np.exp(value)) for value in exponents)
        return IntensityParams(
            noise=noise,
            noise_seed=int(rng.integers(2**62)) if noise is not None else 0,
            blur=blur,
            brightness=brightness,
            contrast=contrast,
            low_resolution=low_resolution,
            gamma=gamma,
            gamma_inverted=gamma is not None and bool(rng.random() < 0.5),
        )

    def apply(self, image: Tensor, params: IntensityParams) -> Tensor:
        """The changed image; the input is left as it is.

        Args:
            image: (C, I, J[, K]) float, normalised (zero mean and unit variance, or [0, 1]).
            params: from `draw`.

        Returns:
            (C, I, J[, K]) float32.

        Raises:
            ConfigError: parameters drawn for another number of channels.
        """
        result = image.to(torch.float32, copy=True)
        kinds = (params.noise, params.blur, params.brightness, params.contrast, params.low_resolution, params.gamma)
        for strengths in kinds:
            if strengths is not None and len(strengths) != image.shape[0]:
                raise ConfigError(f"image has {image.shape[0]} channels, drawn for {len(strengths)}")
        if params.noise is not None:
            generator = torch.Generator(device="cpu").manual_seed(params.noise_seed)
            noise = torch.randn(result.shape, generator=generator).to(result.device)
            result.addcmul_(noise, _column(params.noise, result))
        if params.blur is not None:
            result = torch.stack([_blur(c, sigma) for c, sigma in zip(result, params.blur, strict=True)])
        if params.brightness is not None:
            result.mul_(_column(params.brightness, result))
        if params.contrast is not None:
            for channel, factor in zip(result, params.contrast, strict=True):
                low, high = channel.aminmax()
                mean = channel.mean()
                channel.sub_(mean).mul_(factor).add_(mean).clamp_(low, high)
        if params.low_resolution is not None:
            result = torch.stack([_reduce(c, zoom) for c, zoom in zip(result, params.low_resolution, strict=True)])
        if params.gamma is not None:
            for channel, exponent in zip(result, params.gamma, strict=True):
                _gamma(channel, exponent, params.gamma_inverted)
        return result


def _column(values: Sequence[float], image: Tensor) -> Tensor:
    return torch.tensor(values, dtype=image.dtype, device=image.device).view(-1, *[1] * (image.ndim - 1))


def _blur(channel: Tensor, sigma: float) -> Tensor:
    """Separable Gaussian, border voxels repeated outside; shifted sums: so short a kernel needs no convolution."""
    reach = max(1, int(np.ceil(BLUR_REACH * sigma)))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights /= weights.sum()
    for axis, size in enumerate(channel.shape):
        index = torch.arange(-reach, size + reach, device=channel.device).clamp_(0, size - 1)
        padded = channel.index_select(axis, index)
        channel = padded.narrow(axis, 0, size) * float(weights[0])
        for shift in range(1, 2 * reach + 1):
            channel.add_(padded.narrow(axis, shift, size), alpha=float(weights[shift]))
    return channel


def _reduce(channel: Tensor, zoom: float) -> Tensor:
    small = [max(1, round(size * zoom)) for size in channel.shape]
    if small == list(channel.shape):
        return channel
    reduced = functional.interpolate(channel[None, None], size=small, mode="nearest-exact")
    mode = "trilinear" if channel.ndim == 3 else "bilinear"
    return functional.interpolate(reduced, size=tuple(channel.shape), mode=mode, align_corners=False)[0, 0]


def _gamma(channel: Tensor, exponent: float, inverted: bool) -> None:
    """In place: values between minimum and maximum raised to the exponent; mean and standard deviation restored."""
    low, high = (float(value) for value in channel.aminmax())
    if high <= low:
        return
    std, mean = (float(value) for value in torch.std_mean(channel, correction=0))
    if inverted:
        channel.neg_().add_(high)
    else:
        channel.sub_(low)
    channel.div_(high - low).clamp_(0, 1).pow_(exponent)
    if inverted:
        channel.neg_()
    new_std, new_mean = (float(value) for value in torch.std_mean(channel, correction=0))
    channel.sub_(new_mean).mul_(std / max(new_std, 1e-8)).add_(mean)
