"""The one policy for empty masks; every metric's docstring points here.

| prediction | reference | "share" (Dice, IoU, NSD, clDice, ...) | "distance" (HD95, ...) | "amount" |
|---|---|---|---|---|
| holds the label | holds the label | value | value | value |
| empty | empty | NaN | NaN | 0 |
| empty | holds the label | 0 | infinity | value |
| holds the label | empty | 0 | infinity | value |

Amounts are the volume difference, Betti errors and false lesions. Metrics under the policy "formula" are whatever their
formula gives: specificity, the sensitivities by lesion size, and the BraTS lesion-wise scores. The BraTS HD95 counts
374 mm for every missed and false lesion and is never infinite; a prediction that misses only lesions too small to count
there scores 1 and 0 mm.

Over a data set, means run over the cases whose *reference* holds the label, a set that no prediction can change.
Infinite distances are counted and enter the mean as the diagonal of the image. Cases whose reference lacks the label
are scored separately (specificity, false-positive volume and count), so that finding nothing where there is nothing is
rewarded.

Other implementations differ: MONAI leaves out (NaN) the Dice and IoU of an empty reference, and the HD95 where either
mask is empty; surface-distance calls two empty masks infinitely far apart; the BraTS 2023 code scores two empty masks
1 and 0 mm.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["EmptyPolicy", "bounded", "empty_score"]

EmptyPolicy = Literal["share", "distance", "amount", "formula"]
"""What a metric is where a mask is empty: a column of the table above, or "formula"."""


def empty_score(policy: EmptyPolicy, pred_empty: bool, ref_empty: bool) -> float | None:
    """What a metric is when at least one mask is empty.

    Args:
        policy: the metric's, `Metric.empty`.
        pred_empty: the prediction does not hold the label.
        ref_empty: the reference does not hold the label.

    Returns:
        The score; None where the metric's formula decides, as it does when neither mask is empty.

    Example:
        >>> empty_score("share", True, False), empty_score("distance", True, False), empty_score("share", False, False)
        (0.0, inf, None)
    """
    if policy == "formula" or not (pred_empty or ref_empty):
        return None
    both = pred_empty and ref_empty
    if policy == "amount":
        return 0.0 if both else None
    if both:
        return math.nan
    return math.inf if policy == "distance" else 0.0


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
