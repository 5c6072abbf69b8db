"""An image on the grid that the members of a model see, and their mask back on the image's; see `WorkingGrid`.

Source: TotalSegmentator 2.18.0, resampling.py (`scipy.ndimage.zoom` without `grid_mode`, int32); deepbet 1.0.2, bet.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.errors import GeometryError
from medseg.inference.bundle_parts import WorkingGrid
from medseg.volume import Volume

__all__ = ["grid_shape", "mask_from_grid", "on_grid"]

# No image of a patient has more voxels than this once it is resampled.
MOST_VOXELS = 1 << 32


def grid_shape(volume: Volume, grid: WorkingGrid) -> tuple[int, ...]:
    """The voxels of the grid along each axis of a volume.

    Raises:
        GeometryError: for an image of unknown spacing where the grid has one, or a grid that no memory holds.
    """
    if grid.shape is not None or grid.spacing_mm is None:
        return grid.shape or volume.shape
    what = volume.metadata.source or "the image"
    if not volume.spacing_known:
        raise GeometryError(
            f"{what} has no known spacing, but the model resamples to {grid.spacing_mm} mm; convert it to a format "
            "that carries the spacing (NIfTI, NRRD, DICOM)"
        )
    sizes = zip(volume.shape, volume.spacing_mm, grid.spacing_mm, strict=True)
    shape = tuple(max(1, round(n * (old / new))) for n, old, new in sizes)
    if np.prod(shape, dtype=float) > MOST_VOXELS:
        raise GeometryError(
            f"{what} would have {' x '.join(map(str, shape))} voxels of {grid.spacing_mm} mm; is its spacing in "
            "another unit? correct its header, or crop it"
        )
    return shape


def on_grid(volume: Volume, grid: WorkingGrid | None) -> Volume:
    """A volume `(C, I, J, K)` on the grid; itself for None."""
    if grid is None:
        return volume
    shape = grid_shape(volume, grid)
    array = _resampled(volume.array, (len(volume.array), *shape), grid.order, grid)
    if grid.whole_numbers:
        array = array.astype(np.int32)
    # The first voxel's centre stays where it is, as TotalSegmentator has it; members read only the spacing from this.
    affine = volume.affine.copy()
    affine[:3, :3] *= np.divide(volume.shape, shape) if grid.spacing_mm is None else _steps(volume, grid)
    return Volume(array, affine, volume.channels, volume.metadata, volume.findings, volume.spacing_known)


def mask_from_grid(mask: NDArray[Any], shape: Sequence[int], grid: WorkingGrid | None) -> NDArray[Any]:
    """A label map of the grid on the image's `shape`, by nearest neighbours of the grid's method."""
    return mask if grid is None else _resampled(mask, tuple(shape), 0, grid)


def _steps(volume: Volume, grid: WorkingGrid) -> NDArray[np.float64]:
    return np.divide(grid.spacing_mm or volume.spacing_mm, volume.spacing_mm)


def _resampled(array: NDArray[Any], shape: tuple[int, ...], order: int, grid: WorkingGrid) -> NDArray[Any]:
    if array.shape == shape:
        return array
    if grid.method == "nearest":
        return array[np.ix_(*(_upper_nearest(n, m) for n, m in zip(array.shape, shape, strict=True)))]
    if array.ndim > 3:
        return np.stack([_resampled(channel, shape[1:], order, grid) for channel in array])
    factors = [m / n for n, m in zip(array.shape, shape, strict=True)]
    kind = array.dtype if order == 0 or array.dtype == np.float32 else np.float64
    out = np.empty(shape, dtype=kind)
    ndimage.zoom(array, factors, output=out, order=order, mode="nearest")
    return out


def _upper_nearest(size: int, new_size: int) -> NDArray[np.intp]:
    """The nearest sample of each new one, half-way the upper."""
    return ((2 * np.arange(new_size) + 1) * size // (2 * new_size)).astype(np.intp)
