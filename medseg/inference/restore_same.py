"""Logits that lie on the image's own grid: the winner of each voxel, by a running maximum that stays in the cache."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import CheckpointError
from medseg.inference.restore_blocks import CHUNK_VOXELS, Painter

__all__ = ["paint"]


def paint(logits: NDArray[Any], painter: Painter, out: NDArray[np.unsignedinteger]) -> None:
    """Label every voxel.

    Args:
        logits: (C, i, j, k), any float type.
        painter: says who wins.
        out: (i, j, k), is written.

    Raises:
        CheckpointError: for NaN or infinite logits.
    """
    rows = max(1, CHUNK_VOXELS // max(1, out[0].size))
    numbers = np.uint8 if len(painter.values) <= 256 else np.uint16
    join = np.bitwise_or if painter.union else np.maximum
    for begin in range(0, len(out), rows):
        part = out[begin : begin + rows]
        winner = np.zeros(part.shape, dtype=numbers)
        wins, number = np.empty(part.shape, dtype=bool), np.empty(part.shape, dtype=numbers)
        best = np.zeros(part.shape, dtype=np.float32)
        finite = True
        for index, channel in enumerate(logits[:, begin : begin + rows]):
            values = channel.astype(np.float32, copy=False)
            finite &= bool(np.isfinite(values.min()))
            if painter.regions:
                finite &= bool(np.isfinite(values.max()))
            if index == 0 and not painter.regions:
                best[:] = values
                continue
            np.greater(values, best, out=wins)
            # Later winners of plain labels have a higher number, and a maximum is four times as fast as a mask.
            np.multiply(wins, numbers(painter.codes[index] if painter.regions else index), out=number)
            join(winner, number, out=winner)
            if not painter.regions:
                np.maximum(best, values, out=best)
        # Of plain labels the highest logit is finite only if all channels are.
        if not finite or not np.isfinite(best.max()):
            raise CheckpointError("the network's answer holds NaN or infinite logits; train the model again")
        part[...] = painter.values[winner]
