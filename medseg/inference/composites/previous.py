"""What a member of a cascade sees of the member before it: a channel for each of its labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medseg.errors import GeometryError
from medseg.geometry import crop
from medseg.preparation.grid import GridMap, nonzero_box, oriented_labels
from medseg.preparation.interpolate import resample_labels
from medseg.preparation.plan import Plan
from medseg.volume import Volume

__all__ = ["one_hot"]


def one_hot(previous: Volume, image: Volume, labels: int, grid: GridMap, plan: Plan) -> NDArray[np.float32]:
    """A label map as channels on a network's grid, 1 where a label is and 0 elsewhere.

    Args:
        previous: integers `(I, J[, K])` on the image's own grid; channel n is of the value n + 1.
        image: with channels.
        labels: how many there are.
        grid: of the image.
        plan: says how label maps are resampled.

    Returns:
        `(labels, *grid.network_shape)`.

    Raises:
        GeometryError: if the label map lies on another grid than the image.
    """
    if tuple(previous.shape) != image.shape:
        raise GeometryError(
            f"the label map of the step before has {previous.shape} voxels, the image {image.shape}; "
            "both have to lie on one grid"
        )
    if plan.crop == "nonzero":
        box, inside = nonzero_box(image.array)
        previous = crop(previous, [side.start for side in box], [side.stop for side in box])
        # Beyond the mask nothing is labelled, which nnU-Net does not count as background.
        array = previous.array.astype(np.int32)
        array[(array == 0) & ~inside] = -1
        previous = previous.with_array(array)
    found = resample_labels(oriented_labels(previous, grid), grid.network_shape, plan.labels, grid.thick[0])
    values = np.arange(1, labels + 1).reshape(-1, *[1] * found.ndim)
    return np.asarray(found[None] == values, dtype=np.float32)
