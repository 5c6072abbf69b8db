"""LinkNet, 2D and 3D (Chaurasia, Culurciello, "LinkNet", arXiv 1707.03718, 2017; figures 1 to 3).

An encoder of ResNet-18's blocks, whose maps are added, not joined, to those of a decoder of bottlenecks. Stride 32 at
the lowest. The parameters have the names of the 3D networks in deepbet 1.0.2 (Fisch et al., "deepbet: Fast brain
extraction of T1-weighted MRI using Convolutional Neural Networks", 2024), so that those can be loaded; like them it
begins with a quarter of the paper's features.
B batch, C channels, I J K voxel axes.
"""

from __future__ import annotations

from torch import Tensor, nn

from medseg.nets.blocks import check_net, conv, first_voxels, initialize, max_pool, norm_layer, pad_to_multiple, scaled

__all__ = ["LinkNet"]

FEATURES = (16, 32, 64, 128)
LAST = 8
STRIDE = 32


class LinkNet(nn.Module):
    """Network of 2.2 million parameters in 3D.

    Args:
        dims: 2 or 3.
        in_channels: image channels.
        out_channels: logits per voxel.
        norm: 'instance', 'batch' (the paper), 'group' or 'none'.
        width: multiplies the features 16, 32, 64, 128.
        input_scale, input_shift: grey levels are multiplied by the one, then the other is added; for weights that were
            trained on such levels.

    Raises:
        ConfigError: for options out of range.

    Example:
        >>> LinkNet(2, 1, 2, width=0.25).eval()(torch.zeros(1, 1, 33, 40)).shape
        torch.Size([1, 2, 33, 40])
    """

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        *,
        norm: str = "instance",
        width: float = 1.0,
        input_scale: float = 1.0,
        input_shift: float = 0.0,
    ) -> None:
        super().__init__()
        check_net("LinkNet", dims, norm, width)
        self.levels = (input_scale, input_shift)
        first, second, third, fourth = (scaled(features, width) for features in FEATURES)
        last = scaled(LAST, width)
        plain = norm == "none"
        self.init = nn.Sequential(
            conv(dims, in_channels, first, 7, stride=2, bias=plain),
            norm_layer(norm, dims, first),
            nn.ReLU(inplace=True),
            max_pool(dims, 3, stride=2, padding=1),
        )
        self.down0 = _Down(dims, first, first, 1, norm)
        self.down1 = _Down(dims, first, second, 2, norm)
        self.down2 = _Down(dims, second, third, 2, norm)
        self.down3 = _Down(dims, third, fourth, 2, norm)
        self.up0 = _Up(dims, fourth, third, 2, norm)
        self.up1 = _Up(dims, third, second, 2, norm)
        self.up2 = _Up(dims, second, first, 2, norm)
        self.up3 = _Up(dims, first, first, 1, norm)
        self.tp_conv1 = nn.Sequential(
            _transposed(dims, first, last, 2, bias=True), norm_layer(norm, dims, last), nn.ReLU(inplace=True)
        )
        self.conv = nn.Sequential(conv(dims, last, last), norm_layer(norm, dims, last), nn.ReLU(inplace=True))
        up = nn.ConvTranspose2d if dims == 2 else nn.ConvTranspose3d
        self.tp_conv2 = up(last, out_channels, 2, stride=2)
        initialize(self, "relu")

    def forward(self, x: Tensor) -> Tensor:
        """Logits of an image.

        Args:
            x: `(B, in_channels, I, J[, K])`.

        Returns:
            `(B, out_channels, I, J[, K])`.
        """
        size = tuple(x.shape[2:])
        scale, shift = self.levels
        x = x if self.levels == (1.0, 0.0) else x * scale + shift
        x = pad_to_multiple(x, [STRIDE] * len(size))  # (B, in_channels, I, ...), sizes rounded up
        first = self.init(x)
        at4 = self.down0(first)
        at8 = self.down1(at4)
        at16 = self.down2(at8)
        x = self.up0(self.down3(at16)) + at16
        x = self.up1(x) + at8
        x = self.up2(x) + at4
        x = self.up3(x) + first
        return first_voxels(self.tp_conv2(self.conv(self.tp_conv1(x))), size)


class _Down(nn.Module):
    """Two residual blocks, the first of which may halve the size."""

    def __init__(self, dims: int, in_channels: int, out_channels: int, stride: int, norm: str) -> None:
        super().__init__()
        self.block1 = _Block(dims, in_channels, out_channels, stride, norm)
        self.block2 = _Block(dims, out_channels, out_channels, 1, norm)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block2(self.block1(x))
        return out


class _Block(nn.Module):
    def __init__(self, dims: int, in_channels: int, out_channels: int, stride: int, norm: str) -> None:
        super().__init__()
        plain = norm == "none"
        self.double_conv = nn.Sequential(
            conv(dims, in_channels, out_channels, stride=stride, bias=plain),
            norm_layer(norm, dims, out_channels),
            nn.ReLU(inplace=True),
            conv(dims, out_channels, out_channels, bias=plain),
            norm_layer(norm, dims, out_channels),
        )
        same = stride == 1 and in_channels == out_channels
        self.downsample = (
            nn.Identity()
            if same
            else nn.Sequential(
                conv(dims, in_channels, out_channels, 1, stride=stride, bias=plain),
                norm_layer(norm, dims, out_channels),
            )
        )
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.double_conv(x) + self.downsample(x))
        return out


class _Up(nn.Module):
    """A bottleneck of a quarter of the features, which may double the size."""

    def __init__(self, dims: int, in_channels: int, out_channels: int, stride: int, norm: str) -> None:
        super().__init__()
        inner, plain = max(1, in_channels // 4), norm == "none"
        self.conv1 = _unit(conv(dims, in_channels, inner, 1, bias=plain), norm, dims, inner)
        self.tp_conv = _unit(_transposed(dims, inner, inner, stride, bias=plain), norm, dims, inner)
        self.conv2 = _unit(conv(dims, inner, out_channels, 1, bias=plain), norm, dims, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv2(self.tp_conv(self.conv1(x)))
        return out


def _unit(layer: nn.Module, norm: str, dims: int, channels: int) -> nn.Sequential:
    return nn.Sequential(layer, norm_layer(norm, dims, channels), nn.ReLU(inplace=True))


def _transposed(dims: int, in_channels: int, out_channels: int, stride: int, *, bias: bool) -> nn.Module:
    kind = nn.ConvTranspose2d if dims == 2 else nn.ConvTranspose3d
    return kind(in_channels, out_channels, 3, stride=stride, padding=1, output_padding=stride - 1, bias=bias)
