"""Evaluation of a data set: scores per case, statistics with intervals, files and a report. Needs no torch.

`evaluate` scores masks against references; `EvaluateOptions` are its options, an `Evaluation` with its `Summary` the
result. `compare` tests and ranks several evaluations of the same references, a `ComparisonResult`. Errors of the input
are `medseg.errors.DatasetError`, `ReadError` and `GeometryError`, errors of options `ConfigError`.

Example:
    >>> result = evaluate("masks/", "references/", options=EvaluateOptions(metrics=("dice", "hd95")))
    >>> result.summary.n_cases, sorted(result.summary.labels["1"])
    (1, ['dice', 'hd95'])
"""

from medseg.evaluation.compare import compare
from medseg.evaluation.comparison_result import ComparisonResult
from medseg.evaluation.evaluate import Evaluation, evaluate
from medseg.evaluation.options import EvaluateOptions
from medseg.evaluation.summary import Summary

__all__ = ["ComparisonResult", "EvaluateOptions", "Evaluation", "Summary", "compare", "evaluate"]
