"""A network over a whole image by overlapping windows, blended with Gaussian weights, slab by slab.

Windows are worked off in the order of their starts along one axis. What no later window touches is handed on and
forgotten, so the logits of the whole image need not be in memory.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn

from medseg.errors import CheckpointError, GeometryError
from medseg.inference.rolling import RollingSum
from medseg.inference.tta import mirrored_logits
from medseg.inference.window_grid import Windows, stream_axis

__all__ = ["Body", "Passes", "image_logits", "logit_slabs", "sliding_window", "whole_logits"]

log = logging.getLogger(__name__)
Network = Callable[[Tensor], Tensor]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Passes:
    """How a network takes its windows.

    Args:
        batch_size: windows per forward pass; halved, with a warning, where memory runs out.
        mirror_axes: spatial axes of test-time mirroring; n axes cost 2**n passes.
        device: where the network takes its windows; None: of its parameters, or the image's.
        on_cpu: makes the same network on the CPU, for the rest of an image where a single window does not fit.
    """

    batch_size: int = 1
    mirror_axes: Sequence[int] = ()
    device: torch.device | None = None
    on_cpu: Callable[[], Network] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """The part of an image that is not empty.

    Args:
        box: per spatial axis; windows lie in it, or reach as little beyond as their size requires.
        beyond: (K,) logits outside of the box.
    """

    box: Sequence[slice]
    beyond: Tensor


@torch.inference_mode()
def logit_slabs(
    net: nn.Module | Network,
    image: Tensor,
    windows: Windows,
    out_channels: int,
    passes: Passes = Passes(),
    body: Body | None = None,
    progress: Progress | None = None,
) -> Iterator[tuple[Tensor, int, int]]:
    """Logits of `net` over the whole image, in slabs along `stream_axis(image.shape[1:], windows.patch_size)`.

    A patch with two sizes on a 3D image means a 2D net: every slice `[..., k]` is an image of its own. An axis shorter
    than the patch is padded on both sides, as training does outside the image, and the result is cropped back.

    Args:
        net: in eval mode, (B, C, *patch) -> (B, K, *patch).
        image: (C, I, J, K) or (C, I, J), floats as the network expects them, on the device that is to hold the logits.
        windows: their size, places and weights, and the padding.
        out_channels: K.
        passes: how the network takes its windows.
        body: where something is to be found; None: everywhere.
        progress: called with (windows done, windows in all) after each batch.

    Yields:
        What `Restorer.add` takes: float32 (K, ...) samples `first` to `last` along that axis, on the image's device and
        valid until the next slab; `first`; `last`, excluded of the cells.

    Raises:
        GeometryError: if patch and image do not fit together.
        CheckpointError: if the net answers with another shape than it should.
    """
    grid = _Cut.of(image, windows, body)
    axis = stream_axis(image.shape[1:], windows.patch_size)
    jobs = sorted(product(*grid.lines), key=lambda corner: corner[axis])
    single = all(len(each) == 1 for each in grid.lines[: len(windows.patch_size)])
    rolling = RollingSum(
        out_channels,
        tuple(image.shape[1:]),
        axis,
        grid.patch[axis],
        image.device,
        grid.by_slice,
        None if body is None else grid.box,
        None if body is None else body.beyond,
    )
    first = 0
    for logits in _batches(net, grid, jobs, windows.patch_size, out_channels, passes):
        logits = logits.to(image.device)
        logits = logits[..., None] if grid.by_slice else logits
        count = len(logits)
        for number, corner in enumerate(jobs[first : first + count]):
            at = [b.start + c for b, c in zip(grid.box, corner, strict=True)]
            yield from rolling.finished(at[axis])
            cropped = logits[number][(slice(None), *grid.inside)]
            lines = None if single else [w[s] for w, s in zip(grid.lines, corner, strict=True)]
            rolling.add(cropped, at, lines)
        first += count
        # Not held while the next batch is computed.
        del logits, cropped
        if progress is not None:
            progress(first, len(jobs))
    yield from rolling.finished(image.shape[1 + axis])


@dataclass(frozen=True, slots=True, eq=False)
class _Cut:
    """An image as its windows are cut from it.

    Args:
        padded: (C, *spatial) the box, with axes no shorter than the patch.
        box: of the image.
        patch: per axis of the image; 1 across the slices of a 2D net.
        lines: per axis, start -> weights.
        inside: what of a window lies in the image.
        by_slice: whether a 2D net sees a volume.
    """

    padded: Tensor
    box: Sequence[slice]
    patch: tuple[int, ...]
    lines: list[dict[int, Tensor]]
    inside: list[slice]
    by_slice: bool

    @classmethod
    def of(cls, image: Tensor, windows: Windows, body: Body | None) -> _Cut:
        patch_size = windows.patch_size
        by_slice = len(patch_size) == 2 and image.ndim == 4
        if len(patch_size) not in (2, 3) or (image.ndim != len(patch_size) + 1 and not by_slice):
            raise GeometryError(
                f"windows of size {tuple(patch_size)} do not fit an image of shape {tuple(image.shape)}"
            )
        whole = tuple(image.shape[1:])
        patch = (*patch_size, *[1] * by_slice)
        box = [slice(0, n) for n in whole] if body is None else _at_least(body.box, patch, whole)
        image = image[(slice(None), *box)]
        shape = tuple(image.shape[1:])
        padded, before = _pad_to_patch(image, patch, windows.padding)
        if by_slice:
            # A 2D net reads whole slices, which lie voxel by voxel apart in a volume.
            padded = padded.movedim(3, 1).contiguous().movedim(1, 3)
        # The weights of a padded axis are 1 (a single window), so cropping them keeps the sum.
        inside = [slice(b, b + min(n, p)) for b, n, p in zip(before, shape, patch, strict=True)]
        lines = [
            {start: line[part].to(image.device) for start, line in windows.along(axis, n).items()}
            for axis, (n, part) in enumerate(zip(shape, inside, strict=True))
        ]
        return cls(padded, box, patch, lines, inside, by_slice)


def _batches(
    net: nn.Module | Network,
    cut: _Cut,
    jobs: Sequence[tuple[int, ...]],
    patch_size: Sequence[int],
    out_channels: int,
    passes: Passes,
) -> Iterator[Tensor]:
    """The logits (B, K, *patch) of one batch of windows after the other, on the network's device."""
    place = passes.device or _device_of(net, cut.padded.device)
    batch_size, on_cpu = passes.batch_size, passes.on_cpu
    first = 0
    while first < len(jobs):
        chunk = jobs[first : first + batch_size]
        batch = torch.stack([cut.padded[_box(corner, cut.patch)] for corner in chunk])
        try:
            logits = mirrored_logits(net, (batch[..., 0] if cut.by_slice else batch).to(place), passes.mirror_axes)
        except (RuntimeError, MemoryError) as error:
            if not _out_of_memory(error) or (len(chunk) == 1 and on_cpu is None):
                raise
            if len(chunk) > 1:
                batch_size = len(chunk) // 2
                log.warning("not enough memory for %d windows at a time; going on with %d", len(chunk), batch_size)
            elif on_cpu is not None:
                log.warning(
                    "not enough memory on %s for a single window; the rest of this image is computed on the CPU", place
                )
                net, place, on_cpu = on_cpu(), torch.device("cpu"), None
            continue
        first += len(chunk)
        expected = (len(chunk), out_channels, *patch_size)
        if tuple(logits.shape) != expected:
            raise CheckpointError(f"the network answers with shape {tuple(logits.shape)}, expected {expected}")
        del batch
        yield logits
        del logits


@torch.inference_mode()
def image_logits(
    net: nn.Module | Network,
    image: Tensor,
    windows: Windows,
    out_channels: int,
    passes: Passes = Passes(),
    progress: Progress | None = None,
) -> Tensor:
    """The slabs of `logit_slabs` in one tensor: float32 logits (K, *spatial) on the image's device."""
    slabs = logit_slabs(net, image, windows, out_channels, passes, progress=progress)
    return whole_logits(slabs, image.shape[1:], stream_axis(image.shape[1:], windows.patch_size))


def sliding_window(
    net: nn.Module | Network,
    image: Tensor,
    patch_size: Sequence[int],
    out_channels: int,
    overlap: float = 0.5,
    batch_size: int = 1,
    mirror_axes: Sequence[int] = (),
    progress: Progress | None = None,
) -> Tensor:
    """Logits of a network over a whole image by overlapping windows, blended with Gaussian weights.

    A patch with two sizes on a 3D image means a 2D net: every slice `[..., k]` is an image of its own. An axis shorter
    than the patch is padded on both sides with the channel's minimum, and the result is cropped back.

    Args:
        net: in eval mode, (B, C, *patch) -> logits (B, K, *patch).
        image: (C, I, J, K) or (C, I, J), floats as the network expects them, on the device that is to hold the logits.
        patch_size: voxels of a window, 2 or 3 numbers.
        out_channels: K.
        overlap: least fraction of a window shared with its neighbour, in [0, 1).
        batch_size: windows per forward pass; halved, with a warning, where memory runs out.
        mirror_axes: spatial axes of test-time mirroring; n axes cost 2**n passes.
        progress: called with (windows done, windows in all) after each batch.

    Returns:
        float32 logits (K, *spatial) on the image's device.

    Raises:
        GeometryError: if patch and image do not fit together.
        CheckpointError: if the net answers with another shape than it should.

    Source:
        Gaussian weights of a standard deviation of 1/8 patch: Isensee et al., nnU-Net, Nature Methods 18 (2021).

    Example:
        >>> sliding_window(nn.Identity(), torch.ones(1, 9, 7), (4, 4), 1).shape
        torch.Size([1, 9, 7])
    """
    windows = Windows(tuple(patch_size), overlap)
    return image_logits(net, image, windows, out_channels, Passes(batch_size, mirror_axes), progress)


@torch.inference_mode()
def whole_logits(slabs: Iterable[tuple[Tensor, int, int]], shape: Sequence[int], axis: int) -> Tensor:
    """The slabs of `logit_slabs` in one tensor (K, *shape).

    Example:
        >>> whole_logits([(torch.ones(2, 3, 5), 0, 2), (torch.ones(2, 2, 5), 2, 4)], (4, 5), 0).shape
        torch.Size([2, 4, 5])
    """
    out = torch.empty(0)
    for slab, first, _ in slabs:
        if tuple(slab.shape[1:]) == tuple(shape):
            return slab
        if first == 0:
            # As the slab lies in memory: the slices of a 2D net one after the other.
            others = [n for a, n in enumerate(slab.shape) if a != 1 + axis]
            turned = slab.movedim(1 + axis, 0).is_contiguous()
            size = (shape[axis], *others) if turned else (len(slab), *shape)
            out = torch.empty(size, device=slab.device)
            out = out.movedim(0, 1 + axis) if turned else out
        out.narrow(1 + axis, first, slab.shape[1 + axis]).copy_(slab)
    return out


def _out_of_memory(error: BaseException) -> bool:
    # On a CPU torch raises a plain RuntimeError: "DefaultCPUAllocator: can't allocate memory".
    text = str(error)
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


def _box(corner: Sequence[int], size: Sequence[int]) -> tuple[slice, ...]:
    return (slice(None), *(slice(s, s + n) for s, n in zip(corner, size, strict=True)))


def _at_least(box: Sequence[slice], patch: Sequence[int], shape: Sequence[int]) -> list[slice]:
    """The box, enlarged around its middle to a window where the image has room."""
    grown = []
    for part, p, n in zip(box, patch, shape, strict=True):
        size = min(n, max(p, part.stop - part.start))
        start = min(max(0, (part.start + part.stop - size) // 2), n - size)
        grown.append(slice(start, start + size))
    return grown


def _pad_to_patch(image: Tensor, patch: Sequence[int], padding: str) -> tuple[Tensor, tuple[int, ...]]:
    """The image (C, *spatial) with axes no shorter than the patch, and the voxels added before each axis."""
    shape = image.shape[1:]
    missing = [max(0, p - n) for n, p in zip(shape, patch, strict=True)]
    before = tuple(m // 2 for m in missing)
    if not any(missing):
        return image, before
    size = tuple(n + m for n, m in zip(shape, missing, strict=True))
    lowest = image.amin(dim=tuple(range(1, image.ndim)), keepdim=True)
    around = lowest if padding == "minimum" else torch.zeros_like(lowest)
    padded = around.expand(len(image), *size).clone()
    padded[_box(before, shape)] = image
    return padded, before


def _device_of(net: nn.Module | Network, otherwise: torch.device) -> torch.device:
    if isinstance(net, nn.Module):
        parameter = next(net.parameters(), None)
        if parameter is not None:
            return parameter.device
    return otherwise
