"""The field of view of a retinal photograph: the bright disc, without the dark frame around it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.volume import Volume

__all__ = ["field_of_view"]

# The frame is nearly black: a tenth of the brightest retina separates the two in every camera's pictures.
_DARK = 0.1
# Shares of the circle of the same width: a disc fills it, one with cut top and bottom fills less, a whole frame more.
_ROUND = (0.6, 1.1)


def field_of_view(image: Volume) -> NDArray[np.bool_] | None:
    """Where a retinal photograph shows retina.

    The largest part whose red channel (where vessels hardly show) exceeds a tenth of the image's 99th percentile, with
    its holes filled.

    Args:
        image: 2D, with or without channels, red first.

    Returns:
        `(I, J)`; None where there is no round disc on a dark ground, as in a picture cropped to the retina.

    Example:
        >>> i, j = np.mgrid[:50, :50]
        >>> disc = np.where(np.hypot(i - 25, j - 25) < 20, 180, 2)
        >>> int(field_of_view(Volume(disc, np.eye(4))).sum()) == int((disc > 2).sum())
        True
    """
    if image.dims != 2:
        return None
    red = np.asarray(image.array[0] if image.channels else image.array, dtype=np.float32)
    bright = ndimage.binary_opening(red > _DARK * np.percentile(red, 99), iterations=1)
    parts, count = ndimage.label(bright)
    if not count:
        return None
    disc = ndimage.binary_fill_holes(parts == np.bincount(parts.ravel())[1:].argmax() + 1)
    (box,) = ndimage.find_objects(disc.astype(np.uint8))
    width = max(s.stop - s.start for s in box)
    share = float(disc.sum()) / (np.pi * width**2 / 4)
    if disc.all() or not _ROUND[0] < share < _ROUND[1]:
        return None
    return np.asarray(disc, dtype=bool)
