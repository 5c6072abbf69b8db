"""The sliding window over tensors: by their arrays where everything is on the CPU, else where they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from medseg.inference.fused_sums import FusedSums
from medseg.inference.tensor_ops_cuda import TensorOps
from medseg.inference.torch_network import TorchNetwork
from medseg.inference.window_grid import Windows
from medseg.inference.window_slabs import Body, Net, Passes, Progress, slabs_by

__all__ = ["tensor_slabs"]


def tensor_slabs(
    net: Net,
    image: Tensor,
    windows: Windows,
    out_channels: int,
    passes: Passes,
    body: Body | None,
    progress: Progress | None,
) -> Iterator[tuple[Tensor, int, int]]:
    """`logit_slabs` of a tensor and a network of tensors."""
    place: Any = passes.device or _device_of(net, image.device)
    if image.device.type == place.type == "cpu":
        on_cpu = passes.on_cpu
        passes = replace(passes, on_cpu=None if on_cpu is None else lambda: TorchNetwork(on_cpu()))
        array = image.detach().numpy()
        slabs = slabs_by(FusedSums(), TorchNetwork(net), array, windows, out_channels, passes, body, progress)
        for slab, first, last in slabs:
            yield torch.from_numpy(slab), first, last
        return
    yield from slabs_by(TensorOps(image.device, place), net, image, windows, out_channels, passes, body, progress)


def _device_of(net: Net, otherwise: torch.device) -> torch.device:
    if isinstance(net, nn.Module):
        parameter = next(net.parameters(), None)
        if parameter is not None:
            return parameter.device
    return otherwise
