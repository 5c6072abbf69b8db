"""Scores of one case, with one policy for empty masks; `METRIC_INFO` says what each is. Needs no torch."""

from medseg.metrics.definitions import METRIC_INFO
from medseg.metrics.options import METRICS
from medseg.metrics.score import score_case

__all__ = ["METRICS", "METRIC_INFO", "score_case"]
