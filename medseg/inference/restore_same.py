"""Logits that lie on the image's own grid: the winner of each voxel, by a running maximum that stays in the cache."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medseg.errors import CheckpointError
from medseg.inference.restore_blocks import CHUNK_VOXELS, Painter

__all__ = ["paint"]


def paint(logits: Tensor, painter: Painter, out: NDArray[np.unsignedinteger]) -> None:
    """Label every voxel.

    Args:
        logits: (C, i, j, k), any float type, on any device.
        painter: says who wins.
        out: (i, j, k), is written.

    Raises:
        CheckpointError: for NaN or infinite logits.
    """
    rows = max(1, CHUNK_VOXELS // max(1, out[0].size))
    for begin in range(0, len(out), rows):
        part = out[begin : begin + rows]
        winner = torch.zeros(part.shape, dtype=torch.int16)
        best = torch.empty(0)
        # NaN or an infinite logit of any channel shows in a sum of magnitudes.
        total = torch.zeros(())
        for number, channel in enumerate(logits[:, begin : begin + rows]):
            values = channel.to("cpu", torch.float32)
            total += values.abs().amax()
            # Later winners have a higher number, and a maximum is four times as fast as filling by a mask.
            if painter.regions:
                torch.maximum(winner, (values > 0).to(torch.int16).mul_(number + 1), out=winner)
            elif number == 0:
                best = values.clone()
            else:
                torch.maximum(winner, (values > best).to(torch.int16).mul_(number), out=winner)
                torch.maximum(best, values, out=best)
        if not torch.isfinite(total):
            raise CheckpointError("the network's answer holds NaN or infinite logits; train the model again")
        part[...] = painter.values[winner.numpy()]
