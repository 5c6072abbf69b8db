"""The same image a little or much worse: noisier, blurred, or taken for smaller or larger."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.preparation.normalize import background_value
from medseg.volume import Volume

__all__ = ["blurred", "channels_of", "noisy", "rescaled", "with_channels"]


def noisy(image: Volume, size: float, rng: np.random.Generator) -> Volume:
    """Normal noise, `size` standard deviations of each channel, on all that is not background."""
    array = channels_of(image)
    deviation = size * array.std(axis=tuple(range(1, array.ndim)), keepdims=True)
    worse = array + deviation * rng.standard_normal(array.shape)
    for before, after in zip(array, worse, strict=True):
        background = background_value(before.reshape(-1))
        if background is not None:
            after[before == background] = background
    return with_channels(image, worse)


def blurred(image: Volume, sigma: float) -> Volume:
    """A Gaussian of `sigma` voxels along every axis."""
    return with_channels(image, ndimage.gaussian_filter(channels_of(image), (0.0, *[sigma] * image.dims)))


def rescaled(image: Volume, factor: float) -> Volume:
    """The same voxels, declared larger by this factor along every axis; without a physical scale the same image."""
    affine = image.affine @ np.diag([factor, factor, factor, 1.0])
    array = channels_of(image)
    return Volume(array, affine, len(array), image.metadata, (), image.spacing_known)


def channels_of(image: Volume) -> NDArray[np.float32]:
    """(channels, *shape), also of an image without channels."""
    array = image.array if image.channels else image.array[None]
    return array.astype(np.float32)


def with_channels(image: Volume, array: NDArray[np.floating[Any]]) -> Volume:
    """The image with other grey levels (channels, *shape)."""
    return image.with_array(array.astype(np.float32), channels=len(array))
