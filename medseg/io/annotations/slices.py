"""Volumes in tools that annotate pictures: a picture for each slice, and its label maps as a volume again."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from medseg.errors import GeometryError
from medseg.volume import Volume

__all__ = ["SLICE_NAME", "slice_name", "stacked"]

SLICE_NAME = re.compile(r"(?P<case>.+)_k(?P<slice>\d{4,})")
"""Name of the picture of one slice: the case and the index along the third axis."""


def slice_name(case: str, index: int) -> str:
    """The name of the picture of one slice, without suffix.

    Example:
        >>> slice_name("lung_3", 12)
        'lung_3_k0012'
    """
    return f"{case}_k{index:04d}"


def stacked(slices: Iterable[tuple[int, Volume]], image: Volume) -> Volume:
    """The label map of a volume from those of its slices; slices that are not given are background.

    Args:
        slices: index along the third axis and label map `[i, j]`.
        image: `(I, J, K)`, whose grid the result gets.

    Raises:
        GeometryError: a slice that the volume does not have, or of another size.

    Example:
        >>> image = Volume(np.zeros((4, 3, 5)), np.eye(4))
        >>> drawn = Volume(np.ones((4, 3), np.uint8), np.eye(4), spacing_known=False)
        >>> stacked([(2, drawn)], image).array.sum(axis=(0, 1)).tolist()
        [0, 0, 12, 0, 0]
    """
    given = list(slices)
    if image.dims != 3:
        raise GeometryError(f"slices of a volume cannot be placed on an image of shape {image.shape}")
    painted = np.zeros(image.shape, dtype=np.result_type(np.uint8, *(label_map.array for _, label_map in given)))
    for index, label_map in given:
        if index >= image.shape[2] or label_map.shape != image.shape[:2]:
            raise GeometryError(
                f"slice {index} of {label_map.shape[0]} x {label_map.shape[1]} pixels does not lie in the volume of "
                f"shape {image.shape}; give the annotations of this volume"
            )
        painted[:, :, index] = label_map.array
    return image.with_array(painted)
