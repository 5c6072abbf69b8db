"""Volumes whose values encode the voxel's index or its position in the patient."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np

from medseg.volume import Volume

ORIENTATIONS = [
    "".join(pair[side] for pair, side in zip(order, sides, strict=True))
    for order in permutations(("LR", "PA", "IS"))
    for sides in product((0, 1), repeat=3)
]


def volume_of(shape: tuple[int, ...], spacing: tuple[float, ...] = (1.0, 1.0, 1.0), **more: object) -> Volume:
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (-20.0, 30.0, 7.5)
    return Volume(np.arange(np.prod(shape)).reshape(shape).astype(np.int32), affine, **more)  # type: ignore[arg-type]


def world(affine: np.ndarray, index: tuple[int, ...]) -> np.ndarray:
    return (affine @ [*index, 1.0])[:3]


def outer_corners(volume: Volume) -> np.ndarray:
    ends = [(-0.5, n - 0.5) for n in volume.shape]
    return np.array([world(volume.affine, corner) for corner in product(*ends)])


def tilted(shape: tuple[int, ...] = (12, 13, 9)) -> Volume:
    """Sheared: slices 2.5 mm apart, each shifted by 1 mm in y and 0.4 mm in x; values linear in world position."""
    affine = np.array([[1.0, 0, 0.4, -20], [0, 1.5, 1.0, 30], [0, 0, 2.5, 7.5], [0, 0, 0, 1]])
    empty = Volume(np.zeros(shape, np.float32), affine)
    return empty.with_array(says_where(empty).astype(np.float32))


def says_where(volume: Volume) -> np.ndarray:
    index = np.indices(volume.shape).reshape(3, -1)
    places = volume.affine[:3, :3] @ index + volume.affine[:3, 3:]
    return (np.array([1.0, -2.0, 0.5]) @ places).reshape(volume.shape)
