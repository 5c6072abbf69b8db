"""Focal loss (Lin et al., ICCV 2017): cross-entropy that down-weights voxels already classified well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from medseg.errors import ConfigError
from medseg.labels import LabelScheme
from medseg.losses.cross_entropy import CrossEntropyLoss
from medseg.losses.voxels import Voxels

__all__ = ["FocalLoss"]


class FocalLoss(CrossEntropyLoss):
    """Mean over voxels of `-w (1 - p)^gamma log p`; `gamma` 0 is cross-entropy.

    Args:
        labels: what the values mean; None where values are channel indices.
        gamma: how strongly easy voxels are down-weighted, >= 0.
        alpha: weight of the foreground, 1 - alpha that of the background (regions: inside and outside). The mean is
            still taken over voxels, as in the paper. None: no such weight.
        weights, frequencies: as in `CrossEntropyLoss`.

    Raises:
        ConfigError: for a negative gamma, or alpha outside 0..1.

    Example:
        >>> even = FocalLoss(gamma=2.0)(torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4))
        >>> round(even.item(), 4)  # 0.25 * log 2
        0.1733
    """

    sums_over_ranks = True

    def __init__(
        self,
        labels: LabelScheme | None = None,
        *,
        gamma: float = 2.0,
        alpha: float | None = None,
        weights: Sequence[float] | Literal["inverse_frequency"] | None = None,
        frequencies: Sequence[float] | None = None,
    ) -> None:
        super().__init__(labels, weights=weights, frequencies=frequencies)
        if gamma < 0:
            raise ConfigError(f"gamma is {gamma}; expected a number >= 0")
        if alpha is not None and not 0 <= alpha <= 1:
            raise ConfigError(f"alpha is {alpha}; expected a number from 0 to 1")
        self.gamma = gamma
        self.alpha = alpha

    def compute(self, voxels: Voxels) -> Tensor:
        loss = -voxels.log_true
        if self.gamma:
            # expm1 keeps 1 - p exact where p is near 1; the floor keeps the gradient of a power below 1 finite.
            loss = loss * (-torch.expm1(voxels.log_true)).clamp_min(1e-8) ** self.gamma
        if self.alpha is not None:
            loss = loss * torch.where(voxels.target > 0, self.alpha, 1 - self.alpha)
        return self.mean(loss, voxels)
