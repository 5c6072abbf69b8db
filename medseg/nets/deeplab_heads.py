"""Heads of DeepLab: atrous spatial pyramid pooling (ASPP) in the forms of v2 and of v3, 2D and 3D.

v2 (Chen et al., TPAMI 2018, section 3.2): class scores of four dilated 3x3 convolutions, summed. v3 (Chen et al., 2017,
section 3.3): a 1x1, three dilated 3x3 and the mean of the whole map, each with a norm, concatenated and projected.
B batch, C channels, I J K voxel axes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medseg.errors import ConfigError
from medseg.nets.blocks import conv, norm_layer

__all__ = ["ASPP", "ImagePooling", "ScoreASPP", "check_rates", "separable", "unit"]


def unit(
    dims: int, in_channels: int, out_channels: int, kernel: int, *, norm: str, dilation: int = 1, apart: bool = False
) -> nn.Sequential:
    """Convolution, norm, ReLU; with `apart` the convolution is separable."""
    bias = norm == "none"
    layer = (
        separable(dims, in_channels, out_channels, dilation=dilation, bias=bias)
        if apart
        else conv(dims, in_channels, out_channels, kernel, dilation=dilation, bias=bias)
    )
    return nn.Sequential(layer, norm_layer(norm, dims, out_channels), nn.ReLU(inplace=True))


def separable(dims: int, in_channels: int, out_channels: int, *, dilation: int = 1, bias: bool) -> nn.Sequential:
    """Depthwise 3x3 and 1x1, nothing in between."""
    depthwise = conv(dims, in_channels, in_channels, 3, dilation=dilation, groups=in_channels, bias=False)
    return nn.Sequential(depthwise, conv(dims, in_channels, out_channels, 1, bias=bias))


class ScoreASPP(nn.Module):
    """ASPP of v2: the sum of class scores from parallel dilated 3x3 convolutions, with biases and without norms.

    Args:
        dims: 2 or 3.
        in_channels: of the map.
        out_channels: logits per voxel.
        rates: dilation of each convolution.

    Example:
        >>> ScoreASPP(2, 8, 3, (6, 12))(torch.zeros(1, 8, 5, 5)).shape
        torch.Size([1, 3, 5, 5])
    """

    def __init__(self, dims: int, in_channels: int, out_channels: int, rates: Sequence[int]) -> None:
        super().__init__()
        for n, rate in enumerate(rates):
            branch = conv(dims, in_channels, out_channels, 3, dilation=rate)
            nn.init.normal_(branch.weight, std=0.01)  # type: ignore[arg-type]
            nn.init.zeros_(branch.bias)  # type: ignore[arg-type]
            self.add_module(f"c{n}", branch)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, in_channels, ...)` to `(B, out_channels, ...)` of the same size."""
        scores = torch.stack([branch(x) for branch in self.children()])  # (len(rates), B, out_channels, ...)
        return scores.sum(0)  # (B, out_channels, ...)


class ASPP(nn.Module):
    """ASPP of v3; names are torchvision's (`convs.0.0 ...`, `project.0`).

    Args:
        dims: 2 or 3.
        in_channels: of the map.
        out_channels: of each branch and of the output.
        rates: dilation of each 3x3.
        norm: 'instance', 'batch', 'group' or 'none'.
        dropout: probability of dropping an output feature.
        apart: separable 3x3 convolutions.

    Example:
        >>> ASPP(3, 8, 4, (1, 2), norm="instance")(torch.zeros(1, 8, 5, 6, 7)).shape
        torch.Size([1, 4, 5, 6, 7])
    """

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        rates: Sequence[int],
        *,
        norm: str,
        dropout: float = 0.5,
        apart: bool = False,
    ) -> None:
        super().__init__()
        branches: list[nn.Module] = [unit(dims, in_channels, out_channels, 1, norm=norm)]
        branches += [unit(dims, in_channels, out_channels, 3, norm=norm, dilation=r, apart=apart) for r in rates]
        branches.append(ImagePooling(dims, in_channels, out_channels, norm=norm))
        self.convs = nn.ModuleList(branches)
        self.project = unit(dims, len(branches) * out_channels, out_channels, 1, norm=norm)
        self.project.append(nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        """`(B, in_channels, ...)` to `(B, out_channels, ...)` of the same size."""
        branches = torch.cat([branch(x) for branch in self.convs], dim=1)  # (B, (len(rates) + 2) * out_channels, ...)
        out: Tensor = self.project(branches)  # (B, out_channels, ...)
        return out


class ImagePooling(nn.Sequential):
    """Mean over all voxels, 1x1, norm, ReLU, the same at every voxel.

    An instance norm of a single voxel is zero whatever the image, so with `norm='instance'` this branch has group norm.
    """

    def __init__(self, dims: int, in_channels: int, out_channels: int, *, norm: str) -> None:
        super().__init__(
            _Mean(),
            conv(dims, in_channels, out_channels, 1, bias=norm == "none"),
            norm_layer("group" if norm == "instance" else norm, dims, out_channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """`(B, in_channels, ...)` to `(B, out_channels, ...)` of the same size."""
        pooled: Tensor = super().forward(x)  # type: ignore[no-untyped-call]  # (B, C, 1, 1[, 1])
        return pooled.expand(-1, -1, *x.shape[2:])  # (B, C, ...), of the map's size


class _Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(tuple(range(2, x.dim())), keepdim=True)  # (B, C, 1, 1[, 1])


def check_rates(rates: Sequence[int] | None, default: Sequence[int]) -> tuple[int, ...]:
    """`rates`, or the default where None.

    Raises:
        ConfigError: for an empty list or rates below 1.
    """
    found = tuple(default if rates is None else rates)
    if not found or min(found) < 1:
        raise ConfigError(f"rates is {list(found)}; expected dilations of 1 or more, e.g. {list(default)}")
    return found
