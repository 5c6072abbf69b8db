"""Choosing the dense CRF's options on validation cases, and whether to use it at all.

A CRF that sharpens the boundaries of coarse 2D predictions can blur or erase structures in 3D. Therefore the options
with the highest mean Dice are chosen, and only if that is higher than without a CRF.
C channels (classes or regions), I J K voxel axes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from medseg.errors import ConfigError, DatasetError, GeometryError
from medseg.nets.crf import CrfOptions, dense_crf

__all__ = ["CrfCase", "fit_crf"]


@dataclass(frozen=True, slots=True)
class CrfCase:
    """A validation case on the network's grid.

    Args:
        logits: (C, I, J[, K]).
        image: (channels, I, J[, K]), as the network sees it.
        labels: (I, J[, K]) channel indices, 0 the background; regions: (C, I, J[, K]), positive or true inside.
            Negative where ignored.
        spacing_mm: per voxel axis.
        score: mean Dice of logits, where that is measured on another grid; None: `labels` are the reference.
    """

    logits: Tensor
    image: Tensor
    labels: Tensor
    spacing_mm: tuple[float, ...]
    score: Callable[[Tensor], float] | None = None

    def __post_init__(self) -> None:
        shape = tuple(self.logits.shape)
        if tuple(self.labels.shape) not in (shape, shape[1:]):
            raise GeometryError(
                f"labels of shape {tuple(self.labels.shape)} do not fit logits of shape {shape}: expected {shape[1:]}, "
                f"or {shape} for regions"
            )

    @property
    def is_regions(self) -> bool:
        """Whether each channel is a region of its own."""
        return self.labels.dim() == self.logits.dim()

    def dice(self, logits: Tensor) -> float:
        """Mean Dice of `logits` over the labels that this case's reference holds; NaN if it holds none."""
        if self.score is not None:
            return self.score(logits)
        if self.is_regions:
            both = zip(logits, self.labels, strict=True)
            pairs = [((found > 0) & (right >= 0), right > 0) for found, right in both]
        else:
            counted = self.labels >= 0
            winner = logits.argmax(0)
            pairs = [((winner == c) & counted, self.labels == c) for c in range(1, len(logits))]
        scores = [
            2 * int((found & right).sum()) / (int(found.sum()) + int(right.sum()))
            for found, right in pairs
            if bool(right.any())
        ]
        return sum(scores) / len(scores) if scores else math.nan


def fit_crf(cases: Sequence[CrfCase], candidates: Iterable[CrfOptions]) -> tuple[CrfOptions | None, float]:
    """The candidate with the highest mean Dice, if that is higher than without a CRF.

    Args:
        cases: validation cases, never training or test ones; the mean runs over cases whose reference holds any label.
        candidates: options to try, at least one; of equally good ones the first is chosen.

    Returns:
        Options and their gain in mean Dice over the logits as they are; (None, 0.0) where no candidate gains.

    Raises:
        ConfigError: for no candidates.
        DatasetError: for no case that holds any label.

    Example:
        >>> image = torch.zeros(1, 6, 6)
        >>> case = CrfCase(torch.cat([image, image + 1]), image, torch.ones(6, 6), (1.0, 1.0))
        >>> fit_crf([case], [CrfOptions()])
        (None, 0.0)
    """
    options = list(candidates)
    if not options:
        raise ConfigError("fit_crf was given no candidates; expected at least one CrfOptions")
    plain = [case.dice(case.logits) for case in cases]
    held = [(case, dice) for case, dice in zip(cases, plain, strict=True) if not math.isnan(dice)]
    if not held:
        raise DatasetError("the validation cases contain no label, so the gain of the CRF cannot be measured")
    best: CrfOptions | None = None
    most = 0.0
    for each in options:
        gain = 0.0
        for case, before in held:
            refined = dense_crf(case.logits, case.image, case.spacing_mm, each, regions=case.is_regions)
            gain += (case.dice(refined) - before) / len(held)
        if gain > most:
            best, most = each, gain
    return best, most
