"""One layer of blocks of cells: which channels can win where, and who does."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from medseg.errors import CheckpointError
from medseg.inference.restore_axes import AxisMap, Blocks
from medseg.labels import LabelScheme

__all__ = ["Painter", "contest"]

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Index = NDArray[np.intp]

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

    def joined(self, channels: Mask) -> Index:
        """(C, n) bool, the channels that paint, as running indices (n,)."""
        codes = np.where(channels, np.array(self.codes, dtype=np.intp)[:, None], 0)
        joined: Index = codes.sum(0) if self.union else codes.max(0)
        return joined

    def candidates(self, lowest: Floats, highest: Floats, slack: float) -> tuple[Index, Mask]:
        """Who can win in a block.

        Args:
            lowest, highest: (C, blocks) extremes of each channel.
            slack: what rounding can add.

        Returns:
            The index that wins where none of the candidates does (for plain labels there is always one that does), and
            bool (C, blocks).
        """
        if not self.regions:
            possible = highest >= lowest.max(0) - np.float32(slack)
            return possible.argmax(0), possible
        sure = lowest > slack
        base = self.joined(sure)
        matters = ~sure if self.union else np.array(self.codes)[:, None] > base
        return base, matters & (highest > -slack)


def contest(
    samples: Floats,
    blocks: tuple[Blocks, ...],
    maps: tuple[AxisMap, ...],
    stages: tuple[int, ...],
    painter: Painter,
    out: NDArray[np.unsignedinteger],
) -> None:
    """Label one layer of blocks.

    Args:
        samples: (C, i, j, k), the samples of the layer with repeated borders.
        blocks: of the three axes; one block along the first.
        maps: the axes themselves.
        stages: the axes in the order of interpolation.
        painter: says who wins.
        out: (voxels of the layer, J, K), is written.

    Raises:
        CheckpointError: for NaN or infinite logits.
    """
    low, high = (_block_extremes(samples, blocks, extreme) for extreme in (np.minimum, np.maximum))
    slack = ROUNDING * max(float(high.max()), -float(low.min()))
    if not math.isfinite(slack):
        raise CheckpointError("the network's answer holds NaN or infinite logits; train the model again")
    base, possible = painter.candidates(low, high, slack)
    ours = possible.sum(0)
    _fill(out, painter.values[base], blocks)
    where = (ours > (0 if painter.regions else 1)).nonzero()[0]
    if not len(where):
        return
    where = where[np.argsort(-ours[where], kind="stable")]
    # Row r: the r-th candidate of each block, in ascending order of channels.
    ranked = np.argsort(~possible, axis=0, kind="stable")
    step = max(1, CHUNK_VOXELS // int(np.prod([b.voxels for b in blocks])))
    tiles = _tiles(samples, blocks)
    for begin in range(0, len(where), step):
        chosen = where[begin : begin + step]
        winner, gap = _run(tiles, chosen, ours[chosen], ranked, base, blocks, stages, painter)
        _write(out, painter.values[winner], chosen, blocks)
        close = gap < np.float32(slack)
        if close.any():
            _settle(out, close, chosen, samples, blocks, maps, stages, painter)


def _tiles(samples: Floats, blocks: tuple[Blocks, ...]) -> Floats:
    """(C, blocks along j, blocks along k, i, j, k), a view."""
    c, i, j, k = samples.strides
    _, by_j, by_k = blocks
    counts = (len(samples), len(by_j.starts), len(by_k.starts), *(b.samples for b in blocks))
    return as_strided(samples, counts, (c, j * by_j.length, k * by_k.length, i, j, k), writeable=False)


def _block_extremes(samples: Floats, blocks: tuple[Blocks, ...], extreme: np.ufunc) -> Floats:
    """The lowest or highest sample of each channel in each block, (C, blocks)."""
    found = np.empty((len(samples), *samples.shape[2:]), dtype=np.float32)
    for values, channel in zip(found, samples, strict=True):
        extreme.reduce(channel, axis=0, out=values)
    for axis, each in enumerate(blocks[1:], start=1):
        ends = (len(each.starts) - 1) * each.length + 1
        lead = (slice(None),) * axis
        parts = [found[(*lead, slice(n, n + ends, each.length))] for n in range(each.samples)]
        found = parts[0].copy()
        for part in parts[1:]:
            extreme(found, part, out=found)
    return found.reshape(len(samples), -1)


def _fill(out: NDArray[np.unsignedinteger], labels: NDArray[np.unsignedinteger], blocks: tuple[Blocks, ...]) -> None:
    _, j, k = blocks
    plane = labels.reshape(len(j.starts), len(k.starts))
    out[:] = plane.repeat(j.last - j.first, axis=0).repeat(k.last - k.first, axis=1)


def _run(
    tiles: Floats,
    chosen: Index,
    counts: Index,
    ranked: Index,
    base: Index,
    blocks: tuple[Blocks, ...],
    stages: tuple[int, ...],
    painter: Painter,
) -> tuple[NDArray[np.int16], Floats]:
    """Winner's index and how clear it was, both (blocks, I, J, K)."""
    across = len(blocks[2].starts)
    places = (np.zeros_like(chosen), chosen // across, chosen % across)
    codes = np.array(painter.codes, dtype=np.int16)
    join = np.bitwise_or if painter.union else np.maximum
    winner, best = np.empty(0, dtype=np.int16), np.empty(0, dtype=np.float32)
    second = lower = best
    for rank in range(int(counts[0])):
        # Blocks are sorted by their number of candidates, so those that still have one come first.
        n = int((counts > rank).sum())
        channels = ranked[rank, chosen[:n]]
        values = tiles[channels, places[1][:n], places[2][:n]]
        for axis in stages:
            if blocks[axis].moves:
                values = _interpolate(values, axis, blocks[axis].weights[places[axis][:n]])
        if rank == 0:
            winner = np.empty(values.shape, dtype=np.int16)
            winner[...] = base[chosen][:, None, None, None]
            best = np.abs(values) if painter.regions else values
            second, lower = np.full_like(best, -np.inf), np.empty_like(best)
        above, below = best[:n], lower[:n]
        if painter.regions:
            join(winner[:n], np.where(values > 0, codes[channels][:, None, None, None], 0), out=winner[:n])
            np.minimum(above, np.abs(values, out=values), out=above)
        elif rank > 0:
            np.copyto(winner[:n], channels.astype(np.int16)[:, None, None, None], where=values > above)
            np.maximum(second[:n], np.minimum(above, values, out=below), out=second[:n])
            np.maximum(above, values, out=above)
    return winner, best if painter.regions else best - second


def _interpolate(values: Floats, axis: int, weights: Floats) -> Floats:
    """(n, i, j, k) along one axis by weights (n, samples, voxels)."""
    n, i, j, k = values.shape
    if axis == 2:
        return (values.reshape(n, i * j, k) @ weights).reshape(n, i, j, -1)
    if axis == 0:
        return (weights.transpose(0, 2, 1) @ values.reshape(n, i, j * k)).reshape(n, -1, j, k)
    return weights.transpose(0, 2, 1)[:, None] @ values


def _write(
    out: NDArray[np.unsignedinteger], labels: NDArray[np.unsignedinteger], chosen: Index, blocks: tuple[Blocks, ...]
) -> None:
    _, j, k = blocks
    for n, block in enumerate(chosen.tolist()):
        bj, bk = divmod(block, len(k.starts))
        target = out[:, j.first[bj] : j.last[bj], k.first[bk] : k.last[bk]]
        target[:] = labels[n, : target.shape[0], : target.shape[1], : target.shape[2]]


def _settle(
    out: NDArray[np.unsignedinteger],
    close: Mask,
    chosen: Index,
    samples: Floats,
    blocks: tuple[Blocks, ...],
    maps: tuple[AxisMap, ...],
    stages: tuple[int, ...],
    painter: Painter,
) -> None:
    """Decide again, bit by bit as torch's interpolation does, where the last bits decide."""
    n, *inside = close.nonzero()
    block = chosen[n]
    across = len(blocks[2].starts)
    numbers = (0 * block, block // across, block % across)
    native = [v + b.first[p] for v, b, p in zip(inside, blocks, numbers, strict=True)]
    real = np.all([v < b.last[p] for v, b, p in zip(native, blocks, numbers, strict=True)], axis=0)
    i, j, k = (v[real] for v in native)
    for begin in range(0, len(i), CHUNK_VOXELS // 8):
        voxel = [v[begin : begin + CHUNK_VOXELS // 8] for v in (i, j, k)]
        values = _interpolate_like_torch(samples, voxel, blocks, maps, stages)
        winner = painter.joined(values > 0) if painter.regions else (values >= values.max(0)).argmax(0)
        out[voxel[0] - int(blocks[0].first[0]), voxel[1], voxel[2]] = painter.values[winner]


def _interpolate_like_torch(
    samples: Floats,
    voxel: list[Index],
    blocks: tuple[Blocks, ...],
    maps: tuple[AxisMap, ...],
    stages: tuple[int, ...],
) -> Floats:
    """All channels at some native voxels, (C, n): the upper part is rounded, the lower one added in one step."""
    corners: list[Floats] = []
    lower = [m.below[v] - int(b.starts[0]) for m, v, b in zip(maps, voxel, blocks, strict=True)]
    for corner in range(8):
        index = [
            a + (int(b.moves) if corner >> axis & 1 else 0)
            for axis, (a, b) in enumerate(zip(lower, blocks, strict=True))
        ]
        corners.append(samples[:, index[0], index[1], index[2]])
    values = dict(enumerate(corners))
    for axis in stages:
        weight = maps[axis].fraction[voxel[axis]]
        low = {c: v for c, v in values.items() if not c >> axis & 1}
        if blocks[axis].moves:
            for corner, value in low.items():
                upper = (values[corner | 1 << axis] * weight).astype(np.float64)
                low[corner] = (value.astype(np.float64) * (1 - weight) + upper).astype(np.float32)
        values = low
    return values[0]
