"""Damaged copies of a case, so that a calibration sees masks that are wrong and not only good ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from medseg.inference.quality.alterations import blurred, channels_of, noisy, rescaled, with_channels
from medseg.volume import Volume

__all__ = ["DAMAGES", "Damage"]

# (image, label map, generator) -> both damaged, still on one grid.
Damage = Callable[[Volume, Volume, np.random.Generator], tuple[Volume, Volume]]


def _noise(sizes: tuple[float, float]) -> Damage:
    def damage(image: Volume, labels: Volume, rng: np.random.Generator) -> tuple[Volume, Volume]:
        return noisy(image, rng.uniform(*sizes), rng), labels

    return damage


def _blur(sizes: tuple[float, float]) -> Damage:
    def damage(image: Volume, labels: Volume, rng: np.random.Generator) -> tuple[Volume, Volume]:
        return blurred(image, rng.uniform(*sizes)), labels

    return damage


def _spacing(sizes: tuple[float, float]) -> Damage:
    """The file says another voxel size than is true, larger or smaller by one factor for all axes."""

    def damage(image: Volume, labels: Volume, rng: np.random.Generator) -> tuple[Volume, Volume]:
        factor = rng.uniform(*sizes) ** (1 if rng.random() < 0.5 else -1)
        image = rescaled(image, factor)
        return image, Volume(labels.array, image.affine, spacing_known=image.spacing_known)

    return damage


def _crop(shares: tuple[float, float]) -> Damage:
    """Cut off a share of one axis, at one end."""

    def damage(image: Volume, labels: Volume, rng: np.random.Generator) -> tuple[Volume, Volume]:
        axis = int(rng.integers(image.dims))
        size = image.shape[axis]
        cut = min(size - 1, max(1, round(rng.uniform(*shares) * size)))
        kept = slice(cut, None) if rng.random() < 0.5 else slice(0, size - cut)
        where = tuple(kept if n == axis else slice(None) for n in range(image.dims))
        affine = image.affine.copy()
        affine[:3, 3] += affine[:3, axis] * (kept.start or 0)
        array = channels_of(image)[(slice(None), *where)]
        cropped = Volume(array, affine, len(array), image.metadata, (), image.spacing_known)
        return cropped, Volume(labels.array[where], affine, spacing_known=image.spacing_known)

    return damage


def _levels(sizes: tuple[float, float]) -> Damage:
    """Another power of the grey levels (gamma), up or down, then another factor."""

    def damage(image: Volume, labels: Volume, rng: np.random.Generator) -> tuple[Volume, Volume]:
        array = channels_of(image)
        gamma = rng.uniform(*sizes) ** (1 if rng.random() < 0.5 else -1)
        low, high = array.min(), max(array.max(), array.min() + 1e-6)
        bent = ((array - low) / (high - low)) ** gamma * (high - low) + low
        return with_channels(image, bent * rng.uniform(0.7, 1.4)), labels

    return damage


# Mild to severe; sizes in standard deviations of the channel, voxels, factors and shares of an axis.
DAMAGES: Mapping[str, Damage] = {
    "noise 0.3-1": _noise((0.3, 1.0)),
    "noise 1-3": _noise((1.0, 3.0)),
    "blur 0.5-1.5": _blur((0.5, 1.5)),
    "blur 1.5-4": _blur((1.5, 4.0)),
    "spacing 1.1-1.5": _spacing((1.1, 1.5)),
    "spacing 1.5-2.5": _spacing((1.5, 2.5)),
    "crop 0.1-0.35": _crop((0.1, 0.35)),
    "crop 0.35-0.6": _crop((0.35, 0.6)),
    "levels 1.5-4": _levels((1.5, 4.0)),
}
