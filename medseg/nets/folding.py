"""Batch norms folded into the convolutions before them, for prediction and export.

In eval mode a batch norm multiplies each channel and adds to it, which the convolution before it can do with other
weights. Whether a norm follows a convolution, and nothing else sees what lies between them, follows from neither names
nor the order of registration; it is seen by running the network once and noting every use of what a convolution gave.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.overrides import TorchFunctionMode

from medseg.nets.convolution3d import OneDnnConv3d, UpConv3d, WideConv3d
from medseg.nets.frozen_batch_norm import FrozenBatchNorm

__all__ = ["folded"]

TRANSPOSED = (nn.ConvTranspose2d, nn.ConvTranspose3d, UpConv3d)
# By exact type: a class derived from them may do more than a convolution.
CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, OneDnnConv3d, WideConv3d, *TRANSPOSED)
# What is asked of a tensor without looking at its numbers: shape, type, device, layout.
FACTS = (int, str, torch.Size, torch.dtype, torch.device, torch.layout)
NORMS = (nn.BatchNorm2d, nn.BatchNorm3d, FrozenBatchNorm)


def folded(net: nn.Module, example: Tensor) -> nn.Module:
    """A copy of a network in eval mode in which convolutions do the work of the batch norms that follow them.

    A norm is folded where all it ever gets are the outputs of one convolution, each of them whole, unchanged and used
    by nothing else. Any other norm stays as it is, as do weights that several layers share. Logits differ from the
    network's own by rounding alone (1e-5 of their size).

    Args:
        net: any network; not changed.
        example: `(B, C, I, J[, K])`, an input that the network takes; a small one serves. A network that takes other
            ways through its layers for other sizes has to be folded for these.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
        >>> image = torch.randn(1, 1, 8, 8)
        >>> faster = folded(net, image)
        >>> isinstance(faster[1], nn.Identity), bool(torch.allclose(faster(image), net(image), atol=1e-6))
        (True, True)
    """
    result = copy.deepcopy(net).eval().requires_grad_(False)
    places = dict(result.named_modules(remove_duplicate=False))
    for conv, norm in _pairs(result, example):
        _fold(conv, norm)
        for name in [name for name, module in places.items() if module is norm]:
            above, _, last = name.rpartition(".")
            result.get_submodule(above).register_module(last, nn.Identity())
    return result


def _fold(conv: Any, norm: Any) -> None:
    """Give a convolution the weights with which it does the norm's work as well."""
    bias = None if conv.bias is None else conv.bias.double()
    scale = None if norm.weight is None else norm.weight.double()
    shift = None if norm.bias is None else norm.bias.double()
    # In double precision, so that a variance near zero costs no digits.
    weight, bias = fuse_conv_bn_weights(
        conv.weight.double(),
        bias,
        norm.running_mean.double(),
        norm.running_var.double(),
        norm.eps,
        scale,
        shift,
        transpose=isinstance(conv, TRANSPOSED),
    )
    kind = conv.weight.dtype
    conv.weight = nn.Parameter(weight.to(kind), requires_grad=False)
    conv.bias = nn.Parameter(bias.to(kind), requires_grad=False)


def _pairs(net: nn.Module, example: Tensor) -> list[tuple[nn.Module, nn.Module]]:
    """Convolutions and the norms that follow them and can be folded."""
    seen = _Seen()
    convolutions = [module for module in net.modules() if type(module) in CONVOLUTIONS]
    norms = [module for module in net.modules() if type(module) in NORMS and _has_statistics(module)]
    hooks = [module.register_forward_hook(seen.gave) for module in convolutions]
    hooks += [module.register_forward_pre_hook(seen.gets) for module in norms]
    try:
        with torch.no_grad(), seen:
            out = net(example)
    finally:
        for hook in hooks:
            hook.remove()
    returned = {id(each) for each in _tensors(out)}
    shared = _shared_parameters(net)
    found = []
    for norm in norms:
        sources = seen.inputs.get(norm, [])
        conv = sources[0] if sources else None
        if conv is None or any(each is not conv for each in sources) or not _can_take(conv, shared):
            continue
        outputs = seen.outputs[conv]
        # One use of each: that by the norm.
        alone = all(seen.uses[id(each)] == 1 and id(each) not in returned for each in outputs)
        if alone and len(outputs) == len(sources):
            found.append((conv, norm))
    return found


def _has_statistics(norm: nn.Module) -> bool:
    return all(isinstance(getattr(norm, name), Tensor) for name in ("running_mean", "running_var"))


def _can_take(conv: nn.Module, shared: set[int]) -> bool:
    if any(id(parameter) in shared for parameter in conv.parameters(recurse=False)):
        return False
    return not isinstance(conv, TRANSPOSED) or bool(conv.groups == 1)


def _shared_parameters(net: nn.Module) -> set[int]:
    """Weights that more than one layer has."""
    counts = Counter(id(value) for module in net.modules() for value in module.parameters(recurse=False))
    return {key for key, count in counts.items() if count > 1}


class _Seen(TorchFunctionMode):
    """What convolutions gave, which norm got it, and how often anything made of tensors used it."""

    def __init__(self) -> None:
        super().__init__()
        # The outputs are kept, so that no later tensor has the identity of an earlier one.
        self.outputs: dict[nn.Module, list[Tensor]] = {}
        self.inputs: dict[nn.Module, list[nn.Module | None]] = {}
        self.uses: Counter[int] = Counter()
        self._source: dict[int, nn.Module] = {}

    def gave(self, conv: nn.Module, _: Any, output: Tensor) -> None:
        self.outputs.setdefault(conv, []).append(output)
        self._source[id(output)] = conv

    def gets(self, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.inputs.setdefault(norm, []).append(self._source.get(id(inputs[0])))

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not isinstance(result, FACTS):
            self.uses.update(key for each in _tensors((args, kwargs)) if (key := id(each)) in self._source)
        return result


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _tensors(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)
