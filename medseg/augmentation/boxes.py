"""The part of an image that a patch touches, and what lies outside of the image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medseg.errors import ConfigError

__all__ = ["crop", "holds", "outside_values", "read_box"]


def read_box(source: Tensor | NDArray[np.generic], slices: tuple[slice, ...]) -> Tensor:
    """The box `slices` of every channel; nothing else of a memory map is read."""
    part = source[(slice(None), *slices)]
    if isinstance(part, Tensor):
        return part
    # a copy: a memory map opened read-only must not back a tensor
    return torch.from_numpy(np.array(part, dtype=part.dtype.newbyteorder("=")))


def outside_values(source: Tensor | NDArray[np.generic], fill: Sequence[float] | float | None, box: Tensor) -> Tensor:
    """(C,) float32 grey values outside the image: as given, else the minimum of each channel of the whole image.

    Raises:
        ConfigError: a number of values that is neither 1 nor C.
    """
    channels = box.shape[0]
    if fill is not None:
        values = torch.as_tensor(fill, dtype=torch.float32, device=box.device).flatten()
        if values.numel() not in (1, channels):
            raise ConfigError(f"fill has {values.numel()} values, expected 1 or {channels} (channels)")
        return values.expand(channels)
    if isinstance(source, Tensor):
        wide = source.to(torch.int32) if source.dtype == torch.uint16 else source
        return wide.flatten(1).amin(dim=1).float()
    return torch.as_tensor(np.asarray(source).reshape(channels, -1).min(axis=1).astype(np.float32))


def holds(dtype: torch.dtype, value: int) -> bool:
    """Whether a type can hold a label value."""
    if dtype.is_floating_point or dtype == torch.bool:
        return True
    return torch.iinfo(dtype).min <= value <= torch.iinfo(dtype).max


def crop(box: Tensor, start: Sequence[int], low: Sequence[int], patch: Sequence[int], fill: Tensor | int) -> Tensor:
    """The patch at `start` out of a box that begins at `low` of the image; fill where there is no image."""
    shape = [box.shape[0], *patch]
    if isinstance(fill, int):
        out = torch.full(shape, fill, dtype=box.dtype, device=box.device)
    else:
        out = fill.to(box.dtype).view(-1, *[1] * len(patch)).expand(shape).contiguous()
    source, target = box, out
    for axis, (s, lo, p) in enumerate(zip(start, low, patch, strict=True), start=1):
        first, last = max(s, lo), min(s + p, lo + box.shape[axis])
        if last <= first:
            return out
        source = source.narrow(axis, first - lo, last - first)
        target = target.narrow(axis, first - s, last - first)
    target.copy_(source)
    return out
