"""CutMix and MixUp: the samples of a batch exchange boxes, or are blended in pairs; in 2D and 3D.

CutMix puts a box of another sample's image and labels into each sample: every voxel keeps its own label, so no loss
needs to know. MixUp blends images: the loss is then blended as well, of the labels of both samples, so that labels stay
whole numbers, and ignored voxels and regions are treated as without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from medseg.config import AugmentationConfig

__all__ = ["BatchMixing", "MixParams", "Mixed", "mixed_loss"]


@dataclass(frozen=True, slots=True)
class MixParams:
    """What was drawn for a batch; sample n is mixed with sample n - `partner`, counted around.

    Attributes:
        partner: from 1 to the samples of the batch less one.
        box: per axis, first and last-plus-one voxel that CutMix exchanges; None without CutMix.
        share: of each sample's own image in MixUp's blend; None without MixUp.

    Example:
        >>> MixParams(partner=1, box=((0, 4), (2, 8))).share is None
        True
    """

    partner: int = 1
    box: tuple[tuple[int, int], ...] | None = None
    share: float | None = None


@dataclass(frozen=True, slots=True)
class Mixed:
    """A mixed batch.

    Attributes:
        images: (B, C, I, J[, K]).
        labels: (B, 1, I, J[, K]).
        others: (B, 1, I, J[, K]) labels of the partners that MixUp blended in; None without MixUp.
        share: of `labels` in the loss; that of `others` is the rest.

    Example:
        >>> Mixed(torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4, dtype=torch.int16)).share
        1.0
    """

    images: Tensor
    labels: Tensor
    others: Tensor | None = None
    share: float = 1.0


class BatchMixing:
    """Draws and applies CutMix and MixUp; both are drawn once a batch, and CutMix comes first.

    Args:
        config: `augmentation` of a run; without `enabled` nothing is mixed.

    Source:
        CutMix: Yun et al., ICCV 2019, for classification; here labels move with the voxels, as French et al., BMVC
        2020, do for segmentation. MixUp: Zhang et al., ICLR 2018, with its criterion (section 2).

    Example:
        >>> mixing = BatchMixing(AugmentationConfig(mixup_probability=1.0))
        >>> params = mixing.draw(np.random.default_rng(0), samples=2, patch=(8, 8))
        >>> 0 <= params.share <= 1
        True
    """

    def __init__(self, config: AugmentationConfig) -> None:
        self.config = config
        self.active = config.enabled and max(config.cutmix_probability, config.mixup_probability) > 0

    def draw(self, rng: np.random.Generator, samples: int, patch: Sequence[int]) -> MixParams:
        """How a batch is mixed.

        Args:
            rng: the only source of randomness.
            samples: of the batch, at least 2; a batch of one has nothing to mix.
            patch: spatial shape of a sample.
        """
        if not self.active or samples < 2:
            return MixParams()
        config = self.config
        partner = 1 + int(rng.integers(samples - 1))
        box = share = None
        if rng.random() < config.cutmix_probability:
            box = _draw_box(rng, patch, outside=rng.beta(config.cutmix_alpha, config.cutmix_alpha))
        if rng.random() < config.mixup_probability:
            share = float(rng.beta(config.mixup_alpha, config.mixup_alpha))
        return MixParams(partner, box, share)

    def apply(self, images: Tensor, labels: Tensor, params: MixParams) -> Mixed:
        """The mixed batch; the inputs are left as they are.

        Args:
            images: (B, C, I, J[, K]) float32.
            labels: (B, 1, I, J[, K]) integers.
            params: from `draw`.
        """
        if params.box is not None:
            inside = (slice(None), slice(None), *(slice(first, last) for first, last in params.box))
            cut, cut_labels = images.clone(), labels.clone()
            cut[inside] = images.roll(params.partner, 0)[inside]
            cut_labels[inside] = labels.roll(params.partner, 0)[inside]
            images, labels = cut, cut_labels
        if params.share is None:
            return Mixed(images, labels)
        blended = torch.lerp(images.roll(params.partner, 0), images, params.share)
        return Mixed(blended, labels, labels.roll(params.partner, 0), params.share)


def mixed_loss(
    loss: Callable[[object, Tensor], Tensor], logits: object, labels: Tensor, others: Tensor | None, share: float
) -> Tensor:
    """The loss of a batch: of its labels, blended with that of its partners' labels where images were blended.

    Args:
        loss: of (logits, labels), a scalar.
        logits: of the network, main ones or a tuple with auxiliary ones.
        labels, others, share: of `Mixed`, on the device of the logits.

    Example:
        >>> count = lambda logits, labels: labels.float().mean()
        >>> ones, zeros = torch.ones(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)
        >>> mixed_loss(count, None, ones, zeros, 0.75).item()
        0.75
    """
    value = loss(logits, labels)
    return value if others is None else share * value + (1 - share) * loss(logits, others)


def _draw_box(rng: np.random.Generator, patch: Sequence[int], outside: float) -> tuple[tuple[int, int], ...]:
    """A box of the patch's proportions that leaves that share outside, about any voxel, cut off at the borders."""
    scale = (1 - outside) ** (1 / len(patch))
    box = []
    for size in patch:
        half, middle = scale * size / 2, rng.uniform(0, size)
        box.append((max(0, round(middle - half)), min(size, round(middle + half))))
    return tuple(box)
