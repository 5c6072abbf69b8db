"""Labels that are added to a trained network: where a case lacks the old ones, the network as it was teaches them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medseg.errors import ConfigError
from medseg.labels import LabelScheme
from medseg.losses.cross_entropy import CrossEntropyLoss

__all__ = ["KeptLabelsLoss"]


class KeptLabelsLoss(nn.Module):
    """`(1 - weight) * loss + weight * divergence` from the old network, in voxels of cases that lack an old label.

    For the divergence the new labels' probabilities are added to the background's, as the old network knew them only
    as background. Auxiliary logits learn from the labels alone.

    Args:
        loss: of the labels, as `build_loss` gives it.
        labels: plain labels, the old ones first, in the old network's order.
        old: how many labels are old.
        weight: of the divergence, 0 to 1.

    Raises:
        ConfigError: for regions, or another weight.

    Source:
        Cermelli et al., Modeling the Background for Incremental Learning in Semantic Segmentation, CVPR 2020, eq. 8.

    Example:
        >>> from medseg.losses import DiceLoss
        >>> from medseg.sample_labels import SampleLabels
        >>> scheme = LabelScheme.from_mapping({"liver": 1, "tumour": 2})
        >>> labels = SampleLabels.of(scheme, [("tumour",)])
        >>> loss = KeptLabelsLoss(DiceLoss(labels), labels, old=1, weight=1.0)
        >>> lacking = torch.full((1, 1, 4, 4), int(labels.marking(["tumour"])[0]))
        >>> logits = torch.tensor([0.0, 1.0, -60.0]).reshape(1, 3, 1, 1).expand(1, 3, 4, 4)
        >>> round(loss((logits, logits[:, :2]), lacking).item(), 6)
        0.0
    """

    def __init__(self, loss: nn.Module, labels: LabelScheme, *, old: int, weight: float) -> None:
        super().__init__()
        if not 0 <= weight <= 1:
            raise ConfigError(f"the weight of the old network is {weight}; expected a number from 0 to 1")
        if labels.is_regions:
            raise ConfigError("labels can only be added to a network whose labels exclude each other, not to regions")
        self.loss, self.old, self.weight = loss, old, weight
        self.voxels = CrossEntropyLoss(labels)

    def forward(self, outputs: tuple[Any, Tensor], labels: Tensor) -> Tensor:
        """The loss, a scalar.

        Args:
            outputs: the network's logits `(B, C, I, J[, K])`, or main and auxiliary ones, and the old network's
                `(B, 1 + old, I, J[, K])`.
            labels: `(B, 1 or more, I, J[, K])`, as the losses of labels take them.
        """
        logits, taught = outputs
        main: Tensor = logits[0] if isinstance(logits, Sequence) else logits
        ordinary: Tensor = self.loss(logits, labels)
        voxels = self.voxels.voxels(main, labels)
        if voxels.annotated is None:
            return ordinary
        lacks = ~voxels.annotated[:, 1 : 1 + self.old].all(1)
        counted = lacks if voxels.mask is None else lacks & voxels.mask
        log_p = F.log_softmax(voxels.logits, dim=1)
        rest = torch.logsumexp(torch.cat([log_p[:, :1], log_p[:, 1 + self.old :]], dim=1), dim=1, keepdim=True)
        student = torch.cat([rest, log_p[:, 1 : 1 + self.old]], dim=1)
        teacher = F.log_softmax(taught.flatten(2).to(student.dtype), dim=1)
        apart = (teacher.exp() * (teacher - student)).sum(1)
        divergence = self.voxels.mean(apart, replace(voxels, mask=counted))
        return torch.lerp(ordinary, divergence.to(ordinary.dtype), self.weight)
