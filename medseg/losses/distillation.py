"""Distillation: the divergence of a network's probabilities from those of a trained one, beside the labels' loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medseg.errors import ConfigError
from medseg.labels import LabelScheme
from medseg.losses.cross_entropy import CrossEntropyLoss
from medseg.losses.voxels import Voxels

__all__ = ["DistillationLoss", "DistilledLoss"]


class DistillationLoss(CrossEntropyLoss):
    """Mean over voxels of `T^2 KL(teacher || student)` of the probabilities at temperature T.

    Plain labels: of the softmax over the channels. Regions: the mean over the regions of the divergence between inside
    and outside. Voxels count as in every loss: ignored ones do not, and what a voxel's case has not annotated belongs
    to the background, for both networks (regions: does not count).

    Args:
        labels: what the values mean; None where values are channel indices.
        temperature: T, above 0. `T^2` keeps the gradient's size at any T.

    Raises:
        ConfigError: for a temperature that is not above 0.

    Source:
        Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, 2015, section 2.

    Example:
        >>> sure, unsure = torch.tensor([[[[4.0]], [[0.0]]]]), torch.zeros(1, 2, 1, 1)
        >>> loss = DistillationLoss(temperature=2.0)
        >>> labels = torch.zeros(1, 1, 1, 1, dtype=torch.int64)
        >>> loss.divergence(sure, sure, labels).item(), round(loss.divergence(unsure, sure, labels).item(), 3)
        (0.0, 1.311)
    """

    sums_over_ranks = True

    def __init__(self, labels: LabelScheme | None = None, *, temperature: float = 1.0) -> None:
        super().__init__(labels)
        if not temperature > 0:
            raise ConfigError(f"temperature is {temperature}; expected a number above 0")
        self.temperature = temperature

    def divergence(self, logits: Tensor, taught: Tensor, labels: Tensor) -> Tensor:
        """The loss, a scalar.

        Args:
            logits: `(B, C, I, J[, K])` of the student.
            taught: the same of the teacher.
            labels: `(B, 1 or more, I, J[, K])`, which say what counts.
        """
        student, teacher = (self.voxels(self._softened(each), labels) for each in (logits, taught))
        apart = _apart_in_regions(teacher, student) if student.regions else _apart(teacher, student)
        return self.temperature**2 * self.mean(apart, student)

    def _softened(self, logits: Tensor) -> Tensor:
        return (logits if logits.dtype == torch.float64 else logits.float()) / self.temperature


def _apart(teacher: Voxels, student: Voxels) -> Tensor:
    """`(B, N)` divergence of the channels' probabilities."""
    each = teacher.log_p.exp() * (teacher.log_p - student.log_p)
    if teacher.annotated is not None:
        # Of a channel that is not annotated both probabilities are 0, and their logarithms have no difference.
        each = each.masked_fill(~teacher.annotated, 0.0)
    return each.sum(1)


def _apart_in_regions(teacher: Voxels, student: Voxels) -> Tensor:
    """`(B, C, N)` divergence between inside and outside of each region."""
    inside = teacher.log_p.exp() * (teacher.log_p - student.log_p)
    not_teacher, not_student = F.logsigmoid(-teacher.logits), F.logsigmoid(-student.logits)
    return inside + not_teacher.exp() * (not_teacher - not_student)


class DistilledLoss(nn.Module):
    """`(1 - weight) * loss + weight * distillation`; auxiliary logits learn from the labels alone.

    Args:
        loss: of the labels, as `build_loss` gives it.
        distillation: of the teacher's logits.
        weight: of the distillation, 0 to 1.

    Raises:
        ConfigError: for another weight.

    Example:
        >>> from medseg.losses import DiceLoss
        >>> loss = DistilledLoss(DiceLoss(), DistillationLoss(), weight=1.0)
        >>> logits = torch.randn(1, 2, 4, 4)
        >>> loss((logits, logits), torch.zeros(1, 1, 4, 4, dtype=torch.int64)).item()
        0.0
    """

    def __init__(self, loss: nn.Module, distillation: DistillationLoss, weight: float) -> None:
        super().__init__()
        if not 0 <= weight <= 1:
            raise ConfigError(f"the weight of the distillation is {weight}; expected a number from 0 to 1")
        self.loss, self.distillation, self.weight = loss, distillation, weight

    def forward(self, outputs: tuple[Any, Tensor], labels: Tensor) -> Tensor:
        """The loss, a scalar.

        Args:
            outputs: the student's logits `(B, C, I, J[, K])`, or main and auxiliary ones, and the teacher's.
            labels: `(B, 1 or more, I, J[, K])`, as the losses of labels take them.
        """
        logits, taught = outputs
        main: Tensor = logits[0] if isinstance(logits, Sequence) else logits
        ordinary = self.loss(logits, labels)
        divergence = self.distillation.divergence(main, taught, labels)
        return torch.lerp(ordinary, divergence.to(ordinary.dtype), self.weight)
