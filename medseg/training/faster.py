"""Options that make a step faster on some devices: memory with the channels last, and `torch.compile`."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from medseg.nets.weights_file import first_line

__all__ = ["channels_last", "compiled"]

_log = logging.getLogger("medseg")


def channels_last(value: Tensor, dims: int) -> Tensor:
    """An image, or the weight of a convolution, with its channels last in memory; any other tensor as it is.

    Args:
        value: of any shape; images are `(B, C, I, J[, K])`.
        dims: of the net, 2 or 3.
    """
    if value.dim() != dims + 2:
        return value
    return value.contiguous(memory_format=torch.channels_last if dims == 2 else torch.channels_last_3d)


def compiled(net: nn.Module, images: Tensor, precision: torch.dtype | None) -> Callable[[Tensor], Any]:
    """A call of the net that `torch.compile` has made faster; where that fails, the plain one, with a line in the log.

    It is tried with a step, which leaves the net and torch's random numbers as they were.

    Args:
        net: in the mode in which it will be called.
        images: like those of a training step, on the device of the net.
        precision: of the step; None: float32.
    """
    buffers = copy.deepcopy(dict(net.named_buffers()))
    devices = [images.device.index or 0] if images.device.type == "cuda" else []
    try:
        with (
            torch.random.fork_rng(devices),
            torch.autocast(images.device.type, precision, enabled=precision is not None),
        ):
            call: Callable[[Tensor], Any] = torch.compile(net)
            outputs = call(images)
            parts = [outputs] if isinstance(outputs, Tensor) else list(outputs)
            torch.stack([part.float().mean() for part in parts]).sum().backward()  # type: ignore[no-untyped-call]
    except Exception as error:
        # A compiler, a tool chain or a graph may fail in any way, and the plain net is always there.
        _log.info("training.compile: torch.compile fails here (%s); the network is not compiled", first_line(error))
        return net
    finally:
        for name, buffer in net.named_buffers():
            buffer.copy_(buffers[name])
        net.zero_grad(set_to_none=True)
    return call
