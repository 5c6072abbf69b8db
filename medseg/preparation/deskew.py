"""Sheared grids (gantry tilt, sheared sforms): the orthogonal grid that replaces one, and sampling on it.

Reorienting, cropping and resampling work on any affine, but a network sees an array as a box of right angles: what is
sheared would look bent to it, by as much as each scanner's tilt.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medseg.errors import GeometryError
from medseg.geometry import describe
from medseg.resampling import resample_like
from medseg.volume import Volume

__all__ = ["empty_volume", "is_orthogonal", "sample", "straight_grid"]

# A grid counts as orthogonal where no voxel would move by more than this part of a voxel.
TOLERANCE_VOXELS = 0.1
# Gantries tilt by up to 30 degrees; an axis this far off is a damaged header, and its box would fill the memory.
LARGEST_TILT_DEGREES = 60.0
# The same goes for slices that slide by far more than their own width; a small grid may grow as it likes.
LARGEST_GROWTH, SMALL_VOXELS = 16, 2**27


def is_orthogonal(affine: NDArray[np.float64], shape: Sequence[int], axes: Sequence[int] = (0, 1, 2)) -> bool:
    """Whether making `axes` orthogonal would move no voxel of the grid by 0.1 voxel or more.

    Args:
        affine: (4, 4), voxel index to mm.
        shape: of the grid, 3 axes.
        axes: those that are looked at.

    Example:
        >>> tilted = np.array([[1, 0, 0, 0], [0, 1, 0.02, 0], [0, 0, 5, 0], [0, 0, 0, 1.0]])
        >>> is_orthogonal(tilted, (512, 512, 5)), is_orthogonal(tilted, (512, 512, 7))
        (True, False)
    """
    size = np.array([shape[a] for a in axes]) - 1
    triangle = _triangle(affine, axes)
    moved = np.abs(triangle / np.diag(triangle)[:, None] - np.eye(len(axes))) @ size
    return bool(moved.max() < TOLERANCE_VOXELS - 1e-9)


def straight_grid(volume: Volume) -> tuple[NDArray[np.float64], tuple[int, ...]]:
    """Affine and shape of the smallest orthogonal grid that covers all voxel centres of a 3D volume.

    Its axes are the volume's, in order and direction: two span the planes of the slices as they were taken, the third
    is their normal, and the slices keep their places on it. In a plane the grid is that of the pixels, enlarged by as
    much as the slices are offset, and centred, so that no axis order or direction is preferred.

    Raises:
        GeometryError: if an axis is more than 60 degrees off, or a large grid would grow more than sixteenfold.
    """
    order = _axis_order(volume.affine)
    triangle = _triangle(volume.affine, order)
    lengths = np.diag(triangle)
    tilt = float(np.degrees(np.arccos((lengths / np.linalg.norm(triangle, axis=0)).min())))
    to_straight = np.eye(3)
    to_straight[np.ix_(order, order)] = triangle / lengths[:, None]
    size = np.array(volume.shape) - 1.0
    # Extent of all corners; less a thousandth, so that rounding adds no row.
    extent = np.abs(to_straight) @ size
    shape = np.ceil(extent - 1e-3) + 1
    if tilt > LARGEST_TILT_DEGREES or shape.prod() > max(SMALL_VOXELS, LARGEST_GROWTH * np.prod(size + 1)):
        box = " x ".join(f"{n:.0f}" for n in shape)
        raise GeometryError(
            f"{volume.metadata.source or 'the image'} lies on a grid that is sheared by {tilt:.0f} degrees, so a "
            f"straight one takes {box} voxels for {describe(volume)}; expected at most "
            f"{LARGEST_TILT_DEGREES:.0f} degrees and {LARGEST_GROWTH} times the voxels: correct its affine"
        )
    axes = volume.affine[:3, :3] @ np.linalg.inv(to_straight)
    affine = np.eye(4)
    affine[:3, :3] = axes
    affine[:3, 3] = volume.affine[:3, :3] @ (size / 2) + volume.affine[:3, 3] - axes @ ((shape - 1) / 2)
    return affine, tuple(int(n) for n in shape)


def sample(volume: Volume, grid: Volume, order: int = 1) -> Volume:
    """A volume with channels on another grid, and beside it the lowest value of each channel, air on CT.

    Args:
        volume: `(C, I, J, K)`.
        grid: 3D, without voxels.
        order: of the interpolating splines: 0, 1 or 3.
    """
    # A constant such as 0 would be bright on CT, and the border's value would draw streaks.
    each = [resample_like(volume.with_array(c), grid, order, outside=float(c.min())).array for c in volume.array]
    return grid.with_array(np.stack(each), channels=volume.channels)


def empty_volume(shape: Sequence[int], affine: NDArray[np.float64]) -> Volume:
    """Zeros that take no memory: a grid to resample to."""
    return Volume(np.broadcast_to(np.uint8(0), tuple(shape)), affine)


def _triangle(affine: NDArray[np.float64], axes: Sequence[int]) -> NDArray[np.float64]:
    """`axes` seen from orthogonal ones in mm: the first along the first, the second in the plane of the first two."""
    triangle = np.linalg.qr(affine[:3, list(axes)], mode="r")
    return np.asarray(triangle * np.sign(np.diag(triangle))[:, None])


def _axis_order(affine: NDArray[np.float64]) -> tuple[int, int, int]:
    """Two axes of the planes as they were taken, then the axis across.

    A tilt leaves the pixels of a slice square, whatever order a file has its axes in. Where the slices are offset along
    one pixel axis only, the other one is orthogonal to the slice axis too; equal spacings then identify the pixels.
    """
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    units = affine[:3, :3] / lengths

    def irregularity(axes: tuple[int, int, int]) -> tuple[float, float]:
        first, second, _ = axes
        skew = abs(float(units[:, first] @ units[:, second]))
        return round(skew, 3), round(abs(float(np.log(lengths[first] / lengths[second]))), 3)

    return min(((0, 1, 2), (0, 2, 1), (1, 2, 0)), key=irregularity)
