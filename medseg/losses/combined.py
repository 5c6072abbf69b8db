"""Sums of losses, and one loss over the outputs of a deeply supervised network."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from medseg.errors import ConfigError
from medseg.labels import LabelScheme
from medseg.losses.voxels import VoxelLoss, Voxels

__all__ = ["DeepSupervision", "SumLoss", "SumOf", "resize_labels"]


class SumLoss(VoxelLoss):
    """Weighted sum of losses of the same labels; the softmax is computed once for all of ours.

    Args:
        terms: pairs of weight and loss; a loss is a `VoxelLoss`, or any module called with (logits, labels).

    Raises:
        ConfigError: if no weight is positive or one is negative.

    Example:
        >>> from medseg.losses import CrossEntropyLoss, DiceLoss
        >>> loss = SumLoss([(1.0, DiceLoss()), (0.5, CrossEntropyLoss())])
        >>> loss(torch.zeros(1, 2, 8, 8), torch.zeros(1, 1, 8, 8)).item() > 0.5
        True
    """

    def __init__(self, terms: Sequence[tuple[float, nn.Module]]) -> None:
        super().__init__()
        self.weights = [float(weight) for weight, _ in terms]
        if not self.weights or min(self.weights) < 0 or not any(self.weights):
            raise ConfigError(f"weights of the summed losses are {self.weights}; expected >= 0, one of them above 0")
        self.terms = nn.ModuleList(term for _, term in terms)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        labels = self.completed(labels, logits.shape[1])
        voxels = self.voxels(logits, labels) if any(isinstance(term, VoxelLoss) for term in self.terms) else None
        parts = [
            weight * (term.compute(voxels) if isinstance(term, VoxelLoss) and voxels else term(logits, labels[:, :1]))
            for weight, term in zip(self.weights, self.terms, strict=True)
            if weight
        ]
        return torch.stack(parts).sum()

    def compute(self, voxels: Voxels) -> Tensor:
        parts = [w * term.compute(voxels) for w, term in zip(self.weights, self.terms, strict=True) if w]  # type: ignore[operator]
        return torch.stack(parts).sum()

    def completed(self, labels: Tensor, channels: int) -> Tensor:
        """Labels with what any of the terms needs beside them."""
        for term in self.terms:
            labels = term.completed(labels, channels) if isinstance(term, VoxelLoss) else labels
        return labels

    def voxels(self, logits: Tensor, labels: Tensor) -> Voxels:
        """Encoded as the terms encode them; the sum itself has no labels."""
        first = next(term for term in self.terms if isinstance(term, VoxelLoss))
        return first.voxels(logits, labels)


class SumOf:
    """Builds the same weighted sum of losses for any labels and options, as `dice_ce` does.

    Calling it takes `labels`, for each term `<name>_weight` (1 unless given), and the options of the terms' classes; an
    option that several of them have goes to all of these. Its signature lists them.

    Args:
        **terms: short name -> class, in the order of the sum.

    Example:
        >>> from medseg.losses import CrossEntropyLoss, DiceLoss
        >>> builder = SumOf(dice=DiceLoss, ce=CrossEntropyLoss)
        >>> builder(ce_weight=0.5, smooth=1e-3).weights
        [1.0, 0.5]
    """

    def __init__(self, **terms: type[VoxelLoss]) -> None:
        self.terms = terms
        weights = [
            inspect.Parameter(f"{name}_weight", inspect.Parameter.KEYWORD_ONLY, default=1.0, annotation=float)
            for name in terms
        ]
        options = {name: p for loss in terms.values() for name, p in inspect.signature(loss).parameters.items()}
        labels = options.pop("labels")
        self.__signature__ = inspect.Signature([labels, *weights, *options.values()], return_annotation=SumLoss)

    def __call__(self, labels: LabelScheme | None = None, **options: Any) -> SumLoss:
        """The sum.

        Raises:
            TypeError: for an option that no term takes.
            ConfigError: for a value that a term refuses.
        """
        self.__signature__.bind(labels, **options)
        losses = []
        for name, loss in self.terms.items():
            own = {key: value for key, value in options.items() if key in inspect.signature(loss).parameters}
            losses.append((options.get(f"{name}_weight", 1.0), loss(labels, **own)))
        return SumLoss(losses)


class DeepSupervision(nn.Module):
    """A loss of `(main, *auxiliary)`, weighted with sum 1; labels are brought to each resolution (nearest).

    Args:
        loss: any module called with (logits, labels).
        auxiliary_weights: of the auxiliary logits, where the main ones weigh 1; None: 1/2, 1/4, ..., for deep
            supervision.

    Raises:
        ConfigError: for weights that are negative.

    Source:
        Lee et al., Deeply-Supervised Nets, AISTATS 2015; halved weights as in Isensee et al., Nature Methods 2021.

    Example:
        >>> from medseg.losses import DiceLoss
        >>> heads = (torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 4, 4))
        >>> DeepSupervision(DiceLoss())(heads, torch.zeros(1, 1, 8, 8)).ndim
        0
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
        if isinstance(self.loss, VoxelLoss):
            # Before the labels are brought to coarser grids, as distances are those of the finest.
            labels = self.loss.completed(labels, logits[0].shape[1])
        parts = [
            weight / sum(weights) * self.loss(each, resize_labels(labels, each.shape[2:]))
            for weight, each in zip(weights, logits, strict=True)
        ]
        return torch.stack(parts).sum()


def resize_labels(labels: Tensor, size: Sequence[int]) -> Tensor:
    """Labels on another grid over the same extent: of each new voxel, the label at its centre (nearest neighbour).

    Args:
        labels: `(B, 1, I, J[, K])`.
        size: voxels along each spatial axis.

    Returns:
        `(B, 1, *size)`, of the same type.
    """
    for axis, n in enumerate(size, start=2):
        old = labels.shape[axis]
        if old != n:
            centre = torch.arange(n, device=labels.device) * old + old // 2
            labels = labels.index_select(axis, torch.div(centre, n, rounding_mode="floor"))
    return labels
