"""Base of the losses: logits and labels, encoded voxel by voxel.

B batch, C channels (background first for plain labels; one per region otherwise), N voxels of all axes in a row.
The one-hot of the labels is never built: losses need the probability of each voxel's own class, which one gather gives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medseg.labels import LabelScheme

__all__ = ["VoxelLoss", "Voxels", "mean_over_ranks"]


@dataclass(frozen=True, slots=True)
class Voxels:
    """Predictions and labels of a batch, float32.

    Args:
        log_p: `(B, C, N)` log-probabilities of the channels: log-softmax, or log-sigmoid for regions.
        log_true: plain labels: `(B, N)` log-probability of each voxel's own class.
            Regions: `(B, C, N)` log-probability of each voxel's own state (inside or outside) of each region.
        target: plain labels: `(B, N)` int64 channel of each voxel, 0 where ignored. Regions: `(B, C, N)` float 0 or 1.
        mask: `(B, N)` bool, False where ignored; None where the labels have no ignore value.
        regions: sigmoid channels instead of softmax.
        shape: voxels along each axis, for losses that look at neighbours.

    Example:
        >>> voxels = VoxelLoss().voxels(torch.zeros(1, 2, 2, 2), torch.ones(1, 1, 2, 2, dtype=torch.int64))
        >>> voxels.target.tolist(), voxels.shape
        ([[1, 1, 1, 1]], (2, 2))
    """

    log_p: Tensor
    log_true: Tensor
    target: Tensor
    mask: Tensor | None
    regions: bool
    shape: tuple[int, ...]


def mean_over_ranks(mean: Tensor, samples: int, all_sum: Callable[[Tensor], Tensor]) -> Tensor:
    """The mean over the samples of all ranks, from that over the `samples` of this one, see `losses/ranks.py`."""
    return all_sum(mean * (samples / all_sum(mean.new_tensor(float(samples)))))


def _own(value: Tensor) -> Tensor:
    return value


class VoxelLoss(nn.Module):
    """Base of the losses: turns dataset values into channels, hands `Voxels` to `compute`.

    Args:
        labels: what the values mean; None where values are channel indices (background included).

    Example:
        >>> class Surprise(VoxelLoss):
        ...     def compute(self, voxels):
        ...         return -voxels.log_true.mean()
        >>> round(float(Surprise()(torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4, dtype=torch.int64))), 4)
        0.6931
    """

    table: Tensor | None
    # A class that sums what it counts by `all_sum` sets this in its own body; of others, the ranks' mean is taken.
    sums_over_ranks = False

    def __init__(self, labels: LabelScheme | None = None) -> None:
        super().__init__()
        self.regions = labels is not None and labels.is_regions
        self.ignore = None if labels is None else labels.ignore
        # Of several processes that share a batch, the sum of their values; see `losses/ranks.py`.
        self.all_sum: Callable[[Tensor], Tensor] = _own
        table = None
        if labels is not None:
            table = torch.from_numpy(labels.region_table() if self.regions else labels.channel_table())
        # Not persistent: the table belongs to the data set and is not learned.
        self.register_buffer("table", table, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss, a scalar.

        Args:
            logits: `(B, C, I, J[, K])`, any floating type; computed in float32.
            labels: `(B, 1, I, J[, K])` dataset values, of any integer or whole-numbered floating type.
        """
        return self.compute(self.voxels(logits, labels))

    def compute(self, voxels: Voxels) -> Tensor:
        """The loss of voxels that are already encoded; what a loss overrides."""
        raise RuntimeError(f"{type(self).__name__} has no compute")

    def mean_over_ranks(self, mean: Tensor, samples: int) -> Tensor:
        """The mean over the samples of all ranks, from that over the `samples` of this one."""
        return mean_over_ranks(mean, samples, self.all_sum)

    def voxels(self, logits: Tensor, labels: Tensor) -> Voxels:
        """Encode once; several losses can share the result."""
        values = labels.flatten(1).long()
        x = logits.flatten(2).float()
        shape = tuple(logits.shape[2:])
        if self.regions:
            assert self.table is not None
            target = self.table[values].movedim(-1, 1)
            mask = None if self.ignore is None else values != self.ignore
            # log of sigmoid(x) inside the region and of sigmoid(-x) outside.
            log_true = F.logsigmoid(torch.where(target > 0, x, -x))
            return Voxels(F.logsigmoid(x), log_true, target, mask, True, shape)
        target = values if self.table is None else self.table[values]
        mask = None
        if self.ignore is not None:
            mask = target >= 0
            target = target.clamp_min(0)
        log_p = F.log_softmax(x, dim=1)
        return Voxels(log_p, log_p.gather(1, target[:, None])[:, 0], target, mask, False, shape)
