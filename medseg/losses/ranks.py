"""Losses of a batch that several processes (ranks) share: each sees its samples, all get the loss of the whole batch.

Dice of a batch is a ratio of sums, so the mean of the ranks' losses would be another loss. Sums of probabilities,
voxels and weights are therefore added up over the ranks before they are divided. `all_sum` gives the gradient of a
rank's own values, so that the sum of the ranks' gradients is the gradient of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from medseg.losses.combined import DeepSupervision, SumLoss
from medseg.losses.distillation import DistilledLoss
from medseg.losses.voxels import VoxelLoss, mean_over_ranks

__all__ = ["MeanOfRanks", "over_ranks"]


class MeanOfRanks(nn.Module):
    """The mean of a loss over the samples of all ranks, for losses that know nothing of ranks.

    Args:
        loss: called with (logits, labels), the mean over the samples of this rank.
        all_sum: the sum of a tensor over the ranks.

    Example:
        >>> loss = MeanOfRanks(nn.MSELoss(), all_sum=lambda value: 2 * value)  # two ranks with the same samples
        >>> loss(torch.ones(1, 3), torch.zeros(1, 3)).item()
        1.0
    """

    def __init__(self, loss: nn.Module, all_sum: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.loss = loss
        self.all_sum = all_sum

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of all ranks, a scalar."""
        return mean_over_ranks(self.loss(logits, labels), len(labels), self.all_sum)


def over_ranks(loss: nn.Module, all_sum: Callable[[Tensor], Tensor]) -> nn.Module:
    """The same loss for a batch that several ranks share.

    Args:
        loss: as `build_loss` gives it; changed.
        all_sum: the sum of a tensor over the ranks, whose gradient is that of the rank's own values.

    Returns:
        A module called with the (logits, labels) of one rank; it gives the loss of all.

    Example:
        >>> from medseg.losses import build_loss
        >>> loss = over_ranks(build_loss("dice_ce"), all_sum=lambda value: 2 * value)  # two ranks with the same samples
        >>> whole = build_loss("dice_ce")(torch.zeros(2, 2, 8, 8), torch.ones(2, 1, 8, 8))
        >>> round(loss(torch.zeros(1, 2, 8, 8), torch.ones(1, 1, 8, 8)).item() - whole.item(), 6)
        0.0
    """
    if isinstance(loss, DeepSupervision):
        loss.loss = over_ranks(loss.loss, all_sum)
    elif isinstance(loss, DistilledLoss):
        loss.loss = over_ranks(loss.loss, all_sum)
        loss.distillation.all_sum = all_sum
    elif isinstance(loss, SumLoss):
        loss.terms = nn.ModuleList(over_ranks(term, all_sum) for term in loss.terms)
    elif isinstance(loss, VoxelLoss) and vars(type(loss)).get("sums_over_ranks", False):
        loss.all_sum = all_sum
    else:
        return MeanOfRanks(loss, all_sum)
    return loss
