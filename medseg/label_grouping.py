"""The values of a label map as numbers of groups, for values of any size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["grouping"]

# Values up to this one are looked up in a table; atlases number structures up to 2**32, which no table holds.
_LARGEST_TABLED = 1 << 16


def grouping(
    values: Sequence[int], largest: int, kind: type[np.unsignedinteger[Any]]
) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """A function of label maps: each voxel's place in `values`, from 1, and 0 for all other values.

    Args:
        values: distinct non-negative integers.
        largest: the largest value in the label maps.
        kind: type of the numbers.

    Example:
        >>> grouping((3, 2**32 - 1), 2**32 - 1, np.uint8)(np.array([3, 4, 2**32 - 1])).tolist()
        [1, 0, 2]
    """
    if tuple(values) == tuple(range(1, len(values) + 1)) and largest <= len(values):
        return lambda array: array.astype(kind)
    top = max([largest, *values])
    if top <= _LARGEST_TABLED:
        table = np.zeros(top + 1, dtype=kind)
        table[list(values)] = np.arange(1, len(values) + 1)
        return table.take
    # No value is -1: whatever is smaller than all of `values` is compared with it.
    keys = np.array([-1, *values], dtype=np.int64)
    numbers = np.argsort(keys)
    keys = keys[numbers]

    def found(array: NDArray[Any]) -> NDArray[Any]:
        place = np.searchsorted(keys, array, side="right") - 1
        return np.where(keys[place] == array, numbers[place], 0).astype(kind)

    return found
