"""Scores of a probability map against a mask: AUC, average precision, Brier score, expected calibration error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medseg.errors import ConfigError, DatasetError, GeometryError
from medseg.lookup import nearest_hint
from medseg.metrics.probability_counts import ProbabilityCounts
from medseg.metrics.registry import PROBABILITY_INFO

__all__ = ["PROBABILITY_METRICS", "ProbabilityCounts", "score_probabilities"]

PROBABILITY_METRICS = tuple(PROBABILITY_INFO)

# Rounding to float16, and differences of such values, can leave 0 and 1 by this much.
_SLACK = 1e-3
_PIECE_VOXELS = 1 << 20
_HALF_CODES = int(np.array(1.0, np.float16).view(np.uint16)) + 1


def score_probabilities(
    probabilities: ArrayLike,
    ref: ArrayLike,
    fov: ArrayLike | None = None,
    metrics: Sequence[str] = PROBABILITY_METRICS,
) -> dict[str, float]:
    """Scores of one label's probabilities in one case.

    Args:
        probabilities: `(I, J[, K])` in [0, 1]; what rounding leaves beyond (up to 0.001) counts as 0 or 1.
        ref: the reference, bool, same shape.
        fov: which voxels count, bool, same shape; None where all do.
        metrics: any of `PROBABILITY_METRICS`: "auc", "average_precision", "brier", "ece".

    Returns:
        metric -> score, NaN where it has none (see `ProbabilityCounts`): with an empty reference "auc" and
        "average_precision", without any voxel all.

    Raises:
        ConfigError: for an unknown metric.
        GeometryError: if the shapes differ.
        DatasetError: for values that are not probabilities.

    Example:
        >>> score_probabilities([[0.1, 0.4, 0.35, 0.8]], [[False, False, True, True]], metrics=("auc",))
        {'auc': 0.75}
    """
    unknown = [m for m in metrics if m not in PROBABILITY_INFO]
    if unknown:
        names = f"{', '.join(PROBABILITY_INFO)}{nearest_hint(unknown[0], PROBABILITY_INFO)}"
        raise ConfigError(f"unknown metric {', '.join(map(repr, unknown))}; there are {names}")
    values, mask = np.asarray(probabilities), np.asarray(ref, dtype=bool)
    counted = None if fov is None else np.asarray(fov, dtype=bool)
    if values.shape != mask.shape or (counted is not None and counted.shape != mask.shape):
        shapes = f"probabilities {values.shape}, reference {mask.shape}"
        shapes += "" if counted is None else f", field of view {counted.shape}"
        raise GeometryError(f"{shapes}: they must be on one grid")
    counts = _count(values, mask, counted)
    return {metric: float(PROBABILITY_INFO[metric].function(counts)) for metric in metrics}


def _count(values: NDArray[Any], mask: NDArray[np.bool_], counted: NDArray[np.bool_] | None) -> ProbabilityCounts:
    inside, outside = (np.zeros(_HALF_CODES, dtype=np.int64) for _ in range(2))
    for piece in _pieces(values.shape):
        part = _checked(values[piece])
        half = part.astype(np.float16)
        # As predictions are stored: few values, whose codes rise with them.
        if not np.array_equal(half, part):
            return _count_any(values, mask, counted)
        where = mask[piece] if counted is None else mask[piece] & counted[piece]
        rest = ~mask[piece] if counted is None else ~mask[piece] & counted[piece]
        codes = half.view(np.uint16)
        inside += np.bincount(codes[where], minlength=_HALF_CODES)
        outside += np.bincount(codes[rest], minlength=_HALF_CODES)
    held = np.flatnonzero(inside + outside)
    return ProbabilityCounts(held.astype(np.uint16).view(np.float16).astype(np.float64), inside[held], outside[held])


def _count_any(values: NDArray[Any], mask: NDArray[np.bool_], counted: NDArray[np.bool_] | None) -> ProbabilityCounts:
    """The same by sorting, for values in full precision."""
    checked = _checked(values)
    where = mask if counted is None else mask & counted
    rest = ~mask if counted is None else ~mask & counted
    in_values, in_counts = np.unique(checked[where], return_counts=True)
    out_values, out_counts = np.unique(checked[rest], return_counts=True)
    both = np.union1d(in_values, out_values)
    positives, negatives = (np.zeros(len(both), dtype=np.int64) for _ in range(2))
    positives[np.searchsorted(both, in_values)] = in_counts
    negatives[np.searchsorted(both, out_values)] = out_counts
    return ProbabilityCounts(both.astype(np.float64), positives, negatives)


def _checked(values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype.kind not in "fbui":
        raise DatasetError(f"probabilities must be numbers in [0, 1], found {values.dtype}")
    low, high = float(values.min(initial=1)), float(values.max(initial=0))
    if not (low >= -_SLACK and high <= 1 + _SLACK):
        raise DatasetError(f"probabilities must lie in [0, 1], found {low:g} to {high:g}; are these logits, or labels?")
    # Minus zero has a code of its own.
    return np.clip(values, 0, 1) + values.dtype.type(0) if values.dtype.kind == "f" else values.astype(np.float32)


def _pieces(shape: tuple[int, ...]) -> list[slice]:
    thickness = max(1, _PIECE_VOXELS // max(1, math.prod(shape[1:])))
    return [slice(start, start + thickness) for start in range(0, shape[0], thickness)]
