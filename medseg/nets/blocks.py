"""Parts that networks share, in 2D and 3D by one argument. B batch, C channels, I J K voxel axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from medseg.errors import ConfigError
from medseg.lookup import check_choice
from medseg.nets.convolution3d import OneDnnConv3d, WideConv3d
from medseg.nets.instance_norm import InstanceNorm

__all__ = [
    "ConvUnit",
    "Stage",
    "activation",
    "check_net",
    "conv",
    "crop_to",
    "first_voxels",
    "initialize",
    "max_pool",
    "norm_layer",
    "pad_to_multiple",
    "run_block",
    "scaled",
    "upsample",
]

NORMS = ("instance", "batch", "group", "none")
ACTIVATIONS = ("leaky_relu", "relu")
NEGATIVE_SLOPE = 0.01


def conv(
    dims: int,
    in_channels: int,
    out_channels: int,
    kernel: int | Sequence[int] = 3,
    *,
    stride: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    padding: int | None = None,
    bias: bool = True,
) -> nn.Module:
    """A 2D or 3D convolution; `padding` None keeps the size (odd kernels), or ceil(size / stride) with a stride."""
    kernels = _per_axis(kernel, dims)
    kind = nn.Conv2d if dims == 2 else OneDnnConv3d if max(kernels) <= 3 else WideConv3d
    rates = _per_axis(dilation, dims)
    pads = tuple(rate * (k // 2) if padding is None else padding for rate, k in zip(rates, kernels, strict=True))
    return kind(
        in_channels,
        out_channels,
        kernels,  # type: ignore[arg-type]
        stride=_per_axis(stride, dims),  # type: ignore[arg-type]
        padding=pads,  # type: ignore[arg-type]
        dilation=rates,  # type: ignore[arg-type]
        groups=groups,
        bias=bias,
    )


def max_pool(
    dims: int, kernel: int | Sequence[int], *, stride: int | Sequence[int], padding: int = 0, ceil_mode: bool = False
) -> nn.Module:
    """A 2D or 3D max-pool; along an axis that keeps its size while another is halved, the kernel is 1."""
    steps = _per_axis(stride, dims)
    wanted = zip(_per_axis(kernel, dims), steps, strict=True)
    kernels = tuple(k if step == max(steps) and (k % 2 or step > 1) else 1 for k, step in wanted)
    pads = tuple(padding if k > 1 else 0 for k in kernels)
    kind = nn.MaxPool2d if dims == 2 else nn.MaxPool3d
    return kind(kernels, steps, pads, ceil_mode=ceil_mode)


def norm_layer(kind: str, dims: int, channels: int, eps: float = 1e-5) -> nn.Module:
    """The normalisation named `kind`: instance, batch, group (at most 8 channels a group) or none.

    Raises:
        ConfigError: for another name.
    """
    check_choice("norm", kind, NORMS)
    if kind == "instance":
        return InstanceNorm(channels, eps)
    if kind == "batch":
        return nn.BatchNorm2d(channels, eps) if dims == 2 else nn.BatchNorm3d(channels, eps)
    if kind == "group":
        groups = max(1, channels // 8)
        return nn.GroupNorm(math.gcd(groups, channels), channels, eps)
    return nn.Identity()


def activation(kind: str) -> nn.Module:
    """`leaky_relu` (slope 0.01) or `relu`, in place.

    Raises:
        ConfigError: for another name.
    """
    check_choice("activation", kind, ACTIVATIONS)
    if kind == "leaky_relu":
        return nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True)
    return nn.ReLU(inplace=True)


class ConvUnit(nn.Module):
    """Convolution 3x3(x3), normalisation and, unless `act` is None, activation; a bias only without normalisation."""

    def __init__(
        self, dims: int, in_channels: int, out_channels: int, *, norm: str, act: str | None, valid: bool = False
    ) -> None:
        super().__init__()
        self.conv = conv(dims, in_channels, out_channels, padding=0 if valid else None, bias=norm == "none")
        self.norm = norm_layer(norm, dims, out_channels)
        self.act = nn.Identity() if act is None else activation(act)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.norm(self.conv(x)))  # (B, out_channels, ...); with `valid` 2 voxels less per axis
        return out


class Stage(nn.Module):
    """Two convolutions; with `residual`, the input is added before the last activation (1x1 where channels differ)."""

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        *,
        norm: str,
        act: str,
        residual: bool = False,
        valid: bool = False,
    ) -> None:
        super().__init__()
        self.first = ConvUnit(dims, in_channels, out_channels, norm=norm, act=act, valid=valid)
        last_act = None if residual else act
        self.second = ConvUnit(dims, out_channels, out_channels, norm=norm, act=last_act, valid=valid)
        self.shortcut: nn.Module | None = None
        self.act: nn.Module | None = None
        if residual:
            self.act = activation(act)
            self.shortcut = nn.Identity()
            if in_channels != out_channels:
                project = conv(dims, in_channels, out_channels, 1, bias=norm == "none")
                self.shortcut = nn.Sequential(project, norm_layer(norm, dims, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.first(x))  # (B, out_channels, ...); with `valid` 4 voxels less per axis
        if self.shortcut is None or self.act is None:
            return out
        added: Tensor = self.act(out + crop_to(self.shortcut(x), out.shape[2:]))
        return added


def crop_to(x: Tensor, size: Sequence[int]) -> Tensor:
    """The central `size` voxels of `(B, C, ...)`; the same tensor where it already has that size."""
    for axis, n in enumerate(size, start=2):
        if x.shape[axis] != n:
            x = x.narrow(axis, (x.shape[axis] - n) // 2, n)
    return x


def first_voxels(x: Tensor, size: Sequence[int]) -> Tensor:
    """The first `size` voxels of each axis of `(B, C, ...)`: what padding at the end has added goes."""
    for axis, n in enumerate(size, start=2):
        x = x.narrow(axis, 0, n)
    return x


def pad_to_multiple(x: Tensor, multiple: Sequence[int]) -> Tensor:
    """Repeat the last voxels of each axis until its size is a multiple; the same tensor where it already is."""
    missing = [-n % m for n, m in zip(x.shape[2:], multiple, strict=True)]
    # An export must not ask: it would take every image to be like its example.
    if not torch.compiler.is_exporting() and not any(missing):
        return x
    return F.pad(x, [p for n in reversed(missing) for p in (0, n)], mode="replicate")


def initialize(net: nn.Module, act: str) -> None:
    """He initialisation of every (transposed) convolution for the activation that follows; biases zero."""
    slope = NEGATIVE_SLOPE if act == "leaky_relu" else 0.0
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, a=slope, nonlinearity="leaky_relu")
        elif isinstance(module, nn.ConvTranspose2d | nn.ConvTranspose3d):
            # No activation follows, and stride == kernel: each output voxel sums over the input channels only.
            nn.init.normal_(module.weight, std=module.in_channels**-0.5)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def scaled(channels: int, width: float) -> int:
    """`channels` times `width`, at least 1."""
    return max(1, round(channels * width))


def upsample(x: Tensor, size: Sequence[int]) -> Tensor:
    """`(B, C, ...)` at another size, linear between voxel centres (outer edges stay in place)."""
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return F.interpolate(x, list(size), mode="bilinear" if x.dim() == 4 else "trilinear", align_corners=False)


def run_block(
    block: nn.Module, x: Tensor, *, save_memory: bool, part: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """`block(x)`, or a `part` of it; with `save_memory`, in training, activations are recomputed instead of kept."""
    call = block if part is None else part
    if not (save_memory and block.training and torch.is_grad_enabled()):
        out: Tensor = call(x)
        return out

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _statistics_kept(block)

    again: Tensor = checkpoint(call, x, use_reentrant=False, context_fn=contexts)
    return again


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """Batch norms take the batch's statistics without counting the batch into the running ones a second time."""
    norms = [m for m in block.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked = norm.num_batches_tracked.clone()
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked = count


def check_net(name: str, dims: int, norm: str, width: float = 1.0) -> None:
    """Options that every network shares.

    Raises:
        ConfigError: for `dims` other than 2 and 3, an unknown `norm`, or a `width` that is not positive.
    """
    if dims not in (2, 3):
        raise ConfigError(f"dims is {dims}; {name} has 2 or 3")
    check_choice("norm", norm, NORMS)
    if width <= 0:
        raise ConfigError(f"width is {width}; expected a positive number")


def _per_axis(value: int | Sequence[int], dims: int) -> tuple[int, ...]:
    return (value,) * dims if isinstance(value, int) else tuple(value)
