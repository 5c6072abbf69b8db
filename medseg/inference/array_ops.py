"""What the sliding window does with arrays: here numpy's, on the CPU; `TensorOps` does the same on a device.

Slicing, filling and arithmetic are written alike for both and are not repeated here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["ArrayOps", "Values", "host_parts"]

Values: TypeAlias = Any
"""A numpy array, or a torch tensor on any device."""

# Voxels of a window that are weighted at a time, few enough for a processor's cache.
CHUNK_VOXELS = 2**16


class ArrayOps:
    """The operations on numpy arrays.

    Attributes:
        place: where networks take their windows, for messages.
    """

    place: object = "cpu"

    def on_cpu(self) -> ArrayOps:
        """The operations for the rest of an image whose windows do not fit on the device."""
        return self

    def zeros(self, shape: Sequence[int]) -> Values:
        """Zeros, float32, in memory that the system has cleared and that is not written before it is used."""
        return np.zeros(shape, dtype=np.float32)

    def empty(self, shape: Sequence[int], like: Values) -> Values:
        """Memory for numbers of the type of `like`."""
        return np.empty(shape, dtype=like.dtype)

    def moved(self, values: Values, source: int, target: int) -> Values:
        """A view whose axis `source` is axis `target`."""
        return np.moveaxis(values, source, target)

    def compact(self, values: Values) -> Values:
        """The same values in the order of their axes in memory."""
        return np.ascontiguousarray(values)

    def is_compact(self, values: Values) -> bool:
        """Whether values lie in the order of their axes in memory."""
        return bool(values.flags.c_contiguous)

    def here(self, values: Values) -> Values:
        """Small or computed values where the sums are held."""
        return np.asarray(values)

    def stacked(self, parts: Sequence[Values]) -> Values:
        """Parts of one shape along a new first axis."""
        return np.stack(parts)

    def single(self, values: Values) -> Values:
        """In single precision."""
        return values.astype(np.float32, copy=False)

    def flipped(self, values: Values, axes: Sequence[int]) -> Values:
        """A copy, flipped along some axes."""
        return np.ascontiguousarray(np.flip(values, tuple(axes)))

    def flipped_back(self, values: Values, axes: Sequence[int]) -> Values:
        """As `flipped`, to be read once: a view will do."""
        return np.flip(values, tuple(axes))

    def run(self, passes: Callable[[Values], Values], batch: Values) -> Values:
        """What a network makes of a batch of windows."""
        return passes(batch)

    def add_product(self, target: Values, part: Values, weights: Values) -> None:
        """Add `part` (channels, *size) times `weights` (*size) to `target`, by pieces that stay in the cache."""
        rows = max(1, CHUNK_VOXELS // max(1, weights[0].size))
        buffer = np.empty((min(rows, len(weights)), *weights.shape[1:]), dtype=np.float32)
        for begin in range(0, len(weights), rows):
            some = weights[begin : begin + rows]
            product = buffer[: len(some)]
            for summed, values in zip(target[:, begin : begin + rows], part[:, begin : begin + rows], strict=True):
                np.multiply(values, some, out=product)
                np.add(summed, product, out=summed)


def host_parts(
    slab: NDArray[Any] | Values, axis: int, first: int, last: int, rows: int
) -> Iterator[tuple[NDArray[Any], int, int]]:
    """A slab as arrays, with the samples and cells of each, see `Restorer.add`: whole where it lies in the memory of
    the CPU, which it shares; else in parts of `rows` cells, so that only these are copied from the device.
    """
    if isinstance(slab, np.ndarray):
        yield slab, first, last
        return
    slab = slab.detach()
    step = (last - first) if slab.device.type == "cpu" else rows
    for begin in range(first, last, max(1, step)):
        end = min(begin + step, last)
        part = slab[(*[slice(None)] * (1 + axis), slice(begin - first, end - first + 1))].cpu()
        # numpy has no bfloat16.
        yield (part.float() if part.dtype.itemsize < 4 else part).numpy(), begin, end
