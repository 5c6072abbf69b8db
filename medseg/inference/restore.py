"""From the network's grid back to the image's: logits to labels, without the classes x image array in between.

Linear interpolation with half-pixel centres, outer edges kept and clamped, as in `medseg.geometry.resample_array` and
`torch.nn.functional.interpolate(align_corners=False)`; the result is that of interpolating every channel over the
whole image and taking the argmax, but made slab by slab with a running maximum.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from medseg.errors import GeometryError
from medseg.labels import LabelScheme

__all__ = ["to_label_map", "to_probabilities"]

# Voxels of one channel that are held at a time: small enough for a processor's cache, large enough to be worth a call.
SLAB_VOXELS = 2**20


@torch.inference_mode()
def to_label_map(
    logits: Tensor | NDArray[Any], shape: Sequence[int], labels: LabelScheme | None = None
) -> NDArray[np.unsignedinteger[Any]]:
    """The label of each voxel of a grid of `shape` that covers the same extent as the logits.

    Args:
        logits: (C, i, j, k) or (C, i, j), any float type.
        shape: (I, J, K) or (I, J) of the result; equal to the logits' shape means no interpolation.
        labels: plain labels: the winning channel's label value, 0 for channel 0, ties to the lower channel; regions:
            every channel whose logit is above 0 is painted in order, with `labels.painted`. None: the channel's index.

    Returns:
        uint8 or uint16 (I, J, K) or (I, J), the smallest that holds every label.

    Raises:
        GeometryError: if the shapes or the number of channels do not fit together.

    Example:
        >>> to_label_map(np.array([[[0.0, 0.0]], [[-1.0, 1.0]]]), (1, 4)).tolist()
        [[0, 0, 1, 1]]
    """
    source = _checked(logits, shape, labels)
    channels = len(source)
    values = _values(channels, labels)
    result = np.empty(tuple(shape), dtype=np.uint16 if values.max() > 255 else np.uint8)
    paint_regions = labels is not None and labels.is_regions
    for rows, slab in _slabs(source, shape):
        # Only one channel at a time has the size of the slab on the native grid.
        best = next(slab)
        winner = torch.zeros(best.shape, dtype=torch.uint8 if channels <= 256 else torch.int16, device=best.device)
        if paint_regions:
            winner.masked_fill_(best > 0, 1)
            for index, value in enumerate(slab, start=2):
                winner.masked_fill_(value > 0, index)
        else:
            for index, value in enumerate(slab, start=1):
                winner.masked_fill_(value > best, index)
                torch.maximum(best, value, out=best)
        result[rows] = values[winner.cpu().numpy()]
    return result


@torch.inference_mode()
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
    source = _checked(logits, shape, labels)
    result = np.empty((len(labels.names), *shape), dtype=np.float16)
    for rows, slab in _slabs(source, shape, channels_at_once=len(source)):
        stacked = torch.stack(list(slab))
        probabilities = torch.sigmoid(stacked) if labels.is_regions else torch.softmax(stacked, dim=0)[1:]
        result[:, rows] = probabilities.half().cpu().numpy()
    return result


def _checked(logits: Tensor | NDArray[Any], shape: Sequence[int], labels: LabelScheme | None) -> Tensor:
    source = logits if isinstance(logits, Tensor) else torch.from_numpy(np.ascontiguousarray(logits))
    if source.ndim != len(shape) + 1 or len(shape) not in (2, 3) or min(*source.shape, *shape) < 1:
        raise GeometryError(f"logits of shape {tuple(source.shape)} cannot be brought to the grid {tuple(shape)}")
    if labels is not None and labels.out_channels != len(source):
        raise GeometryError(
            f"logits have {len(source)} channels, but the labels {', '.join(labels.names)} need {labels.out_channels}"
        )
    return source


def _values(channels: int, labels: LabelScheme | None) -> NDArray[np.int64]:
    """Running index of the winner -> value in the label map; 0 is background."""
    if labels is None:
        return np.arange(channels)
    return np.array([0, *(labels.painted if labels.is_regions else (v for (v,) in labels.values))])


def _slabs(source: Tensor, shape: Sequence[int], channels_at_once: int = 1) -> Iterator[tuple[slice, Iterator[Tensor]]]:
    """Rows of the result, and for each its channels one after the other, float32 (rows, J[, K]), new memory each."""
    below, above, fraction = _positions(source.shape[1], shape[0])
    step = max(1, SLAB_VOXELS // (channels_at_once * int(np.prod(shape[1:]))))
    for first in range(0, shape[0], step):
        rows = slice(first, min(first + step, shape[0]))
        yield rows, _channels(source, shape, below[rows], above[rows], fraction[rows])


def _channels(source: Tensor, shape: Sequence[int], below: Tensor, above: Tensor, fraction: Tensor) -> Iterator[Tensor]:
    low, high = int(below[0]), int(above[-1])
    weight = fraction.reshape(-1, *[1] * (len(shape) - 1)).to(source.device)
    lower, upper = (below - low).to(source.device), (above - low).to(source.device)
    inner = tuple(shape[1:])
    moves = source.shape[1] != shape[0]
    for channel in source:
        rows = channel[low : high + 1].float()
        if tuple(rows.shape[1:]) != inner:
            mode = "bilinear" if len(inner) == 2 else "linear"
            rows = functional.interpolate(rows[None], size=inner, mode=mode, align_corners=False)[0]
        if moves:
            # Same order of operations as torch's trilinear kernel: last axis first, weighted sum, not a difference.
            rows = rows[lower] * (1 - weight) + rows[upper] * weight
        elif rows.data_ptr() == channel[low : high + 1].data_ptr():
            rows = rows.clone()
        yield rows


def _positions(size: int, new_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Lower and upper neighbour and the weight of the upper one, rounded as torch rounds them."""
    if size == new_size:
        return torch.arange(size), torch.arange(size), torch.zeros(size)
    scale = torch.tensor(size / new_size, dtype=torch.float32).double()
    position = ((torch.arange(new_size, dtype=torch.float64) + 0.5) * scale - 0.5).float().clamp(min=0)
    below = position.long().clamp(max=size - 1)
    return below, (below + 1).clamp(max=size - 1), position - below
