"""Weak and strong views of patches from images without labels, beside the labelled samples of every batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from medseg.training.data import Batch, BatchSource, Views, normalised
from medseg.training.fold import Fold, Setup

__all__ = ["WithUnlabelled"]

# Stands in the seed of an unlabelled sample, beyond the numbers of labelled ones and of mixing.
UNLABELLED = 1 << 21
OUTSIDE = 255


class WithUnlabelled:
    """Batches of labelled samples, with views of unlabelled ones.

    Both views of a patch have the same rotation, deformation and mirroring; the weak one keeps its grey levels.

    Args:
        labelled: makes the labelled samples.
        fold: its unlabelled cases.
        setup: plan, labels and augmentation.
        numbers: the unlabelled samples of a batch to make.
    """

    def __init__(self, labelled: BatchSource, fold: Fold, setup: Setup, numbers: Sequence[int]) -> None:
        self.labelled, self.numbers = labelled, numbers
        self.source = BatchSource(fold.unlabelled, setup.plan, setup.scheme, setup.config, fold.number)
        self.source.spatial.ignore = OUTSIDE  # The label maps are empty, so that this marks what is outside.

    def batch(self, iteration: int, numbers: Sequence[int] | None = None) -> Batch:
        """The batch of this iteration; with `numbers`, those labelled samples of it and no unlabelled ones."""
        batch = self.labelled.batch(iteration, numbers)
        if numbers is not None:
            return batch
        made = [self._views(iteration, number) for number in self.numbers]
        weak, strong, inside = (torch.stack(each) for each in zip(*made, strict=True))
        return replace(batch, unlabelled=Views(weak, strong, inside))

    def _views(self, iteration: int, number: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        source = self.source
        rng = np.random.default_rng([*source.seed, iteration, UNLABELLED + number])
        patch, labels, case = source._placed(rng, number)
        weak = normalised(patch.clone(), case.scales)
        strong, labels = source._strong(rng, patch, labels, case)
        return weak, strong, labels != OUTSIDE
