"""The reduced precision that a training step computes in."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medseg.preparation.plan import Plan

__all__ = ["precision_for"]

# A convolution with a kernel above 1, on a map shorter than this along all axes, stays in float32.
SMALLEST_MAP = 4


def precision_for(net: nn.Module, plan: Plan, device: torch.device) -> torch.dtype | None:
    """The reduced precision in which the device computes fast and correctly, None for float32.

    On a CPU a net stays in float32 where its maps shrink to a few voxels on the plan's patch: oneDNN leaves weight
    gradients of bfloat16 convolutions unwritten where an undilated kernel is longer than the map along the first axis,
    with 5 voxels and more also along the second (torch 2.13: 3x3x3 on 2x8x8, 5x1x1 on 4x8x8, 1x5x1 on 8x1x1).
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type != "cpu" or not torch.cpu._is_avx512_bf16_supported():
        return None
    return None if _has_tiny_maps(net, plan) else torch.bfloat16


def _has_tiny_maps(net: nn.Module, plan: Plan) -> bool:
    """Whether a convolution with a kernel above 1 gets a map on which its gradients are unreliable."""
    doubtful: list[bool] = []

    def note(module: nn.Conv2d | nn.Conv3d, inputs: tuple[Tensor, ...]) -> None:
        doubtful.append(_is_tiny(module, tuple(inputs[0].shape[2:])))

    hooks = [
        module.register_forward_pre_hook(note)
        for module in net.modules()
        if isinstance(module, nn.Conv2d | nn.Conv3d) and max(module.kernel_size) > 1
    ]
    was_training = net.training
    try:
        with torch.no_grad():
            net.eval()(torch.zeros(1, plan.in_channels, *plan.patch_size))
    finally:
        net.train(was_training)
        for hook in hooks:
            hook.remove()
    return any(doubtful)


def _is_tiny(module: nn.Conv2d | nn.Conv3d, size: tuple[int, ...]) -> bool:
    if max(size) < SMALLEST_MAP:
        return True
    axes = tuple(zip(size, module.kernel_size, module.dilation, strict=True))
    return len(size) == 3 and any(n < kernel and dilation == 1 for n, kernel, dilation in axes[:2])
