"""Recall of a vessel's centreline by its calibre: thin vessels are what models miss."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.metrics.rounding import is_below
from medseg.metrics.topology import skeleton_of

__all__ = ["CalibreRecall", "recall_by_calibre"]


@dataclass(frozen=True, slots=True)
class CalibreRecall:
    """How much of the centreline of vessels in one range of diameters is found.

    Args:
        low, high: local diameter, `low` included, `high` not; infinity for the last range.
        voxels: voxels of the reference's skeleton in it.
        recall: the share of them that the prediction covers; NaN where there are none.
    """

    low: float
    high: float
    voxels: int
    recall: float


def recall_by_calibre(
    pred: NDArray[np.bool_], ref: NDArray[np.bool_], spacing: tuple[float, ...], edges: tuple[float, ...]
) -> tuple[CalibreRecall, ...]:
    """Share of the reference's skeleton that the prediction covers, by local diameter.

    The local diameter is twice the distance from a voxel of the reference's skeleton to the nearest voxel outside the
    reference, less one voxel (the smallest spacing): 1 for a line one voxel thin, 5 for a bar of five.

    Args:
        pred, ref: `(I, J)` or `(I, J, K)`, same shape.
        spacing: of the voxels.
        edges: increasing diameters, in the unit of the spacing, that part the ranges.

    Returns:
        One more than there are edges, thin vessels first.

    Example:
        >>> ref = np.zeros((20, 12), bool)
        >>> ref[2:18, 2], ref[2:18, 5:10] = True, True
        >>> pred = ref.copy(); pred[:, 2] = False
        >>> [(r.high, r.recall) for r in recall_by_calibre(pred, ref, (1.0, 1.0), (3.0,))]
        [(3.0, 0.0), (inf, 1.0)]
    """
    skeleton = np.nonzero(skeleton_of(ref))
    if ref.all():
        diameter = np.full(len(skeleton[0]), np.inf)
    else:
        diameter = 2 * ndimage.distance_transform_edt(ref, sampling=spacing)[skeleton] - min(spacing)
    found = pred[skeleton]
    ranges = []
    for low, high in zip((0.0, *edges), (*edges, np.inf), strict=True):
        here = ~is_below(diameter, low) & (is_below(diameter, high) | np.isinf(high))
        recall = float(found[here].mean()) if here.any() else np.nan
        ranges.append(CalibreRecall(low, high, int(here.sum()), recall))
    return tuple(ranges)
