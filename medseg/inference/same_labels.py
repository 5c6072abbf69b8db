"""Whether another way to run a network gives the same labels: the rule for every engine, in numpy alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["CHANGED", "CHANGED_BF16", "LabelEvidence", "holds_labels", "same_labels"]

Batch = TypeVar("Batch")
Decided = NDArray[Any]

CHANGED = 1e-4
"""Share of the labelled voxels that may get another label, where an engine does not say otherwise."""
CHANGED_BF16 = 0.02
"""The same share where precision may be lost, as by bfloat16."""
# So many may always change: below 40,000 labelled voxels, a tie at a border would refuse an engine.
FEW = 4
# A connected part of more voxels is a finding that must neither vanish nor appear.
LARGEST_SPECK = 10
# Windows with labels that are looked for, how many of them are enough, and how many windows are looked at for them.
WANTED, ENOUGH, MOST_WINDOWS = 3, 2, 8


def same_labels(reference: Decided, other: Decided, *, regions: bool = False, share: float = CHANGED) -> bool:
    """Whether two runs of a network on the same windows find the same things.

    At most `share` of the labelled voxels (of either run), or 4 where that is less, may differ; and of every connected
    part of more than 10 voxels of a label, in either run, at least half must have that label in the other run too. So
    a lesion that is a millionth of an image can be neither lost nor invented.

    Args:
        reference: labels (B, *patch), 0 for background; for regions what each holds, bool (B, regions, *patch).
        other: the same of the other run.
        regions: whether the channels are overlapping regions.
        share: of the labelled voxels that may differ, 0 to 1.

    Returns:
        False also where the shapes differ.

    Example:
        >>> organ = np.zeros((1, 300, 300), int)
        >>> organ[:, 50:250, 50:250] = 1
        >>> without_lesion, lesion = organ.copy(), organ.copy()
        >>> lesion[:, 100:104, 100:103] = 2
        >>> same_labels(lesion, without_lesion), same_labels(lesion, without_lesion, share=0.02)
        (False, False)
    """
    if reference.shape != other.shape:
        return False
    differs = reference != other
    changed = differs.any(1) if regions else differs
    count = int(changed.sum())
    if count == 0:
        return True
    labelled = (reference != 0) | (other != 0)
    if count > max(FEW, share * int((labelled.any(1) if regions else labelled).sum())):
        return False
    if count <= LARGEST_SPECK // 2:
        return True
    pairs: Iterable[tuple[Decided, Decided]] = (
        ((reference[:, n], other[:, n]) for n in range(reference.shape[1]))
        if regions
        else (
            (reference == value, other == value)
            for value in np.union1d(reference[differs], other[differs]).tolist()
            if value
        )
    )
    return not any(_loses_a_part(one, two) or _loses_a_part(two, one) for one, two in pairs)


def holds_labels(decided: Decided, regions: bool = False) -> NDArray[np.bool_]:
    """Which windows show where a label ends: bool (B,); a window of one label alone says no more than background."""
    flat = decided.reshape(len(decided), decided.shape[1] if regions else 1, -1)
    return np.asarray((flat != flat[..., :1]).any((1, 2)))


@dataclass(frozen=True, slots=True)
class LabelEvidence(Generic[Batch]):
    """Windows of an image on which engines are judged, with what the network itself decides there.

    Args:
        batches: windows with labels, and what the network decides on them.
        regions: whether the channels are overlapping regions.
        windows: how many windows hold labels.

    Example:
        >>> flip = lambda batch: 1 - (batch > 0)
        >>> evidence = LabelEvidence.gather([np.array([[-1, -1, 1, 1], [1, 1, 1, -1]])], lambda batch: batch > 0)
        >>> evidence.is_enough, evidence.holds_for(lambda batch: batch > 0.5), evidence.holds_for(flip)
        (True, True, False)
    """

    batches: tuple[tuple[Batch, Decided], ...]
    regions: bool
    windows: int

    @classmethod
    def gather(
        cls, batches: Iterable[Batch], run: Callable[[Batch], Decided], regions: bool = False
    ) -> LabelEvidence[Batch]:
        """Run the network on one batch after the other until three windows with labels, or eight windows, were seen.

        Args:
            batches: windows (B, C, *patch); at different places of an image.
            run: decides a batch by the network as it is, see `same_labels`.
            regions: whether the channels are overlapping regions.
        """
        kept, windows, seen = [], 0, 0
        for batch in batches:
            decided = run(batch)
            held = int(holds_labels(decided, regions).sum())
            if held:
                kept.append((batch, decided))
            windows, seen = windows + held, seen + len(decided)
            if windows >= WANTED or seen >= MOST_WINDOWS:
                break
        return cls(tuple(kept), regions, windows)

    @property
    def is_enough(self) -> bool:
        """Whether an engine may be accepted on these windows: at least two hold labels."""
        return self.windows >= ENOUGH

    def holds_for(self, run: Callable[[Batch], Decided], share: float = CHANGED) -> bool:
        """Whether an engine gives the same labels on every batch; arguments as of `gather` and `same_labels`."""
        return all(
            same_labels(decided, run(batch), regions=self.regions, share=share) for batch, decided in self.batches
        )


def _loses_a_part(one: Decided, other: Decided) -> bool:
    """Whether a part of mask `one` (B, *patch) has less than half of its voxels in mask `other`."""
    lost = one & ~other
    if int(lost.sum()) <= LARGEST_SPECK // 2:
        return False
    touching = np.ones((1,) + (3,) * (one.ndim - 1), dtype=bool)
    # No part reaches from one window into the next.
    parts, count = ndimage.label(one, np.concatenate([~touching, touching, ~touching]))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    gone = np.bincount(parts[lost], minlength=count + 1)
    return bool(((sizes > LARGEST_SPECK) & (2 * gone > sizes))[1:].any())
