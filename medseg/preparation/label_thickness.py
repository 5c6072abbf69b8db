"""How thick the labelled structures of a case are: what tells a network how far it must look around."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["measure_thickness"]

# The faces of voxels against the true surface, averaged over its directions: a sphere's 3/2, a circle's 4/pi.
FACES_PER_SURFACE = {2: 4 / math.pi, 3: 1.5}


def measure_thickness(
    labels: NDArray[Any], spacing: Sequence[float], counts: Mapping[int, int], box: tuple[slice, ...]
) -> dict[int, float]:
    """Label value -> `2 d V / S`: the diameter of a ball, 1.5 times that of a long tube, 3 times a wide plate's depth.

    In 2D twice the width of a long strip. V is the volume and S the surface, as the faces of the voxels give it.

    Args:
        labels: (I, J, K) or (I, J), integers of 0 or more.
        spacing: per axis, in any one unit.
        counts: label value -> voxels, for the labels to measure; each at least 1.
        box: holds all labelled voxels.

    Example:
        >>> cube = np.zeros((12, 12, 12), np.uint8)
        >>> cube[1:11, 1:11, 1:11] = 1
        >>> measure_thickness(cube, (1, 1, 1), {1: 1000}, (slice(1, 11),) * 3)
        {1: 15.0}
    """
    values = np.array(sorted(counts))
    inside = labels[box]
    dims = inside.ndim
    surface = np.zeros(len(values))
    for axis in range(dims):
        before, after = (inside[(slice(None),) * axis + (part,)] for part in (slice(None, -1), slice(1, None)))
        differ = before != after
        for side in (np.take(inside, 0, axis), np.take(inside, -1, axis), before[differ], after[differ]):
            flat = side.reshape(-1)
            place = np.searchsorted(values, flat).clip(max=len(values) - 1)
            faces = np.bincount(place[values[place] == flat], minlength=len(values))
            surface += math.prod(spacing) / spacing[axis] * faces
    scale = 2 * dims * math.prod(spacing) * FACES_PER_SURFACE[dims]
    return {int(v): float(f"{scale * counts[int(v)] / s:.6g}") for v, s in zip(values, surface, strict=True)}
