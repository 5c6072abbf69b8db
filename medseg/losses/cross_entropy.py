"""Cross-entropy: softmax for plain labels, binary per region; weighted by hand or by inverse frequency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from medseg.errors import ConfigError
from medseg.labels import LabelScheme
from medseg.losses.voxels import VoxelLoss, Voxels

__all__ = ["CrossEntropyLoss", "inverse_frequency_weights"]


class CrossEntropyLoss(VoxelLoss):
    """Mean over voxels of `-w log p` of each voxel's own class, divided by the sum of the weights.

    Args:
        labels: what the values mean; None where values are channel indices.
        weights: one number per channel, background first (regions: one per region, the weight of its inside against 1
            outside); or 'inverse_frequency'.
        frequencies: for 'inverse_frequency': how often each channel occurs in the training voxels, background first, as
            counts or fractions (regions: the fraction of voxels inside each).
        label_smoothing: share of the target that is spread evenly over the classes (regions: over inside and outside),
            0 to below 1 (Szegedy et al., CVPR 2016, section 7).

    Raises:
        ConfigError: for weights that are missing, negative or not one per channel, or another share of smoothing.

    Example:
        >>> round(CrossEntropyLoss()(torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4)).item(), 4)
        0.6931
    """

    sums_over_ranks = True
    inside: Tensor | None
    outside: Tensor | None

    def __init__(
        self,
        labels: LabelScheme | None = None,
        *,
        weights: Sequence[float] | Literal["inverse_frequency"] | None = None,
        frequencies: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(labels)
        inside, outside = _weights(weights, frequencies, self.regions)
        count = None if labels is None else labels.out_channels
        if inside is not None and count is not None and len(inside) != count:
            raise ConfigError(f"the loss has {len(inside)} weights or frequencies; this data set has {count} channels")
        if not 0 <= label_smoothing < 1:
            raise ConfigError(f"label_smoothing is {label_smoothing}; expected a number from 0, below 1")
        self.label_smoothing = label_smoothing
        self.register_buffer("inside", inside, persistent=False)
        self.register_buffer("outside", outside, persistent=False)

    def compute(self, voxels: Voxels) -> Tensor:
        return self.mean(-voxels.log_true, voxels)

    def mean(self, loss: Tensor, voxels: Voxels) -> Tensor:
        """Weighted mean of a loss per voxel (regions: per voxel and region) over the voxels that count, smoothed."""
        weight: Tensor | None = None
        if self.inside is not None and voxels.regions:
            assert self.outside is not None
            weight = torch.where(voxels.target > 0, self.inside[:, None], self.outside[:, None])
        elif self.inside is not None:
            weight = self.inside[voxels.target]
        mask = voxels.counted if voxels.regions else voxels.mask
        if mask is not None:
            weight = mask.to(loss.dtype).expand_as(loss) if weight is None else weight * mask
        weighted = loss if weight is None else loss * weight
        if self.label_smoothing:
            spread = self._spread(voxels)
            spread = spread if mask is None else spread * mask
            weighted = weighted + self.label_smoothing * (spread - weighted)
        return self.reduced(weighted, weight)

    def reduced(self, weighted: Tensor, weight: Tensor | None) -> Tensor:
        """Weighted mean.

        Args:
            weighted: losses, weights applied.
            weight: of each, 0 where ignored; None: all weigh 1.
        """
        if weight is None:
            return self.mean_over_ranks(weighted.mean(), len(weighted))
        # A batch in which all voxels are ignored or have weight 0 gives 0, not 0 / 0.
        total = self.all_sum(weight.sum()).clamp_min(torch.finfo(weighted.dtype).tiny)
        return self.all_sum(weighted.sum()) / total

    def _spread(self, voxels: Voxels) -> Tensor:
        """The mean over the classes of `-w log p`, which label smoothing mixes in; regions: over inside and outside."""
        if voxels.regions:
            inside, outside = -voxels.log_p, -F.logsigmoid(-voxels.logits)
            if self.inside is not None and self.outside is not None:
                inside, outside = inside * self.inside[:, None], outside * self.outside[:, None]
            return (inside + outside) / 2
        log_p = voxels.log_p
        if voxels.annotated is not None:
            log_p = log_p.masked_fill(~voxels.annotated, 0.0)
        summed = -log_p.sum(1) if self.inside is None else -(log_p * self.inside[:, None]).sum(1)
        return summed / (log_p.shape[1] if voxels.annotated is None else voxels.annotated.sum(1))


def inverse_frequency_weights(frequencies: Sequence[float]) -> list[float]:
    """Weight of each class: `N / (K n_c)`, N voxels in all, K classes that occur, n_c voxels of class c.

    A class that never occurs gets the largest weight of the others, since infinity would end the training.

    Raises:
        ConfigError: for negative numbers or no voxel at all.

    Example:
        >>> inverse_frequency_weights([6, 3, 1, 0])
        [0.5555555555555556, 1.1111111111111112, 3.3333333333333335, 3.3333333333333335]
    """
    total = float(sum(frequencies))
    if not frequencies or min(frequencies) < 0 or not 0 < total < float("inf"):
        raise ConfigError(f"frequencies is {list(frequencies)}; expected numbers >= 0, one of them above 0")
    present = sum(n > 0 for n in frequencies)
    weights = [total / (present * n) if n > 0 else 0.0 for n in frequencies]
    return [w or max(weights) for w in weights]


def _weights(
    weights: Sequence[float] | str | None, frequencies: Sequence[float] | None, regions: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Weights inside and outside of each channel; `outside` is used for regions only."""
    if weights is None:
        return None, None
    if isinstance(weights, str):
        if weights != "inverse_frequency":
            raise ConfigError(f"weights is {weights!r}; expected inverse_frequency or a list of numbers")
        if frequencies is None:
            raise ConfigError(
                "weights: inverse_frequency needs the frequencies of the labels; give frequencies as well"
            )
        if not regions:
            return torch.tensor(inverse_frequency_weights(frequencies)), None
        if not all(0 <= f <= 1 for f in frequencies):
            raise ConfigError(f"frequencies is {list(frequencies)}; expected fractions of voxels, one per region")
        pairs = [inverse_frequency_weights([f, 1 - f]) for f in frequencies]
        return torch.tensor([inside for inside, _ in pairs]), torch.tensor([outside for _, outside in pairs])
    if not all(isinstance(w, int | float) and 0 <= w < float("inf") for w in weights) or not any(weights):
        raise ConfigError(f"weights is {list(weights)}; expected numbers >= 0, one of them above 0")
    inside = torch.tensor([float(w) for w in weights])
    return inside, torch.ones_like(inside)
