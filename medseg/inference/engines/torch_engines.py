"""Engines that are torch itself: Winograd's convolutions, a frozen graph, bfloat16."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from medseg.inference.engines.judged import JudgedByShape, TensorNetwork
from medseg.nets.winograd import with_winograd

__all__ = ["torch_network"]


def torch_network(name: str, net: nn.Module, regions: bool) -> TensorNetwork:
    """The network by 'winograd', 'frozen' or 'bf16'; itself where the engine changes nothing about it."""
    if name == "winograd":
        return with_winograd(net) or net
    if name == "frozen":
        return JudgedByShape(net, lambda batch: _traced(net, batch), regions)
    return _in_bf16(net) if name == "bf16" else net


def _in_bf16(net: nn.Module) -> TensorNetwork:
    def run(batch: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            logits: Tensor = net(batch)
        return logits.float()

    return run


def _traced(net: nn.Module, batch: Tensor) -> TensorNetwork:
    with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, and each `if` on a shape warns
        traced = torch.jit.trace(net, batch.clone(), check_trace=False)  # type: ignore[no-untyped-call]
        graph: TensorNetwork = torch.jit.freeze(traced)
    return graph
