"""Consistency: a network's logits against the labels that another, or an averaged, network gives the same voxels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ConsistencyLoss"]


class ConsistencyLoss(nn.Module):
    """Cross-entropy plus Dice loss against the most likely label of taught probabilities, where these are confident.

    Cross-entropy is a mean over all voxels inside the image, so that it counts the less the fewer are confident; Dice
    is over the confident voxels of the batch, the mean over the labels without the background. Of regions each channel
    is a question of its own: inside or outside.

    Args:
        regions: sigmoid channels instead of softmax with the background first.
        confidence: least probability of the most likely label, 0 to 1.

    Source:
        Sohn et al., FixMatch, NeurIPS 2020, equation 4; Chen et al., CVPR 2021, section 3.1.

    Example:
        >>> taught = torch.tensor([0.05, 0.95]).view(1, 2, 1, 1)
        >>> inside = torch.ones(1, 1, 1, 1, dtype=torch.bool)
        >>> loss = ConsistencyLoss(regions=False, confidence=0.9)
        >>> [round(loss(torch.tensor([0.0, x]).view(1, 2, 1, 1), taught, inside).item(), 2) for x in (0.0, 9.0)]
        [0.89, 0.0]
    """

    def __init__(self, regions: bool, confidence: float) -> None:
        super().__init__()
        self.regions, self.confidence = regions, confidence

    def forward(self, logits: Tensor, taught: Tensor, inside: Tensor) -> Tensor:
        """The loss, a float32 scalar.

        Args:
            logits: `(B, C, I, J[, K])`.
            taught: probabilities of the same shape, without gradient.
            inside: `(B, 1, I, J[, K])` bool, voxels that may count.
        """
        logits, taught = logits.float(), taught.float()
        if self.regions:
            target = (taught > 0.5).float()
            counted = (torch.maximum(taught, 1 - taught) >= self.confidence) & inside
            entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
            found, labels = torch.sigmoid(logits), slice(0, None)
        else:
            sure, hard = taught.max(dim=1, keepdim=True)
            counted = (sure >= self.confidence) & inside
            target = torch.zeros_like(taught).scatter_(1, hard, 1.0)
            entropy = F.cross_entropy(logits, hard[:, 0], reduction="none")[:, None]
            found, labels = torch.softmax(logits, dim=1), slice(1, None)
        among = inside.expand_as(counted).sum().clamp_min(1)
        cross_entropy = (entropy * counted).sum() / among
        axes = (0, *range(2, logits.ndim))
        mine, theirs = (found * counted)[:, labels], (target * counted)[:, labels]
        both, either = (mine * theirs).sum(axes), (mine + theirs).sum(axes)
        return cross_entropy + (1 - (2 * both + 1) / (either + 1)).mean()
