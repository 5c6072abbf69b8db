"""How far a mask can be trusted: is the case like the training cases, and how well do members of the model agree."""

from medseg.inference.quality.check import check_case, needs_review

__all__ = ["check_case", "needs_review"]
