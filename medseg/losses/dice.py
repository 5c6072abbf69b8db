"""Soft Dice loss (Milletari, Navab, Ahmadi, 3DV 2016; per batch: Isensee et al., Nature Methods 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from medseg.errors import ConfigError
from medseg.labels import LabelScheme
from medseg.losses.voxels import VoxelLoss, Voxels

__all__ = ["DiceLoss"]


class DiceLoss(VoxelLoss):
    """1 - mean soft Dice, `(2 I + smooth) / (P + T + smooth)` per label; I, P, T are sums over voxels.

    Args:
        labels: what the values mean; None where values are channel indices.
        background: count channel 0 of plain labels as a label too.
        batch: sums run over the whole batch, so that a label absent from one patch does not dominate; False: per patch.
        smooth: in voxels, above 0. With 1, an absent label that is predicted empty has loss 0, and a single wrong voxel
            loss 1/2; the gradient is at most 1 / smooth.

    Example:
        >>> loss = DiceLoss()(torch.tensor([[[50.0, -50.0]], [[-50.0, 50.0]]]).movedim(0, 1), torch.tensor([[[0, 1]]]))
        >>> round(loss.item(), 6)
        0.0
    """

    sums_over_ranks = True

    def __init__(
        self,
        labels: LabelScheme | None = None,
        *,
        background: bool = False,
        batch: bool = True,
        smooth: float = 1.0,
    ) -> None:
        super().__init__(labels)
        if smooth <= 0:
            raise ConfigError(f"smooth is {smooth}; expected a positive number of voxels")
        self.first = 0 if background or self.regions else 1
        self.batch = batch
        self.smooth = smooth

    def compute(self, voxels: Voxels) -> Tensor:
        predicted, true, both = self.sums(voxels)
        if self.batch:
            return self.of_sums(*(self.all_sum(part.sum(0)) for part in (predicted, true, both)))
        return self.mean_over_ranks(self.of_sums(predicted, true, both), len(predicted))

    def of_sums(self, predicted: Tensor, true: Tensor, both: Tensor) -> Tensor:
        """The loss of sums per label, `(labels,)` or per patch `(B, labels)`."""
        dice = (2 * both + self.smooth) / (predicted + true + self.smooth)
        return 1 - dice.mean()

    def sums(self, voxels: Voxels) -> tuple[Tensor, Tensor, Tensor]:
        """Sums over voxels of prediction, label and their product: each `(B, labels)`."""
        p = voxels.log_p[:, self.first :].exp()
        counted = voxels.counted
        weight = None if counted is None else counted.to(p.dtype)
        if weight is not None:
            p = p * weight
        if voxels.regions:
            target = voxels.target if weight is None else voxels.target * weight
            return p.sum(2), target.sum(2), (p * target).sum(2)
        p_true = voxels.log_true.exp()
        if voxels.mask is not None:
            p_true = p_true * voxels.mask
        of_label = _masked_sums if p_true.is_cuda else _row_sums
        true, both = of_label(voxels.target, p_true, voxels.shape, voxels.log_p.shape[1])
        if voxels.mask is not None:
            # Ignored voxels have channel 0.
            true[:, 0] -= voxels.mask.shape[1] - voxels.mask.sum(1)
        return p.sum(2), true[:, self.first :], both[:, self.first :]


def _row_sums(target: Tensor, values: Tensor, shape: Sequence[int], channels: int) -> tuple[Tensor, Tensor]:
    """Voxels of each channel, and the sum of the values there: both `(B, channels)`.

    One pass over the voxels, however many channels there are. Rows are summed first, so that float32 sums of millions
    of voxels stay exact to a few parts in a million.
    """
    rows = (-1, shape[-1])
    both = values.new_zeros(values.numel() // shape[-1], channels)
    both = both.scatter_add(1, target.reshape(rows), values.reshape(rows))
    true = torch.stack([torch.bincount(each, minlength=channels) for each in target])
    return true, both.reshape(len(target), -1, channels).sum(1)


def _masked_sums(target: Tensor, values: Tensor, shape: Sequence[int], channels: int) -> tuple[Tensor, Tensor]:
    """The same by a pass for each channel, without the atomic additions that make a GPU's sums differ each time."""
    inside = [target == channel for channel in range(channels)]
    true = torch.stack([each.sum(1) for each in inside], 1)
    return true, torch.stack([torch.where(each, values, 0.0).sum(1) for each in inside], 1)
