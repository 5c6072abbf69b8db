"""Sums of windows that are still open, in a ring of rows along one axis; finished rows make room for others."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from medseg.inference.array_ops import ArrayOps, Values

__all__ = ["LEAST_ROWS", "RollingSum", "open_rows"]

# Rows that leave at a time where windows are thinner: single slices would be handed on one by one.
LEAST_ROWS = 16


def open_rows(length: int, patch: int) -> int:
    """Rows in memory: those of a window and the one before it, which closes the last cell that has left."""
    return min(length, patch + (1 if patch >= LEAST_ROWS else LEAST_ROWS))


class RollingSum:
    """Adds up weighted windows that come in the order of their starts along one axis.

    Args:
        channels: of the windows.
        shape: (I, J[, K]) of the image that they cover.
        axis: spatial axis of the order.
        patch: rows of a window along it.
        ops: arrays or tensors, and where they are.
        slices_apart: rows lie one after the other in memory, so that a slice is written in runs, not voxel by voxel.
        box: where windows come; None: everywhere.
        beyond: (channels,) what the sum is outside of the box.

    Example:
        >>> rolling = RollingSum(1, (4, 2), 0, 4, ArrayOps())
        >>> rolling.add(np.ones((1, 4, 2), np.float32), (0, 0), [np.ones(4, np.float32), np.ones(2, np.float32)])
        >>> [(slab.shape, first, last) for slab, first, last in rolling.finished(4)]
        [((1, 4, 2), 0, 4)]
    """

    def __init__(
        self,
        channels: int,
        shape: Sequence[int],
        axis: int,
        patch: int,
        ops: ArrayOps,
        slices_apart: bool = False,
        box: Sequence[slice] | None = None,
        beyond: Values | None = None,
    ) -> None:
        self._axis, self._ops = axis, ops
        everywhere = box is None or all(part == slice(0, n) for part, n in zip(box, shape, strict=True))
        self._box = None if everywhere else box
        self._beyond = None if beyond is None else ops.here(beyond).reshape(channels, *[1] * len(shape))
        self._length, self._patch = shape[axis], patch
        self._rows = open_rows(shape[axis], patch)
        # Row r lies at 1 + r % rows. What lies at 0 is the last row again, beside the first one that overwrote it.
        others = [channels, *shape[:axis], *shape[axis + 1 :]]
        if slices_apart:
            self._ring = ops.moved(ops.zeros((1 + self._rows, *others)), 0, 1 + axis)
        else:
            others.insert(1 + axis, 1 + self._rows)
            self._ring = ops.zeros(others)
        self._left = 0
        # New memory is zero anyway, and would be written twice.
        if self._box is not None:
            self._clear(1, self._rows, 0)

    def add(self, window: Values, corner: Sequence[int], weights: Sequence[Values] | Values | None) -> None:
        """Add a window, for which `finished` has made room.

        Args:
            window: (channels, *size).
            corner: its first voxel.
            weights: one line (size,) per axis, whose product is the weight; an array of them (*size); None for 1.
        """
        given = weights if isinstance(weights, Sequence) else ()
        lines = [line.reshape(_along(a, len(given))) for a, line in enumerate(given)]
        across = math.prod(line for a, line in enumerate(lines) if a != self._axis)
        start = corner[self._axis]
        box = [slice(None), *(slice(c, c + n) for c, n in zip(corner, window.shape[1:], strict=True))]
        for first, last in self._runs(start, start + window.shape[1 + self._axis]):
            place = 1 + first % self._rows
            box[1 + self._axis] = slice(place, place + last - first)
            target, part = self._ring[tuple(box)], _part(window, 1 + self._axis, first - start, last - first)
            if lines:
                line = _part(lines[self._axis], self._axis, first - start, last - first)
                self._ops.add_product(target, part, across * line)
            elif weights is not None:
                self._ops.add_product(target, part, _part(weights, self._axis, first - start, last - first))
            else:
                target += part

    def finished(self, start: int) -> Iterator[tuple[Values, int, int]]:
        """Make room for windows from `start` on; `start` is the length after the last window.

        Yields:
            What `Restorer.add` takes: samples `first` to `last` of the axis (after the last one there is none), valid
            until the next slab, and `first` and `last` (excluded) of the cells between them.
        """
        if start < self._length and start + self._patch <= max(0, self._left - 1) + self._rows:
            return
        for first, last in self._runs(self._left, start):
            place, before = 1 + first % self._rows, int(first > 0)
            slab = self._places(place - before, last - first + before)
            yield slab, first - before, last - (last < self._length)
            self._left = last
            # The last row stays: it closes the next slab's first cell.
            self._clear(place - before, last - first + before - 1, first - before + self._rows)
            if last % self._rows == 0:
                self._places(0, 1)[...] = self._places(self._rows, 1)
                self._clear(self._rows, 1, last - 1 + self._rows)

    def _places(self, place: int, count: int) -> Values:
        return _part(self._ring, 1 + self._axis, place, count)

    def _clear(self, place: int, count: int, row: int) -> None:
        """Make `count` rows of the ring from `place` on ready for the image's rows from `row` on."""
        axis, box = 1 + self._axis, self._box
        if box is None or self._beyond is None:
            self._places(place, count)[...] = 0
            return
        begin, end = (min(max(edge - row, 0), count) for edge in (box[self._axis].start, box[self._axis].stop))
        self._places(place, begin)[...] = self._beyond
        self._places(place + end, count - end)[...] = self._beyond
        inside = self._places(place + begin, end - begin)
        inside[...] = 0
        for a, part in enumerate(box, start=1):
            if a != axis:
                _part(inside, a, 0, part.start)[...] = self._beyond
                _part(inside, a, part.stop, inside.shape[a] - part.stop)[...] = self._beyond

    def _runs(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Rows `first` to `last` (excluded) in runs that lie together in the ring."""
        while first < last:
            end = min(last, first - first % self._rows + self._rows)
            yield first, end
            first = end


def _along(axis: int, dims: int) -> list[int]:
    return [-1 if a == axis else 1 for a in range(dims)]


def _part(values: Values, axis: int, start: int, count: int) -> Values:
    return values[(*[slice(None)] * axis, slice(start, start + count))]
