"""Quality of a mask: comparison with the training cases, and agreement of the ensemble members."""

from medseg.inference.quality.check import check_case, needs_review

__all__ = ["check_case", "needs_review"]
