"""Quality of a mask: comparison with the training cases, and agreement of the ensemble members."""

from medseg.inference.quality.check import OUTSIDE, CaseCheck, check_case, examine_case, needs_review

__all__ = ["OUTSIDE", "CaseCheck", "check_case", "examine_case", "needs_review"]
