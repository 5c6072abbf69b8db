"""Soft Dice loss (Milletari, Navab, Ahmadi, 3DV 2016; per batch: Isensee et al., Nature Methods 2021)."""

from __future__ import annotations

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
            predicted, true, both = (self.all_sum(part.sum(0)) for part in (predicted, true, both))
        dice = (2 * both + self.smooth) / (predicted + true + self.smooth)
        return 1 - (dice.mean() if self.batch else self.mean_over_ranks(dice.mean(), len(dice)))

    def sums(self, voxels: Voxels) -> tuple[Tensor, Tensor, Tensor]:
        """Sums over voxels of prediction, label and their product: each `(B, labels)`."""
        p = voxels.log_p[:, self.first :].exp()
        weight = None if voxels.mask is None else voxels.mask[:, None].to(p.dtype)
        if weight is not None:
            p = p * weight
        if voxels.regions:
            target = voxels.target if weight is None else voxels.target * weight
            return p.sum(2), target.sum(2), (p * target).sum(2)
        p_true = voxels.log_true.exp()
        if voxels.mask is not None:
            p_true = p_true * voxels.mask
        true, both = [], []
        for channel in range(self.first, voxels.log_p.shape[1]):
            inside = voxels.target == channel
            if voxels.mask is not None:
                inside = inside & voxels.mask
            true.append(inside.sum(1))
            both.append((p_true * inside).sum(1))
        return p.sum(2), torch.stack(true, 1), torch.stack(both, 1)
