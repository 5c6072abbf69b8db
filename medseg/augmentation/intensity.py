"""The intensity changes that the keys `augmentation.noise_std` and the like ask for, drawn together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medseg.augmentation.change import DrawnChange
from medseg.augmentation.intensity_changes import CHANGES, LowResolutionTies, build_change
from medseg.config import AugmentationConfig, validate_model
from medseg.errors import ConfigError
from medseg.lookup import check_option_names

__all__ = ["IntensityAugment", "IntensityParams"]

_KEYS = {key for key in AugmentationConfig.model_fields if key.startswith(tuple(CHANGES))}


@dataclass(frozen=True, slots=True)
class IntensityParams:
    """The drawn changes of one sample, so that it can be replayed.

    Attributes:
        changes: (name, drawn change) in the order in which they are applied; those left out are absent.

    Example:
        >>> IntensityParams().changes
        ()
    """

    changes: tuple[tuple[str, DrawnChange], ...] = ()


class IntensityAugment:
    """Draws and applies intensity changes, in 2D and 3D, in a fixed order.

    Args:
        **settings: `noise_probability`, `noise_std`, `blur_probability`, `blur_sigma` and so on, as keys of
            `augmentation.*` in a configuration (`medseg config --explain augmentation`). Probabilities are per sample,
            ranges a pair of numbers, the smaller first.

    Raises:
        ConfigError: an unknown setting, or an impossible value.

    Source:
        Isensee et al., nnU-Net, Nature Methods 2021, supplementary note 4.

    Example:
        >>> augment = IntensityAugment(noise_probability=1.0)
        >>> params = augment.draw(np.random.default_rng(0), channels=1)
        >>> augment.apply(torch.zeros(1, 8, 8, 8), params).shape
        torch.Size([1, 8, 8, 8])
    """

    def __init__(self, **settings: Any) -> None:
        check_option_names("IntensityAugment", settings, _KEYS)
        config = validate_model(AugmentationConfig, settings, "augmentation")
        self.changes = tuple(build_change(each) for each in config.intensity())

    @classmethod
    def from_config(
        cls, config: AugmentationConfig, low_resolution_ties: LowResolutionTies = "unbiased"
    ) -> IntensityAugment:
        """The augmentation that a configuration asks for, without its `custom` and `extra`."""
        augment = cls()
        augment.changes = tuple(build_change(each, low_resolution_ties) for each in config.intensity())
        return augment

    def draw(self, rng: np.random.Generator, channels: int) -> IntensityParams:
        """Random changes for an image of that many channels; `rng` is the only source of randomness."""
        strengths = [change.draw_strengths(rng, channels) for change in self.changes]
        # Variants are drawn after the strengths of all changes: this order keeps the samples of a seed.
        return IntensityParams(
            tuple(
                (change.settings.name, DrawnChange(each, change.draw_variant(rng)))
                for change, each in zip(self.changes, strengths, strict=True)
                if each is not None
            )
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
        by_name = {change.settings.name: change for change in self.changes}
        for name, drawn in params.changes:
            if len(drawn.strengths) != image.shape[0]:
                raise ConfigError(f"image has {image.shape[0]} channels, drawn for {len(drawn.strengths)}")
            result = by_name[name].apply(result, drawn)
        return result
