"""A network over a whole image by overlapping windows, blended with Gaussian weights, slab by slab.

Windows are worked off in the order of their starts along one axis. What no later window touches is handed on and
forgotten, so the logits of the whole image need not be in memory. Images are numpy arrays, with a `Network` that takes
and gives arrays, or torch tensors, with a network of tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from medseg.inference.array_ops import ArrayOps, Values
from medseg.inference.chosen_ops import ops_of
from medseg.inference.window_grid import Windows, stream_axis
from medseg.inference.window_slabs import Body, Passes, Progress, slabs_by

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Body", "Passes", "image_logits", "logit_slabs", "sliding_window", "whole_logits"]

V = TypeVar("V", NDArray[np.float32], "Tensor")
ONE_BY_ONE = Passes()


def logit_slabs(
    net: Callable[[V], V],
    image: V,
    windows: Windows,
    out_channels: int,
    passes: Passes = ONE_BY_ONE,
    body: Body | None = None,
    progress: Progress | None = None,
) -> Iterator[tuple[V, int, int]]:
    """Logits of `net` over the whole image, in slabs along `stream_axis(image.shape[1:], windows.patch_size)`.

    A patch with two sizes on a 3D image means a 2D net: every slice `[..., k]` is an image of its own. An axis shorter
    than the patch is padded on both sides, as training does outside the image, and the result is cropped back.

    Args:
        net: (B, C, *patch) -> (B, K, *patch), of arrays or of tensors, as the image is; a module in eval mode.
        image: (C, I, J, K) or (C, I, J), floats as the network expects them; a tensor on the device that is to hold the
            logits.
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
    if isinstance(image, np.ndarray):
        yield from slabs_by(ArrayOps(), net, image, windows, out_channels, passes, body, progress)
        return
    from medseg.inference.tensor_slabs_cuda import tensor_slabs

    yield from tensor_slabs(net, image, windows, out_channels, passes, body, progress)


def image_logits(
    net: Callable[[V], V],
    image: V,
    windows: Windows,
    out_channels: int,
    passes: Passes = ONE_BY_ONE,
    progress: Progress | None = None,
) -> V:
    """The slabs of `logit_slabs` in one array or tensor: float32 logits (K, *spatial) on the image's device."""
    slabs = logit_slabs(net, image, windows, out_channels, passes, progress=progress)
    return whole_logits(slabs, image.shape[1:], stream_axis(image.shape[1:], windows.patch_size))


def sliding_window(
    net: Callable[[V], V],
    image: V,
    patch_size: Sequence[int],
    out_channels: int,
    overlap: float = 0.5,
    batch_size: int = 1,
    mirror_axes: Sequence[int] = (),
    progress: Progress | None = None,
) -> V:
    """Logits of a network over a whole image by overlapping windows, blended with Gaussian weights.

    A patch with two sizes on a 3D image means a 2D net: every slice `[..., k]` is an image of its own. An axis shorter
    than the patch is padded on both sides with the channel's minimum, and the result is cropped back.

    Args:
        net: (B, C, *patch) -> logits (B, K, *patch), of arrays or of tensors, as the image is; a module in eval mode.
        image: (C, I, J, K) or (C, I, J), floats as the network expects them; a tensor on the device that is to hold the
            logits.
        patch_size: voxels of a window, 2 or 3 numbers.
        out_channels: K.
        overlap: least fraction of a window shared with its neighbour, in [0, 1).
        batch_size: windows per forward pass; halved, with a warning, where memory runs out.
        mirror_axes: spatial axes of test-time mirroring; n axes cost 2**n passes.
        progress: called with (windows done, windows in all) after each batch.

    Returns:
        float32 logits (K, *spatial), an array or a tensor on the image's device.

    Raises:
        GeometryError: if patch and image do not fit together.
        CheckpointError: if the net answers with another shape than it should.

    Source:
        Gaussian weights of a standard deviation of 1/8 patch: Isensee et al., nnU-Net, Nature Methods 18 (2021).

    Example:
        >>> sliding_window(lambda batch: batch, np.ones((1, 9, 7), np.float32), (4, 4), 1).shape
        (1, 9, 7)
    """
    windows = Windows(tuple(patch_size), overlap)
    return image_logits(net, image, windows, out_channels, Passes(batch_size, mirror_axes), progress)


def whole_logits(slabs: Iterable[tuple[V, int, int]], shape: Sequence[int], axis: int) -> V:
    """The slabs of `logit_slabs` in one array or tensor (K, *shape).

    Example:
        >>> whole_logits([(np.ones((2, 3, 5)), 0, 2), (np.ones((2, 2, 5)), 2, 4)], (4, 5), 0).shape
        (2, 4, 5)
    """
    whole: V = _joined(slabs, tuple(shape), axis)
    return whole


def _joined(slabs: Iterable[tuple[Values, int, int]], shape: tuple[int, ...], axis: int) -> Values:
    out: Values = None
    for slab, first, _ in slabs:
        if tuple(slab.shape[1:]) == shape:
            return slab
        if out is None:
            # As the slab lies in memory: the slices of a 2D net one after the other.
            ops = ops_of(slab)
            turned = ops.moved(slab, 1 + axis, 0)
            if ops.is_compact(turned):
                out = ops.moved(ops.empty((shape[axis], *turned.shape[1:]), slab), 0, 1 + axis)
            else:
                out = ops.empty((len(slab), *shape), slab)
        out[(*[slice(None)] * (1 + axis), slice(first, first + slab.shape[1 + axis]))] = slab
    return out
