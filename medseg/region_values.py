"""Which value of a label map represents which regions of a voxel.

A voxel lies in any number of regions, but a label map has one value for it. Three facts decide which:

- A region lies inside another where the other has all of its values: a voxel of the smaller one is in both.
- Two regions without a common value exclude each other: of two predicted ones, the region listed later is kept.
- All other combinations can be predicted. One that no value represents gets a spare value.

So `{whole: [1, 2], pen: [1], core: [2]}` becomes `{whole: [1, 2, 3], pen: [1], core: [2]}`, where 3 is
"whole and neither".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count

import numpy as np
from numpy.typing import NDArray

from medseg.errors import ConfigError

__all__ = ["MOST_COMBINATIONS", "Regions", "regions_of"]

# Every combination of crossing regions takes a row of the table of values.
MOST_CROSSING = 12
# DICOM describes a region by its values, in 1024 characters.
MOST_COMBINATIONS = 128

Values = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Regions:
    """How regions lie in each other. Sets of regions are integers whose bit n is region n.

    Args:
        values: the integers of each region.
        around: of each region, the set of those that contain it, itself among them.
        compatible: of each region, the set of those that share a value with it.
        holders: value -> the set of regions that have it; 0 is in none.
        representing: set of regions -> the first value that represents it.

    Example:
        >>> regions_of(((1, 2), (1,), (2,))).around
        (1, 3, 5)
    """

    values: Values
    around: tuple[int, ...]
    compatible: tuple[int, ...]
    holders: Mapping[int, int]
    representing: Mapping[int, int]

    @property
    def cross(self) -> bool:
        """Whether two regions overlap of which neither lies inside the other."""
        every = range(len(self.values))
        inside = [self.around[n] | sum(1 << m for m in every if self.around[m] >> n & 1) for n in every]
        return any(self.compatible[n] & ~inside[n] for n in every)

    @property
    def order(self) -> tuple[int, ...]:
        """The regions as they are listed, but every region after those that contain it."""
        every = range(len(self.values))
        outside = [sum(1 << m for m in every if self.around[n] >> m & ~self.around[m] >> n & 1) for n in every]
        result: list[int] = []
        left = [*every]
        while left:
            waiting = sum(1 << n for n in left)
            result.append(next(n for n in left if not outside[n] & waiting))
            left.remove(result[-1])
        return tuple(result)

    def resolved(self, active: NDArray[np.int64]) -> NDArray[np.int64]:
        """The set of regions that is kept of each predicted set.

        Args:
            active: any shape; sets of regions.

        Returns:
            The same shape: the sets without what a later region excludes, with all that contains a kept region.
        """
        kept = np.zeros_like(active)
        for n in reversed(self.order):
            fits = (active >> n & 1).astype(bool) & (kept & ~np.int64(self.compatible[n]) == 0)
            kept |= np.where(fits, np.int64(self.around[n]), np.int64(0))
        return kept

    def with_region(self, present: int, n: int) -> int:
        """The set of regions after region `n` was painted over a voxel of the set `present`."""
        result = self.around[n]
        for m in range(len(self.values)):
            if present >> m & 1 and self.compatible[m] & result == result:
                result |= self.around[m]
        return result

    @property
    def possible(self) -> tuple[int, ...]:
        """Every set that can be kept, in the order of its innermost regions.

        Raises:
            ConfigError: for more than 12 regions that cross, or more than 128 sets.
        """
        if not self.cross:
            return tuple(dict.fromkeys(self.around))
        if len(self.values) <= MOST_CROSSING:
            every = self.resolved(np.arange(1, 1 << len(self.values), dtype=np.int64))
            sets = [int(v) for v in np.unique(every)]
            if len(sets) <= MOST_COMBINATIONS:
                return tuple(sets)
        raise ConfigError(
            f"{len(self.values)} regions cross each other in too many ways for one label map, which can represent "
            f"{MOST_COMBINATIONS} combinations of up to {MOST_CROSSING} regions; train fewer of them in one model, or "
            "let each region contain the next"
        )

    def with_spare(self, taken: Collection[int]) -> tuple[Values, tuple[int, ...]]:
        """The values of each region with one value more for every possible set that has none, and these values.

        Args:
            taken: values that belong to no region and mean something else.

        Raises:
            ConfigError: see `possible`.
        """
        used = {*taken, *(v for each in self.values for v in each)}
        fresh = (v for v in count(1) if v not in used)
        spare = {next(fresh): held for held in self.possible if held not in self.representing}
        longer = [(*each, *(v for v, held in spare.items() if held >> n & 1)) for n, each in enumerate(self.values)]
        return tuple(longer), tuple(spare)


@lru_cache(maxsize=64)
def regions_of(values: Values) -> Regions:
    """How the regions with these values lie in each other."""
    sets = [set(each) for each in values]

    def bits(chosen: Sequence[bool]) -> int:
        return sum(1 << n for n, is_chosen in enumerate(chosen) if is_chosen)

    around = tuple(bits([one <= other for other in sets]) for one in sets)
    compatible = tuple(bits([not one.isdisjoint(other) for other in sets]) for one in sets)
    holders = {0: 0}
    for n, each in enumerate(values):
        for value in each:
            holders[value] = holders.get(value, 0) | 1 << n
    representing: dict[int, int] = {}
    for value, held in holders.items():
        representing.setdefault(held, value)
    return Regions(values, around, compatible, holders, representing)
