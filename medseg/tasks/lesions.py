"""Lesions: the connected parts of a mask, numbered the same way every time, measured one by one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.tasks.diameters import AxialDiameters, axial_diameters

__all__ = ["Lesion", "find_lesions", "label_lesions"]

Floats = NDArray[np.float64]
_SLAB_VOXELS = 2**22


@dataclass(frozen=True, slots=True)
class Lesion:
    """One lesion.

    Args:
        number: 1 for the largest.
        voxels: how many.
        volume_ml: their volume (in 2D: their area in mm2, or in pixels for photographs).
        center_mm: `(3,)` centre of mass, mm, RAS+.
        diameters: long and short axis in an axial slice.
        mean: mean grey value (Hounsfield units in CT); None without an image.
        std: its standard deviation; None without an image.
    """

    number: int
    voxels: int
    volume_ml: float
    center_mm: Floats
    diameters: AxialDiameters
    mean: float | None = None
    std: float | None = None


def label_lesions(mask: NDArray[np.bool_], affine: NDArray[np.float64]) -> NDArray[np.int32]:
    """The lesions' numbers, voxel by voxel: parts that touch by a corner are one (26 neighbours in 3D, 8 in 2D).

    The largest is 1. Of several of one size the one with the lower centre comes first (z, then y, then x, in mm), so
    that numbers depend on the lesions, not on the order of the file's axes.

    Args:
        mask: `(I, J)` or `(I, J, K)`.
        affine: `(4, 4)`, voxel index to mm.

    Returns:
        Same shape, 0 outside.
    """
    parts, count = ndimage.label(mask, structure=np.ones((3,) * mask.ndim))
    if not count:
        return np.zeros(mask.shape, dtype=np.int32)
    sizes, centers = _sizes_and_centers(parts, count, affine)
    centers = np.round(centers, 6)
    order = np.lexsort((centers[:, 0], centers[:, 1], centers[:, 2], -sizes))
    numbers = np.zeros(count + 1, dtype=np.int32)
    numbers[order + 1] = np.arange(1, count + 1)
    for slab in _slabs(parts.shape):
        parts[slab] = numbers[parts[slab]]
    return np.asarray(parts, dtype=np.int32)


def find_lesions(
    mask: NDArray[np.bool_], affine: NDArray[np.float64], image: NDArray[np.generic] | None = None
) -> tuple[Lesion, ...]:
    """The lesions of a mask with their measurements, by number.

    Args:
        mask: `(I, J)` or `(I, J, K)`.
        affine: `(4, 4)`, voxel index to mm.
        image: grey values, same shape.

    Example:
        >>> mask = np.zeros((10, 10, 10), bool)
        >>> mask[1:3, 1:3, 1:3] = mask[6:9, 6:9, 6:9] = True
        >>> [(each.number, each.voxels, each.volume_ml) for each in find_lesions(mask, np.eye(4))]
        [(1, 27, 0.027), (2, 8, 0.008)]
    """
    numbers = label_lesions(mask, affine)
    unit = abs(float(np.linalg.det(affine[:3, :3]))) / 1000
    if mask.ndim == 2:
        unit = float(np.linalg.norm(np.cross(affine[:3, 0], affine[:3, 1])))
    boxes = ndimage.find_objects(numbers)
    _, centers = _sizes_and_centers(numbers, len(boxes), affine)
    lesions = []
    for n, box in enumerate(boxes, start=1):
        inside = numbers[box] == n
        count = int(np.count_nonzero(inside))
        moved = affine.copy()
        start = np.array([s.start for s in box] + [0] * (3 - mask.ndim))
        moved[:3, 3] += affine[:3, :3] @ start
        found = axial_diameters(inside, moved)
        assert found is not None
        grey = None if image is None else image[box][inside].astype(np.float64)
        lesions.append(
            Lesion(
                n,
                count,
                count * unit,
                centers[n - 1],
                _shifted(found, start),
                None if grey is None else float(grey.mean()),
                None if grey is None else float(grey.std()),
            )
        )
    return tuple(lesions)


def _shifted(found: AxialDiameters, start: NDArray[np.int64]) -> AxialDiameters:
    """Diameters measured in a box, as voxel indices of the whole volume."""
    dims = found.long_ends.shape[1]
    slice_ = found.slice + (int(start[found.axis]) if found.axis >= 0 else 0)
    return AxialDiameters(
        found.long_mm,
        found.short_mm,
        found.axis,
        slice_,
        found.long_ends + start[:dims],
        found.short_ends + start[:dims],
        found.long_ends_mm,
        found.short_ends_mm,
    )


def _sizes_and_centers(
    parts: NDArray[np.int32], count: int, affine: NDArray[np.float64]
) -> tuple[NDArray[np.int64], Floats]:
    """`(count,)` voxels and `(count, 3)` centres of mass in mm."""
    sizes = np.zeros(count, dtype=np.int64)
    sums = np.zeros((count, 3))
    for slab in _slabs(parts.shape):
        where = np.nonzero(parts[slab])
        of = parts[slab][where]
        sizes += np.bincount(of, minlength=count + 1)[1:]
        where = (where[0] + slab.start, *where[1:])
        for axis, along in enumerate(where):
            sums[:, axis] += np.bincount(of, weights=along, minlength=count + 1)[1:]
    index = sums / np.maximum(sizes, 1)[:, None]
    centers: Floats = index @ affine[:3, :3].T + affine[:3, 3]
    return sizes, centers


def _slabs(shape: tuple[int, ...]) -> list[slice]:
    """Along the first axis: indices take several times the memory of the voxels they are of."""
    rows = max(1, _SLAB_VOXELS // max(1, int(np.prod(shape[1:]))))
    return [slice(start, min(start + rows, shape[0])) for start in range(0, shape[0], rows)]
