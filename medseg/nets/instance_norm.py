"""Instance normalisation that is fast and exact in the channels-last layout on the CPU.

On the CPU, convolutions are fastest on channels-last tensors. There, torch 2.13's own kernels are three times slower
backwards (group_norm), and sum all voxels of a channel one after another in float32, so that at 96^3 voxels the result
is off by 1e-3 (batch_norm, group_norm). `nn.InstanceNorm3d` gives wrong gradients when the incoming gradient is
channels-last and the input is not. Plain sums and products have none of these troubles.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["InstanceNorm"]

SLAB = 2**18  # numbers squared at a time: they stay in the cache, and no second tensor of full size is made


class InstanceNorm(nn.Module):
    """Each channel of each sample to mean 0 and variance 1, then a learned scale and shift.

    For 2D and 3D, any number of voxels, one included. Equal to `nn.InstanceNorm2d/3d(affine=True)`, with its names.

    Args:
        channels: channels of the input.
        eps: added to the variance.

    Example:
        >>> InstanceNorm(4)(torch.randn(2, 4, 8, 8, 8)).shape
        torch.Size([2, 4, 8, 8, 8])
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalised `(B, channels, ...)`, in the layout of the input."""
        if torch.compiler.is_exporting():
            # Its graph has the norm on the maps as they are; that of group_norm would reshape them before and after.
            return torch.instance_norm(x, self.weight, self.bias, None, None, True, 0.0, self.eps, False)
        by_hand = x.device.type == "cpu" and not x.is_contiguous() and (x.dtype == torch.float32 or _is_small(x))
        # Compiled graphs keep the one operator that they know.
        if not by_hand or torch.compiler.is_compiling():
            return torch.group_norm(x, x.shape[1], self.weight, self.bias, self.eps)
        if x.dtype != torch.float32:
            return self(x.float()).to(x.dtype)  # type: ignore[no-any-return]
        if not torch.is_grad_enabled():
            return _normalize(x, self.weight, self.bias, self.eps)[0]
        out: Tensor = _InstanceNorm.apply(x, self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call]
        return out

    def extra_repr(self) -> str:
        """What `print(net)` shows of it."""
        return f"{len(self.weight)}, eps={self.eps}"


def _is_small(x: Tensor) -> bool:
    """Half-precision maps where torch goes channel by channel through channels-last memory, 20 times as slow."""
    return x.dtype in (torch.bfloat16, torch.float16) and x[0, 0].numel() < 1024


def _normalize(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Output, and mean and 1 / standard deviation as `(B, C, 1, 1[, 1])`."""
    axes = tuple(range(2, x.dim()))
    count = x[0, 0].numel()
    mean = x.mean(axes, keepdim=True)
    y = x - mean
    rows = max(1, SLAB * y.shape[2] // y.numel())
    squares = torch.stack([part.square().sum(axes, keepdim=True) for part in torch.split(y, rows, dim=2)]).sum(0)
    rstd = (squares / count + eps).rsqrt()
    scale = _per_channel(weight, x) * rstd
    return torch.addcmul(_per_channel(bias, x), y, scale, out=y), mean, rstd


def _per_channel(values: Tensor, x: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (x.dim() - 2))


class _InstanceNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        y, mean, rstd = _normalize(x, weight, bias, eps)
        ctx.save_for_backward(x, weight, mean, rstd)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, rstd = ctx.saved_tensors
        axes = tuple(range(2, x.dim()))
        count = x[0, 0].numel()
        # With h = (x - mean) * rstd and s = weight * rstd:  dx = s * (grad - mean(grad) - h * mean(grad * h)).
        sums = grad.sum(axes, keepdim=True)
        rows = max(1, SLAB * x.shape[2] // x.numel())
        pieces = zip(torch.split(grad, rows, dim=2), torch.split(x, rows, dim=2), strict=True)
        products = torch.stack([((v - mean) * g).sum(axes, keepdim=True) for g, v in pieces]).sum(0) * rstd
        scale = _per_channel(weight, x) * rstd
        slope = -scale * rstd * products / count
        shift = -scale * sums / count - slope * mean
        grad_x = torch.addcmul(shift, x, slope).addcmul_(grad, scale)
        return grad_x, products.sum(0).flatten(), sums.sum(0).flatten(), None
