"""One layer of blocks of cells: which channels can win where, and who does."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medseg.errors import CheckpointError
from medseg.inference.restore_axes import AxisMap, Blocks
from medseg.labels import LabelScheme

__all__ = ["Painter", "contest"]

# Native voxels that are interpolated at a time, few enough for a processor's cache.
CHUNK_VOXELS = 2**17
# Three interpolations of one value differ by less than this part of the largest logit, however they are rounded.
ROUNDING = 2.0**-19


@dataclass(frozen=True, slots=True)
class Painter:
    """How channels become labels.

    Args:
        values: running index of a winner -> label. Of plain labels it is a channel; of regions the largest code of the
            channels above 0, or the union of their codes, and 0 is background.
        codes: (channels,) of regions; () for plain labels, of which the highest channel wins.
        union: codes are bits that are united.
    """

    values: NDArray[np.unsignedinteger]
    codes: tuple[int, ...] = ()
    union: bool = False

    @classmethod
    def of(cls, channels: int, labels: LabelScheme | None) -> Painter:
        """The painter of a scheme, None: labels are the channels' indices."""
        codes: tuple[int, ...] = ()
        union = False
        if labels is None:
            values = np.arange(channels)
        elif not labels.is_regions:
            values = np.array([0, *(v for (v,) in labels.values)])
        else:
            codes, values, union = labels.codes
        dtype = np.uint16 if values.max() > 255 else np.uint8
        return cls(values.astype(dtype), codes, union)

    @property
    def regions(self) -> bool:
        """Whether every channel above 0 paints; else the highest channel wins."""
        return bool(self.codes)

    def joined(self, channels: Tensor) -> Tensor:
        """(C, n) bool, the channels that paint, as running indices (n,)."""
        codes = torch.where(channels, torch.tensor(self.codes)[:, None], 0)
        return codes.sum(0) if self.union else codes.amax(0)

    def candidates(self, lowest: Tensor, highest: Tensor, slack: float) -> tuple[Tensor, Tensor]:
        """Who can win in a block.

        Args:
            lowest, highest: (C, blocks) extremes of each channel.
            slack: what rounding can add.

        Returns:
            The index that wins where none of the candidates does (for plain labels there is always one that does), and
            bool (C, blocks).
        """
        if not self.regions:
            possible = highest >= lowest.amax(0) - slack
            return possible.to(torch.uint8).argmax(0), possible
        sure = lowest > slack
        base = self.joined(sure)
        matters = ~sure if self.union else torch.tensor(self.codes)[:, None] > base
        return base, matters & (highest > -slack)


def contest(
    samples: Tensor,
    blocks: tuple[Blocks, ...],
    maps: tuple[AxisMap, ...],
    stages: tuple[int, ...],
    painter: Painter,
    out: NDArray[np.unsignedinteger],
) -> None:
    """Label one layer of blocks.

    Args:
        samples: float32 (C, i, j, k), the samples of the layer with repeated borders.
        blocks: of the three axes; one block along the first.
        maps: the axes themselves.
        stages: the axes in the order of interpolation.
        painter: says who wins.
        out: (voxels of the layer, J, K), is written.

    Raises:
        CheckpointError: for NaN or infinite logits.
    """
    low, high = _block_extremes(samples, blocks)
    slack = ROUNDING * float(torch.maximum(high.amax(), -low.amin()))
    if not math.isfinite(slack):
        raise CheckpointError("the network's answer holds NaN or infinite logits; train the model again")
    base, possible = painter.candidates(low, high, slack)
    ours = possible.sum(0)
    open_ = ours > (0 if painter.regions else 1)
    _fill(out, painter.values[base.numpy()], blocks)
    where = open_.nonzero()[:, 0]
    if not len(where):
        return
    where = where[ours[where].argsort(dim=0, descending=True, stable=True)]
    # Row r: the r-th candidate of each block, in ascending order of channels.
    ranked = possible.to(torch.uint8).argsort(dim=0, descending=True, stable=True)
    step = max(1, CHUNK_VOXELS // int(np.prod([b.voxels for b in blocks])))
    tiles = samples
    for axis, each in enumerate(blocks, start=1):
        tiles = tiles.unfold(axis, each.samples, each.length)
    tiles = tiles[:, 0]  # (C, blocks along j, blocks along k, i, j, k)
    for begin in range(0, len(where), step):
        chosen = where[begin : begin + step]
        winner, gap = _run(tiles, chosen, ours[chosen], ranked, base, blocks, stages, painter)
        _write(out, painter.values[winner.numpy()], chosen, blocks)
        close = gap < slack
        if close.any():
            _settle(out, close, chosen, samples, blocks, maps, stages, painter)


def _block_extremes(samples: Tensor, blocks: tuple[Blocks, ...]) -> tuple[Tensor, Tensor]:
    low, high = samples.amin(1), samples.amax(1)
    for axis, each in enumerate(blocks[1:], start=1):
        low, high = (t.unfold(axis, each.samples, each.length) for t in (low, high))
        low, high = low.amin(-1), high.amax(-1)
    return low.flatten(1), high.flatten(1)


def _fill(out: NDArray[np.unsignedinteger], labels: NDArray[np.unsignedinteger], blocks: tuple[Blocks, ...]) -> None:
    _, j, k = blocks
    plane = labels.reshape(len(j.starts), len(k.starts))
    out[:] = plane.repeat(j.last - j.first, axis=0).repeat(k.last - k.first, axis=1)


def _run(
    tiles: Tensor,
    chosen: Tensor,
    counts: Tensor,
    ranked: Tensor,
    base: Tensor,
    blocks: tuple[Blocks, ...],
    stages: tuple[int, ...],
    painter: Painter,
) -> tuple[Tensor, Tensor]:
    """Winner's index and how clear it was, both (blocks, I, J, K)."""
    across = len(blocks[2].starts)
    places = (torch.zeros_like(chosen), chosen // across, chosen % across)
    winner = best = second = torch.empty(0)
    codes = torch.tensor(painter.codes, dtype=torch.int16)
    join = torch.bitwise_or if painter.union else torch.maximum
    for rank in range(int(counts[0])):
        # Blocks are sorted by their number of candidates, so those that still have one come first.
        n = int((counts > rank).sum())
        channels = ranked[rank, chosen[:n]]
        values = tiles[channels, places[1][:n], places[2][:n]]
        for axis in stages:
            if blocks[axis].moves:
                values = _interpolate(values, axis, blocks[axis].weights[places[axis][:n]])
        if rank == 0:
            winner = base[chosen].to(torch.int16)[:, None, None, None].expand(values.shape).clone()
            best = values if not painter.regions else values.abs()
            second = torch.full_like(values, -torch.inf)
        if painter.regions:
            winner[:n] = join(winner[:n], torch.where(values > 0, codes[channels][:, None, None, None], 0))
            torch.minimum(best[:n], values.abs(), out=best[:n])
        elif rank > 0:
            index = channels.to(torch.int16)[:, None, None, None]
            winner[:n] = torch.where(values > best[:n], index, winner[:n])
            torch.maximum(second[:n], torch.minimum(best[:n], values), out=second[:n])
            torch.maximum(best[:n], values, out=best[:n])
    return winner, best if painter.regions else best - second


def _interpolate(values: Tensor, axis: int, weights: Tensor) -> Tensor:
    """(n, i, j, k) along one axis by weights (n, samples, voxels)."""
    n, i, j, k = values.shape
    if axis == 2:
        return torch.bmm(values.reshape(n, i * j, k), weights).reshape(n, i, j, -1)
    if axis == 0:
        return torch.bmm(weights.transpose(1, 2), values.reshape(n, i, j * k)).reshape(n, -1, j, k)
    return torch.matmul(weights.transpose(1, 2)[:, None], values)


def _write(
    out: NDArray[np.unsignedinteger], labels: NDArray[np.unsignedinteger], chosen: Tensor, blocks: tuple[Blocks, ...]
) -> None:
    _, j, k = blocks
    for n, block in enumerate(chosen.tolist()):
        bj, bk = divmod(block, len(k.starts))
        target = out[:, j.first[bj] : j.last[bj], k.first[bk] : k.last[bk]]
        target[:] = labels[n, : target.shape[0], : target.shape[1], : target.shape[2]]


def _settle(
    out: NDArray[np.unsignedinteger],
    close: Tensor,
    chosen: Tensor,
    samples: Tensor,
    blocks: tuple[Blocks, ...],
    maps: tuple[AxisMap, ...],
    stages: tuple[int, ...],
    painter: Painter,
) -> None:
    """Decide again, bit by bit as torch's interpolation does, where the last bits decide."""
    n, *inside = close.nonzero().T.numpy()
    block = chosen.numpy()[n]
    across = len(blocks[2].starts)
    native = [
        v + b.first[p] for v, b, p in zip(inside, blocks, (0 * block, block // across, block % across), strict=True)
    ]
    real = np.all(
        [v < b.last[p] for v, b, p in zip(native, blocks, (0 * block, block // across, block % across), strict=True)],
        axis=0,
    )
    i, j, k = (v[real] for v in native)
    for begin in range(0, len(i), CHUNK_VOXELS // 8):
        voxel = [v[begin : begin + CHUNK_VOXELS // 8] for v in (i, j, k)]
        values = _interpolate_like_torch(samples, voxel, blocks, maps, stages)
        if painter.regions:
            winner = painter.joined(values > 0)
        else:
            winner = (values >= values.amax(0)).to(torch.uint8).argmax(0)
        out[voxel[0] - int(blocks[0].first[0]), voxel[1], voxel[2]] = painter.values[winner.numpy()]


def _interpolate_like_torch(
    samples: Tensor,
    voxel: list[NDArray[np.intp]],
    blocks: tuple[Blocks, ...],
    maps: tuple[AxisMap, ...],
    stages: tuple[int, ...],
) -> Tensor:
    """All channels at some native voxels, (C, n): the upper part is rounded, the lower one added in one step."""
    corners: list[Tensor] = []
    lower = [torch.from_numpy(m.below[v] - int(b.starts[0])) for m, v, b in zip(maps, voxel, blocks, strict=True)]
    for corner in range(8):
        index = [
            a + (int(b.moves) if corner >> axis & 1 else 0)
            for axis, (a, b) in enumerate(zip(lower, blocks, strict=True))
        ]
        corners.append(samples[:, index[0], index[1], index[2]])
    values = dict(enumerate(corners))
    for axis in stages:
        weight = maps[axis].fraction[torch.from_numpy(voxel[axis])]
        low = {c: v for c, v in values.items() if not c >> axis & 1}
        if blocks[axis].moves:
            for corner, value in low.items():
                upper = (values[corner | 1 << axis] * weight).double()
                low[corner] = (value.double() * (1 - weight).double() + upper).float()
        values = low
    return values[0]
