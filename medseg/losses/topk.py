"""Cross-entropy of the hardest voxels alone (Wu, Shen and van den Hengel, 2016: online bootstrapping)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from medseg.errors import ConfigError
from medseg.labels import LabelScheme
from medseg.losses.cross_entropy import CrossEntropyLoss

__all__ = ["TopKCrossEntropyLoss"]


class TopKCrossEntropyLoss(CrossEntropyLoss):
    """Mean cross-entropy over the `percent` of voxels (regions: of voxels and regions) at which it is greatest.

    Of the voxels that count, at least one is taken; ignored voxels are not among them. With weights, the voxels with
    the greatest weighted loss are taken, and the mean is weighted.

    Args:
        labels: what the values mean; None where values are channel indices.
        percent: share of the voxels, above 0, at most 100, where it is the cross-entropy.
        weights, frequencies, label_smoothing: as in `CrossEntropyLoss`.

    Raises:
        ConfigError: for a share that is not above 0 or above 100.

    Source:
        Wu, Shen and van den Hengel, Bridging category-level and instance-level semantic image segmentation, 2016,
        section 2.3; 10 % as in nnU-Net.

    Example:
        >>> logits = torch.tensor([[[0.0, 9.0], [0.0, -9.0]]])
        >>> round(TopKCrossEntropyLoss(percent=50)(logits, torch.zeros(1, 1, 2)).item(), 4)  # the first voxel: log 2
        0.6931
    """

    def __init__(
        self,
        labels: LabelScheme | None = None,
        *,
        percent: float = 10.0,
        weights: Sequence[float] | Literal["inverse_frequency"] | None = None,
        frequencies: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(labels, weights=weights, frequencies=frequencies, label_smoothing=label_smoothing)
        if not 0 < percent <= 100:
            raise ConfigError(f"percent is {percent}; expected a share of the voxels, above 0, at most 100")
        self.percent = percent

    def reduced(self, weighted: Tensor, weight: Tensor | None) -> Tensor:
        """Weighted mean of the greatest losses."""
        weighted = weighted.flatten()
        if weight is None:
            return weighted.topk(math.ceil(weighted.numel() * self.percent / 100)).values.mean()
        weight = weight.flatten()
        count = max(1, math.ceil(int(torch.count_nonzero(weight)) * self.percent / 100))
        taken = weighted.masked_fill(weight == 0, -torch.inf).topk(count).indices
        return super().reduced(weighted[taken], weight[taken])
