"""Scores of one case, with one policy for empty masks (`medseg.metrics.empty`). Needs no torch.

`score_case` compares masks, `score_probabilities` a label's probabilities with its mask. `ALL_METRICS` holds a record
of every metric: heading, unit, which way is better, definition, source, policy for empty masks, function. `METRIC_INFO`
is the part that compares masks, `METRICS` the names that are computed where none are given.

Example:
    >>> ref = np.zeros((4, 6), int)
    >>> ref[1:3, 1:5] = 1
    >>> score_case(np.roll(ref, 1, axis=1), ref, spacing_mm=(1.0, 0.5), metrics=("dice", "hd95"))
    {1: {'dice': 0.75, 'hd95': 0.5}}
    >>> ALL_METRICS["hd95"].heading, ALL_METRICS["hd95"].better
    ('HD95 (mm)', 'lower')
"""

from medseg.metrics.metric import Column, Metric
from medseg.metrics.options import METRICS, ScoreOptions
from medseg.metrics.probabilistic import score_probabilities
from medseg.metrics.registry import ALL_METRICS, METRIC_INFO
from medseg.metrics.score import score_case

__all__ = [
    "ALL_METRICS",
    "METRICS",
    "METRIC_INFO",
    "Column",
    "Metric",
    "ScoreOptions",
    "score_case",
    "score_probabilities",
]
