"""ICNet, 2D and 3D (Zhao, Qi, Shen, Shi, Jia, ECCV 2018).

The image at three sizes: the small one through all of a dilated ResNet and a pyramid of means, the middle one through
its first half only (the same weights), the full one through three convolutions; two fusions join them.
B batch, C channels, I J K voxel axes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medseg import net_catalogue
from medseg.errors import ConfigError
from medseg.nets.backbones import ResNet, build_backbone
from medseg.nets.blocks import check_net, conv, initialize, norm_layer, scaled, upsample

__all__ = ["ICNet", "pyramid_of_means"]

BINS = (1, 2, 3, 6)


class ICNet(nn.Module):
    """Image cascade network; logits at stride 4, brought to the image's size.

    Args:
        dims: 2 or 3.
        in_channels: image channels.
        out_channels: logits per voxel.
        backbone: a ResNet (the paper: resnet50).
        norm: 'instance', 'batch' (the paper), 'group' or 'none'.
        checkpoint: while training, compute each block of the backbone twice instead of keeping its inner maps.
        width: multiplies the features (the authors halve them by pruning: 0.5).

    Raises:
        ConfigError: for options out of range, or a backbone that is not a ResNet.

    Example:
        >>> ICNet(2, 1, 2, width=0.125).eval()(torch.zeros(1, 1, 33, 40)).shape
        torch.Size([1, 2, 33, 40])
    """

    # Of the auxiliary logits, beside 1 for the main ones, as in the paper.
    auxiliary_weights = (0.4, 0.16)

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        *,
        backbone: str = "resnet50",
        norm: str = "instance",
        checkpoint: bool = False,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        check_net("ICNet", dims, norm, width)
        resnet = build_backbone(
            backbone,
            dims=dims,
            in_channels=in_channels,
            width=width,
            norm=norm,
            output_stride=8,
            checkpoint=checkpoint,
        )
        if not isinstance(resnet, ResNet):
            choices = ", ".join(net_catalogue.NETS["icnet"].backbones)
            raise ConfigError(f"net.backbone is {backbone!r}; icnet has one of {choices}")
        self.backbone = resnet
        c32, c64, c128 = (scaled(c, width) for c in (32, 64, 128))

        def unit(n_in: int, n_out: int) -> nn.Sequential:
            kernels = conv(dims, n_in, n_out, stride=2, bias=norm == "none")
            return nn.Sequential(kernels, norm_layer(norm, dims, n_out), nn.ReLU(inplace=True))

        self.full = nn.Sequential(unit(in_channels, c32), unit(c32, c32), unit(c32, c64))
        self.fuse_low = _Fusion(dims, resnet.out_channels[4], resnet.out_channels[2], c128, out_channels, norm)
        self.fuse_high = _Fusion(dims, c128, c64, c128, out_channels, norm)
        self.head = conv(dims, c128, out_channels, 1, bias=False)
        initialize(self, "relu")

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Logits of an image.

        Args:
            x: `(B, in_channels, I, J[, K])`.

        Returns:
            `(B, out_channels, I, J[, K])`. While training a tuple: these, then the logits of the two fusions at
            strides 8 and 16, for label guidance (the paper weighs 1, 0.4, 0.16).
        """
        size = x.shape[2:]
        half = upsample(x, [(n + 1) // 2 for n in size])  # (B, in_channels, I/2, ...), sizes rounded up
        quarter = upsample(x, [(n + 3) // 4 for n in size])  # (B, in_channels, I/4, ...)
        low = pyramid_of_means(self.backbone(quarter)[4])  # (B, 2048, I/32, ...)
        middle = self.backbone.run(half, 2)[2]  # (B, 512, I/16, ...)
        high = self.full(x)  # (B, 64, I/8, ...)
        fused, logits16 = self.fuse_low(low, middle)  # (B, 128, I/16, ...), (B, out_channels, I/16, ...)
        fused, logits8 = self.fuse_high(fused, high)  # (B, 128, I/8, ...), (B, out_channels, I/8, ...)
        fused = upsample(fused, [(n + 3) // 4 for n in size])  # (B, 128, I/4, ...)
        main = upsample(self.head(fused), size)  # (B, out_channels, I, ...)
        return (main, logits8, logits16) if self.training else main


class _Fusion(nn.Module):
    """Cascade feature fusion: the coarse map brought to the fine one's size, and auxiliary logits of the coarse one."""

    def __init__(self, dims: int, low: int, high: int, channels: int, out_channels: int, norm: str) -> None:
        super().__init__()
        bias = norm == "none"
        self.low = nn.Sequential(conv(dims, low, channels, dilation=2, bias=bias), norm_layer(norm, dims, channels))
        self.high = nn.Sequential(conv(dims, high, channels, 1, bias=bias), norm_layer(norm, dims, channels))
        self.guide = conv(dims, channels, out_channels, 1, bias=False)

    def forward(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        low = self.low(upsample(low, high.shape[2:]))  # (B, channels, ...), of the fine map's size
        return F.relu(low + self.high(high)), self.guide(low)


def pyramid_of_means(x: Tensor) -> Tensor:
    """Pyramid pooling: the map plus its means over 1, 2, 3 and 6 parts of each axis, interpolated to its size.

    The parts are those of `F.adaptive_avg_pool2d/3d`; as products of matrices they can be exported at any size.

    Args:
        x: `(B, C, I, J[, K])`.

    Example:
        >>> pyramid_of_means(torch.ones(1, 8, 5, 6)).shape
        torch.Size([1, 8, 5, 6])
    """
    total = x
    for bins in BINS:
        means = x
        for axis in range(2, x.dim()):
            means = torch.movedim(torch.movedim(means, axis, -1) @ _parts(x, axis, bins), -1, axis)
        # means: (B, C, bins, bins[, bins])
        total = total + upsample(means, x.shape[2:])
    return total


def _parts(x: Tensor, axis: int, bins: int) -> Tensor:
    """`(n, bins)`: the weight of each voxel along the axis in the mean of each part."""
    n = x.shape[axis]
    part = torch.arange(bins, device=x.device)
    begin, end = part * n // bins, ((part + 1) * n + bins - 1) // bins
    voxel = torch.arange(n, device=x.device)[:, None]
    return ((voxel >= begin) & (voxel < end)).to(x.dtype) / (end - begin).to(x.dtype)
