"""The inner loop of the spatial augmentation: image linear and labels nearest at the same points, in one pass.

torch's own 3D `grid_sample` runs scalar code and would walk the points twice. Here the points are worked off in slabs
that fit the cache; one linear index per point serves all corners of all channels (a corner is a fixed offset into the
flat array), so the work is plain vectorised gathers and lerps: about three times faster than two `grid_sample` calls.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["PAD_AFTER", "PAD_BEFORE", "control_grid", "pad", "resample"]

PAD_BEFORE = 1
# One voxel of fill, and one more so that the far corner of a point exactly on the fill still lies in the array.
PAD_AFTER = 2
# Points per slab: small enough for the cache, large enough that the calls themselves cost nothing.
SLAB = 1 << 17
# Whole numbers up to here are exact in float32, so that indices may be put together before they become integers.
EXACT_FLOAT = 1 << 24
# A view of the same bytes under an integer type that can be gathered.
_GATHERED_AS = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}


def pad(box: Tensor, fill: Tensor | Sequence[float] | int, dtype: torch.dtype) -> Tensor:
    """The box (C, *n) as `dtype` with PAD_BEFORE and PAD_AFTER voxels of fill (one value or one a channel) around."""
    shape = [size + PAD_BEFORE + PAD_AFTER for size in box.shape[1:]]
    out = torch.empty([box.shape[0], *shape], dtype=dtype, device=box.device)
    values = fill if isinstance(fill, int) else torch.as_tensor(fill, device=box.device).to(dtype)
    for axis, size in enumerate(box.shape[1:], start=1):
        for start, length in ((0, PAD_BEFORE), (PAD_BEFORE + size, PAD_AFTER)):
            side = out.narrow(axis, start, length)
            if isinstance(values, int):
                side.fill_(values)
            else:
                side.copy_(values.view(-1, *[1] * len(shape)).expand_as(side))
    inside = out
    for axis, size in enumerate(box.shape[1:], start=1):
        inside = inside.narrow(axis, PAD_BEFORE, size)
    inside.copy_(box)
    return out


def control_grid(control: Tensor, bases: Sequence[Tensor]) -> Tensor:
    """The points that a control grid describes, all axes but the first worked out.

    Args:
        control: (D, m_0, ..., m_D-1) float32 voxel coordinates of the control points.
        bases: per axis (size, m_axis), the weight of each control point at each output voxel.

    Returns:
        (D, m_0, rest), rest = product of the output sizes behind the first axis; `bases[0] @` it gives the points.
    """
    dims = len(bases)
    points = control
    for axis in range(dims - 1, 0, -1):
        leading = points.shape[: axis + 1]
        behind = points.reshape(*leading, points.shape[axis + 1], -1)
        points = torch.matmul(bases[axis], behind).reshape(*leading, -1)
    return points.reshape(dims, control.shape[1], -1)


def resample(
    image: Tensor,
    labels: Tensor,
    control: Tensor,
    bases: Sequence[Tensor],
    clamp: bool,
    slab: int = SLAB,
) -> tuple[Tensor, Tensor]:
    """Image (linear) and labels (nearest) at the points of a control grid.

    A point half-way between two voxels takes the label of the higher index (floor(x + 0.5), as scipy does).

    Args:
        image: (C, *n) float32, padded by `pad`.
        labels: (L, *n) any integer type, padded the same way.
        control: (D, m_0, ..., m_D-1) float32, control points in voxels of the padded array.
        bases: per axis (size, m_axis) float32.
        clamp: whether points may lie outside; they then take the padding's value.
        slab: how many points are worked off at a time, about.

    Returns:
        image (C, *size) float32 and labels (L, *size) of their own type.
    """
    dims = len(bases)
    size = [basis.shape[0] for basis in bases]
    n = list(image.shape[1:])
    rest = control_grid(control, bases)
    strides = [1] * dims
    for axis in range(dims - 2, -1, -1):
        strides[axis] = strides[axis + 1] * n[axis + 1]
    corners = [sum(itertools.compress(strides, bits)) for bits in itertools.product((0, 1), repeat=dims)]
    flat = image.reshape(image.shape[0], -1)
    flat_labels = _integers(labels).reshape(labels.shape[0], -1)
    out = torch.empty([image.shape[0], size[0], rest.shape[2]], device=image.device)
    out_labels = torch.empty([labels.shape[0], size[0], rest.shape[2]], dtype=flat_labels.dtype, device=image.device)
    rows = size[0] if image.is_cuda else max(1, min(size[0], slab // rest.shape[2]))
    # allocated once: fresh memory for every slab would cost more in page faults than the arithmetic on it
    scratch = _Scratch.of(dims, rows * rest.shape[2], flat.shape[1], image.device)
    for start in range(0, size[0], rows):
        stop = min(start + rows, size[0])
        part = scratch.first((stop - start) * rest.shape[2])
        points, whole, index, values = part.points, part.whole, part.index, part.values
        torch.matmul(bases[0][start:stop], rest, out=points.view(dims, stop - start, -1))
        if clamp:
            for axis in range(dims):
                points[axis].clamp_(0, n[axis] - PAD_AFTER)
        torch.add(points, 0.5, out=whole)
        _linear_index(whole.floor_(), strides, index)
        for channel in range(labels.shape[0]):
            torch.index_select(flat_labels[channel], 0, index, out=out_labels[channel, start:stop].view(-1))
        torch.floor(points, out=whole)
        points.sub_(whole)
        _linear_index(whole, strides, index)
        for channel in range(image.shape[0]):
            for corner, offset in enumerate(corners):
                torch.index_select(flat[channel, offset:], 0, index, out=values[corner])
            current = values
            for axis in range(dims - 1):
                half = current.shape[0] // 2
                current = current[:half].lerp_(current[half:], points[axis])
            torch.lerp(current[0], current[1], points[-1], out=out[channel, start:stop].view(-1))
    return out.view(-1, *size), out_labels.view(labels.dtype).view(-1, *size)


@dataclass(frozen=True)
class _Scratch:
    """Working memory of one slab of N points."""

    points: Tensor  # (D, N) float32
    whole: Tensor  # (D, N) float32
    index: Tensor  # (N,) int32, or int64 for arrays beyond EXACT_FLOAT
    values: Tensor  # (2**D, N) float32

    @classmethod
    def of(cls, dims: int, count: int, voxels: int, device: torch.device) -> _Scratch:
        kind = torch.int32 if voxels <= EXACT_FLOAT else torch.int64
        return cls(
            torch.empty(dims * count, device=device),
            torch.empty(dims * count, device=device),
            torch.empty(count, dtype=kind, device=device),
            torch.empty(2**dims * count, device=device),
        )

    def first(self, count: int) -> _Scratch:
        """The part of it for a slab of `count` points."""
        total = self.index.shape[0]
        points, values = self.points.numel() // total, self.values.numel() // total
        return _Scratch(
            self.points[: points * count].view(points, count),
            self.whole[: points * count].view(points, count),
            self.index[:count],
            self.values[: values * count].view(values, count),
        )


def _linear_index(whole: Tensor, strides: Sequence[int], index: Tensor) -> None:
    """Voxel coordinates (D, N), whole numbers in float32, as places in the flat array; may overwrite `whole`."""
    if index.dtype == torch.int32:
        total = whole[-1]
        for axis in range(len(strides) - 1):
            total.add_(whole[axis], alpha=strides[axis])
        index.copy_(total)
        return
    index.copy_(whole[-1])
    for axis in range(len(strides) - 1):
        index.add_(whole[axis].to(torch.int64), alpha=strides[axis])


def _integers(labels: Tensor) -> Tensor:
    kind = _GATHERED_AS.get(labels.dtype)
    return labels if kind is None else labels.view(kind)
