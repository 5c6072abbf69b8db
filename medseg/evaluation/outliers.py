"""Which cases to look at: the worst ones, and those far from the rest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medseg.evaluation.summary import NotableCases, Outlier, WorstCase
from medseg.metrics.metric import Column

__all__ = ["OUTLIER_METHOD", "notable_cases", "robust_z"]

OUTLIER_METHOD = (
    "Outliers: modified z score 0.6745 (x - median) / MAD beyond 3.5 on the worse side (Iglewicz and Hoaglin 1993); "
    "where the MAD is 0, (x - median) / (1.2533 mean absolute deviation); from 8 cases on"
)
_LIMIT = 3.5
_LEAST_CASES = 8
_WORST = 5


def robust_z(values: ArrayLike) -> NDArray[np.float64]:
    """Modified z scores; all 0 where the values do not differ.

    Source: B. Iglewicz, D. Hoaglin, How to detect and handle outliers, ASQC Quality Press (1993).

    Example:
        >>> robust_z([1.0, 2.0, 3.0, 4.0, 100.0]).round(2).tolist()
        [-1.35, -0.67, 0.0, 0.67, 65.43]
    """
    found = np.asarray(values, dtype=np.float64)
    apart = found - np.median(found)
    mad = float(np.median(np.abs(apart)))
    scale = mad / 0.6745 if mad else 1.253314 * float(np.abs(apart).mean())
    return np.asarray(apart / scale) if scale else np.zeros(len(found))


def notable_cases(column: Column, cases: Sequence[str], values: Sequence[float]) -> NotableCases:
    """The worst cases of a column and its outliers, worst first.

    Args:
        column: says which way is worse.
        cases, values: names and finite scores.

    Returns:
        At most five worst cases, and all outliers; neither for columns that only describe.
    """
    if column.better is None or not cases:
        return NotableCases()
    bad = np.array([column.badness(v) for v in values], dtype=np.float64)
    order = sorted(range(len(cases)), key=lambda i: (-bad[i], cases[i]))
    worst = tuple(WorstCase(cases[i], values[i]) for i in order[:_WORST])
    if len(cases) < _LEAST_CASES:
        return NotableCases(worst)
    z = robust_z(bad)
    return NotableCases(worst, tuple(Outlier(cases[i], values[i], float(z[i])) for i in order if z[i] > _LIMIT))
