"""Sums of windows that are still open, in segments along one axis; a finished one makes room for another."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

__all__ = ["RollingSum"]

# Rows of a segment: single slices would be handed on one by one.
LEAST_ROWS = 16


@dataclass(slots=True)
class _Segment:
    """Rows `first` to `last` (excluded); its memory has room for the last row of the segment before it."""

    first: int
    last: int
    memory: Tensor | None = None


class RollingSum:
    """Adds up weighted windows that come in the order of their starts along one axis.

    Args:
        channels: of the windows.
        shape: (I, J[, K]) of the image that they cover.
        axis: spatial axis of the order.
        starts: of the windows along it, ascending.
        device: holds the sums.
        slices_apart: rows lie one after the other in memory, so that a slice is written in runs, not voxel by voxel.

    Example:
        >>> rolling = RollingSum(1, (4, 2), 0, (0,), torch.device("cpu"))
        >>> rolling.add(torch.ones(1, 4, 2), (0, 0), [torch.ones(4), torch.ones(2)])
        >>> [(slab.shape, first, last) for slab, first, last in rolling.finished(4)]
        [(torch.Size([1, 4, 2]), 0, 4)]
    """

    def __init__(
        self,
        channels: int,
        shape: Sequence[int],
        axis: int,
        starts: Sequence[int],
        device: torch.device,
        slices_apart: bool = False,
    ) -> None:
        self._axis = axis
        self._length = shape[axis]
        # The rows of the last windows are cut as those before, as all segments take the memory of the largest.
        step = max(LEAST_ROWS, *(b - a for a, b in pairwise(starts))) if len(starts) > 1 else self._length
        bounds = [0]
        for start in (*starts, *range(starts[-1] + step, self._length, step)):
            if min(start - bounds[-1], self._length - start) >= LEAST_ROWS:
                bounds.append(start)
        bounds.append(self._length)
        self._open = [_Segment(first, last) for first, last in pairwise(bounds)]
        self._free: list[Tensor] = []
        self._lead: Tensor | None = None
        rows = 1 + max(segment.last - segment.first for segment in self._open)
        self._size = [channels, *shape[:axis], rows, *shape[axis + 1 :]]
        self._device = device
        self._slices_apart = slices_apart

    def add(self, window: Tensor, corner: Sequence[int], weights: Sequence[Tensor] | None) -> None:
        """Add a window.

        Args:
            window: (channels, *size).
            corner: its first voxel.
            weights: one line (size,) per axis, whose product is the weight; None for 1.
        """
        lines = [] if weights is None else [line.view(_along(a, len(weights))) for a, line in enumerate(weights)]
        across = math.prod((line for a, line in enumerate(lines) if a != self._axis), start=torch.ones(()))
        start, rows = corner[self._axis], window.shape[1 + self._axis]
        box = [slice(None), *(slice(c, c + n) for c, n in zip(corner, window.shape[1:], strict=True))]
        for segment in self._open:
            first, last = max(start, segment.first), min(start + rows, segment.last)
            if first >= last:
                continue
            if segment.memory is None:
                segment.memory = self._empty()
            box[1 + self._axis] = slice(1 + first - segment.first, 1 + last - segment.first)
            target, part = segment.memory[tuple(box)], window.narrow(1 + self._axis, first - start, last - first)
            if lines:
                target.addcmul_(part, across * lines[self._axis].narrow(self._axis, first - start, last - first))
            else:
                target.add_(part)

    def finished(self, start: int) -> Iterator[tuple[Tensor, int, int]]:
        """The slabs that no window from `start` on touches; `start` is the image's length after the last window.

        Yields:
            What `Restorer.add` takes: samples `first` to `last` of the axis (after the last one there is none), valid
            until the next slab, and `first` and `last` (excluded) of the cells between them.
        """
        while self._open and self._open[0].last <= start:
            segment = self._open.pop(0)
            memory, rows = segment.memory, segment.last - segment.first
            assert memory is not None  # windows leave no gap
            begin = 1
            if self._lead is not None:
                memory.narrow(1 + self._axis, 0, 1).copy_(self._lead)
                begin = 0
            self._lead = memory.narrow(1 + self._axis, rows, 1).clone() if self._open else None
            slab = memory.narrow(1 + self._axis, begin, rows + 1 - begin)
            yield slab, segment.first - 1 + begin, segment.last - bool(self._open)
            self._free.append(memory)

    def _empty(self) -> Tensor:
        if self._free:
            return self._free.pop().zero_()
        if not self._slices_apart:
            return torch.zeros(self._size, device=self._device)
        turned = torch.zeros(self._size[1 + self._axis], *self._without_rows(), device=self._device)
        return turned.movedim(0, 1 + self._axis)

    def _without_rows(self) -> list[int]:
        return self._size[: 1 + self._axis] + self._size[2 + self._axis :]


def _along(axis: int, dims: int) -> list[int]:
    return [-1 if a == axis else 1 for a in range(dims)]
