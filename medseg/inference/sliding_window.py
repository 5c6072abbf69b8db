"""A network over a whole image by overlapping windows, blended with Gaussian weights.

The windows lie on the product of one list of starts per axis and the Gaussian is a product over axes, so the sum of
the weights is a product too. Each window's weights are therefore divided by that sum beforehand, axis by axis, and the
result needs neither a weight map of the image's size nor a last division.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from itertools import product
from math import ceil

import torch
from torch import Tensor, nn

from medseg.errors import CheckpointError, GeometryError
from medseg.inference.tta import mirrored_logits

__all__ = ["blend_weights", "sliding_window", "window_starts"]

log = logging.getLogger(__name__)


def window_starts(length: int, patch: int, overlap: float) -> tuple[int, ...]:
    """First voxels of evenly spread windows: the first touches one border, the last the other.

    Neighbours overlap by at least `overlap` of a patch (0 <= overlap < 1); one window where the patch covers the axis.

    Example:
        >>> window_starts(10, 4, 0.5)
        (0, 2, 4, 6)
    """
    if length <= patch:
        return (0,)
    step = max(1, int(patch * (1 - overlap)))
    count = ceil((length - patch) / step) + 1
    return tuple(round(n * (length - patch) / (count - 1)) for n in range(count))


def blend_weights(length: int, patch: int, overlap: float) -> dict[int, Tensor]:
    """Start -> weights (patch,) along one axis; over all windows they sum to 1 at every voxel.

    A Gaussian with standard deviation patch / 8, centred in the window; at the window's border it is still exp(-8),
    so no voxel is without weight.
    """
    offset = torch.arange(patch, dtype=torch.float64) - (patch - 1) / 2
    gaussian = torch.exp(-0.5 * (offset / (patch / 8)) ** 2)
    starts = window_starts(length, patch, overlap)
    total = torch.zeros(max(length, patch), dtype=torch.float64)
    for start in starts:
        total[start : start + patch] += gaussian
    return {start: (gaussian / total[start : start + patch]).float() for start in starts}


@torch.inference_mode()
def sliding_window(
    net: nn.Module | Callable[[Tensor], Tensor],
    image: Tensor,
    patch_size: Sequence[int],
    out_channels: int,
    overlap: float = 0.5,
    batch_size: int = 1,
    mirror_axes: Sequence[int] = (),
    progress: Callable[[int, int], None] | None = None,
    out: Tensor | None = None,
    share: float = 1.0,
) -> Tensor:
    """Logits of `net` over the whole image.

    A patch with two sizes on a 3D image means a 2D net: every slice `[..., k]` is an image of its own. An axis shorter
    than the patch is padded on both sides with the channel's minimum, as training does outside the image, and the
    result is cropped back.

    Args:
        net: in eval mode, (B, C, *patch) -> (B, K, *patch); windows are moved to the device of its parameters.
        image: (C, I, J, K) or (C, I, J), floats as the network expects them, on the device that is to hold the logits.
        patch_size: window size in voxels, 2 or 3 numbers.
        out_channels: K.
        overlap: least fraction of a window shared with its neighbour, in [0, 1).
        batch_size: windows per forward pass; halved, with a warning, where memory runs out.
        mirror_axes: spatial axes of test-time mirroring; n axes cost 2**n passes.
        progress: called with (windows done, windows in all) after each batch.
        out: tensor to add to instead of new zeros; an ensemble sums its members into one tensor.
        share: factor on what is added, 1 / members for an ensemble.

    Returns:
        float32 logits (K, *spatial) on the image's device; `out` if given.

    Raises:
        GeometryError: if patch and image do not fit together.
        CheckpointError: if the net answers with another shape than it should.

    Example:
        >>> sliding_window(nn.Identity(), torch.ones(1, 9, 7), (4, 4), 1).shape
        torch.Size([1, 9, 7])
    """
    dims = len(patch_size)
    by_slice = dims == 2 and image.ndim == 4
    if dims not in (2, 3) or (image.ndim != dims + 1 and not by_slice):
        raise GeometryError(f"windows of size {tuple(patch_size)} do not fit an image of shape {tuple(image.shape)}")
    shape = tuple(image.shape[1 : 1 + dims])
    if out is None:
        # Slices lie one after the other in memory, so that a 2D window is written in runs, not voxel by voxel.
        size = (image.shape[3], out_channels, *shape) if by_slice else (1, out_channels, *shape)
        layers = torch.zeros(size, dtype=torch.float32, device=image.device)
        out = layers.permute(1, 2, 3, 0) if by_slice else layers[0]
    padded, before = _pad_to_patch(image.movedim(3, 0) if by_slice else image[None], patch_size)
    targets = out.movedim(3, 0) if by_slice else out[None]

    weights = [blend_weights(n, p, overlap) for n, p in zip(shape, patch_size, strict=True)]
    jobs = [(layer, starts) for layer in range(len(padded)) for starts in product(*weights)]
    single = all(len(w) == 1 for w in weights)
    device = _device_of(net, image.device)
    inside = tuple(slice(b, b + min(n, p)) for b, n, p in zip(before, shape, patch_size, strict=True))

    first = 0
    while first < len(jobs):
        chunk = jobs[first : first + batch_size]
        windows = torch.stack([padded[layer][_box(starts, patch_size)] for layer, starts in chunk])
        try:
            logits = mirrored_logits(net, windows.to(device, non_blocking=True), mirror_axes)
        except (RuntimeError, MemoryError) as error:
            if not _out_of_memory(error) or len(chunk) == 1:
                raise
            batch_size = len(chunk) // 2
            log.warning("not enough memory for %d windows at a time; going on with %d", len(chunk), batch_size)
            continue
        first += len(chunk)
        expected = (len(chunk), out_channels, *patch_size)
        if tuple(logits.shape) != expected:
            raise CheckpointError(f"the network answers with shape {tuple(logits.shape)}, expected {expected}")
        logits = logits.to(image.device)
        for (layer, starts), window in zip(chunk, logits, strict=True):
            part = window[(slice(None), *inside)]
            target = targets[layer][_box(starts, part.shape[1:])]
            if single:
                target.add_(part, alpha=share)
            else:
                target.addcmul_(part, _outer(weights, starts, inside).to(image.device), value=share)
        if progress is not None:
            progress(first, len(jobs))
    return out


def _out_of_memory(error: BaseException) -> bool:
    # On a CPU torch raises a plain RuntimeError: "DefaultCPUAllocator: can't allocate memory".
    text = str(error)
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


def _box(starts: Sequence[int], size: Sequence[int]) -> tuple[slice, ...]:
    return (slice(None), *(slice(s, s + n) for s, n in zip(starts, size, strict=True)))


def _outer(weights: Sequence[dict[int, Tensor]], starts: Sequence[int], inside: Sequence[slice]) -> Tensor:
    # The weights of a padded axis are 1 (a single window), so cropping them keeps the sum.
    result = weights[0][starts[0]][inside[0]]
    for each, start, part in zip(weights[1:], starts[1:], inside[1:], strict=True):
        result = result[..., None] * each[start][part]
    return result


def _pad_to_patch(layers: Tensor, patch_size: Sequence[int]) -> tuple[Tensor, tuple[int, ...]]:
    """Layers (L, C, *spatial) with axes no shorter than the patch, and the voxels added before each axis."""
    shape = layers.shape[2:]
    missing = [max(0, p - n) for n, p in zip(shape, patch_size, strict=True)]
    before = tuple(m // 2 for m in missing)
    if not any(missing):
        # A 2D net reads whole slices, which lie voxel by voxel apart in a volume.
        return layers.contiguous(), before
    size = tuple(n + m for n, m in zip(shape, missing, strict=True))
    lowest = layers.amin(dim=(0, *range(2, layers.ndim)), keepdim=True)
    padded = lowest.expand(*layers.shape[:2], *size).clone()
    padded[(slice(None), *_box(before, shape))] = layers
    return padded, before


def _device_of(net: nn.Module | Callable[[Tensor], Tensor], otherwise: torch.device) -> torch.device:
    if isinstance(net, nn.Module):
        parameter = next(net.parameters(), None)
        if parameter is not None:
            return parameter.device
    return otherwise
