"""What the training of a fold is given: its cases and folder, and what all folds of a run share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from medseg.config import RunConfig
from medseg.labels import LabelScheme
from medseg.preparation.plan import Plan
from medseg.preparation.store import PreparedCase
from medseg.training.distributed import ONE, Ranks
from medseg.training.teacher import Teacher

__all__ = ["Fold", "Setup"]


@dataclass(frozen=True, slots=True)
class Setup:
    """What all folds of a run share.

    Args:
        config: of the run, with its task's defaults.
        plan: the network's grid, patch and batch size.
        scheme: meaning of the labels.
        device: where to train.
        ranks: the processes that train together.
        teacher: whom the network learns from beside the labels; None without one.
    """

    config: RunConfig
    plan: Plan
    scheme: LabelScheme
    device: torch.device
    ranks: Ranks = ONE
    teacher: Teacher | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """One fold.

    Args:
        number: from 0; part of the seed.
        folder: for checkpoints, log and curve.
        training: the cases that train, memory-mapped.
        validation: the cases that validate.
        unlabelled: images without labels that train, too.
    """

    number: int
    folder: Path
    training: Sequence[PreparedCase]
    validation: Sequence[PreparedCase]
    unlabelled: Sequence[PreparedCase] = ()
