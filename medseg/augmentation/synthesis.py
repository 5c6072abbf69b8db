"""Images drawn from label maps, so that a network trained on one contrast holds on others; in 2D and 3D."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from medseg.augmentation.change import IntensityChange
from medseg.augmentation.intensity_changes import BiasField, Blur, LowResolution, LowResolutionTies
from medseg.config.intensity import BiasFieldConfig, BlurConfig, LowResolutionConfig, SynthesisConfig

__all__ = ["Synthesis"]

# Quantiles of the real image that stand for its grey levels.
_QUANTILES = np.linspace(0, 1, 65)


class Synthesis:
    """Draws the grey levels of a sample anew, with a level for each label and a random curve for everything else.

    Background (labels up to 0) is unlabelled tissue: a random curve of the real grey levels keeps its structure and
    changes its contrast. A label gets a level of its own, with some of the real texture around it, upright or
    inverted, or it follows the curve as well, so that boundaries of little contrast occur, too. Then come a bias
    field, blur and a lower resolution, as scanners have them. The result has the mean and the standard deviation of
    the channel that it replaces.

    Ignored voxels belong to some label or to the background, nobody says which: they are drawn as the nearest voxel
    that is not ignored, because a level of their own would be a structure that no image has.

    Args:
        settings: `probability` is the share of the samples that are drawn; the others stay real.
        ignore: the label value of ignored voxels; None where there are none.
        low_resolution_ties: of the plan.

    Source:
        Billot et al., SynthSeg, Medical Image Analysis 2023: levels conditioned on labels, bias, blur, resolution.

    Example:
        >>> synthesis = Synthesis(SynthesisConfig(probability=1.0))
        >>> image, labels = torch.rand(1, 8, 8), torch.zeros(1, 8, 8, dtype=torch.uint8)
        >>> synthesis(np.random.default_rng(0), image, labels).shape
        torch.Size([1, 8, 8])
    """

    def __init__(
        self,
        settings: SynthesisConfig,
        ignore: int | None = None,
        low_resolution_ties: LowResolutionTies = "unbiased",
    ) -> None:
        self.settings = settings
        self.ignore = ignore
        self.scanner: tuple[IntensityChange[Any], ...] = (
            BiasField(BiasFieldConfig()),
            Blur(BlurConfig(probability=0.5)),
            LowResolution(LowResolutionConfig(probability=0.25), low_resolution_ties),
        )

    def __call__(self, rng: np.random.Generator, image: Tensor, labels: Tensor) -> Tensor:
        """The drawn image; the inputs are left as they are.

        Args:
            rng: the only source of randomness.
            image: (C, I, J[, K]) float32, normalised.
            labels: (1, I, J[, K]) integers.
        """
        if rng.random() >= self.settings.probability:
            return image
        known = self._without_ignored(labels[0].cpu().numpy())
        drawn = torch.from_numpy(np.stack([self._channel(rng, channel, known) for channel in image.cpu().numpy()]))
        for change in self.scanner:
            parameters = change.draw(rng, len(drawn))
            drawn = drawn if parameters is None else change.apply(drawn, parameters)
        axes = tuple(range(1, image.ndim))
        deviation = drawn.std(dim=axes, keepdim=True, correction=0)
        scaled = (drawn - drawn.mean(dim=axes, keepdim=True)) / deviation.clamp_min(1e-6)
        mean, wanted = image.mean(dim=axes, keepdim=True), image.std(dim=axes, keepdim=True, correction=0)
        return (scaled.to(image.device) * wanted + mean).to(image.dtype)

    def _without_ignored(self, labels: NDArray[Any]) -> NDArray[Any]:
        """The labels, with that of the nearest voxel in place of ignored ones; all background if all are ignored."""
        ignored = labels == self.ignore if self.ignore is not None else np.zeros(labels.shape, dtype=bool)
        if not ignored.any():
            return labels
        if ignored.all():
            return np.zeros_like(labels)
        nearest = ndimage.distance_transform_edt(ignored, return_distances=False, return_indices=True)
        return np.asarray(labels[tuple(nearest)])

    def _channel(self, rng: np.random.Generator, real: NDArray[np.float32], labels: NDArray[Any]) -> NDArray[Any]:
        knots = int(rng.integers(2, self.settings.background_levels + 1))
        places = np.concatenate([[0.0], np.sort(rng.uniform(0, 1, knots - 2)), [1.0]])
        curve = np.interp(_QUANTILES, places, rng.uniform(0, 1, knots))
        drawn = np.interp(real, np.quantile(real, _QUANTILES), curve).astype(np.float32)
        deviation = max(float(real.std()), 1e-6)
        for value in np.unique(labels[labels > 0]):
            level, texture = rng.uniform(0, 1), rng.uniform(-1, 1) * self.settings.texture
            if rng.random() < self.settings.labels:
                inside = labels == value
                part = real[inside]
                drawn[inside] = level + texture * (part - part.mean()) / deviation
        return drawn
