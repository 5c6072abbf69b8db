"""`augmentation`: how training samples vary."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from medseg.config.intensity import (
    BlurConfig,
    BrightnessConfig,
    ContrastConfig,
    ExtraAugmentation,
    GammaConfig,
    IntensityConfig,
    LowResolutionConfig,
    NoiseConfig,
    Standard,
    Zoom,
)
from medseg.config.part import Fraction, Part, Positive, Range

__all__ = ["AugmentationConfig"]

_NOISE, _BLUR, _BRIGHTNESS, _CONTRAST = NoiseConfig(), BlurConfig(), BrightnessConfig(), ContrastConfig()
_LOW_RESOLUTION, _GAMMA = LowResolutionConfig(), GammaConfig()


def _listed(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        raise ValueError("expected a list of augmentations, e.g. [{name: noise, std: 0.3}]")
    return value


class AugmentationConfig(Part):
    """How training samples vary: in space, then in their grey levels, then by augmentations of your own or listed.

    `enabled`: false leaves out all of it but `custom`.
    `spatial_probability`: share of the samples that are rotated and scaled.
    `rotation_degrees`: largest rotation about each axis, in degrees; else planned: 20 where all images point the same
    way, 30 otherwise, and 180 for pictures without orientation.
    `scale`: range of the magnification, drawn log-uniformly; else planned: 0.8 to 1.25 where all images point the same
    way, and 0.75 to 1.33 otherwise.
    `elastic_probability`: share of the samples that are deformed elastically.
    `elastic_magnitude`: largest elastic displacement, as a fraction of the patch's extent along each axis.
    `elastic_grid`: control cells of the deformation along the longest side of the patch.
    `mirror`: true for every axis that keeps the labels right (never across left/right pairs), or a list of axes of the
    prepared case, e.g. [0] for left-right where its orientation is RAS; test-time mirroring follows it.
    `noise_probability`: share of the samples that get white noise.
    `noise_std`: largest standard deviation of the noise, in units of the normalised image.
    `blur_probability`: share of the samples that are blurred.
    `blur_sigma`: range of the Gaussian's standard deviation, in voxels.
    `brightness_probability`: share of the samples whose values are multiplied by a factor.
    `brightness`: range of that factor.
    `contrast_probability`: share of the samples whose contrast is changed.
    `contrast`: range of the factor on the distance from the channel's mean; the range of values is kept.
    `gamma_probability`: share of the samples whose values are raised to an exponent.
    `gamma`: range of that exponent, drawn log-uniformly; half of the time it acts on the inverted image.
    `low_resolution_probability`: share of the samples that are made coarser.
    `low_resolution`: range of the zoom, at most 1, to which they are reduced and enlarged again.
    `custom`: an augmentation of your own, as package.module:builder; it runs after those above.
    `extra`: a list of further augmentations, applied in this order after all others; a name may stand in it repeatedly,
    e.g. [{name: noise, std: 0.3}, {name: "my_package.module:build", options: {strength: 2}}]. Those that act on grey
    levels as stored (random_window, hue, saturation) come first, before normalisation.
    `cutmix_probability`: share of the batches whose samples exchange a box of image and labels (CutMix).
    `cutmix_alpha`: the share of the patch outside of the box is drawn from Beta(alpha, alpha); 1 is uniform.
    `mixup_probability`: share of the batches whose images are blended in pairs; the loss is blended alike (MixUp).
    `mixup_alpha`: the share of the first image is drawn from Beta(alpha, alpha); below 1, mostly near 0 or 1.
    """

    enabled: bool = True
    spatial_probability: Fraction = 0.9
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] | None = None
    scale: Range | None = None
    elastic_probability: Fraction = 0.3
    elastic_magnitude: Annotated[float, Field(ge=0, le=0.5)] = 0.04
    elastic_grid: Annotated[int, Field(ge=2, le=32)] = 4
    mirror: bool | tuple[Annotated[int, Field(ge=0, le=2)], ...] = True
    noise_probability: Fraction = _NOISE.probability
    noise_std: Standard = _NOISE.std
    blur_probability: Fraction = _BLUR.probability
    blur_sigma: Range = _BLUR.sigma
    brightness_probability: Fraction = _BRIGHTNESS.probability
    brightness: Range = _BRIGHTNESS.factor
    contrast_probability: Fraction = _CONTRAST.probability
    contrast: Range = _CONTRAST.factor
    gamma_probability: Fraction = _GAMMA.probability
    gamma: Range = _GAMMA.exponent
    low_resolution_probability: Fraction = _LOW_RESOLUTION.probability
    low_resolution: Zoom = _LOW_RESOLUTION.zoom
    custom: str | None = None
    extra: Annotated[tuple[ExtraAugmentation, ...], BeforeValidator(_listed)] = ()
    cutmix_probability: Fraction = 0.0
    cutmix_alpha: Positive = 1.0
    mixup_probability: Fraction = 0.0
    mixup_alpha: Positive = 0.2

    def intensity(self) -> tuple[IntensityConfig, ...]:
        """The intensity changes that the keys above mean, in the order in which they are drawn and applied."""
        return (
            NoiseConfig(probability=self.noise_probability, std=self.noise_std),
            BlurConfig(probability=self.blur_probability, sigma=self.blur_sigma),
            BrightnessConfig(probability=self.brightness_probability, factor=self.brightness),
            ContrastConfig(probability=self.contrast_probability, factor=self.contrast),
            LowResolutionConfig(probability=self.low_resolution_probability, zoom=self.low_resolution),
            GammaConfig(probability=self.gamma_probability, exponent=self.gamma),
        )
