"""Tversky loss: what is predicted too much and what is missed weigh differently (Salehi et al., MLMI 2017)."""

from __future__ import annotations

import torch
from torch import Tensor

from medseg.errors import ConfigError
from medseg.labels import LabelScheme
from medseg.losses.dice import DiceLoss

__all__ = ["TverskyLoss"]


class TverskyLoss(DiceLoss):
    """Mean over labels of `(1 - TI)^(1 / gamma)`, `TI = (I + smooth) / (I + alpha F + beta M + smooth)`.

    I is what prediction and label share, F what is predicted outside the label, M what is missed; all are sums over
    voxels. With alpha and beta 1/2 it is Dice, with both 1 the Jaccard index. Beta above alpha finds more of small
    structures, at the price of false positives.

    Args:
        labels: what the values mean; None where values are channel indices.
        alpha: weight of false positives, >= 0.
        beta: weight of what is missed, >= 0; the paper's best were 0.3 and 0.7.
        gamma: 1 is the Tversky loss; above 1 (4/3 in the paper) labels that are segmented badly count more: focal
            Tversky loss.
        background: count channel 0 of plain labels as a label too.
        batch: sums run over the whole batch; False: per patch.
        smooth: in voxels, above 0.

    Raises:
        ConfigError: for a negative weight, both weights 0, or gamma below 1.

    Source:
        Salehi et al., Tversky loss function for image segmentation using 3D fully convolutional deep networks, MLMI
        2017, equations 3 and 4; focal: Abraham and Khan, ISBI 2019, equation 4.

    Example:
        >>> missed = torch.tensor([[[50.0, 50.0]], [[-50.0, -50.0]]]).movedim(0, 1)
        >>> round(TverskyLoss(beta=0.5)(missed, torch.tensor([[[0, 1]]])).item(), 4)  # 1 - 1 / (0.5 + 1)
        0.3333
    """

    sums_over_ranks = True

    def __init__(
        self,
        labels: LabelScheme | None = None,
        *,
        alpha: float = 0.3,
        beta: float = 0.7,
        gamma: float = 1.0,
        background: bool = False,
        batch: bool = True,
        smooth: float = 1.0,
    ) -> None:
        super().__init__(labels, background=background, batch=batch, smooth=smooth)
        if not (0 <= alpha < float("inf") and 0 <= beta < float("inf") and alpha + beta > 0):
            raise ConfigError(f"alpha is {alpha} and beta {beta}; expected numbers >= 0, one of them above 0")
        if not 1 <= gamma < float("inf"):
            raise ConfigError(f"gamma is {gamma}; expected a number from 1 on")
        self.alpha = alpha
        self.beta = beta
        self.gamma = gamma

    def of_sums(self, predicted: Tensor, true: Tensor, both: Tensor) -> Tensor:
        """The loss of sums per label, `(labels,)` or per patch `(B, labels)`."""
        wrong = self.alpha * (predicted - both) + self.beta * (true - both)
        loss = wrong / (both + wrong + self.smooth)
        if self.gamma != 1:
            # The slope of a power below 1 is infinite at 0, where there is nothing left to learn.
            loss = loss.clamp_min(torch.finfo(loss.dtype).eps) ** (1 / self.gamma)
        return loss.mean()
