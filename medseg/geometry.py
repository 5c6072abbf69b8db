"""Reorienting, cropping and padding; the affine always moves with the array. A crop moves it by A * start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any
from warnings import warn

import nibabel.orientations as nib_orientations
import numpy as np
from numpy.typing import NDArray

from medseg.errors import GeometryError
from medseg.volume import Volume, orientation_of

__all__ = [
    "Reorientation",
    "check_same_geometry",
    "copy_grid",
    "crop",
    "describe",
    "flip_lps_ras",
    "orientation_of",
    "pad",
    "reorient",
]

Array = NDArray[Any]


def flip_lps_ras(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert an affine from LPS to RAS, or the reverse: the first two world axes change sign."""
    return np.asarray(np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)


@dataclass(frozen=True, slots=True)
class Reorientation:
    """A permutation and flips of the spatial axes: exact, and exactly undone by `undo`.

    Output axis `a` is input axis `axes[a]`, reversed if `flips[a]`.
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
        GeometryError: for a 2D image, whose position in the patient is unknown.
    """
    if volume.dims != 3:
        raise GeometryError(f"only 3D volumes can be reoriented, found {volume!r}")
    move = Reorientation.between(volume.affine, target)
    array = np.ascontiguousarray(move.apply(volume.array, volume.channels))
    return replace(volume, array=array, affine=move.move_affine(volume.affine, volume.shape))


def crop(volume: Volume, start: Sequence[int], stop: Sequence[int]) -> Volume:
    """The part of the volume inside the box `[start, stop)`, in voxel indices.

    Raises:
        GeometryError: if the box is empty or extends outside.
    """
    if any(not 0 <= a < b <= n for a, b, n in zip(start, stop, volume.shape, strict=True)):
        raise GeometryError(f"box {tuple(start)}..{tuple(stop)} is not inside {volume!r}")
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
    """Refuse two volumes that are not on the same grid.

    Raises:
        GeometryError: naming both and printing both geometries.
    """
    if not first.same_geometry(second, tolerance_mm=1e-2):
        advice = "resample one of them with medseg.resampling.resample_like"
        if first.shape == second.shape and _is_unplaced(first) != _is_unplaced(second):
            mask, image = (first_name, second_name) if _is_unplaced(first) else (second_name, first_name)
            advice = (
                f"{mask} has the affine of a file saved without one (identity); if its voxels are those of {image}, "
                f"copy the grid: medseg convert {mask} OUT.nii.gz --copy-grid {image} (or medseg.geometry.copy_grid)"
            )
        raise GeometryError(
            f"{first_name} and {second_name} do not lie on the same grid: {describe(first)} against "
            f"{describe(second)}; {advice}"
        )


def copy_grid(volume: Volume, like: Volume) -> Volume:
    """The voxels of a volume, unmoved, on the grid of another: for masks that were saved without their affine.

    Args:
        volume: an image or label map.
        like: whose affine and spacing are taken.

    Raises:
        GeometryError: if the shapes differ, so that the voxels cannot be the same ones.

    Example:
        >>> mask = Volume(np.zeros((4, 5, 6), np.uint8), np.eye(4))
        >>> copy_grid(mask, Volume(np.zeros((4, 5, 6)), np.diag([1.0, 1.0, 2.5, 1.0]))).spacing_mm
        (1.0, 1.0, 2.5)
    """
    if volume.shape != like.shape:
        raise GeometryError(
            f"a grid of shape {like.shape} cannot be copied to an image of shape {volume.shape}; resample it instead"
        )
    return replace(volume, affine=like.affine, spacing_known=like.spacing_known)


def _is_unplaced(volume: Volume) -> bool:
    """Whether the affine is the one that programs write that know none: no origin, 1 mm, axes as in RAS or LPS."""
    return bool(np.array_equal(np.abs(volume.affine), np.eye(4)))


_MOVED = frozenset({"resample", "resample_affine", "resample_array", "resample_like", "resampled_shape"})


def __getattr__(name: str) -> Any:
    if name in _MOVED:
        warn(f"medseg.geometry.{name} has moved to medseg.resampling", DeprecationWarning, stacklevel=2)
        return getattr(import_module("medseg.resampling"), name)
    raise AttributeError(f"module 'medseg.geometry' has no attribute {name!r}")
