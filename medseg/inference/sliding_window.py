"""A network over a whole image by overlapping windows, blended with Gaussian weights, slab by slab.

Windows are worked off in the order of their starts along one axis. What no later window touches is handed on and
forgotten, so the logits of the whole image need not be in memory.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product

import torch
from torch import Tensor, nn

from medseg.errors import CheckpointError, GeometryError
from medseg.inference.rolling import RollingSum
from medseg.inference.tta import mirrored_logits
from medseg.inference.window_grid import blend_weights, stream_axis

__all__ = ["logit_slabs", "sliding_window", "whole_logits"]

log = logging.getLogger(__name__)
Network = Callable[[Tensor], Tensor]


@torch.inference_mode()
def logit_slabs(
    net: nn.Module | Network,
    image: Tensor,
    patch_size: Sequence[int],
    out_channels: int,
    overlap: float = 0.5,
    batch_size: int = 1,
    mirror_axes: Sequence[int] = (),
    progress: Callable[[int, int], None] | None = None,
    device: torch.device | None = None,
    on_cpu: Callable[[], Network] | None = None,
    box: Sequence[slice] | None = None,
    beyond: Tensor | None = None,
) -> Iterator[tuple[Tensor, int, int]]:
    """Logits of `net` over the whole image, in slabs along `stream_axis(image.shape[1:], patch_size)`.

    A patch with two sizes on a 3D image means a 2D net: every slice `[..., k]` is an image of its own. An axis shorter
    than the patch is padded on both sides with the channel's minimum, as training does outside the image, and the
    result is cropped back.

    Args:
        net: in eval mode, (B, C, *patch) -> (B, K, *patch).
        image: (C, I, J, K) or (C, I, J), floats as the network expects them, on the device that is to hold the logits.
        patch_size: window size in voxels, 2 or 3 numbers.
        out_channels: K.
        overlap: least fraction of a window shared with its neighbour, in [0, 1).
        batch_size: windows per forward pass; halved, with a warning, where memory runs out.
        mirror_axes: spatial axes of test-time mirroring; n axes cost 2**n passes.
        progress: called with (windows done, windows in all) after each batch.
        device: where `net` takes its windows; None: of its parameters, or the image's.
        on_cpu: makes the same network on the CPU, for the rest of an image where a single window does not fit.
        box: what of the image holds something; windows lie in it, or reach as little beyond as their size asks.
        beyond: (K,) logits outside of the box; needed with `box`.

    Yields:
        What `Restorer.add` takes: float32 (K, ...) samples `first` to `last` along that axis, on the image's device and
        valid until the next slab; `first`; `last`, excluded of the cells.

    Raises:
        GeometryError: if patch and image do not fit together.
        CheckpointError: if the net answers with another shape than it should.
    """
    by_slice = len(patch_size) == 2 and image.ndim == 4
    if len(patch_size) not in (2, 3) or (image.ndim != len(patch_size) + 1 and not by_slice):
        raise GeometryError(f"windows of size {tuple(patch_size)} do not fit an image of shape {tuple(image.shape)}")
    axis = stream_axis(image.shape[1:], patch_size)
    whole = tuple(image.shape[1:])
    patch = (*patch_size, *[1] * by_slice)
    box = [slice(0, n) for n in whole] if box is None else _at_least(box, patch, whole)
    image = image[(slice(None), *box)]
    shape = tuple(image.shape[1:])
    padded, before = _pad_to_patch(image, patch)
    if by_slice:
        # A 2D net reads whole slices, which lie voxel by voxel apart in a volume.
        padded = padded.movedim(3, 1).contiguous().movedim(1, 3)
    weights = [blend_weights(n, p, overlap) for n, p in zip(shape, patch, strict=True)]
    jobs = sorted(product(*weights), key=lambda corner: corner[axis])
    single = all(len(each) == 1 for each in weights[: len(patch_size)])
    # The weights of a padded axis are 1 (a single window), so cropping them keeps the sum.
    inside = [slice(b, b + min(n, p)) for b, n, p in zip(before, shape, patch, strict=True)]
    lines = [{s: line[part].to(image.device) for s, line in w.items()} for w, part in zip(weights, inside, strict=True)]
    rolling = RollingSum(out_channels, whole, axis, patch[axis], image.device, by_slice, box, beyond)
    place = device or _device_of(net, image.device)

    first = 0
    while first < len(jobs):
        chunk = jobs[first : first + batch_size]
        windows = torch.stack([padded[_box(corner, patch)] for corner in chunk])
        try:
            logits = mirrored_logits(net, (windows[..., 0] if by_slice else windows).to(place), mirror_axes)
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
        logits = logits.to(image.device)
        logits = logits[..., None] if by_slice else logits
        for number, corner in enumerate(chunk):
            at = [b.start + c for b, c in zip(box, corner, strict=True)]
            yield from rolling.finished(at[axis])
            cropped = logits[number][(slice(None), *inside)]
            rolling.add(cropped, at, None if single else [w[s] for w, s in zip(lines, corner, strict=True)])
        # Not held while the next batch is computed.
        del windows, logits, cropped
        if progress is not None:
            progress(first, len(jobs))
    yield from rolling.finished(whole[axis])


@torch.inference_mode()
def sliding_window(
    net: nn.Module | Network,
    image: Tensor,
    patch_size: Sequence[int],
    out_channels: int,
    overlap: float = 0.5,
    batch_size: int = 1,
    mirror_axes: Sequence[int] = (),
    progress: Callable[[int, int], None] | None = None,
    device: torch.device | None = None,
    on_cpu: Callable[[], Network] | None = None,
) -> Tensor:
    """The slabs of `logit_slabs` in one tensor.

    Returns:
        float32 logits (K, *spatial) on the image's device.

    Raises:
        GeometryError, CheckpointError: as `logit_slabs`.

    Example:
        >>> sliding_window(nn.Identity(), torch.ones(1, 9, 7), (4, 4), 1).shape
        torch.Size([1, 9, 7])
    """
    slabs = logit_slabs(
        net, image, patch_size, out_channels, overlap, batch_size, mirror_axes, progress, device, on_cpu
    )
    return whole_logits(slabs, image.shape[1:], stream_axis(image.shape[1:], patch_size))


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


def _pad_to_patch(image: Tensor, patch: Sequence[int]) -> tuple[Tensor, tuple[int, ...]]:
    """The image (C, *spatial) with axes no shorter than the patch, and the voxels added before each axis."""
    shape = image.shape[1:]
    missing = [max(0, p - n) for n, p in zip(shape, patch, strict=True)]
    before = tuple(m // 2 for m in missing)
    if not any(missing):
        return image, before
    size = tuple(n + m for n, m in zip(shape, missing, strict=True))
    lowest = image.amin(dim=tuple(range(1, image.ndim)), keepdim=True)
    padded = lowest.expand(len(image), *size).clone()
    padded[_box(before, shape)] = image
    return padded, before


def _device_of(net: nn.Module | Network, otherwise: torch.device) -> torch.device:
    if isinstance(net, nn.Module):
        parameter = next(net.parameters(), None)
        if parameter is not None:
            return parameter.device
    return otherwise
