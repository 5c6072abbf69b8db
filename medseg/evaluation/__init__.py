"""Evaluation of a data set: scores per case, statistics with intervals, files and a report. Needs no torch."""

from medseg.evaluation.compare import compare
from medseg.evaluation.comparison_result import ComparisonResult
from medseg.evaluation.evaluate import Evaluation, evaluate
from medseg.evaluation.options import EvaluateOptions
from medseg.evaluation.summary import Summary

__all__ = ["ComparisonResult", "EvaluateOptions", "Evaluation", "Summary", "compare", "evaluate"]
