"""The reduced precision that a training step computes in."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medseg.preparation.plan import Plan

__all__ = ["precision_for"]

# oneDNN leaves some weight gradients of bfloat16 convolutions unwritten where the map has 1 or 2 voxels along all axes
# (torch 2.13: maps of 2x2x2, 2x2x1 and 1x1; right from 3x3x3 and 4x4x1 on).
SMALLEST_MAP = 4


def precision_for(net: nn.Module, plan: Plan, device: torch.device) -> torch.dtype | None:
    """The reduced precision the device computes fast and rightly in, None for float32.

    On a CPU a net whose maps shrink to a few voxels on the plan's patch stays in float32.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type != "cpu" or not torch.cpu._is_avx512_bf16_supported():
        return None
    return None if _has_tiny_maps(net, plan) else torch.bfloat16


def _has_tiny_maps(net: nn.Module, plan: Plan) -> bool:
    """Whether a convolution that looks around sees a map shorter than `SMALLEST_MAP` along all axes."""
    longest: list[int] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        longest.append(max(inputs[0].shape[2:]))

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
    return min(longest, default=SMALLEST_MAP) < SMALLEST_MAP
