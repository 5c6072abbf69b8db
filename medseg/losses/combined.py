"""Sums of losses, and one loss over the outputs of a deeply supervised network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medseg.errors import ConfigError
from medseg.losses.voxels import VoxelLoss, Voxels

__all__ = ["DeepSupervision", "SumLoss", "resize_labels"]


class SumLoss(VoxelLoss):
    """Weighted sum of losses of the same labels; the softmax is computed once for all.

    Args:
        terms: pairs of weight and loss.

    Raises:
        ConfigError: if no weight is positive or one is negative.
    """

    def __init__(self, terms: Sequence[tuple[float, VoxelLoss]]) -> None:
        super().__init__()
        self.weights = [float(weight) for weight, _ in terms]
        if not self.weights or min(self.weights) < 0 or not any(self.weights):
            raise ConfigError(f"weights of the summed losses are {self.weights}; expected >= 0, one of them above 0")
        self.terms = nn.ModuleList(term for _, term in terms)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        first = self.terms[0]
        assert isinstance(first, VoxelLoss)
        return self.compute(first.voxels(logits, labels))

    def compute(self, voxels: Voxels) -> Tensor:
        parts = [w * term.compute(voxels) for w, term in zip(self.weights, self.terms, strict=True) if w]  # type: ignore[operator]
        return torch.stack(parts).sum()


class DeepSupervision(nn.Module):
    """A loss of `(main, *auxiliary)`, weighted with sum 1; labels are brought to each resolution (nearest).

    Args:
        loss: any module called with (logits, labels).
        auxiliary_weights: of the auxiliary logits, where the main ones weigh 1; None: 1/2, 1/4, ..., for deep
            supervision.

    Raises:
        ConfigError: for weights that are negative.
    """

    def __init__(self, loss: nn.Module, auxiliary_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.loss = loss
        self.auxiliary_weights = None if auxiliary_weights is None else tuple(float(w) for w in auxiliary_weights)
        if self.auxiliary_weights and min(self.auxiliary_weights) < 0:
            raise ConfigError(f"auxiliary_weights is {list(self.auxiliary_weights)}; expected numbers >= 0")

    def forward(self, logits: Tensor | Sequence[Tensor], labels: Tensor) -> Tensor:
        """The loss, a scalar; a single tensor of logits is passed on as it is.

        Raises:
            ConfigError: for a number of auxiliary logits that the weights do not fit.
        """
        if isinstance(logits, Tensor):
            only: Tensor = self.loss(logits, labels)
            return only
        weights = [0.5**n for n in range(len(logits))]
        if self.auxiliary_weights is not None:
            weights = [1.0, *self.auxiliary_weights]
            if len(weights) != len(logits):
                raise ConfigError(
                    f"auxiliary_weights is {list(weights[1:])}, but the net has {len(logits) - 1} auxiliary heads"
                )
        parts = [
            weight / sum(weights) * self.loss(each, resize_labels(labels, each.shape[2:]))
            for weight, each in zip(weights, logits, strict=True)
        ]
        return torch.stack(parts).sum()


def resize_labels(labels: Tensor, size: Sequence[int]) -> Tensor:
    """`(B, 1, ...)` labels on another grid over the same extent: of each new voxel, the label at its centre."""
    for axis, n in enumerate(size, start=2):
        old = labels.shape[axis]
        if old != n:
            centre = torch.arange(n, device=labels.device) * old + old // 2
            labels = labels.index_select(axis, torch.div(centre, n, rounding_mode="floor"))
    return labels
