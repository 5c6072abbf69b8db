"""The two labels with the largest shares of each voxel, and how what they leave undecided is settled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["ROUNDING", "Ranks"]

# Shares that are equal differ by rounding only; no share of a voxel that matters is smaller.
ROUNDING = 1e-5
# Where the largest share is ahead by more than this, it is decided.
UNDECIDED = 1 / 3
GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True, slots=True, eq=False)
class Ranks:
    """The labels with the largest and the second largest share of each voxel; of equal ones the lower comes first.

    Args:
        first, second: label values, `(I, J, K)` or `(I, J)`.
        most, next: their shares, 0 to 1.
        whole: shape of the whole grid, of which this may be a slab.
    """

    first: NDArray[Any]
    second: NDArray[Any]
    most: NDArray[np.float32]
    next: NDArray[np.float32]
    whole: tuple[int, ...]

    @classmethod
    def of(cls, shape: Sequence[int], dtype: Any, label: int) -> Ranks:
        """Nothing is ranked yet; `label` stands everywhere."""
        first, second = (np.full(shape, label, dtype=dtype) for _ in range(2))
        return cls(first, second, np.zeros(shape, np.float32), np.zeros(shape, np.float32), tuple(shape))

    def rows(self, begin: int, end: int) -> Ranks:
        """A slab along the first axis, which is written through."""
        rows = slice(begin, end)
        return Ranks(self.first[rows], self.second[rows], self.most[rows], self.next[rows], self.whole)

    def add(self, where: tuple[Any, ...], label: int, share: NDArray[np.float32]) -> None:
        """Rank a label that has not been added there: in ascending order, the lowest one last.

        Args:
            where: index of the place.
            label: its value.
            share: of each voxel of the place.
        """
        first, second, most, next_ = (each[where] for each in (self.first, self.second, self.most, self.next))
        ahead = share > most + ROUNDING
        level = ~ahead & (share >= most - ROUNDING) & (share > ROUNDING)
        lower = level & (label < first)
        # Of three that are level, the lowest and the highest are kept.
        moved = ahead | (lower & (next_ < most - ROUNDING))
        np.copyto(second, first, where=moved)
        np.copyto(next_, most, where=moved)
        np.copyto(first, np.asarray(label, first.dtype), where=ahead | lower)
        np.copyto(most, share, where=ahead)
        behind = (level & ~lower) | (~ahead & ~level & (share > next_))
        np.copyto(second, np.asarray(label, first.dtype), where=behind)
        np.copyto(next_, share, where=behind)

    def transpose(self, axes: Sequence[int]) -> Ranks:
        """The same with its axes in another order."""
        first, second = self.first.transpose(axes), self.second.transpose(axes)
        whole = tuple(self.whole[a] for a in axes)
        return Ranks(first, second, self.most.transpose(axes), self.next.transpose(axes), whole)

    def take_second(self, where: NDArray[np.bool_]) -> None:
        """Let the second label win at some voxels; the decision is final."""
        self.first[where] = self.second[where]
        self.next[where] = -1.0

    def balance(self, rest: int) -> None:
        """Settle undecided voxels so that each component of a label keeps its volume, as near as whole voxels allow.

        The label of the largest share everywhere would shrink what is round, by a tenth and more where it is a few
        voxels wide, and moves boundaries where shares are equal. In and next to each component the label's shares are
        summed; it gets, or gives up, the voxels with the closest shares until their number is that sum. Voxels where
        the largest share is ahead by more than a third do not change. Of equally close ones some are taken here and
        some there, so that the component stays where it is.

        Args:
            rest: the label that takes what the others leave.
        """
        if not (self.most - self.next <= UNDECIDED).any():
            return
        firsts, seconds = (ndimage.find_objects(each) for each in (self.first, self.second))
        for label in range(1, max(len(firsts), len(seconds)) + 1):
            boxes = [each[label - 1] for each in (firsts, seconds) if label <= len(each) and each[label - 1]]
            if boxes and label != rest:
                self._balance(tuple(_around(parts) for parts in zip(*boxes, strict=True)), label)

    def _balance(self, box: tuple[slice, ...], label: int) -> None:
        first, most, next_ = self.first[box], self.most[box], self.next[box]
        core = first == label
        held = core | ((self.second[box] == label) & (next_ > ROUNDING))
        touching = ndimage.generate_binary_structure(core.ndim, core.ndim)
        near = ndimage.binary_dilation(core, touching) & held
        # What has no voxel of its own yet, such as a small lesion between four voxels, is a component too.
        apart, count = ndimage.label(held, touching)
        with_core = np.zeros(count + 1, dtype=bool)
        with_core[apart[core]] = True
        without = held & ~with_core[apart]
        numbers, count = ndimage.label(near | without, touching)
        share = np.where(core, most, next_)
        inside = numbers > 0
        wanted = np.bincount(numbers[inside], share[inside], count + 1)
        has = np.bincount(numbers[core], minlength=count + 1)
        missing = np.rint(wanted - has).astype(np.intp)
        margin = most - next_
        open_ = inside & (margin <= UNDECIDED) & (next_ >= 0)
        open_ &= np.where(core, missing[numbers] < 0, missing[numbers] > 0)
        where = np.flatnonzero(open_)
        if not where.size:
            return
        component, close = numbers.reshape(-1)[where], np.round(margin.reshape(-1)[where], 4)
        places = sum(np.unravel_index(where, core.shape)) + sum(part.start for part in box)
        order = _spread_order(places % 2 == 0, close, component)
        component = component[order]
        place = np.arange(len(order)) - np.searchsorted(component, component)
        chosen = np.zeros(core.size, dtype=bool)
        chosen[where[order[place < np.abs(missing[component])]]] = True
        Ranks(first, self.second[box], most, next_, self.whole).take_second(chosen.reshape(core.shape))


def _spread_order(later: NDArray[Any], close: NDArray[Any], component: NDArray[Any]) -> NDArray[np.intp]:
    """Sorted by component, then by closeness; every beginning of equally close voxels is spread over all of them.

    First come those that are black on a chessboard. Within a colour the order is that of multiples of the golden ratio,
    which begin anywhere, so that of few voxels no side is preferred; the same voxels always give the same order.
    """
    order = np.lexsort((later, close, component))
    new = np.zeros(len(order), dtype=bool)
    for key in (later, close, component):
        new[1:] |= key[order][1:] != key[order][:-1]
    new[:1] = True
    group = np.cumsum(new) - 1
    place = np.arange(len(order)) - np.flatnonzero(new)[group]
    turn = np.empty(len(order))
    turn[order] = (place * GOLDEN + np.random.default_rng(len(order)).random(group[-1] + 1)[group]) % 1
    return np.lexsort((turn, later, close, component))


def _around(parts: Sequence[slice]) -> slice:
    return slice(min(p.start for p in parts), max(p.stop for p in parts))
