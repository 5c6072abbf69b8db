"""Lesion-wise Dice and HD95 by the rule of BraTS 2023."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.metrics.label_maps import LabelMaps
from medseg.metrics.rounding import ROUNDING
from medseg.metrics.surface import surface_distances

__all__ = ["PENALTY_MM", "BratsLesions", "brats_lesions"]

Mask = NDArray[np.bool_]
PENALTY_MM = 374.0
"""Distance that a missed or false lesion counts: about the diagonal of BraTS's 240x240x155 mm."""


@dataclass(frozen=True, slots=True)
class BratsLesions:
    """Dice and HD95 of each reference lesion that counts, false lesions, and whether the reference is empty.

    Where nothing false is found, a reference whose lesions are all too small to count scores 1 and 0 mm, as in the
    BraTS code, and an empty one has no score (NaN), as `medseg.metrics.empty` says; BraTS gives that 1 and 0 mm too.
    Apart from it, scores were equal to the steps of their code on 150 random pairs by three rules each.
    """

    lesion_dice: tuple[float, ...]
    lesion_hd95: tuple[float, ...]
    false_positives: int
    ref_empty: bool

    @property
    def dice(self) -> float:
        """Sum of the lesions' Dice over the number of reference and false lesions, in [0, 1]."""
        n = len(self.lesion_dice) + self.false_positives
        return sum(self.lesion_dice) / n if n else math.nan if self.ref_empty else 1.0

    @property
    def hd95(self) -> float:
        """The same of HD95 in mm, 374 mm for each missed or false lesion."""
        n = len(self.lesion_hd95) + self.false_positives
        penalties = self.false_positives * PENALTY_MM
        return (sum(self.lesion_hd95) + penalties) / n if n else math.nan if self.ref_empty else 0.0


def brats_lesions(
    pred: Mask, ref: Mask, spacing: Sequence[float], dilation: int = 3, min_mm3: float = 50.0
) -> BratsLesions:
    """Compare lesion by lesion as BraTS 2023 does.

    Reference lesions that meet when the mask grows by `dilation` steps (18 neighbours in 3D, 8 in 2D) are one. To each
    belong all predicted parts (26 neighbours) that touch the lesion grown alike, whole; a part may serve several.
    Predicted parts that serve none are false. HD95 is the area-weighted one. Reference lesions of `min_mm3` or less do
    not count, but what touches them is not false.

    Args:
        pred: `(I, J[, K])`.
        ref: the same shape.
        spacing: distance of neighbouring voxels along each axis, mm.
        dilation: 3 for gliomas and in children and Africa, 1 for meningiomas and metastases.
        min_mm3: 50, for metastases 2.

    Source: R. Saluja et al., BraTS 2023 performance metrics, https://github.com/rachitsaluja/BraTS-2023-Metrics.
    """
    # Grown lesions meet beyond the box too.
    pred, ref = np.pad(pred, dilation + 1), np.pad(ref, dilation + 1)
    touching = np.ones((3,) * ref.ndim)
    pred_parts, n_pred = ndimage.label(pred, touching)
    groups, n_groups = ndimage.label(_grown(ref, dilation), touching)
    groups[~ref] = 0
    dice, hd95 = [], []
    serving: set[int] = set()
    for number, box in enumerate(ndimage.find_objects(groups, n_groups), start=1):
        wide = tuple(slice(max(0, s.start - dilation), s.stop + dilation) for s in box)
        mine = groups[wide] == number
        met = sorted(set(np.unique(pred_parts[wide][_grown(mine, dilation)]).tolist()) - {0})
        serving.update(met)
        if np.count_nonzero(mine) * math.prod(float(s) for s in spacing) <= min_mm3 * (1.0 + ROUNDING):
            continue
        scores = _scores(np.isin(pred_parts, met), groups == number, spacing)
        dice.append(scores[0])
        hd95.append(scores[1])
    return BratsLesions(tuple(dice), tuple(hd95), n_pred - len(serving), n_groups == 0)


def _scores(pred: Mask, ref: Mask, spacing: Sequence[float]) -> tuple[float, float]:
    maps = LabelMaps.of(pred, ref, spacing, (1,))
    hd95 = surface_distances(maps, (1,), "area").hd95()
    return maps.overlap((1,)).dice, min(hd95, PENALTY_MM) if math.isinf(hd95) else hd95


def _grown(mask: Mask, steps: int) -> Mask:
    if not steps:
        return mask
    return np.asarray(ndimage.binary_dilation(mask, ndimage.generate_binary_structure(mask.ndim, 2), steps))
