"""Distances between the surfaces of two masks: HD95, ASSD and NSD from one set of distances.

A surface voxel belongs to the mask and has a face neighbour (6 in 3D, 4 in 2D) that does not; beyond the image lies
nothing. Work is done slab by slab inside the label's own box, and only surface voxels that the two masks do not share
need a search: for all others the distance is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from medseg.metrics.empty import empty_score
from medseg.metrics.overlap import LabelMaps

__all__ = ["SurfaceDistances", "surface_distances"]

_SLAB_VOXELS = 1 << 21
# A distance that equals the tolerance counts as within it, also when a spacing such as 0.7 mm is not exact in binary.
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class SurfaceDistances:
    """Distance of every surface voxel to the other mask's surface, in the unit of the spacing.

    Args:
        pred_to_ref: distances that are not zero, of the prediction's surface voxels; empty where a mask is empty.
        ref_to_pred: the same of the reference's.
        pred_voxels: surface voxels of the prediction, those at distance 0 included; 0 for an empty mask.
        ref_voxels: surface voxels of the reference.
    """

    pred_to_ref: NDArray[np.float64]
    ref_to_pred: NDArray[np.float64]
    pred_voxels: int
    ref_voxels: int

    def _empty(self, metric: str) -> float | None:
        return empty_score(metric, self.pred_voxels == 0, self.ref_voxels == 0)

    def hd95(self, convention: str = "max_directed") -> float:
        """The 95th percentile Hausdorff distance; empty masks as `medseg.metrics.empty` says.

        Args:
            convention: "max_directed" is the larger of the two directed 95th percentiles (as MONAI), "pooled" the
                95th percentile of both sets together (as medpy; about 8% lower in practice).

        Source: D. P. Huttenlocher et al., IEEE PAMI 15 (1993), 850-863, with the percentile of its section on
        partial matching.
        """
        empty = self._empty("hd95")
        if empty is not None:
            return empty
        if convention == "pooled":
            both = np.concatenate([self.pred_to_ref, self.ref_to_pred])
            return _percentile_with_zeros(both, self.pred_voxels + self.ref_voxels, 95.0)
        return max(
            _percentile_with_zeros(self.pred_to_ref, self.pred_voxels, 95.0),
            _percentile_with_zeros(self.ref_to_pred, self.ref_voxels, 95.0),
        )

    def assd(self, convention: str = "pooled") -> float:
        """The average symmetric surface distance; empty masks as `medseg.metrics.empty` says.

        Args:
            convention: "pooled" is the mean over both surfaces' voxels together (as MONAI), "mean" the mean of the
                two directed averages.

        Source: T. Heimann et al., IEEE TMI 28 (2009), 1251-1265, section II-D.
        """
        empty = self._empty("assd")
        if empty is not None:
            return empty
        there, back = float(self.pred_to_ref.sum()), float(self.ref_to_pred.sum())
        if convention == "mean":
            return (there / self.pred_voxels + back / self.ref_voxels) / 2.0
        return (there + back) / (self.pred_voxels + self.ref_voxels)

    def nsd(self, tolerance: float) -> float:
        """The normalised surface Dice: share of both surfaces within `tolerance` of the other, in [0, 1].

        Args:
            tolerance: in the unit of the spacing; a distance equal to it counts as within.

        Counted by surface voxels (as MONAI's `compute_surface_dice`); empty masks as `medseg.metrics.empty` says.
        Source: S. Nikolov et al., arXiv:1809.04430 (2018), section on the surface Dice.
        """
        empty = self._empty("nsd")
        if empty is not None:
            return empty
        limit = tolerance * (1.0 + _ROUNDING)
        beyond = int((self.pred_to_ref > limit).sum()) + int((self.ref_to_pred > limit).sum())
        return 1.0 - beyond / (self.pred_voxels + self.ref_voxels)


def surface_distances(maps: LabelMaps, values: Sequence[int]) -> SurfaceDistances:
    """Surface distances of the label or region made of `values`.

    Args:
        maps: the two label maps, as `LabelMaps.of` gives them.
        values: the integers that belong to the label.
    """
    shared, only_pred, only_ref = _surfaces(maps, values)
    pred_voxels, ref_voxels = len(shared) + len(only_pred), len(shared) + len(only_ref)
    if pred_voxels == 0 or ref_voxels == 0:
        nothing = np.zeros(0)
        return SurfaceDistances(nothing, nothing, pred_voxels, ref_voxels)
    return SurfaceDistances(
        _to_nearest(only_pred, only_ref, shared), _to_nearest(only_ref, only_pred, shared), pred_voxels, ref_voxels
    )


def _to_nearest(
    points: NDArray[np.float64], others: NDArray[np.float64], shared: NDArray[np.float64]
) -> NDArray[np.float64]:
    if not len(points):
        return np.zeros(0)
    targets = np.concatenate([others, shared])
    tree = cKDTree(targets, balanced_tree=False, compact_nodes=False)
    return np.asarray(tree.query(points)[0])


def _surfaces(
    maps: LabelMaps, values: Sequence[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Positions `(n, dims)` of the surface voxels that both masks share, and of those of one mask only.

    They count from the corner of the label's box, in the unit of the spacing.
    """
    dims = maps.pred.ndim
    found: tuple[list[NDArray[np.float64]], ...] = ([], [], [])
    first, last = maps.slices(values)
    box = _cross_section(maps, values, first, last)
    thickness = max(1, _SLAB_VOXELS // max(1, int(np.prod([s.stop - s.start for s in box]))))
    for start in range(first, last, thickness):
        stop = min(start + thickness, last)
        # One slice more on either side, so the erosion sees the neighbours of the slab's outer slices.
        low, high = max(start - 1, first), min(stop + 1, last)
        masks = maps.masks(values, (slice(low, high), *box))
        in_pred, in_ref = (_surface(mask)[start - low : stop - low] for mask in masks)
        both = in_pred & in_ref
        in_pred &= ~both
        in_ref &= ~both
        for mask, points in zip((both, in_pred, in_ref), found, strict=True):
            points.append(_coordinates(mask, start - first, maps.spacing))
    shared, only_pred, only_ref = (np.concatenate(p) if p else np.zeros((0, dims)) for p in found)
    return shared, only_pred, only_ref


def _cross_section(maps: LabelMaps, values: Sequence[int], first: int, last: int) -> tuple[slice, ...]:
    """The label's box across the slices: what lies outside it need not be eroded."""
    if first == last:
        return tuple(slice(0, 0) for _ in maps.pred.shape[1:])
    shadow = np.zeros(maps.pred.shape[1:], dtype=bool)
    thickness = max(1, _SLAB_VOXELS // max(1, shadow.size))
    for start in range(first, last, thickness):
        for mask in maps.masks(values, (slice(start, min(start + thickness, last)),)):
            shadow |= mask.any(axis=0)
    box = []
    for axis in range(shadow.ndim):
        held = np.flatnonzero(shadow.any(axis=tuple(a for a in range(shadow.ndim) if a != axis)))
        box.append(slice(int(held[0]), int(held[-1]) + 1) if held.size else slice(0, 0))
    return tuple(box)


def _surface(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask's voxels that have a face neighbour outside it."""
    padded = np.pad(mask, 1)
    flat = padded.ravel()
    inside = flat.copy()
    step = 1
    for size in reversed(padded.shape):
        # In the flat array a neighbour is a fixed step away; the zero border keeps rows apart.
        inside[step:] &= flat[:-step]
        inside[:-step] &= flat[step:]
        step *= size
    edge = (flat & ~inside).reshape(padded.shape)
    return np.asarray(edge[(slice(1, -1),) * mask.ndim])


def _coordinates(mask: NDArray[np.bool_], start: int, spacing: Sequence[float]) -> NDArray[np.float64]:
    where = np.flatnonzero(mask)
    points = np.empty((len(where), mask.ndim))
    for axis, index in enumerate(np.unravel_index(where, mask.shape)):
        points[:, axis] = (index + (start if axis == 0 else 0)) * spacing[axis]
    return points


def _percentile_with_zeros(nonzero: NDArray[np.float64], n: int, percent: float) -> float:
    """`np.percentile` (linear) of the values and as many zeros as make them `n`, without building the zeros."""
    position = percent / 100.0 * (n - 1)
    below, zeros = int(position), n - len(nonzero)
    first, second = below - zeros, min(below + 1, n - 1) - zeros
    if second < 0:
        return 0.0
    part = np.partition(nonzero, [max(first, 0), second])
    low = float(part[first]) if first >= 0 else 0.0
    return low + (float(part[second]) - low) * (position - below)
