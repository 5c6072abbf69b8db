"""Probabilities on the image's grid, slab by slab; a memory map holds them, not the memory."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from medseg.disk.atomic import write_error
from medseg.errors import GeometryError
from medseg.inference.restore_axes import AxisMap
from medseg.labels import LabelScheme
from medseg.preparation.grid import GridMap
from medseg.resampling import nearest_indices

__all__ = ["NativeProbabilities", "ProbabilitySlabs", "disk_array", "to_probabilities"]

# Voxels of all channels that are interpolated at a time.
SLAB_VOXELS = 2**21


class ProbabilitySlabs:
    """The probability of each label or region, from slabs of logits as they come.

    Args:
        size: (i, j, k) or (i, j) of the network's grid.
        labels: says what the channels are.
        axis: spatial axis along which the slabs come.
        out: float16 (len(labels.names), I, J[, K]), is written; background is what is missing from 1.
        order: of the interpolation of logits, 0 (nearest, half-way either by turns) or 1 (linear).

    Raises:
        GeometryError: if the shapes or the number of channels do not fit together.
    """

    def __init__(
        self, size: Sequence[int], labels: LabelScheme, axis: int, out: NDArray[np.float16], order: int = 1
    ) -> None:
        shape = out.shape[1:]
        if len(size) != len(shape) or len(shape) not in (2, 3) or min(*size, *shape) < 1:
            raise GeometryError(f"logits of shape {tuple(size)} cannot be brought to the grid {tuple(shape)}")
        self._labels = labels
        self._rows = np.moveaxis(out, 1 + axis, 1)
        self._along = AxisMap.between(size[axis], shape[axis])
        self._axis = axis
        self._mode = ("bilinear" if len(shape) == 3 else "linear") if order else ""
        places = (axis, *(a for a in range(len(shape)) if a != axis))
        self._nearest = tuple(nearest_indices(size[a], shape[a]) for a in places)

    @torch.inference_mode()
    def add(self, slab: Tensor, first: int, last: int) -> None:
        """The voxels of cells `first` to `last`; arguments as those of `Restorer.add`.

        Raises:
            GeometryError: if the number of channels does not fit the labels.
        """
        labels, along = self._labels, self._along
        if labels.out_channels != len(slab):
            raise GeometryError(
                f"logits have {len(slab)} channels, but the labels {', '.join(labels.names)} need {labels.out_channels}"
            )
        source = slab.movedim(1 + self._axis, 1)
        across = self._rows.shape[2:]
        below = torch.from_numpy(along.below)
        above = (below + 1).clamp(max=along.size - 1)
        begin, end = np.searchsorted(along.below, (first, last))
        step = max(1, SLAB_VOXELS // (len(source) * int(np.prod(across))))
        for row in range(begin, end, step):
            rows = slice(row, min(row + step, int(end)))
            low, high = int(below[rows][0]), int(above[rows][-1])
            part = source[:, low - first : high + 1 - first].float().cpu()
            if not self._mode:
                part = self._sampled(part, low, rows)
            elif tuple(part.shape[2:]) != tuple(across):
                part = functional.interpolate(part.transpose(0, 1), tuple(across), mode=self._mode).transpose(0, 1)
            if self._mode and along.size != along.new_size:
                weight = along.fraction[rows].reshape(-1, *[1] * len(across))
                part = part[:, below[rows] - low] * (1 - weight) + part[:, above[rows] - low] * weight
            else:
                part = part[:, : rows.stop - rows.start]
            chances = torch.sigmoid(part) if labels.is_regions else torch.softmax(part, dim=0)[1:]
            self._rows[:, rows] = chances.half().numpy()

    def _sampled(self, part: Tensor, low: int, rows: slice) -> Tensor:
        """The nearest samples of some rows; half-way, those of the label map."""
        sides = []
        for side in (0, 1):
            along, *others = (torch.from_numpy(each[side]) for each in self._nearest)
            picked = part.index_select(1, along[rows] - low)
            for axis, index in enumerate(others, start=2):
                picked = picked.index_select(axis, index)
            sides.append(picked)
        places = [torch.arange(n) for n in self._rows.shape[1:]]
        places[0] = places[0][rows]
        odd = sum(p.view(_along(axis, len(places))) for axis, p in enumerate(places)) % 2 == 1
        return torch.where(torch.as_tensor(odd), sides[1], sides[0])


class NativeProbabilities:
    """`ProbabilitySlabs` on the grid of the image itself.

    Args:
        grid: leads there.
        labels: says what the channels are.
        axis: spatial axis of the network's grid along which the slabs come.
        out: float16 (len(labels.names), *native grid), is written; complete after `finish`.
        order: of the interpolation of logits, 0 or 1.
    """

    def __init__(self, grid: GridMap, labels: LabelScheme, axis: int, out: NDArray[np.float16], order: int = 1) -> None:
        self._grid, self._out = grid, out
        if grid.straightening is not None:
            # Sampled onto the sheared grid at the end.
            self._oriented = np.empty((len(out), *grid.oriented_shape), dtype=np.float16)
        else:
            self._oriented = out if grid.reorientation is None else grid.reorientation.apply(out, channels=len(out))
        self.add = ProbabilitySlabs(grid.network_shape, labels, axis, self._oriented, order).add

    def finish(self) -> None:
        """After the last slab."""
        if self._grid.straightening is not None:
            for target, oriented in zip(self._out, self._oriented, strict=True):
                target[:] = self._grid.to_native(oriented)


def _along(axis: int, dims: int) -> list[int]:
    return [-1 if a == axis else 1 for a in range(dims)]


def disk_array(folder: Path, shape: Sequence[int]) -> NDArray[np.float16]:
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
                os.posix_fallocate(file.fileno(), 0, 2 * math.prod(shape))
            return np.memmap(file, np.float16, "w+", shape=tuple(shape))
    except OSError as error:
        raise write_error(folder / "probabilities", error) from error


def to_probabilities(
    logits: Tensor | NDArray[Any], shape: Sequence[int], labels: LabelScheme, order: int = 1
) -> NDArray[np.float16]:
    """The probability of each label or region on a grid of `shape`: softmax or sigmoid of the interpolated logits.

    Args:
        logits: (C, i, j, k) or (C, i, j).
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
    source = logits if isinstance(logits, Tensor) else torch.from_numpy(np.ascontiguousarray(logits))
    result = np.empty((len(labels.names), *shape), dtype=np.float16)
    ProbabilitySlabs(source.shape[1:], labels, 0, result, order).add(source, 0, source.shape[1])
    return result
