"""The steps of nnU-Net's prediction repeated in its half precision, to prove that an imported model is the original.

nnU-Net weights each window by a Gaussian in half precision, adds, divides and averages over folds in half precision,
and resamples the logits of each class to half precision before it looks for the highest. `Model` does the same in
single precision and without the logits of the whole image; the two differ where labels are nearly equal.

Source: nnU-Net 2.8.1, `predict_from_raw_data.py`, `sliding_window_prediction.py`, `export_prediction.py`, on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from medseg.errors import CheckpointError
from medseg.inference.restore_blocks import Painter
from medseg.inference.tta import mirrored_logits
from medseg.inference.window_grid import Windows, window_starts
from medseg.labels import LabelScheme
from medseg.preparation.grid import GridMap

__all__ = ["half_chances", "half_labels", "half_logits", "half_weights"]

Half = NDArray[np.float16]
# The largest weight: nnU-Net scales weights so that more of those at the corners are not 0 in half precision.
LARGEST_WEIGHT = 10.0


def half_weights(patch: Sequence[int]) -> Tensor:
    """A window's Gaussian weights `(*patch)`, float16; what half precision makes 0 counts as the smallest that is not.

    Example:
        >>> weights = half_weights((8, 8, 8))
        >>> weights.dtype, weights.max().item(), bool((weights > 0).all())
        (torch.float16, 10.0, True)
    """
    impulse = np.zeros(tuple(patch))
    impulse[tuple(n // 2 for n in patch)] = 1
    spread = ndimage.gaussian_filter(impulse, [n / 8 for n in patch], 0, mode="constant", cval=0)
    spread /= spread.max() / LARGEST_WEIGHT
    weights = torch.from_numpy(spread).to(torch.float16)
    weights[weights == 0] = weights[weights != 0].min()
    return weights


@torch.inference_mode()
def half_logits(
    nets: Sequence[nn.Module],
    image: NDArray[np.float32],
    windows: Windows,
    channels: int,
    mirror_axes: Sequence[int] = (),
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """The mean logits of all folds.

    Args:
        nets: one per fold, on `device`, in eval mode.
        image: `(C, I, J, K)` or `(C, I, J)`, as the networks expect it.
        windows: size and places; the weights are nnU-Net's.
        channels: of the logits.
        mirror_axes: of the network, in the checkpoint's order.
        device: where the networks are; sums are on the CPU.
        progress: called with (windows done, windows in all).

    Returns:
        float16 `(channels, *spatial)`.

    Raises:
        CheckpointError: logits that half precision does not hold, where nnU-Net ends as well.
    """
    by_slice = len(windows.patch_size) == 2 and image.ndim == 4
    patch = (*windows.patch_size, *[1] * by_slice)
    shape = image.shape[1:]
    missing = [max(0, p - n) for n, p in zip(shape, patch, strict=True)]
    inside = tuple(slice(m // 2, m // 2 + n) for m, n in zip(missing, shape, strict=True))
    size = [n + m for n, m in zip(shape, missing, strict=True)]
    padded = torch.zeros((len(image), *size))
    padded[(slice(None), *inside)] = torch.from_numpy(image)
    starts = [window_starts(n, p, windows.overlap, windows.starts) for n, p in zip(size, patch, strict=True)]
    if by_slice:
        starts[-1] = tuple(range(size[-1]))
    corners = list(product(*starts))
    weights = half_weights(windows.patch_size)
    weights = weights[..., None] if by_slice else weights
    mean = torch.zeros(0)
    for number, net in enumerate(nets):
        total, count = torch.zeros((channels, *size), dtype=torch.half), torch.zeros(size, dtype=torch.half)
        for done, corner in enumerate(corners, 1):
            box = tuple(slice(c, c + p) for c, p in zip(corner, patch, strict=True))
            window = padded[(None, slice(None), *box)].contiguous()
            window = (window[..., 0] if by_slice else window).to(device)
            found = mirrored_logits(net, window, mirror_axes)[0].cpu()
            found = found[..., None] if by_slice else found
            total[(slice(None), *box)] += found * weights
            count[box] += weights
            if progress is not None:
                progress(number * len(corners) + done, len(nets) * len(corners))
        total /= count
        mean = total if number == 0 else mean.add_(total)
    if len(nets) > 1:
        mean /= len(nets)
    mean = mean[(slice(None), *inside)]
    if not bool(torch.isfinite(mean).all()):
        raise CheckpointError(
            "the network's logits are infinite in half precision, with which nnU-Net refuses them as well; predict "
            "without --compatible"
        )
    return mean


def half_labels(logits: Tensor, grid: GridMap, scheme: LabelScheme, order: int = 1) -> NDArray[Any]:
    """The label of each voxel of `grid.oriented_shape`; of equal logits the first, of regions the last above one half.

    Args:
        logits: float16 `(channels, *grid.network_shape)`.
        grid: leads back to the image.
        scheme: what the channels are.
        order: of the interpolation.
    """
    values = Painter.of(len(logits), scheme).values
    labels = np.zeros(grid.oriented_shape, dtype=values.dtype)
    highest = np.full(grid.oriented_shape, -np.inf, dtype=np.float16)
    for number, channel in enumerate(logits.numpy()):
        found = _resampled(channel, grid, order)
        if scheme.is_regions:
            labels[torch.sigmoid(torch.from_numpy(found).float()).numpy() > 0.5] = scheme.painted[number]
            continue
        better = found > highest
        labels[better] = values[number]
        highest[better] = found[better]
    return labels


def half_chances(logits: Tensor, grid: GridMap, scheme: LabelScheme, order: int, out: NDArray[Any]) -> None:
    """Write the probability of each label or region, float32 where `out` holds it: `(labels, *native grid)`."""
    resampled = np.stack([_resampled(channel, grid, order) for channel in logits.numpy()])
    single = torch.from_numpy(resampled).float()
    chances = torch.sigmoid(single) if scheme.is_regions else torch.softmax(single, dim=0)[1:]
    for target, each in zip(out, chances.numpy(), strict=True):
        target[...] = grid.to_native(each)


def _resampled(channel: Half, grid: GridMap, order: int) -> Half:
    """The logits of one class on `grid.oriented_shape`, interpolated in double precision."""
    shape, thick = grid.oriented_shape, grid.thick[1]
    if channel.shape == shape:
        return channel
    values = channel.astype(np.float64)
    if thick is None:
        return _resized(values, shape, order).astype(np.float16)
    flat = tuple(n for axis, n in enumerate(shape) if axis != thick)
    slices = np.stack([_resized(each, flat, order) for each in np.moveaxis(values, thick, 0)])
    nearest = ((np.arange(shape[thick]) + 0.5) * (len(slices) / shape[thick])).astype(int)
    return np.moveaxis(slices[np.minimum(nearest, len(slices) - 1)].astype(np.float16), 0, thick)


def _resized(values: NDArray[np.float64], shape: Sequence[int], order: int) -> NDArray[np.float64]:
    if values.shape == tuple(shape):
        return values
    factors = [n / m for n, m in zip(shape, values.shape, strict=True)]
    out = ndimage.zoom(values, factors, order=order, mode="nearest", grid_mode=True)
    return np.asarray(np.clip(out, values.min(), values.max()))
