"""The one policy for empty masks; every metric's docstring points here.

| prediction | reference | shares (Dice, IoU, NSD, clDice, lesion F1, ...) | distances (HD95, ...) | amounts |
|---|---|---|---|---|
| holds the label | holds the label | value | value | value |
| empty | empty | NaN | NaN | 0 |
| empty | holds the label | 0 | infinity | value |
| holds the label | empty | 0 | infinity | value |

Amounts (volume difference, Betti errors, false lesions) and specificity are what their formula gives for any masks.
The BraTS lesion-wise HD95 counts 374 mm for every missed and false lesion and is never infinite; a prediction that
misses only lesions too small to count there scores 1 and 0 mm.

Over a data set, means run over the cases whose *reference* holds the label: a set that no prediction can change.
Infinite distances are counted and enter the mean as the diagonal of the image. Cases whose reference lacks the label
are scored apart (specificity, false-positive volume and count), so finding nothing where there is nothing is rewarded.

Others differ here: MONAI leaves out (NaN) the Dice and IoU of an empty reference and the HD95 of either mask empty;
surface-distance calls two empty masks infinitely far apart; the BraTS 2023 code scores two empty masks 1, 0 mm.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["AMOUNTS", "DISTANCES", "bounded", "empty_score"]

DISTANCES = ("hd", "hd95", "assd", "masd")
"""Metrics in mm (or pixels) where 0 is best and a missed mask is infinitely far."""

AMOUNTS = ("volume_difference_ml", "betti_error_0", "betti_error_1", "betti_error_2", "lesion_false_positives")
"""Counts and differences, which are defined for empty masks too."""


def empty_score(metric: str, pred_empty: bool, ref_empty: bool) -> float | None:
    """What a metric is when at least one mask is empty; None when neither is.

    Args:
        metric: a name out of `medseg.metrics.definitions.METRIC_INFO`; all but distances and amounts are shares.
        pred_empty: the prediction does not hold the label.
        ref_empty: the reference does not hold the label.

    Example:
        >>> empty_score("dice", True, False), empty_score("hd95", True, False), empty_score("dice", False, False)
        (0.0, inf, None)
    """
    if metric in AMOUNTS:
        return 0.0 if pred_empty and ref_empty else None
    if pred_empty and ref_empty:
        return math.nan
    if pred_empty or ref_empty:
        return math.inf if metric in DISTANCES else 0.0
    return None


def bounded(values: ArrayLike, diagonals: ArrayLike) -> tuple[NDArray[np.float64], int]:
    """The values that enter a mean: infinite ones become the image diagonal of their case, and are counted.

    Args:
        values: `(n,)` scores of one metric.
        diagonals: `(n,)` length of each case's image diagonal, in the unit of the metric.

    Returns:
        `(n,)` finite values, and how many were infinite.

    Example:
        >>> bounded([1.5, float("inf")], [100.0, 120.0])
        (array([  1.5, 120. ]), 1)
    """
    found = np.asarray(values, dtype=np.float64)
    infinite = np.isinf(found)
    return np.where(infinite, np.asarray(diagonals, dtype=np.float64), found), int(infinite.sum())
