"""Scores of one case: overlap and surface distances, with one policy for empty masks. Needs no torch."""

from medseg.metrics.score import METRICS, score_case

__all__ = ["METRICS", "score_case"]
