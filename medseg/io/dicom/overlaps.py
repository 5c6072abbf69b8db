"""Overlapping segments or ROIs in one label map: each combination that occurs has a value of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Overlaps"]


class Overlaps:
    """The values of combinations of labels, given out as they are painted over each other.

    Args:
        values: the value of each label by itself; distinct positive integers.

    Example:
        >>> overlaps, line = Overlaps((1, 2)), np.array([0, 1, 1], np.uint16)
        >>> line[1:] = overlaps.painted(line[1:], 2)
        >>> line.tolist(), overlaps.regions(np.unique(line))
        ([0, 3, 3], {1: (3,), 2: (3,)})
    """

    def __init__(self, values: Sequence[int]) -> None:
        self._own = tuple(values)
        self._held: dict[int, frozenset[int]] = {0: frozenset(), **{v: frozenset((v,)) for v in values}}
        self._value_of = {held: value for value, held in self._held.items()}
        self._fresh = (value for value in count(1) if value not in self._held)

    def painted(self, under: NDArray[Any], value: int) -> NDArray[Any]:
        """The values of voxels after a label was painted over them: shape and dtype of `under`."""
        found, places = np.unique(under, return_inverse=True)
        new = [self._of(self._held[int(each)] | {value}) for each in found]
        return np.array(new, under.dtype)[places].reshape(under.shape)

    def held(self, value: int) -> tuple[int, ...]:
        """The values, each by itself, of the labels with this value, in ascending order."""
        return tuple(sorted(self._held[value]))

    def regions(self, present: Sequence[int] | NDArray[Any]) -> Mapping[int, tuple[int, ...]]:
        """Value of each label by itself -> those of `present` whose voxels it has; its own where it has none."""
        occurring = [int(value) for value in present]
        return {own: tuple(v for v in occurring if own in self._held[v]) or (own,) for own in self._own}

    def _of(self, held: frozenset[int]) -> int:
        if held not in self._value_of:
            value = next(self._fresh)
            self._held[value], self._value_of[held] = held, value
        return self._value_of[held]
