"""Damaged copies of a case, so that a calibration sees masks that are wrong and not only good ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.volume import Volume

__all__ = ["DAMAGES", "Damage"]

# (image, label map, generator) -> both damaged, still on one grid.
Damage = Callable[[Volume, Volume, np.random.Generator], tuple[Volume, Volume]]


def _noise(sizes: tuple[float, float]) -> Damage:
    def damage(image: Volume, labels: Volume, rng: np.random.Generator) -> tuple[Volume, Volume]:
        array = _channels(image)
        size = rng.uniform(*sizes) * array.std(axis=tuple(range(1, array.ndim)), keepdims=True)
        return _like(image, array + size * rng.standard_normal(array.shape)), labels

    return damage


def _blur(sizes: tuple[float, float]) -> Damage:
    def damage(image: Volume, labels: Volume, rng: np.random.Generator) -> tuple[Volume, Volume]:
        sigma = (0.0, *[rng.uniform(*sizes)] * image.dims)
        return _like(image, ndimage.gaussian_filter(_channels(image), sigma)), labels

    return damage


def _spacing(sizes: tuple[float, float]) -> Damage:
    """The file says another voxel size than is true, larger or smaller by one factor for all axes."""

    def damage(image: Volume, labels: Volume, rng: np.random.Generator) -> tuple[Volume, Volume]:
        factor = rng.uniform(*sizes) ** (1 if rng.random() < 0.5 else -1)
        affine = image.affine @ np.diag([factor, factor, factor, 1.0])
        image = Volume(_channels(image), affine, len(_channels(image)), image.metadata, (), image.spacing_known)
        return image, Volume(labels.array, affine, spacing_known=image.spacing_known)

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
        array = _channels(image)[(slice(None), *where)]
        cropped = Volume(array, affine, len(array), image.metadata, (), image.spacing_known)
        return cropped, Volume(labels.array[where], affine, spacing_known=image.spacing_known)

    return damage


def _levels(sizes: tuple[float, float]) -> Damage:
    """Another power of the grey levels (gamma), up or down, then another factor."""

    def damage(image: Volume, labels: Volume, rng: np.random.Generator) -> tuple[Volume, Volume]:
        array = _channels(image)
        gamma = rng.uniform(*sizes) ** (1 if rng.random() < 0.5 else -1)
        low, high = array.min(), max(array.max(), array.min() + 1e-6)
        bent = ((array - low) / (high - low)) ** gamma * (high - low) + low
        return _like(image, bent * rng.uniform(0.7, 1.4)), labels

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


def _channels(image: Volume) -> NDArray[np.float32]:
    array = image.array if image.channels else image.array[None]
    return array.astype(np.float32)


def _like(image: Volume, array: NDArray[np.floating[Any]]) -> Volume:
    return image.with_array(array.astype(np.float32), channels=len(array))
