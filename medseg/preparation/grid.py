"""Between a case's own grid and the grid a network sees: reorient, then resample; and back.

A sheared grid (gantry tilt) becomes an orthogonal one in the same sampling step, `medseg.preparation.deskew`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.errors import GeometryError
from medseg.geometry import Reorientation, crop, describe
from medseg.io.plausible import likely_unit
from medseg.machine import free_memory
from medseg.preparation.deskew import empty_volume, is_orthogonal, straight_grid
from medseg.preparation.interpolate import coarser_axes, resample_image, resample_labels, sample_image, thick_axis
from medseg.preparation.normalize import measured_scales, normalize
from medseg.preparation.padding import stated_padding
from medseg.resampling import resample_affine, resample_like, resampled_shape
from medseg.volume import Volume

if TYPE_CHECKING:
    from medseg.preparation.plan import Plan

__all__ = [
    "GridMap",
    "holds_whole_numbers",
    "labels_to_network_grid",
    "map_to_network_grid",
    "nonzero_box",
    "oriented_labels",
    "to_network_grid",
]

INT16 = np.iinfo(np.int16)
# More than any case takes: the limit where the free memory cannot be measured.
_MOST_BYTES = 1 << 40
# Metres or micrometres taken for millimetres are a factor of 1000; no image is 100 times finer or coarser along all its
# axes than those that its network was made for.
_MOST_SCALED = 100.0
# Voxels of patients: a plan with such voxels takes no image outside, while one for a microscope may.
_PATIENT_MM = (0.001, 100.0)


@dataclass(frozen=True, slots=True, eq=False)
class Straightening:
    """Grids, without voxels, of an image that is sheared.

    Args:
        native: as read.
        straight: the orthogonal grid that covers it; its axes are moved and resampled in place of the native ones.
        network: what the network sees.
    """

    native: Volume
    straight: Volume
    network: Volume


@dataclass(frozen=True, slots=True)
class GridMap:
    """How a native grid became a network grid.

    Args:
        reorientation: the axis moves, None for 2D images.
        native_shape: spatial shape as read.
        oriented_shape: spatial shape after the axis moves, before resampling; of a sheared image: of the orthogonal
            grid that covers it.
        network_shape: spatial shape after resampling.
        network_spacing_mm: real spacing of the network grid (1 per pixel where none is known).
        straightening: for a sheared image, else None.
        cropped: of a part of the image, which all of the above is about: the part, and the spatial shape of the whole.
        thick: along which axis of the network's grid the image, and the logits on the way back, take the nearest slice.
    """

    reorientation: Reorientation | None
    native_shape: tuple[int, ...]
    oriented_shape: tuple[int, ...]
    network_shape: tuple[int, ...]
    network_spacing_mm: tuple[float, ...]
    straightening: Straightening | None = None
    cropped: tuple[tuple[slice, ...], tuple[int, ...]] | None = None
    thick: tuple[int | None, int | None] = (None, None)

    def to_native(self, label_map: NDArray[Any]) -> NDArray[Any]:
        """A label map on `oriented_shape` with its axes moved back, so that it lies on the native grid.

        Where that is sheared, each voxel gets the label (nearest) or the probability (linear) at its place.

        Resampling from `network_shape` to `oriented_shape` comes before this and belongs to inference, which does
        it on logits.

        Args:
            label_map: array of `oriented_shape`; integers are labels, floats probabilities.

        Returns:
            Contiguous array of `native_shape`, or of the whole image with 0 beyond a part; same dtype.

        Raises:
            GeometryError: if the shape is not `oriented_shape`.
        """
        if tuple(label_map.shape) != self.oriented_shape:
            raise GeometryError(f"label map of shape {label_map.shape} is not on the grid {self.oriented_shape}")
        array = label_map if self.reorientation is None else self.reorientation.undo(label_map)
        if self.straightening is not None:
            order = 1 if array.dtype.kind == "f" else 0
            volume = self.straightening.straight.with_array(array)
            array = resample_like(volume, self.straightening.native, order).array
        if self.cropped is None:
            return np.ascontiguousarray(array, dtype=label_map.dtype)
        box, shape = self.cropped
        whole = np.zeros(shape, dtype=label_map.dtype)
        whole[box] = array
        return whole


def map_to_network_grid(volume: Volume, plan: Plan) -> GridMap:
    """Shapes and axis moves that bring a volume to the plan's grid; no voxel is touched.

    Raises:
        GeometryError: for a 2D image where the plan is for volumes or the reverse, an unknown spacing where the plan
            resamples, an absurdly sheared grid, or a spacing so far from the plan's that no memory holds the resampled
            image or nothing of it is left.
    """
    what = volume.metadata.source or "image"
    if volume.dims != plan.spatial_dims:
        raise GeometryError(
            f"{what} is a {volume.dims}D image ({describe(volume)}), but the plan is for {plan.spatial_dims}D images"
        )
    seen, move = volume, None
    shape, spacing = volume.shape, volume.spacing_mm
    if plan.orientation is not None:
        move = Reorientation.between(volume.affine, plan.orientation)
        # Slices that are offset from one another are as good as straight ones to a net that sees them one by one.
        if volume.spacing_known and not is_orthogonal(volume.affine, volume.shape, move.axes[: plan.dims]):
            affine, straight_shape = straight_grid(volume)
            seen = empty_volume(straight_shape, affine)
            move = Reorientation.between(affine, plan.orientation)
    elif plan.transpose != (0, 1):
        move = _file_axes(volume, plan.transpose, plan.study_orientation or "RAS")
    if move is not None:
        shape = tuple(seen.shape[a] for a in move.axes)
        spacing = tuple(seen.spacing_mm[a] for a in move.axes)
    if plan.spacing_mm is None:
        spacing = spacing if volume.spacing_known else (1.0,) * volume.dims
        factors = [plan.downsampling or 1.0] * plan.dims + [1.0] * (volume.dims - plan.dims)
        network = _network_shape(shape, (1.0,) * volume.dims, factors, plan)
        real = tuple(n * s / m for n, s, m in zip(shape, spacing, network, strict=True))
        return GridMap(move, volume.shape, shape, network, real, _straightening(volume, seen, move, network))
    if not volume.spacing_known:
        raise GeometryError(
            f"{what} has no known spacing, but the plan resamples to {plan.spacing_mm} mm; convert it to a format that "
            "carries the spacing (NIfTI, NRRD, DICOM)"
        )
    target = list(plan.spacing_mm)
    # A 2D net sees slices as they were taken: interpolating between thick slices would blur image and labels.
    target[plan.dims :] = spacing[plan.dims :]
    _check_network_grid(what, shape, spacing, target, plan)
    network = _network_shape(shape, spacing, target, plan)
    real = tuple(n * s / m for n, s, m in zip(shape, spacing, network, strict=True))
    thick = (
        thick_axis(spacing, target) if plan.image.thick_axis == "nearest" else None,
        thick_axis(target, spacing) if plan.logits.thick_axis == "nearest" else None,
    )
    return GridMap(move, volume.shape, shape, network, real, _straightening(volume, seen, move, network), thick=thick)


def _file_axes(volume: Volume, transpose: Sequence[int], of_study: str) -> Reorientation:
    """The axes of the file in the order of a plan. DICOM has no order of a file: its axes are turned before."""
    if volume.dims == 2 or not volume.metadata.series_instance_uid:
        return Reorientation(tuple(transpose), (False,) * volume.dims)
    turn = Reorientation.between(volume.affine, of_study)
    return Reorientation(tuple(turn.axes[a] for a in transpose), tuple(turn.flips[a] for a in transpose))


def nonzero_box(array: NDArray[Any]) -> tuple[tuple[slice, ...], NDArray[np.bool_]]:
    """The box around the voxels that are not 0 in any channel, and within it those voxels with the holes between them.

    An image of zeros is its own box, and all of it is inside.

    Args:
        array: `(C, I, J, K)` or `(C, I, J)`.

    Source:
        nnU-Net 2.8.1, cropping.py, `crop_to_nonzero`.

    Example:
        >>> box, inside = nonzero_box(np.array([[[0, 3, 0, 2, 0]]]))
        >>> box, inside.tolist()
        ((slice(0, 1, None), slice(1, 4, None)), [[True, False, True]])
    """
    held = (array != 0).any(axis=0)
    if held.ndim == 3:  # In nnU-Net an image is one slice of a volume, of which every voxel lies at the border.
        held = ndimage.binary_fill_holes(held)
    found = ndimage.find_objects(held.astype(np.uint8))
    if not found:
        return tuple(slice(0, n) for n in held.shape), np.ones_like(held)
    box: tuple[slice, ...] = found[0]
    return box, held[box]


def _network_shape(
    shape: Sequence[int], spacing: Sequence[float], target: Sequence[float], plan: Plan
) -> tuple[int, ...]:
    if plan.shape_rounding == "extent":
        return resampled_shape(shape, spacing, target)
    return tuple(max(1, round(n * (s / t))) for n, s, t in zip(shape, spacing, target, strict=True))


def _check_network_grid(
    what: str, shape: Sequence[int], spacing: Sequence[float], target: Sequence[float], plan: Plan
) -> None:
    """Refuse to resample between spacings that cannot be of one kind of image."""
    scales = [s / t for s, t in zip(spacing, target, strict=True)]
    grown = [max(1.0, n * scale) for n, scale in zip(shape, scales, strict=True)]
    # Each voxel is at least an int16.
    needed = 2 * plan.in_channels * math.prod(grown)
    free = min(free_memory() or _MOST_BYTES, _MOST_BYTES)
    usual = math.prod(scales[: plan.dims]) ** (1 / plan.dims)
    other_unit = not 1 / _MOST_SCALED <= usual <= _MOST_SCALED or (
        _are_of_patients(target[: plan.dims]) and not _are_of_patients(spacing[: plan.dims])
    )
    if needed <= free and not other_unit:
        return
    voxels, aims = (" x ".join(f"{s:.4g}" for s in each) for each in (spacing, target))
    size = " x ".join(f"{n:.0f}" for n in grown)
    unit = likely_unit(usual) if other_unit else "metres"
    memory = f" ({needed / 1e9:.1f} GB, {free / 1e9:.1f} GB of memory are free)" if needed > free else ""
    raise GeometryError(
        f"{what} has voxels of {voxels} mm, the plan {aims} mm: its {' x '.join(map(str, shape))} voxels would become "
        f"{size}{memory}; is its spacing in another unit, such as {unit}? correct its header, or crop it"
    )


def _are_of_patients(spacing: Sequence[float]) -> bool:
    return all(_PATIENT_MM[0] <= s <= _PATIENT_MM[1] for s in spacing)


def _straightening(
    volume: Volume, seen: Volume, move: Reorientation | None, network_shape: tuple[int, ...]
) -> Straightening | None:
    if seen is volume or move is None:
        return None
    oriented_shape = tuple(seen.shape[a] for a in move.axes)
    affine = resample_affine(move.move_affine(seen.affine, seen.shape), oriented_shape, network_shape)
    return Straightening(empty_volume(volume.shape, volume.affine), seen, empty_volume(network_shape, affine))


def to_network_grid(volume: Volume, plan: Plan) -> tuple[NDArray[Any], GridMap]:
    """Grey levels of a volume on the plan's grid.

    Args:
        volume: with channels, `(C, I, J, K)` or `(C, I, J)`.
        plan: says how.

    Returns:
        `(C, I, J, K)` or `(C, I, J)`. With `normalize_on: native` float32, normalised; else not yet normalised: int16
        where that is exact, or where the image holds whole numbers that normalisation clips anyway (HU, rounded after
        interpolation), else float32. And the `GridMap` that leads back.

    Raises:
        GeometryError: if the volume does not fit the plan (dimensions, channels, unknown spacing).
        ReadError: for values outside 0..255 where the plan normalises natively and by 'rgb'.
    """
    if volume.channels != plan.in_channels:
        raise GeometryError(
            f"{volume.metadata.source or 'image'} has {volume.channels} channel(s), the plan expects {plan.in_channels}"
        )
    whole_shape, box, inside = volume.shape, None, None
    if plan.crop == "nonzero":
        box, inside = nonzero_box(volume.array)
        volume = crop(volume, [side.start for side in box], [side.stop for side in box])
    grid = map_to_network_grid(volume, plan)
    if box is not None:
        grid = replace(grid, cropped=(box, whole_shape))
    if plan.normalize_on == "native":
        padding = stated_padding(volume.metadata, volume.channels)
        normalized = normalize(volume.array, measured_scales(volume.array, plan, padding, inside))
        for channel, each in zip(normalized, plan.normalization, strict=True):
            if each.region == "mask" and inside is not None:
                channel[~inside] = 0
        volume = volume.with_array(normalized, volume.channels)
    whole = plan.normalize_on == "network" and _is_int16(volume.array)
    averaged = plan.image.prefilter != "none" and any(coarser_axes(grid.oriented_shape, grid.network_shape))
    array = _image_on_grid(volume, grid, plan, averaged)
    if grid.straightening is not None or grid.network_shape != grid.oriented_shape:
        clipped = all(each.kind in ("clip", "window") for each in plan.normalization)
        whole = whole and (clipped or (plan.image.order == 0 and not averaged))
        array = np.rint(array) if whole else array
    return np.ascontiguousarray(array, dtype=np.int16 if whole else np.float32), grid


def _image_on_grid(volume: Volume, grid: GridMap, plan: Plan, averaged: bool) -> NDArray[Any]:
    array = volume.array
    if grid.straightening is not None:
        if not averaged:
            return sample_image(volume, grid.straightening.network, plan.image)
        # Voxels are averaged along the axes of the straight grid, which is as fine as the native one.
        array = sample_image(volume, grid.straightening.straight, plan.image)
    if grid.reorientation is not None:
        array = grid.reorientation.apply(array, volume.channels)
    return (
        array
        if grid.network_shape == grid.oriented_shape
        else resample_image(array, grid.network_shape, plan.image, grid.thick[0])
    )


def labels_to_network_grid(volume: Volume, plan: Plan) -> NDArray[Any]:
    """A label map on the plan's grid, as `plan.labels` says.

    Args:
        volume: integers, without channels.
        plan: says how. Of a sheared grid nearest neighbours are never equally near.

    Returns:
        `(I, J, K)` or `(I, J)`, same dtype.

    Raises:
        GeometryError: if the volume does not fit the plan.
    """
    if plan.crop != "none":
        raise GeometryError(
            "a plan that crops images to their nonzero voxels is of an imported model and for prediction"
        )
    grid = map_to_network_grid(volume, plan)
    if grid.straightening is not None:
        finer = all(n >= m for n, m in zip(grid.network_shape, grid.oriented_shape, strict=True))
        if plan.labels.method == "nearest" or finer:
            return np.ascontiguousarray(resample_like(volume, grid.straightening.network, order=0).array)
    return np.ascontiguousarray(resample_labels(oriented_labels(volume, grid), grid.network_shape, plan.labels))


def oriented_labels(volume: Volume, grid: GridMap) -> NDArray[Any]:
    """A label map with its axes moved but not resampled, `grid.oriented_shape`; a sheared one is made straight."""
    if grid.straightening is not None:
        volume = resample_like(volume, grid.straightening.straight, order=0)
    return volume.array if grid.reorientation is None else grid.reorientation.apply(volume.array)


def _is_int16(array: NDArray[Any]) -> bool:
    if array.dtype.kind == "b":
        return True
    if array.dtype.kind not in "iuf" or array.min() < INT16.min or array.max() > INT16.max:
        return False
    return holds_whole_numbers(array)


def holds_whole_numbers(array: NDArray[Any]) -> bool:
    """Whether every value is an integer, whatever the dtype."""
    if array.dtype.kind in "iub":
        return True
    # A few planes settle it for most images.
    few = array[..., :: max(1, array.shape[-1] // 4)]
    return bool((few == np.rint(few)).all() and (array == np.rint(array)).all())
