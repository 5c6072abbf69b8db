"""Scores of one case, with one policy for empty masks; `METRIC_INFO` says what each is. Needs no torch.

`score_case` compares masks, `score_probabilities` a label's probabilities with its mask.
"""

from medseg.metrics.definitions import METRIC_INFO
from medseg.metrics.options import METRICS
from medseg.metrics.probabilistic import score_probabilities
from medseg.metrics.score import score_case

__all__ = ["METRICS", "METRIC_INFO", "score_case", "score_probabilities"]
