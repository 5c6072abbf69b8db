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
from medseg.sample_labels import SampleLabels

__all__ = ["VoxelLoss", "Voxels", "mean_over_ranks"]


@dataclass(frozen=True, slots=True)
class Voxels:
    """Predictions and labels of a batch, float32 (float64 where the logits are).

    Where a voxel's case has only some labels annotated, the probabilities of the others are added to the background's
    (marginal probabilities: Fang and Yan, IEEE TMI 2020; Shi et al., Medical Image Analysis 2021).

    Args:
        log_p: `(B, C, N)` log-probabilities of the channels: log-softmax, or log-sigmoid for regions. Of plain labels
            -inf where the channel is not annotated.
        log_true: plain labels: `(B, N)` log-probability of each voxel's own class.
            Regions: `(B, C, N)` log-probability of each voxel's own state (inside or outside) of each region.
        target: plain labels: `(B, N)` int64 channel of each voxel, 0 where ignored. Regions: `(B, C, N)` float 0 or 1.
        mask: `(B, N)` bool, False where ignored; None where the labels have no ignore value.
        regions: sigmoid channels instead of softmax.
        shape: voxels along each axis, for losses that look at neighbours.
        logits: `(B, C, N)`.
        annotated: `(B, C, N)` bool, whether the channel is annotated in the voxel's case; None where all always are.
        distances: `(B, labels, N)` signed distances to the border of each label, see `BoundaryLoss`; None where the
            labels came without.

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
    logits: Tensor
    annotated: Tensor | None = None
    distances: Tensor | None = None

    @property
    def counted(self) -> Tensor | None:
        """Which entries of `(B, C, N)` take part, in a shape that broadcasts to it; None: all.

        Regions without annotation are out; of plain labels their probability is 0, so they need no mask.
        """
        mask = None if self.mask is None else self.mask[:, None]
        if not self.regions or self.annotated is None:
            return mask
        return self.annotated if mask is None else mask & self.annotated


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
    annotated: Tensor | None
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
        annotated = torch.from_numpy(labels.annotated_table()) if isinstance(labels, SampleLabels) else None
        self.register_buffer("annotated", annotated, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss, a scalar.

        Args:
            logits: `(B, C, I, J[, K])`, any floating type; computed in float32, float64 logits in float64.
            labels: `(B, 1, I, J[, K])` dataset values (codes, where `SampleLabels` say what they mean), of any integer
                or whole-numbered floating type. Further channels are signed distances, as `BoundaryLoss` adds them.
        """
        return self.compute(self.voxels(logits, self.completed(labels, logits.shape[1])))

    def completed(self, labels: Tensor, channels: int) -> Tensor:
        """Labels with what the loss needs beside them, in further channels, where they came without.

        Args:
            labels: `(B, 1 or more, I, J[, K])`.
            channels: of the logits.
        """
        return labels

    def compute(self, voxels: Voxels) -> Tensor:
        """The loss of voxels that are already encoded; what a loss overrides."""
        raise RuntimeError(f"{type(self).__name__} has no compute")

    def mean_over_ranks(self, mean: Tensor, samples: int) -> Tensor:
        """The mean over the samples of all ranks, from that over the `samples` of this one."""
        return mean_over_ranks(mean, samples, self.all_sum)

    def voxels(self, logits: Tensor, labels: Tensor) -> Voxels:
        """Encode once; several losses can share the result."""
        values = labels[:, 0].flatten(1).long()
        distances = labels[:, 1:].flatten(2) if labels.shape[1] > 1 else None
        x = logits.flatten(2)
        x = x if x.dtype == torch.float64 else x.float()
        shape = tuple(logits.shape[2:])
        annotated = None if self.annotated is None else self.annotated[values].movedim(-1, 1)
        if self.regions:
            assert self.table is not None
            target = self.table[values].movedim(-1, 1)
            mask = None if self.ignore is None else values != self.ignore
            # log of sigmoid(x) inside the region and of sigmoid(-x) outside.
            log_true = F.logsigmoid(torch.where(target > 0, x, -x))
            return Voxels(F.logsigmoid(x), log_true, target, mask, True, shape, x, annotated, distances)
        target = values if self.table is None else self.table[values]
        mask = None
        if self.ignore is not None:
            mask = target >= 0
            target = target.clamp_min(0)
        log_p = F.log_softmax(x, dim=1)
        if annotated is not None:
            log_p = _marginal(log_p, annotated)
        log_true = log_p.gather(1, target[:, None])[:, 0]
        return Voxels(log_p, log_true, target, mask, False, shape, x, annotated, distances)


def _marginal(log_p: Tensor, annotated: Tensor) -> Tensor:
    """Log-probabilities in which the channels that are not annotated belong to the background, channel 0."""
    rest = log_p[:, 1:]
    none = -torch.inf
    background = torch.cat([log_p[:, :1], rest.masked_fill(annotated[:, 1:], none)], 1).logsumexp(1, keepdim=True)
    return torch.cat([background, rest.masked_fill(~annotated[:, 1:], none)], 1)
