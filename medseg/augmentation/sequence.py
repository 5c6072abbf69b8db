"""Everything that happens to a sample beside the spatial augmentation, in the order of the configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medseg.augmentation.change import IntensityChange
from medseg.augmentation.custom import CustomAugment, load_custom
from medseg.augmentation.intensity import IntensityAugment
from medseg.augmentation.intensity_changes import LowResolutionTies, build_change
from medseg.augmentation.synthesis import Synthesis
from medseg.config import AugmentationConfig, PluginConfig
from medseg.config.intensity import SynthesisConfig

__all__ = ["SampleAugment"]

Step = Callable[[np.random.Generator, Tensor, Tensor], tuple[Tensor, Tensor]]


class SampleAugment:
    """Synthesis, the intensity changes, then `augmentation.custom`, then the other entries of `augmentation.extra`.

    Each step is drawn and applied before the next is drawn. Without `enabled`, only `custom` remains. Entries that act
    on grey levels as stored are not among these steps: `before_normalization` has them.

    Args:
        config: `augmentation` of a run.
        low_resolution_ties: of its plan.
        ignore: the label value of voxels that take no part; None where there are none.

    Raises:
        ConfigError: an augmentation of one's own that cannot be imported or built.

    Example:
        >>> augment = SampleAugment(AugmentationConfig(extra=[{"name": "noise", "probability": 1.0, "std": 0.3}]))
        >>> image, labels = torch.zeros(1, 8, 8), torch.zeros(1, 8, 8, dtype=torch.uint8)
        >>> augment(np.random.default_rng(0), image, labels)[0].std().item() > 0
        True
    """

    def __init__(
        self, config: AugmentationConfig, low_resolution_ties: LowResolutionTies = "unbiased", ignore: int | None = None
    ) -> None:
        self.steps: list[Step] = []
        self.on_range: list[IntensityChange[Any]] = []
        extra = config.extra if config.enabled else ()
        # What scanners do to images is done to drawn ones as well.
        drawn = [Synthesis(each, ignore, low_resolution_ties) for each in extra if isinstance(each, SynthesisConfig)]
        self.steps += map(_synthesis, drawn)
        if config.enabled:
            self.steps.append(_intensity(IntensityAugment.from_config(config, low_resolution_ties)))
        if config.custom:
            self.steps.append(_custom(load_custom(config.custom)))
        for number, entry in enumerate(extra):
            if isinstance(entry, PluginConfig):
                self.steps.append(_custom(load_custom(entry.name, entry.options, f"augmentation.extra.{number}")))
                continue
            if isinstance(entry, SynthesisConfig):
                continue
            change = build_change(entry, low_resolution_ties)
            if change.on_range:
                self.on_range.append(change)
            else:
                self.steps.append(_change(change))

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

    def before_normalization(
        self, rng: np.random.Generator, image: Tensor, ranges: Sequence[tuple[float, float]]
    ) -> Tensor:
        """The sample after the entries of `augmentation.extra` that act on grey levels as stored.

        Args:
            rng: the only source of randomness.
            image: (C, I, J[, K]) float32, grey levels as stored.
            ranges: per channel, the grey levels that become 0 and 1 for these entries, both finite.

        Returns:
            The image, of the same shape; where an entry was drawn, within its ranges.
        """
        drawn = [(change, each) for change in self.on_range if (each := change.draw(rng, image.shape[0])) is not None]
        if not drawn:
            return image
        low, high = image.new_tensor(ranges).T.reshape(2, -1, *[1] * (image.ndim - 1))
        image = (image - low).div_(high - low)
        for change, each in drawn:
            image = change.apply(image, each)
        return image.mul_(high - low).add_(low)


def _intensity(augment: IntensityAugment) -> Step:
    return lambda rng, image, labels: (augment.apply(image, augment.draw(rng, image.shape[0])), labels)


def _custom(augment: CustomAugment) -> Step:
    return lambda rng, image, labels: augment.apply(image, labels, augment.draw(rng, image.shape[1:]))


def _synthesis(synthesis: Synthesis) -> Step:
    return lambda rng, image, labels: (synthesis(rng, image, labels), labels)


def _change(change: IntensityChange[Any]) -> Step:
    def step(rng: np.random.Generator, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        drawn = change.draw(rng, image.shape[0])
        if drawn is None:
            return image, labels
        # A copy: an augmentation before this one may still hold its image.
        return change.apply(image.to(torch.float32, copy=True), drawn), labels

    return step
