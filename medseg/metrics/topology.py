"""Topology of masks: Betti numbers, and what two skeletons say about each other's masks; scikit-image thins them."""

from __future__ import annotations

import gc
import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.metrics.empty import empty_score

__all__ = ["Skeletons", "betti_numbers", "euler_number", "skeleton_of"]

Mask = NDArray[np.bool_]
_IMPORTING = threading.Lock()


def euler_number(mask: Mask) -> int:
    """Corners - edges + faces - voxels of the union of the mask's closed voxels (2D: corners - edges + pixels).

    Args:
        mask: `(I, J)` or `(I, J, K)`.

    Voxels that touch by a corner are connected: 26 neighbours in 3D, 8 in 2D.
    """
    cells = np.pad(mask, 1)
    total = 0
    for open_axes in itertools.product((False, True), repeat=mask.ndim):
        # Along an open axis the cell is as long as a voxel, along the others it is the border between two.
        held = cells
        for axis, is_open in enumerate(open_axes):
            if not is_open:
                before: list[slice] = [slice(None)] * mask.ndim
                after = list(before)
                before[axis], after[axis] = slice(None, -1), slice(1, None)
                held = held[tuple(before)] | held[tuple(after)]
        total += (-1) ** sum(open_axes) * int(np.count_nonzero(held))
    return total


def betti_numbers(mask: Mask) -> tuple[int, int, int]:
    """Components, loops and cavities of a mask; in 2D components, holes and 0.

    Args:
        mask: `(I, J)` or `(I, J, K)`; beyond the array lies background.

    Foreground voxels touch by a corner (26 neighbours in 3D, 8 in 2D), background voxels by a face (6, 4): with one
    rule for both, a diagonal line would cross another without meeting it. Loops follow from the Euler number.
    Source: T. Y. Kong, A. Rosenfeld, Computer Vision, Graphics, and Image Processing 48 (1989), 357-393.

    Example:
        >>> ring = np.ones((3, 3), bool)
        >>> ring[1, 1] = False
        >>> betti_numbers(ring)
        (1, 1, 0)
    """
    components = int(ndimage.label(mask, np.ones((3,) * mask.ndim))[1])
    enclosed = int(ndimage.label(~np.pad(mask, 1))[1]) - 1
    if mask.ndim == 2:
        return components, enclosed, 0
    return components, components + enclosed - euler_number(mask), enclosed


def _thinning() -> Callable[[Mask], NDArray[Any]]:
    """`skimage.morphology.skeletonize`, which takes half a second to import, and only tubes need."""
    # scikit-image parses its own sources while it is imported. In CPython 3.11 that fails where the garbage collector
    # lets another thread in that parses, too, as numpy does with the head of every .npz file.
    with _IMPORTING:
        collects = gc.isenabled()
        gc.disable()
        try:
            from skimage.morphology import skeletonize
        finally:
            if collects:
                gc.enable()
    return skeletonize


def skeleton_of(mask: Mask) -> Mask:
    """The mask thinned to a line: scikit-image's `skeletonize` (Zhang in 2D, Lee in 3D).

    Thinning in 3D deletes blobs of two voxels' width such as 2x2x2 altogether. Components that it deletes keep their
    voxel next to the centre of mass, so that they count. Where a tube leaves the image its skeleton reaches the border.
    """
    skeletonize = _thinning()
    if not mask.any():
        return np.zeros_like(mask)
    skeleton = np.asarray(skeletonize(mask)) > 0
    parts, count = ndimage.label(mask, np.ones((3,) * mask.ndim))
    left = np.bincount(parts[skeleton], minlength=count + 1)
    if left[1:].all():
        return skeleton
    for part, box in enumerate(ndimage.find_objects(parts), start=1):
        if not left[part]:
            voxels = np.argwhere(parts[box] == part)
            apart = ((voxels - voxels.mean(axis=0)) ** 2).sum(axis=1)
            skeleton[box][tuple(voxels[int(np.argmin(apart))])] = True
    return skeleton


@dataclass(frozen=True, slots=True)
class Skeletons:
    """Two masks, their skeletons, and the spacing."""

    pred: Mask
    ref: Mask
    pred_skeleton: Mask
    ref_skeleton: Mask
    spacing: tuple[float, ...]

    @classmethod
    def of(cls, pred: Mask, ref: Mask, spacing: Sequence[float]) -> Skeletons:
        """Thin both masks, `(I, J[, K])` of one shape."""
        return cls(pred, ref, skeleton_of(pred), skeleton_of(ref), tuple(spacing))

    def _empty(self) -> float | None:
        return empty_score("share", not self.pred.any(), not self.ref.any())

    @property
    def cldice(self) -> float:
        """Harmonic mean of topology precision and sensitivity, in [0, 1]; empty masks as `medseg.metrics.empty` says.

        Precision is the share of the prediction's skeleton inside the reference, sensitivity the share of the
        reference's skeleton inside the prediction; voxels are counted.
        Source: S. Shit et al., clDice, CVPR 2021, equations 1 to 3. Their code scores two disjoint masks NaN (0 / 0)
        and counts nothing for a blob that thinning deletes; here these are 0, and one voxel.
        """
        empty = self._empty()
        if empty is not None:
            return empty
        precision = float(self.ref[self.pred_skeleton].mean())
        sensitivity = float(self.pred[self.ref_skeleton].mean())
        return 2.0 * precision * sensitivity / (precision + sensitivity) if precision + sensitivity else 0.0

    @property
    def recall(self) -> float:
        """Share of the length of the reference's skeleton that lies inside the prediction, in [0, 1].

        Each skeleton voxel has half the length of its links to neighbouring ones (26, 8 in 2D), in the unit of the
        spacing. Where there is no link at all, voxels count the same. Empty masks as `medseg.metrics.empty` says.
        Source: M. Zhang et al., Medical Image Analysis 90 (2023), ATM'22, "tree length detected".
        """
        empty = self._empty()
        if empty is not None:
            return empty
        lengths = _lengths(self.ref_skeleton, self.spacing)
        found = self.pred[self.ref_skeleton]
        total = float(lengths.sum())
        return float(lengths[found].sum()) / total if total else float(found.mean())


def _lengths(skeleton: Mask, spacing: Sequence[float]) -> NDArray[np.float64]:
    """Half the length of each skeleton voxel's links, in the order of `argwhere`."""
    padded = np.pad(skeleton, 1)
    where = np.argwhere(padded)
    lengths = np.zeros(len(where))
    for step in itertools.product((-1, 0, 1), repeat=skeleton.ndim):
        if any(step):
            linked = padded[tuple((where + step).T)]
            lengths += 0.5 * float(np.linalg.norm(np.multiply(step, spacing))) * linked
    return lengths
