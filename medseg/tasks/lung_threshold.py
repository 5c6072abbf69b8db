"""Lungs by a threshold: what a learned model has to be better than."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.labels import LabelScheme
from medseg.tasks.diameters import axial_axis
from medseg.tasks.laterality import split_sides
from medseg.volume import Volume

__all__ = ["lungs_by_threshold"]

_AIR_HU = -400
# A windpipe's section; the largest is that of the fork.
_WINDPIPE_MM2 = (20.0, 700.0)
_SECOND_LUNG = 0.1


def lungs_by_threshold(image: Volume, scheme: LabelScheme) -> NDArray[Any] | None:
    """Air inside the body without the windpipe, its two largest parts, with their vessels filled.

    What is below -400 HU and reaches the image's sides is outside (in 2D: the image's frame). The windpipe is followed
    slice by slice from the top down to where it opens into the lungs. Vessels are filled slice by slice.

    Args:
        image: CT in Hounsfield units, 3D or 2D.
        scheme: with one label, or with one for the left and one for the right lung.

    Returns:
        Label map, same shape, values as the scheme has them; one label or none is painted where sides are asked for and
        cannot be separated. None where nothing is as dark as air: an 8-bit picture is not a CT in Hounsfield units.
    """
    hu = np.asarray(image.array[0] if image.channels else image.array)
    if not hu.min(initial=0) < _AIR_HU:
        return None
    axis = axial_axis(image.affine) if hu.ndim == 3 else None
    air = _inside_air(hu < _AIR_HU, axis)
    if axis is not None:
        pixel = abs(float(np.linalg.det(image.affine[:3, :3]))) / float(np.linalg.norm(image.affine[:3, axis]))
        air &= ~_windpipe(air, axis, bool(image.affine[2, axis] > 0), pixel)
    lungs = _fill_slices(_two_largest(air), axis)
    result = np.zeros(hu.shape, dtype=scheme.dtype)
    if len(scheme.names) == 1:
        result[lungs] = scheme.painted[0]
        return result
    sides = split_sides(lungs, image.affine) if hu.ndim == 3 else None
    if sides is not None:
        for name, side in scheme.left_right.items():
            result[sides[side == "right"]] = scheme.painted[scheme.names.index(name)]
    return result


def _inside_air(air: NDArray[np.bool_], axis: int | None) -> NDArray[np.bool_]:
    """Air that does not reach the sides of the image; above and below, lungs may be cut off."""
    parts, _ = ndimage.label(air)
    touching = [np.unique(np.take(parts, end, axis=a)) for a in range(air.ndim) if a != axis for end in (0, -1)]
    return np.asarray(air & ~np.isin(parts, np.concatenate(touching)))


def _windpipe(air: NDArray[np.bool_], axis: int, upwards: bool, pixel_mm2: float) -> NDArray[np.bool_]:
    found = np.zeros_like(air)
    slices, marks = np.moveaxis(air, axis, 0), np.moveaxis(found, axis, 0)
    order = range(len(slices) - 1, -1, -1) if upwards else range(len(slices))
    before: NDArray[np.bool_] | None = None
    for k in order:
        parts, count = ndimage.label(slices[k])
        areas = np.bincount(parts.ravel(), minlength=count + 1) * pixel_mm2
        fits = [n for n in range(1, count + 1) if _WINDPIPE_MM2[0] <= areas[n] <= _WINDPIPE_MM2[1]]
        if before is None:
            if not fits:
                continue
            # The first air from above: a windpipe lies nearer to the middle than the top of a lung.
            middle = (np.array(parts.shape) - 1) / 2
            centers = ndimage.center_of_mass(slices[k], parts, fits)
            start = fits[int(np.argmin([np.linalg.norm(c - middle) for c in centers]))]
            before = parts == start
        else:
            touched = set(np.unique(parts[before]).tolist()) & set(fits)
            if not touched:
                break
            before = np.isin(parts, list(touched))
        marks[k] |= before
    # Its wall's partial volume is not lung either.
    return np.asarray(ndimage.binary_dilation(found) & air) if found.any() else found


def _two_largest(air: NDArray[np.bool_]) -> NDArray[np.bool_]:
    parts, count = ndimage.label(air)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    largest = [n for n in np.argsort(-sizes, kind="stable")[:2].tolist() if sizes[n] > _SECOND_LUNG * sizes.max()]
    return np.asarray(np.isin(parts, largest)) if count else air


def _fill_slices(lungs: NDArray[np.bool_], axis: int | None) -> NDArray[np.bool_]:
    # Closing takes in vessels that a slice cuts at the lung's edge.
    flat = ndimage.generate_binary_structure(2, 1)
    structure = flat if axis is None else np.expand_dims(flat, axis)
    padded = np.pad(lungs, 2)
    closed = ndimage.binary_closing(padded, structure=structure)[(slice(2, -2),) * lungs.ndim]
    if axis is None:
        return np.asarray(ndimage.binary_fill_holes(closed), dtype=bool)
    filled = [ndimage.binary_fill_holes(each) for each in np.moveaxis(closed, axis, 0)]
    return np.moveaxis(np.stack(filled), 0, axis)
