"""Predicted Dice of a mask: a logistic regression fitted on cases and damaged copies whose Dice is known.

Logistic, because most masks are good and a few fail altogether: a linear fit through both is too low in between and
flags masks that are right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["VERSION", "Calibration", "calibration_inputs", "fit_calibration"]

# Of the calibration inputs and of the regression.
VERSION = 3
INPUTS = 8
Weight = Annotated[float, Field(ge=-1e9, le=1e9)]
FEWEST_ROWS = 20
# Of the rows, for inputs that are standardised first.
RIDGE = 0.03
STEPS = 2000
# Distance from the reference range at which the score saturates; 1 is the border of the range.
FARTHEST = 20.0


class Calibration(BaseModel):
    """Weights of the calibration inputs; predicted Dice = 1 / (1 + exp(-(intercept + weights . inputs))).

    Args:
        version: of the inputs; a bundle without one holds weights of other inputs.
        intercept, weights: of the regression, see `calibration_inputs`; of today's version there are 8 weights.
        cases: validation cases it was fitted on.
        rows: labels of these cases and of their damaged copies.
        error: root mean square error on cases left out (with all their copies).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    version: int = 1
    intercept: Weight
    weights: Annotated[tuple[Weight, ...], Field(max_length=64)]
    cases: Annotated[int, Field(ge=0)]
    rows: Annotated[int, Field(ge=0)]
    error: Annotated[float, Field(ge=0, le=1e3)]

    @model_validator(mode="after")
    def _complete(self) -> Calibration:
        if self.version == VERSION and len(self.weights) != INPUTS:
            raise ValueError(f"expected {INPUTS} weights, one for each input; found {len(self.weights)}")
        return self

    def predict(self, inputs: Sequence[float]) -> float:
        """Predicted Dice, 0 to 1."""
        return float(_share(self.intercept + np.dot(self.weights, inputs)))


def calibration_inputs(
    expected: float,
    agreement: float,
    stability: Sequence[float],
    image_distances: Sequence[float],
    label_distances: Sequence[float],
) -> tuple[float, ...]:
    """The calibration inputs of one label.

    Args:
        expected, agreement, stability: of `medseg.inference.quality.disagreement.Disagreement`.
        image_distances, label_distances: distance from the reference range of each kind of feature of the image and of
            the label, 1 at the range's border. Their mean on a logarithmic scale counts: one feature out of range
            is often harmless; where all are, the mask is wrong.

    Example:
        >>> calibration_inputs(0.9, 1.0, [0.9, 0.8, 0.7], [0.0, 0.0], [0.0, 20.0])
        (0.9, 0.81, 1.0, 0.9, 0.8, 0.7, 0.0, 0.5)
    """
    out_of_range = (_out_of_range_score(image_distances), _out_of_range_score(label_distances))
    return expected, round(expected**2, 12), agreement, *stability, *out_of_range


def _share(score: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / (1 + exp(-score)), without overflow."""
    return (1 + np.tanh(score / 2)) / 2


def _out_of_range_score(distances: Sequence[float]) -> float:
    """0 where every feature is as in training, 1 where all are far out of range."""
    return float(np.mean([math.log1p(min(d, FARTHEST)) / math.log1p(FARTHEST) for d in distances] or [0.0]))


def fit_calibration(inputs: NDArray[np.float64], dice: NDArray[np.float64], cases: Sequence[int]) -> Calibration | None:
    """Fit on labels of cases and of their damaged copies; None for fewer than 20 rows or 3 cases.

    Args:
        inputs: `(n, 8)`, see `calibration_inputs`.
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
        level, slopes = _logistic(inputs[~out], dice[~out])
        wrong += list(_share(level + inputs[out] @ slopes) - dice[out])
    intercept, weights = _logistic(inputs, dice)
    return Calibration(
        version=VERSION,
        intercept=round(intercept, 5),
        weights=tuple(round(float(w), 5) for w in weights),
        cases=len(numbers),
        rows=len(dice),
        error=round(float(np.sqrt(np.mean(np.square(wrong)))), 4),
    )


def _logistic(inputs: NDArray[np.float64], dice: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Intercept and weights of the ridge logistic regression of a share."""
    mean = inputs.mean(axis=0)
    # An input that hardly varies gets no weight instead of an enormous one.
    spread = inputs.std(axis=0) + 1e-3
    z = np.column_stack([np.ones(len(dice)), (inputs - mean) / spread])
    penalty = np.full(z.shape[1], RIDGE * len(dice))
    penalty[0] = 0.0
    # The curvature is nowhere larger than this, so that each step comes nearer (Boehning and Lindsay, 1988).
    inverse = np.linalg.inv(z.T @ z / 4 + np.diag(penalty))
    found = np.zeros(z.shape[1])
    for _ in range(STEPS):
        step = inverse @ (z.T @ (dice - _share(z @ found)) - penalty * found)
        found += step
        if np.abs(step).max() < 1e-7:
            break
    weights = found[1:] / spread
    return float(found[0] - mean @ weights), weights
