"""Everything that happens to a sample after the spatial augmentation, in the order of the configuration."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from medseg.augmentation.custom import CustomAugment, load_custom
from medseg.augmentation.intensity import IntensityAugment
from medseg.augmentation.intensity_changes import build_change
from medseg.config import AugmentationConfig, IntensityConfig, PluginConfig

__all__ = ["SampleAugment"]

Step = Callable[[np.random.Generator, Tensor, Tensor], tuple[Tensor, Tensor]]


class SampleAugment:
    """The intensity changes, then `augmentation.custom`, then the entries of `augmentation.extra`.

    Each step is drawn and applied before the next is drawn. Without `enabled`, only `custom` remains.

    Args:
        config: `augmentation` of a run.

    Raises:
        ConfigError: an augmentation of one's own that cannot be imported or built.

    Example:
        >>> augment = SampleAugment(AugmentationConfig(extra=[{"name": "noise", "probability": 1.0, "std": 0.3}]))
        >>> image, labels = torch.zeros(1, 8, 8), torch.zeros(1, 8, 8, dtype=torch.uint8)
        >>> augment(np.random.default_rng(0), image, labels)[0].std().item() > 0
        True
    """

    def __init__(self, config: AugmentationConfig) -> None:
        self.steps: list[Step] = []
        if config.enabled:
            self.steps.append(_intensity(IntensityAugment.from_config(config)))
        if config.custom:
            self.steps.append(_custom(load_custom(config.custom)))
        for number, entry in enumerate(config.extra if config.enabled else ()):
            if isinstance(entry, PluginConfig):
                self.steps.append(_custom(load_custom(entry.name, entry.options, f"augmentation.extra.{number}")))
            else:
                self.steps.append(_change(entry))

    def __call__(self, rng: np.random.Generator, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The changed sample.

        Args:
            rng: the only source of randomness.
            image: (C, I, J[, K]) float32, normalised; it may be overwritten.
            labels: (1, I, J[, K]) integers.

        Returns:
            image and labels of the same shapes.
        """
        for step in self.steps:
            image, labels = step(rng, image, labels)
        return image, labels


def _intensity(augment: IntensityAugment) -> Step:
    return lambda rng, image, labels: (augment.apply(image, augment.draw(rng, image.shape[0])), labels)


def _custom(augment: CustomAugment) -> Step:
    return lambda rng, image, labels: augment.apply(image, labels, augment.draw(rng, image.shape[1:]))


def _change(settings: IntensityConfig) -> Step:
    change = build_change(settings)

    def step(rng: np.random.Generator, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        drawn = change.draw(rng, image.shape[0])
        if drawn is None:
            return image, labels
        # A copy: an augmentation before this one may still hold its image.
        return change.apply(image.to(torch.float32, copy=True), drawn), labels

    return step
