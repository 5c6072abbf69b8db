"""Parts that networks share, in 2D and 3D by one argument. B batch, C channels, I J K voxel axes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from medseg.errors import ConfigError
from medseg.nets.instance_norm import InstanceNorm

__all__ = ["ConvUnit", "Stage", "activation", "conv", "crop_to", "initialize", "norm_layer", "pad_to_multiple"]

NORMS = ("instance", "batch", "group", "none")
ACTIVATIONS = ("leaky_relu", "relu")
NEGATIVE_SLOPE = 0.01


def conv(
    dims: int,
    in_channels: int,
    out_channels: int,
    kernel: int = 3,
    *,
    padding: int | None = None,
    bias: bool = True,
) -> nn.Module:
    """A 2D or 3D convolution of stride 1; `padding` None keeps the size (odd kernels)."""
    kind = nn.Conv2d if dims == 2 else nn.Conv3d
    return kind(in_channels, out_channels, kernel, padding=kernel // 2 if padding is None else padding, bias=bias)


def norm_layer(kind: str, dims: int, channels: int) -> nn.Module:
    """The normalisation named `kind`: instance, batch, group (at most 8 channels a group) or none.

    Raises:
        ConfigError: for another name.
    """
    if kind == "instance":
        return InstanceNorm(channels)
    if kind == "batch":
        return nn.BatchNorm2d(channels) if dims == 2 else nn.BatchNorm3d(channels)
    if kind == "group":
        groups = max(1, channels // 8)
        return nn.GroupNorm(math.gcd(groups, channels), channels)
    if kind == "none":
        return nn.Identity()
    raise ConfigError(f"norm is {kind!r}; choose one of {', '.join(NORMS)}")


def activation(kind: str) -> nn.Module:
    """`leaky_relu` (slope 0.01) or `relu`, in place.

    Raises:
        ConfigError: for another name.
    """
    if kind == "leaky_relu":
        return nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True)
    if kind == "relu":
        return nn.ReLU(inplace=True)
    raise ConfigError(f"activation is {kind!r}; choose one of {', '.join(ACTIVATIONS)}")


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
        out: Tensor = self.act(self.norm(self.conv(x)))
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
        out: Tensor = self.second(self.first(x))
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


def pad_to_multiple(x: Tensor, multiple: Sequence[int]) -> Tensor:
    """Repeat the last voxels of each axis until its size is a multiple; the same tensor where it already is."""
    missing = [-n % m for n, m in zip(x.shape[2:], multiple, strict=True)]
    if not any(missing):
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
