"""Orientation, resampling, cropping: every step moves the affine with the array.

Resampling keeps the outer edges of the image: n_out = max(1, round(n * s_in / s_target)), the real new spacing is
n * s_in / n_out, and samples lie at half-pixel centres. A crop moves the affine by A * start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import nibabel.orientations as nib_orientations
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.errors import GeometryError
from medseg.volume import Volume, orientation_of

__all__ = [
    "Reorientation",
    "check_same_geometry",
    "crop",
    "describe",
    "flip_lps_ras",
    "orientation_of",
    "pad",
    "reorient",
    "resample",
    "resample_affine",
    "resample_array",
    "resample_like",
    "resampled_shape",
]

Array = NDArray[Any]

# Voxels that are interpolated at a time, few enough to stay small beside the image.
SLAB_VOXELS = 2**20


def flip_lps_ras(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """An LPS affine as RAS, or the reverse: the first two world axes change sign."""
    return np.asarray(np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)


@dataclass(frozen=True, slots=True)
class Reorientation:
    """A permutation and flips of the spatial axes: exact, and exactly undone by `undo`.

    Output axis `a` is input axis `axes[a]`, reversed where `flips[a]`.
    """

    axes: tuple[int, ...]
    flips: tuple[bool, ...]

    @classmethod
    def between(cls, affine: NDArray[np.float64], target: str) -> Reorientation:
        """The axis moves that bring a 3D grid with this affine closest to `target`, e.g. 'RAS'.

        Raises:
            GeometryError: if `target` does not name each of the three directions once.
        """
        if sorted("LR" * (c in "LR") + "PA" * (c in "PA") + "IS" * (c in "IS") for c in target) != ["IS", "LR", "PA"]:
            raise GeometryError(f"{target!r} is not an orientation: one letter each of L/R, P/A and I/S, e.g. 'RAS'")
        source = nib_orientations.io_orientation(affine)
        wanted = nib_orientations.axcodes2ornt(tuple(target))
        axes, flips = [], []
        for world_axis, direction in wanted:
            axis = int(np.flatnonzero(source[:, 0] == world_axis)[0])
            axes.append(axis)
            flips.append(bool(source[axis, 1] != direction))
        return cls(tuple(axes), tuple(flips))

    def apply(self, array: Array, channels: int = 0) -> Array:
        """A view of `array` with its spatial axes moved."""
        lead = int(bool(channels))
        moved = array.transpose([*range(lead), *(a + lead for a in self.axes)])
        return moved[(slice(None),) * lead + tuple(slice(None, None, -1 if f else 1) for f in self.flips)]

    def undo(self, array: Array, channels: int = 0) -> Array:
        """A view of `array` with its spatial axes moved back."""
        lead = int(bool(channels))
        flipped = array[(slice(None),) * lead + tuple(slice(None, None, -1 if f else 1) for f in self.flips)]
        return flipped.transpose([*range(lead), *(int(a) + lead for a in np.argsort(self.axes))])

    def move_affine(self, affine: NDArray[np.float64], shape: Sequence[int]) -> NDArray[np.float64]:
        """The affine of the moved array; `shape` is the spatial shape before the move."""
        matrix = np.zeros((4, 4))
        matrix[3, 3] = 1.0
        for new, (old, flip) in enumerate(zip(self.axes, self.flips, strict=True)):
            matrix[old, new] = -1.0 if flip else 1.0
            if flip:
                matrix[old, 3] = shape[old] - 1
        return np.asarray(affine @ matrix)


def reorient(volume: Volume, target: str = "RAS") -> Volume:
    """The same volume with its axes permuted and flipped towards `target`; voxels are moved, never interpolated.

    Raises:
        GeometryError: for a 2D image, whose place in the patient is not known.
    """
    if volume.dims != 3:
        raise GeometryError(f"only 3D volumes can be reoriented, found {volume!r}")
    move = Reorientation.between(volume.affine, target)
    array = np.ascontiguousarray(move.apply(volume.array, volume.channels))
    return replace(volume, array=array, affine=move.move_affine(volume.affine, volume.shape))


def resampled_shape(shape: Sequence[int], spacing: Sequence[float], target: Sequence[float]) -> tuple[int, ...]:
    """Voxels per axis after resampling from `spacing` to `target` with the outer edges kept."""
    return tuple(max(1, round(n * s / t)) for n, s, t in zip(shape, spacing, target, strict=True))


def resample_affine(affine: NDArray[np.float64], shape: Sequence[int], new_shape: Sequence[int]) -> NDArray[np.float64]:
    """The affine after resampling `shape` to `new_shape` with the outer edges kept."""
    scale = np.ones(3)
    scale[: len(shape)] = np.divide(shape, new_shape)
    matrix = np.diag([*scale, 1.0])
    matrix[:3, 3] = (scale - 1.0) / 2.0
    return np.asarray(affine @ matrix)


def resample_array(array: Array, new_shape: Sequence[int], order: int) -> Array:
    """Resample the last `len(new_shape)` axes with edges kept, half-pixel centres and clamped borders.

    Args:
        array: `(..., I, J, K)` or `(..., I, J)`.
        new_shape: the wanted spatial shape.
        order: 0 nearest (dtype kept; ties go to the lower index), 1 linear (float32).
    """
    if array.ndim == 1:
        return np.asarray(resample_array(array[None], new_shape, order)[0])
    lead = array.ndim - len(new_shape)
    # `take` copies what is not C-contiguous, which is slow across memory order, so axes are put in that order first.
    layout = sorted(range(array.ndim), key=lambda a: -abs(array.strides[a]))
    out = array.transpose(layout)
    # Axes that shrink go first, so the later ones have less to do.
    for wanted in sorted(range(len(new_shape)), key=lambda a: new_shape[a] / array.shape[lead + a]):
        axis = layout.index(lead + wanted)
        n_in, n_out = out.shape[axis], new_shape[wanted]
        if n_in == n_out:
            continue
        position = np.clip((np.arange(n_out) + 0.5) * (n_in / n_out) - 0.5, 0, n_in - 1)
        if order == 0:
            out = out.take(np.ceil(position - 0.5).astype(np.intp), axis=axis)
            continue
        low = np.minimum(position.astype(np.intp), max(n_in - 2, 0))
        fraction = (position - low).astype(np.float32)
        fraction = fraction.reshape([-1 if a == axis else 1 for a in range(out.ndim)])
        high = np.minimum(low + 1, n_in - 1)
        new = np.empty([n_out if a == axis else n for a, n in enumerate(out.shape)], dtype=np.float32)
        # In slabs across another axis: what comes in between stays small.
        across = max((a for a in range(out.ndim) if a != axis), key=lambda a: (out.shape[a] > 1, -a))
        step = max(1, SLAB_VOXELS * out.shape[across] // max(1, new.size))
        for first in range(0, out.shape[across], step):
            rows = (*[slice(None)] * across, slice(first, first + step))
            below = out[rows].take(low, axis=axis).astype(np.float32, copy=False)
            above = out[rows].take(high, axis=axis).astype(np.float32, copy=False)
            above -= below
            above *= fraction
            above += below
            new[rows] = above
        out = new
    out = out.transpose(np.argsort(layout))
    return out if order == 0 else out.astype(np.float32, copy=False)


def resample(volume: Volume, spacing_mm: Sequence[float], order: int = 1) -> Volume:
    """The volume at (nearly) `spacing_mm`, outer edges kept; a sheared one along its own axes, so it stays sheared.

    Args:
        volume: any volume with a known spacing.
        spacing_mm: wanted spacing per spatial axis.
        order: 1 for images (linear, float32), 0 for labels (nearest).

    Raises:
        GeometryError: if the spacing is not known, not positive, or of another rank.
    """
    if not volume.spacing_known:
        raise GeometryError(f"{volume!r} has no known spacing, so it cannot be resampled to {tuple(spacing_mm)} mm")
    if len(spacing_mm) != volume.dims or min(spacing_mm) <= 0:
        raise GeometryError(f"spacing {tuple(spacing_mm)} mm does not fit {volume!r}: one positive value per axis")
    shape = resampled_shape(volume.shape, volume.spacing_mm, spacing_mm)
    array = resample_array(volume.array, shape, order)
    return replace(volume, array=array, affine=resample_affine(volume.affine, volume.shape, shape))


def resample_like(volume: Volume, reference: Volume, order: int = 1, outside: float = 0.0) -> Volume:
    """The volume on the reference's grid, whatever its orientation.

    Args:
        volume: 3D volume, with or without channels.
        reference: 3D volume that gives the grid.
        order: 1 linear, 0 nearest.
        outside: value where the reference reaches beyond the volume.

    Raises:
        GeometryError: if either is not 3D or has no known spacing.
    """
    for each in (volume, reference):
        if each.dims != 3 or not each.spacing_known:
            raise GeometryError(f"resampling to another grid needs 3D volumes with known spacing, found {each!r}")
    if volume.same_geometry(reference):
        kept = volume.array if order == 0 else volume.array.astype(np.float32)
        return replace(volume, array=kept, affine=reference.affine)
    matrix = np.linalg.inv(volume.affine) @ reference.affine
    inside = _inside(matrix, volume.shape, reference.shape)

    def one(array: Array) -> Array:
        source = array if order == 0 else array.astype(np.float32)
        # scipy's own `constant` mode would also cut off the outer half of every border voxel.
        sampled = ndimage.affine_transform(
            source, matrix[:3, :3], matrix[:3, 3], reference.shape, order=order, mode="nearest"
        )
        sampled[~inside] = outside
        return np.asarray(sampled)

    array = np.stack([one(c) for c in volume.array]) if volume.channels else one(volume.array)
    return replace(volume, array=array, affine=reference.affine)


def _inside(matrix: NDArray[np.float64], source: Sequence[int], shape: Sequence[int]) -> NDArray[np.bool_]:
    """Where a grid of `shape` lies within the outer edges of a grid of shape `source`; `matrix` maps index to index."""
    result = np.empty(tuple(shape), dtype=bool)
    j, k = np.arange(shape[1])[:, None], np.arange(shape[2])
    edge = 0.5 + 1e-4  # a point on the edge must not fall off by rounding
    for i in range(shape[0]):
        plane = np.ones(tuple(shape[1:]), dtype=bool)
        for axis, n in enumerate(source):
            position = matrix[axis, 0] * i + matrix[axis, 1] * j + matrix[axis, 2] * k + matrix[axis, 3]
            plane &= (position >= -edge) & (position <= n - 1 + edge)
        result[i] = plane
    return result


def crop(volume: Volume, start: Sequence[int], stop: Sequence[int]) -> Volume:
    """The box `[start, stop)` of the volume.

    Raises:
        GeometryError: if the box is empty or reaches outside.
    """
    if any(not 0 <= a < b <= n for a, b, n in zip(start, stop, volume.shape, strict=True)):
        raise GeometryError(f"box {tuple(start)}..{tuple(stop)} does not lie inside {volume!r}")
    box: tuple[Any, ...] = (..., *(slice(a, b) for a, b in zip(start, stop, strict=True)))
    return replace(volume, array=volume.array[box], affine=_shifted(volume.affine, start))


def pad(volume: Volume, before: Sequence[int], after: Sequence[int], value: float = 0.0) -> Volume:
    """The volume with `before` and `after` voxels of `value` added along each axis.

    Raises:
        GeometryError: if an amount is negative or the ranks differ.
    """
    if len(before) != volume.dims or len(after) != volume.dims or min(*before, *after) < 0:
        raise GeometryError(f"padding {tuple(before)}..{tuple(after)} does not fit {volume!r}")
    width = [(0, 0)] * bool(volume.channels) + list(zip(before, after, strict=True))
    array = np.pad(volume.array, width, constant_values=value)
    return replace(volume, array=array, affine=_shifted(volume.affine, [-b for b in before]))


def _shifted(affine: NDArray[np.float64], start: Sequence[int]) -> NDArray[np.float64]:
    moved = np.array(affine)
    offset = np.array([*start, *[0] * (3 - len(start))], dtype=float)
    moved[:3, 3] += affine[:3, :3] @ offset
    return moved


def describe(volume: Volume) -> str:
    """Shape, spacing, orientation and origin of a grid in one line, for error messages."""
    origin = ", ".join(f"{v:.2f}" for v in volume.affine[:3, 3])
    spacing = ", ".join(f"{s:.4g}" for s in volume.spacing_mm)
    unit = "mm" if volume.spacing_known else "pixels"
    return f"shape {volume.shape}, spacing ({spacing}) {unit}, orientation {volume.orientation}, origin ({origin})"


def check_same_geometry(first: Volume, second: Volume, first_name: str, second_name: str) -> None:
    """Refuse two volumes that do not lie on one grid.

    Raises:
        GeometryError: naming both and printing both geometries.
    """
    if not first.same_geometry(second, tolerance_mm=1e-2):
        raise GeometryError(
            f"{first_name} and {second_name} do not lie on the same grid: {describe(first)} against "
            f"{describe(second)}; resample one of them with medseg.geometry.resample_like"
        )
