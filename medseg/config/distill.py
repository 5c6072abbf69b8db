"""`distill`: a network learns from a trained one, the teacher, beside the labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from medseg.config.part import Fraction, Part

__all__ = ["DistillConfig"]


class DistillConfig(Part):
    """Knowledge distillation: a network, usually a small one, learns the probabilities of a trained one, its teacher.

    `teacher`: its model bundle, or a run folder that holds one; of several folds the mean counts. A new plan takes the
    teacher's grid, normalisation and patch, since the teacher has to see what it was trained on.
    `weight`: of the teacher in the loss, which is (1 - weight) * the loss of the labels + weight * the divergence from
    the teacher's probabilities.
    `temperature`: what both networks' logits are divided by before they become probabilities; above 1 it shows more of
    what the teacher holds possible besides.
    """

    teacher: Path | None = None
    weight: Fraction = 0.5
    temperature: Annotated[float, Field(ge=0.1, le=100)] = 1.0
