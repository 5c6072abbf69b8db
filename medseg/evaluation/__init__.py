"""Evaluation of a data set: scores per case, statistics with intervals, files and a report. Needs no torch."""

from medseg.evaluation.evaluate import Evaluation, evaluate

__all__ = ["Evaluation", "evaluate"]
