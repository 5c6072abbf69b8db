"""What the surfaces of two masks are made of: voxels that each count 1, or cells with the area in them.

Work is done slab by slab inside the label's own box, so that a large CT needs little memory beside its surface.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medseg.metrics.areas import cell_areas
from medseg.metrics.label_maps import LabelMaps

__all__ = ["SurfaceElements", "surface_elements"]

Mask = NDArray[np.bool_]
# Small enough for the processor's cache, large enough that the slabs' shared slices do not matter.
_SLAB_VOXELS = 1 << 18


@dataclass(frozen=True, slots=True)
class SurfaceElements:
    """Elements of either surface.

    Args:
        places: `(n, dims)` int32 indices from the corner of the label's box, rising along the first axis.
        pred_codes: `(n,)` what each element is in the prediction, an index into `areas`.
        ref_codes: the same in the reference.
        areas: area of each code; 0 for codes that are not on the surface.
        by_area: False where every element counts 1.
    """

    places: NDArray[np.int32]
    pred_codes: NDArray[np.uint8]
    ref_codes: NDArray[np.uint8]
    areas: NDArray[np.float64]
    by_area: bool

    @property
    def in_pred(self) -> Mask:
        """Which elements are on the prediction's surface."""
        return (self.areas > 0)[self.pred_codes]

    @property
    def in_ref(self) -> Mask:
        """Which elements are on the reference's surface."""
        return (self.areas > 0)[self.ref_codes]

    @property
    def pred_total(self) -> float:
        """Area of the prediction's surface, or its number of voxels."""
        return float(np.bincount(self.pred_codes, minlength=len(self.areas)) @ self.areas)

    @property
    def ref_total(self) -> float:
        """Area of the reference's surface, or its number of voxels."""
        return float(np.bincount(self.ref_codes, minlength=len(self.areas)) @ self.areas)

    def pred_weights(self, which: Mask) -> NDArray[np.float64] | None:
        """Areas of some of the prediction's elements; None where each counts 1."""
        return self.areas[self.pred_codes[which]] if self.by_area else None

    def ref_weights(self, which: Mask) -> NDArray[np.float64] | None:
        """Areas of some of the reference's elements; None where each counts 1."""
        return self.areas[self.ref_codes[which]] if self.by_area else None


def surface_elements(maps: LabelMaps, values: Sequence[int], surface: str) -> SurfaceElements:
    """The elements of either surface of the label made of `values`; `surface` is "voxel" or "area"."""
    by_area = surface == "area"
    areas = cell_areas(maps.spacing) if by_area else np.array([0.0, 1.0])
    codes_of = _cells if by_area else _surface_voxels
    places, pred_codes, ref_codes = [np.zeros((0, len(maps.spacing)), np.int32)], [_NO_CODES], [_NO_CODES]
    for start, last, masks in _slabs(maps, values):
        in_pred, in_ref = (codes_of(mask) for mask in masks)
        if by_area and not last:
            in_pred, in_ref = in_pred[:-1], in_ref[:-1]
        both_ways = _on_surface(in_pred, len(areas)) | _on_surface(in_ref, len(areas))
        where = np.flatnonzero(both_ways)
        pred_codes.append(in_pred.ravel()[where])
        ref_codes.append(in_ref.ravel()[where])
        places.append(_places(where, in_pred.shape, start))
    return SurfaceElements(
        np.concatenate(places), np.concatenate(pred_codes), np.concatenate(ref_codes), areas, by_area
    )


_NO_CODES = np.zeros(0, dtype=np.uint8)


def _slabs(maps: LabelMaps, values: Sequence[int]) -> Iterator[tuple[int, bool, tuple[Mask, Mask]]]:
    """First slice, whether it is the last slab, and both masks with one slice or voxel more on every side."""
    slices, *box = maps.box(values)
    first, last = slices.start, slices.stop
    sides = tuple(s.stop - s.start for s in box)
    thickness = max(1, _SLAB_VOXELS // max(1, int(np.prod(sides))))
    for start in range(first, last, thickness):
        stop = min(start + thickness, last)
        low, high = max(start - 1, first), min(stop + 1, last)
        shape = (stop - start + 2, *(n + 2 for n in sides))
        inner = (slice(low - start + 1, high - start + 1), *(slice(1, -1) for _ in sides))
        padded = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
        for mask, into in zip(maps.masks(values, (slice(low, high), *box)), padded, strict=True):
            into[inner] = mask
        yield start - first, stop == last, padded


def _surface_voxels(padded: Mask) -> NDArray[np.uint8]:
    """1 at the mask's voxels that have a face neighbour outside it, without the padding of the first axis."""
    flat = padded.ravel()
    inside = flat.copy()
    step = 1
    for size in reversed(padded.shape):
        # In the flat array a neighbour is a fixed step away; the zero border keeps rows apart.
        inside[step:] &= flat[:-step]
        inside[:-step] &= flat[step:]
        step *= size
    return (flat & ~inside).reshape(padded.shape)[1:-1].view(np.uint8)


def _cells(padded: Mask) -> NDArray[np.uint8]:
    """The code of every cell between neighbouring voxels, `n - 1` along each axis."""
    codes: NDArray[np.uint8] = padded.view(np.uint8)
    bits = 1
    for axis in reversed(range(padded.ndim)):
        before: list[slice] = [slice(None)] * padded.ndim
        after = list(before)
        before[axis], after[axis] = slice(None, -1), slice(1, None)
        codes = np.bitwise_or(codes[tuple(before)] << np.uint8(bits), codes[tuple(after)], dtype=np.uint8)
        bits *= 2
    return codes


def _on_surface(codes: NDArray[np.uint8], n_codes: int) -> Mask:
    """Codes that are neither wholly outside nor, for cells, wholly inside."""
    if n_codes == 2:
        return codes.view(np.bool_)
    return np.asarray((codes != 0) & (codes != n_codes - 1))


def _places(where: NDArray[np.intp], shape: tuple[int, ...], start: int) -> NDArray[np.int32]:
    places = np.empty((len(where), len(shape)), dtype=np.int32)
    for axis, index in enumerate(np.unravel_index(where, shape)):
        places[:, axis] = index
    places[:, 0] += start
    return places
