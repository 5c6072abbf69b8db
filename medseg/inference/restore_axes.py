"""Where the voxels of a native axis lie on a network axis, cut into blocks of cells.

A cell is the space between two neighbouring samples of the network's grid. Half-pixel centres, outer edges kept and
clamped; positions are rounded as `torch.nn.functional.interpolate(align_corners=False)` rounds them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["AxisMap", "Blocks"]


@dataclass(frozen=True, slots=True)
class Blocks:
    """Blocks of cells along one axis; block n begins at sample `starts[n]` and needs `length + 1` samples.

    Args:
        length: cells per block.
        starts: first sample of each block.
        first, last: native voxels of each block, last excluded.
        weights: (blocks, length + 1, most voxels of a block), what each sample counts for each voxel; a short block
            repeats its last voxel.
        moves: False where network and native axis are the same: then a block needs `length` samples, and no weights.
    """

    length: int
    starts: NDArray[np.intp]
    first: NDArray[np.intp]
    last: NDArray[np.intp]
    weights: NDArray[np.float32]
    moves: bool

    @property
    def samples(self) -> int:
        """Samples per block."""
        return self.length + int(self.moves)

    @property
    def voxels(self) -> int:
        """Native voxels of the largest block."""
        return int((self.last - self.first).max())


@dataclass(frozen=True, slots=True)
class AxisMap:
    """Lower neighbour and weight of the upper one for each voxel of a native axis.

    Args:
        size, new_size: samples of the network's axis, voxels of the native one.
        below: (new_size,) index of the lower neighbour, ascending.
        fraction: (new_size,) float32 weight of the upper neighbour, which is `below + 1` or the last sample.
    """

    size: int
    new_size: int
    below: NDArray[np.intp]
    fraction: NDArray[np.float32]

    @classmethod
    def between(cls, size: int, new_size: int, nearest: bool = False) -> AxisMap:
        """The map from `size` samples to `new_size` voxels of the same extent.

        `nearest`: each voxel takes the nearest sample, half-way the upper one.
        """
        if size == new_size:
            return cls(size, new_size, np.arange(size), np.zeros(size, dtype=np.float32))
        if nearest:
            below = ((np.arange(new_size) + 0.5) * (size / new_size)).astype(np.intp).clip(max=size - 1)
            return cls(size, new_size, below, np.zeros(new_size, dtype=np.float32))
        scale = np.float64(np.float32(size / new_size))
        position = ((np.arange(new_size) + 0.5) * scale - 0.5).astype(np.float32).clip(min=0)
        below = position.astype(np.intp).clip(max=size - 1)
        return cls(size, new_size, below, position - below.astype(np.float32))

    def blocks(self, length: int, first: int = 0, last: int | None = None) -> Blocks:
        """Cells `first` to `last` (excluded; None: all) in blocks of `length`."""
        starts = np.arange(first, self.size if last is None else last, length)
        ends = np.minimum(starts + length, self.size if last is None else last)
        begin, end = np.searchsorted(self.below, starts), np.searchsorted(self.below, ends)
        moves = self.size != self.new_size
        weights = np.zeros((len(starts), length + 1, max(1, int((end - begin).max()))), dtype=np.float32)
        for block, (a, b, start) in enumerate(zip(begin, end, starts, strict=True)):
            voxel = np.arange(b - a)
            below = self.below[a:b] - start
            weights[block, below, voxel] += 1 - self.fraction[a:b]
            weights[block, below + 1, voxel] += self.fraction[a:b]
            if b > a:
                weights[block, :, b - a :] = weights[block, :, b - a - 1 : b - a]
        return Blocks(length, starts, begin, end, weights, moves)
