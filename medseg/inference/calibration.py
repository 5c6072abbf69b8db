"""From signs of quality to a predicted Dice: a ridge regression on cases and damaged copies whose Dice is known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

__all__ = ["Calibration", "fit_calibration", "signs_of"]

FEWEST_ROWS = 20
# Of the mean square of the signs' deviations, which are standardised first.
RIDGE = 0.03
# Distance from training beyond which a figure is as far off as can be; 1 is the border of the range.
FARTHEST = 20.0


class Calibration(BaseModel):
    """Weights of the signs; predicted Dice = clip(intercept + weights . signs, 0, 1).

    Args:
        intercept, weights: of the regression, see `signs_of`.
        cases: validation cases it was fitted on.
        rows: labels of these cases and of their damaged copies.
        error: root mean square error on cases left out (with all their copies).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    intercept: float
    weights: tuple[float, ...]
    cases: int
    rows: int
    error: float

    def predict(self, signs: Sequence[float]) -> float:
        """Predicted Dice, 0 to 1."""
        return float(np.clip(self.intercept + np.dot(self.weights, signs), 0.0, 1.0))


def signs_of(expected: float, agreement: float, image_distance: float, label_distance: float) -> tuple[float, ...]:
    """The signs of one label.

    Args:
        expected, agreement: of `medseg.inference.quality.members.Disagreement`.
        image_distance, label_distance: largest distance from the training range among the figures of the image and
            among those of the label, 1 at the range's border.

    Example:
        >>> signs_of(0.9, 1.0, 0.0, 20.0)
        (0.9, 0.81, 1.0, 0.0, 1.0)
    """
    near = [math.log1p(min(max(d, 0.0), FARTHEST)) / math.log1p(FARTHEST) for d in (image_distance, label_distance)]
    return expected, round(expected**2, 12), agreement, *near


def fit_calibration(signs: NDArray[np.float64], dice: NDArray[np.float64], cases: Sequence[int]) -> Calibration | None:
    """Fit on labels of cases and of their damaged copies; None for fewer than 20 rows or 3 cases.

    Args:
        signs: `(n, 5)`, see `signs_of`.
        dice: `(n,)`, true Dice.
        cases: number of the case each row belongs to.
    """
    which = np.asarray(cases)
    numbers = np.unique(which)
    if len(dice) < FEWEST_ROWS or len(numbers) < 3:
        return None
    wrong = []
    for number in numbers:
        out = which == number
        level, slopes = _ridge(signs[~out], dice[~out])
        wrong += list(np.clip(level + signs[out] @ slopes, 0, 1) - dice[out])
    intercept, weights = _ridge(signs, dice)
    return Calibration(
        intercept=round(intercept, 5),
        weights=tuple(round(float(w), 5) for w in weights),
        cases=len(numbers),
        rows=len(dice),
        error=round(float(np.sqrt(np.mean(np.square(wrong)))), 4),
    )


def _ridge(signs: NDArray[np.float64], dice: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    mean, level = signs.mean(axis=0), float(dice.mean())
    # A sign that hardly varies gets no weight instead of an enormous one.
    spread = signs.std(axis=0) + 1e-3
    z = (signs - mean) / spread
    weights = np.linalg.solve(z.T @ z + RIDGE * len(dice) * np.eye(signs.shape[1]), z.T @ (dice - level)) / spread
    return level - float(mean @ weights), weights
