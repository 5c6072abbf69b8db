"""From the network's grid back to the image's: logits to labels, at a cost that follows the surface.

The result is that of `torch.nn.functional.interpolate(align_corners=False)` of every channel over the whole image and
an argmax, voxel by voxel, but neither is done. A linear interpolation lies between the lowest and the highest of its
corners. So a channel whose highest logit in a block of 8 x 8 x 8 cells is below the lowest one of another channel wins
nowhere in that block; where one channel is left, the block is filled. The others are interpolated for the channels that
are left, with a running maximum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import GeometryError
from medseg.inference.array_ops import Values, host_parts
from medseg.inference.restore_axes import AxisMap, Blocks
from medseg.inference.restore_blocks import Floats, Painter, contest
from medseg.inference.restore_same import paint
from medseg.labels import LabelScheme
from medseg.resampling import nearest_by_turns

__all__ = ["Restorer", "to_label_map"]

# Cells of a block along each axis: small ones leave fewer channels, large ones share more corners and calls.
BLOCK = 8
# Cells of a block across a 2D image, whose third axis has one voxel.
BLOCK_2D = 16


class Restorer:
    """A label map on the native grid, made from slabs of logits as they come.

    Args:
        size: (i, j, k) or (i, j) of the network's grid.
        shape: (I, J, K) or (I, J) of the result.
        channels: of the logits.
        labels: as for `to_label_map`.
        axis: spatial axis along which the slabs come.
        order: 1: logits are interpolated linearly; 0: each voxel takes the label of the nearest sample, half-way of
            either by turns.
        nearest: of linear interpolation, a spatial axis along which each voxel takes the nearest sample all the same.

    Raises:
        GeometryError: if the shapes or the number of channels do not fit together.

    Example:
        >>> restorer = Restorer((4, 2, 2), (8, 2, 2), channels=2)
        >>> restorer.add(np.zeros((2, 3, 2, 2)), 0, 2)  # cells 0 and 1 lie between samples 0, 1 and 2
        >>> restorer.add(np.zeros((2, 2, 2, 2)), 2, 4)
        >>> restorer.label_map.shape
        (8, 2, 2)
    """

    def __init__(
        self,
        size: Sequence[int],
        shape: Sequence[int],
        channels: int,
        labels: LabelScheme | None = None,
        axis: int = 0,
        order: int = 1,
        nearest: int | None = None,
    ) -> None:
        if len(size) != len(shape) or len(shape) not in (2, 3) or min(*size, *shape) < 1:
            raise GeometryError(
                f"logits of shape {(channels, *size)} cannot be brought to the grid {tuple(shape)}: expected 2 or 3 "
                "spatial axes on both"
            )
        if labels is not None and labels.out_channels != channels:
            raise GeometryError(
                f"logits have {channels} channels, but the labels {', '.join(labels.names)} need {labels.out_channels}"
            )
        self.painter = Painter.of(channels, labels)
        self._native_shape = tuple(shape)
        # The label of the nearest sample is the nearest sample's label, so that one grid suffices until the end.
        shape = size if order == 0 else shape
        self._painted = np.zeros(tuple(shape), dtype=self.painter.values.dtype)
        # Slabs come along the first axis of what follows; an image gets a second axis of one voxel.
        rest = [a for a in range(len(shape)) if a != axis]
        self._turn = (axis, *rest)
        self._flat = len(shape) == 2
        self._same = tuple(size) == tuple(shape)
        maps = [AxisMap.between(size[a], shape[a], a == nearest) for a in self._turn]
        length = BLOCK_2D if self._flat else BLOCK
        if self._flat:
            maps.insert(1, AxisMap.between(1, 1))
        self._along, self._maps, self._length = maps[0], maps, length
        self._inner = tuple(m.blocks(min(length, m.size)) for m in maps[1:])
        # Interpolation goes from the last axis to the first, as torch's does: the order decides the last bit.
        places = [(*self._turn[:1], -1, *self._turn[1:]), self._turn][not self._flat]
        self._stages = tuple(sorted(range(3), key=lambda place: -places[place]))

    @property
    def label_map(self) -> NDArray[np.unsignedinteger[Any]]:
        """(I, J, K) or (I, J), the labels of the slabs that came so far."""
        if self._painted.shape == self._native_shape:
            return self._painted
        return nearest_by_turns(self._painted, self._native_shape)

    def add(self, slab: Values, first: int, last: int) -> None:
        """Label the voxels of cells `first` to `last` (excluded) along the slab axis.

        Args:
            slab: (C, ...), an array or a tensor of any float type, with all other axes whole and, along the slab axis,
                samples `first` to `last`; of the last sample, which closes the last cell, there may be none at the
                image's end.
            first, last: cells.

        Raises:
            CheckpointError: for NaN or infinite logits.
        """
        for part, begin, end in host_parts(slab, self._turn[0], first, last, self._length):
            self._add(part, begin, end)

    def _add(self, slab: NDArray[Any], first: int, last: int) -> None:
        turned = slab.transpose(0, *(a + 1 for a in self._turn))
        if self._flat:
            turned = turned[:, :, None]
        result = self._painted.transpose(self._turn)
        if self._flat:
            result = result[:, None]
        if self._same:
            paint(turned[:, : last - first], self.painter, result[first:last])
            return
        for begin in range(first, last, self._length):
            end = min(begin + self._length, last)
            blocks = self._along.blocks(end - begin, begin, end)
            rows = result[int(blocks.first[0]) : int(blocks.last[0])]
            if len(rows):
                samples = _with_borders(turned[:, begin - first :], (blocks, *self._inner))
                contest(samples, (blocks, *self._inner), tuple(self._maps), self._stages, self.painter, rows)


def to_label_map(
    logits: Values,
    shape: Sequence[int],
    labels: LabelScheme | None = None,
    order: int = 1,
    nearest: int | None = None,
) -> NDArray[np.unsignedinteger[Any]]:
    """The label of each voxel of a grid of `shape` that covers the same extent as the logits.

    Args:
        logits: (C, i, j, k) or (C, i, j), an array or a tensor of any float type.
        shape: (I, J, K) or (I, J) of the result; equal to the logits' shape means no interpolation.
        labels: plain labels: the winning channel's label value, 0 for channel 0, ties to the lower channel; regions:
            the value of all channels whose logit is above 0, see `LabelScheme.codes`. None: the channel's index.
        order: 1: logits are interpolated linearly; 0: the label of the nearest sample, half-way of either by turns.
        nearest: of linear interpolation, a spatial axis along which each voxel takes the nearest sample all the same.

    Returns:
        uint8 or uint16 (I, J, K) or (I, J), the smallest that holds every label.

    Raises:
        GeometryError: if the shapes or the number of channels do not fit together.
        CheckpointError: for NaN or infinite logits.

    Example:
        >>> to_label_map(np.array([[[0.0, 0.0]], [[-1.0, 1.0]]]), (1, 4)).tolist()
        [[0, 0, 1, 1]]
    """
    restorer = Restorer(logits.shape[1:], shape, len(logits), labels, order=order, nearest=nearest)
    restorer.add(logits, 0, logits.shape[1])
    return restorer.label_map


def _with_borders(slab: NDArray[Any], blocks: tuple[Blocks, ...]) -> Floats:
    """The slab in float32, with as many samples as all blocks need; the last one is repeated."""
    size = [(len(b.starts) - 1) * b.length + b.samples for b in blocks]
    part = slab[:, : size[0]]
    out = np.empty((len(slab), *size), dtype=np.float32)
    i, j, k = part.shape[1:]
    out[:, :i, :j, :k] = part
    out[:, :i, :j, k:] = out[:, :i, :j, k - 1 : k]
    out[:, :i, j:] = out[:, :i, j - 1 : j]
    out[:, i:] = out[:, i - 1 : i]
    return out
