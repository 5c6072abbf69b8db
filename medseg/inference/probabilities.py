"""Probabilities on the image's grid, slab by slab; a memory map holds them, not the memory."""

from __future__ import annotations

import math
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.disk.atomic import write_error
from medseg.errors import GeometryError
from medseg.inference.array_ops import Values, host_parts
from medseg.inference.restore_axes import AxisMap
from medseg.labels import LabelScheme
from medseg.preparation.grid import GridMap
from medseg.resampling import nearest_indices

__all__ = ["NativeProbabilities", "ProbabilitySlabs", "disk_array", "to_probabilities"]

# Numbers of all channels that are interpolated at a time, few enough for a processor's cache.
TILE = 2**16
# Cells that are taken from a device at a time.
ROWS = 16


class ProbabilitySlabs:
    """The probability of each label or region, from slabs of logits as they come.

    Args:
        size: (i, j, k) or (i, j) of the network's grid.
        labels: says what the channels are.
        axis: spatial axis along which the slabs come.
        out: float16 or float32 (len(labels.names), I, J[, K]), is written; background is what is missing from 1.
        order: of the interpolation of logits, 0 (nearest, half-way either by turns) or 1 (linear).
        nearest: of order 1, a spatial axis along which each voxel takes the nearest sample all the same.

    Raises:
        GeometryError: if the shapes or the number of channels do not fit together.
    """

    def __init__(
        self,
        size: Sequence[int],
        labels: LabelScheme,
        axis: int,
        out: NDArray[Any],
        order: int = 1,
        nearest: int | None = None,
    ) -> None:
        shape = out.shape[1:]
        if len(size) != len(shape) or len(shape) not in (2, 3) or min(*size, *shape) < 1:
            raise GeometryError(f"logits of shape {tuple(size)} cannot be brought to the grid {tuple(shape)}")
        self._labels = labels
        self._rows = np.moveaxis(out, 1 + axis, 1)
        self._axis = axis
        self._order = order
        places = (axis, *(a for a in range(len(shape)) if a != axis))
        self._maps = tuple(AxisMap.between(size[a], shape[a], a == nearest) for a in places)
        self._samples = tuple(nearest_indices(size[a], shape[a]) for a in places)

    def add(self, slab: Values, first: int, last: int) -> None:
        """The voxels of cells `first` to `last`; arguments as those of `Restorer.add`.

        Raises:
            GeometryError: if the number of channels does not fit the labels.
        """
        labels = self._labels
        if labels.out_channels != len(slab):
            raise GeometryError(
                f"logits have {len(slab)} channels, but the labels {', '.join(labels.names)} need {labels.out_channels}"
            )
        for part, begin, end in host_parts(slab, self._axis, first, last, ROWS):
            self._add(np.moveaxis(part, 1 + self._axis, 1), begin, end)

    def _add(self, source: NDArray[Any], first: int, last: int) -> None:
        begin, end = (int(n) for n in np.searchsorted(self._maps[0].below, (first, last)))
        line = len(source) * int(np.prod(self._rows.shape[3:]))
        columns = min(self._rows.shape[2], max(1, TILE // line))
        rows = max(1, TILE // (line * columns))
        for row in range(begin, end, rows):
            for column in range(0, self._rows.shape[2], columns):
                place = (
                    slice(row, min(row + rows, end)),
                    slice(column, column + columns),
                    *[slice(None)] * (len(self._maps) - 2),
                )
                part = self._linear(source, first, place) if self._order else self._nearest(source, first, place)
                chances = _sigmoid(part) if self._labels.is_regions else _softmax(part)[1:]
                rounded = half(chances) if self._rows.dtype == np.float16 else chances
                self._rows[(slice(None), *place)] = rounded

    def _linear(self, source: NDArray[Any], first: int, place: tuple[slice, ...]) -> NDArray[np.float32]:
        """The logits at a place, interpolated from the last axis to the first."""
        box: list[slice] = [slice(None)]
        lows: list[int] = []
        for along, voxels, start in zip(self._maps, place, (first, *[0] * len(place)), strict=False):
            below = along.below[voxels]
            box.append(slice(int(below[0]) - start, int(below[-1]) - start + 2))
            lows.append(int(below[0]))
        part = source[tuple(box)].astype(np.float32)
        for axis in range(len(self._maps) - 1, -1, -1):
            part = _between(part, self._maps[axis], place[axis], lows[axis], 1 + axis)
        return part

    def _nearest(self, source: NDArray[Any], first: int, place: tuple[slice, ...]) -> NDArray[np.float32]:
        """The nearest samples at a place; half-way, those of the label map."""
        sides = []
        for side in (0, 1):
            along, *others = (each[side][voxels] for each, voxels in zip(self._samples, place, strict=True))
            index: tuple[Any, ...] = np.ix_(along - first, *others)
            sides.append(source[(slice(None), *index)].astype(np.float32))
        shape = self._rows.shape[1:]
        places = [np.arange(n)[voxels] for n, voxels in zip(shape, place, strict=True)]
        odd = sum(np.ix_(*places)) % 2 == 1
        return np.where(odd, sides[1], sides[0])


def _between(values: NDArray[np.float32], along: AxisMap, voxels: slice, low: int, axis: int) -> NDArray[np.float32]:
    """Linear interpolation along one axis, whose first sample is the map's sample `low`, at some voxels of the map."""
    if along.size == along.new_size:
        return values[(*[slice(None)] * axis, slice(0, len(along.below[voxels])))]
    below = along.below[voxels] - low
    weight = along.fraction[voxels].reshape([-1 if a == axis else 1 for a in range(values.ndim)])
    found = values.take(below, axis=axis)
    above = values.take(np.minimum(below + 1, values.shape[axis] - 1), axis=axis)
    found *= 1 - weight
    above *= weight
    found += above
    return found


def half(values: NDArray[np.float32]) -> NDArray[np.float16]:
    """In half precision; by torch where it is loaded, which rounds alike at five times the speed."""
    if sys.modules.get("torch") is None:
        return values.astype(np.float16)
    from medseg.inference.half_by_torch import half_by_torch

    return half_by_torch(values)


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Over the first axis, in place."""
    logits -= logits.max(axis=0)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=0)
    return logits


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """In place."""
    np.negative(logits, out=logits)
    with np.errstate(over="ignore"):
        np.exp(logits, out=logits)
    logits += 1
    return np.reciprocal(logits, out=logits)


class NativeProbabilities:
    """`ProbabilitySlabs` on the grid of the image itself.

    Args:
        grid: leads there.
        labels: says what the channels are.
        axis: spatial axis of the network's grid along which the slabs come.
        out: float16 or float32 (len(labels.names), *native grid), is written; complete after `finish`.
        order: of the interpolation of logits, 0 or 1.
    """

    def __init__(self, grid: GridMap, labels: LabelScheme, axis: int, out: NDArray[Any], order: int = 1) -> None:
        self._grid, self._out = grid, out
        if grid.cropped is not None:
            out[:] = 0
            out = out[(slice(None), *grid.cropped[0])]
        if grid.straightening is not None:
            # Sampled onto the sheared grid at the end.
            self._oriented = np.empty((len(out), *grid.oriented_shape), dtype=out.dtype)
        else:
            self._oriented = out if grid.reorientation is None else grid.reorientation.apply(out, channels=len(out))
        self.add = ProbabilitySlabs(grid.network_shape, labels, axis, self._oriented, order, grid.thick[1]).add

    def finish(self) -> None:
        """After the last slab."""
        if self._grid.straightening is not None:
            for target, oriented in zip(self._out, self._oriented, strict=True):
                target[:] = self._grid.to_native(oriented)


def disk_array(folder: Path, shape: Sequence[int], precision: type[np.floating[Any]] = np.float16) -> NDArray[Any]:
    """An array in a file of `folder` that has no name: the system removes it with the array, even after kill -9.

    Raises:
        WriteError: disk full, no permission.

    Example:
        >>> disk_array(Path("."), (2, 64, 64, 40)).nbytes
        655360
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):
                # A map into a file that the disk has no room for ends the process when it is written to.
                os.posix_fallocate(file.fileno(), 0, np.dtype(precision).itemsize * math.prod(shape))
            return np.memmap(file, precision, "w+", shape=tuple(shape))
    except OSError as error:
        raise write_error(folder / "probabilities", error) from error


def to_probabilities(logits: Values, shape: Sequence[int], labels: LabelScheme, order: int = 1) -> NDArray[np.float16]:
    """The probability of each label or region on a grid of `shape`: softmax or sigmoid of the interpolated logits.

    Args:
        logits: (C, i, j, k) or (C, i, j), an array or a tensor.
        shape: (I, J, K) or (I, J).
        labels: says what the channels are.
        order: of the interpolation of logits, 0 (nearest, half-way either by turns) or 1 (linear).

    Returns:
        float16 (len(labels.names), *shape) in [0, 1]; background is what is missing from 1.

    Raises:
        GeometryError: if the shapes or the number of channels do not fit together.

    Example:
        >>> spot = LabelScheme.from_mapping({"spot": 1})
        >>> to_probabilities(np.zeros((2, 1, 2)), (1, 4), spot).tolist()
        [[[0.5, 0.5, 0.5, 0.5]]]
    """
    result = np.empty((len(labels.names), *shape), dtype=np.float16)
    ProbabilitySlabs(logits.shape[1:], labels, 0, result, order).add(logits, 0, logits.shape[1])
    return result
