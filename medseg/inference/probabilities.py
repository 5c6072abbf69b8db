"""Probabilities on the image's grid, slab by slab; a file holds them, not the memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from medseg.errors import GeometryError
from medseg.inference.restore_axes import AxisMap
from medseg.labels import LabelScheme

__all__ = ["probability_slabs", "to_probabilities"]

# Voxels of all channels that are interpolated at a time.
SLAB_VOXELS = 2**21


def to_probabilities(logits: Tensor | NDArray[Any], shape: Sequence[int], labels: LabelScheme) -> NDArray[np.float16]:
    """The probability of each label or region on a grid of `shape`: softmax or sigmoid of the interpolated logits.

    Args:
        logits: (C, i, j, k) or (C, i, j).
        shape: (I, J, K) or (I, J).
        labels: says what the channels are.

    Returns:
        float16 (len(labels.names), *shape) in [0, 1]; background is what is missing from 1.

    Raises:
        GeometryError: if the shapes or the number of channels do not fit together.
    """
    result = np.empty((len(labels.names), *shape), dtype=np.float16)
    for rows, part in probability_slabs(logits, shape, labels):
        result[:, rows] = part
    return result


@torch.inference_mode()
def probability_slabs(
    logits: Tensor | NDArray[Any], shape: Sequence[int], labels: LabelScheme
) -> Iterator[tuple[slice, NDArray[np.float16]]]:
    """The same, a few rows (along the first spatial axis) at a time, so that all classes are never in memory.

    Yields:
        Rows of the result and float16 (len(labels.names), rows, J[, K]).

    Raises:
        GeometryError: if the shapes or the number of channels do not fit together.
    """
    source = logits if isinstance(logits, Tensor) else torch.from_numpy(np.ascontiguousarray(logits))
    if source.ndim != len(shape) + 1 or len(shape) not in (2, 3) or min(*source.shape, *shape) < 1:
        raise GeometryError(f"logits of shape {tuple(source.shape)} cannot be brought to the grid {tuple(shape)}")
    if labels.out_channels != len(source):
        raise GeometryError(
            f"logits have {len(source)} channels, but the labels {', '.join(labels.names)} need {labels.out_channels}"
        )
    axis = AxisMap.between(source.shape[1], shape[0])
    below = torch.from_numpy(axis.below)
    above = (below + 1).clamp(max=axis.size - 1)
    mode = "bilinear" if len(shape) == 3 else "linear"
    step = max(1, SLAB_VOXELS // (len(source) * int(np.prod(shape[1:]))))
    for first in range(0, shape[0], step):
        rows = slice(first, min(first + step, shape[0]))
        low, high = int(below[rows][0]), int(above[rows][-1])
        part = source[:, low : high + 1].float().cpu()
        if tuple(part.shape[2:]) != tuple(shape[1:]):
            part = functional.interpolate(part.transpose(0, 1), tuple(shape[1:]), mode=mode).transpose(0, 1)
        weight = axis.fraction[rows].reshape(-1, *[1] * (len(shape) - 1))
        if axis.size != axis.new_size:
            part = part[:, below[rows] - low] * (1 - weight) + part[:, above[rows] - low] * weight
        else:
            part = part[:, : rows.stop - rows.start]
        probabilities = torch.sigmoid(part) if labels.is_regions else torch.softmax(part, dim=0)[1:]
        yield rows, probabilities.half().numpy()
