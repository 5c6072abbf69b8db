"""BiSeNet v1, 2D and 3D (Yu, Wang, Peng, Gao, Yu, Sang, ECCV 2018).

A shallow path keeps detail at stride 8; a ResNet sees far, to stride 32; a fusion module joins both.
B batch, C channels, I J K voxel axes.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, cat, nn, sigmoid
from torch.nn import functional as F

from medseg.nets.backbones import build_backbone
from medseg.nets.backbones.strides import five_steps
from medseg.nets.blocks import check_net, conv, initialize, norm_layer, scaled, upsample

__all__ = ["BiSeNetV1"]


class BiSeNetV1(nn.Module):
    """Spatial path and context path, at stride 8.

    Args:
        dims: 2 or 3.
        in_channels: image channels.
        out_channels: logits per voxel.
        backbone: the context path, any backbone (the paper: resnet18).
        norm: 'instance', 'batch' (the paper), 'group' or 'none'.
        axis_strides: stride of the context path's coarsest map along each axis, for thick slices, e.g. (32, 32, 8).
        auxiliary: two auxiliary heads, on the context path at strides 8 and 16, for training only.
        checkpoint: while training, compute each block of the backbone twice instead of keeping its inner maps.
        width: multiplies the features.

    Raises:
        ConfigError: for options out of range.

    Example:
        >>> BiSeNetV1(2, 1, 2, width=0.125).eval()(torch.zeros(1, 1, 33, 40)).shape
        torch.Size([1, 2, 33, 40])
    """

    # Of the auxiliary logits, beside 1 for the main ones, as in the paper.
    auxiliary_weights = (1.0, 1.0)

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        *,
        backbone: str = "resnet18",
        norm: str = "instance",
        axis_strides: Sequence[int] | None = None,
        auxiliary: bool = True,
        checkpoint: bool = False,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        check_net("BiSeNet v1", dims, norm, width)
        steps = five_steps(dims, 32, axis_strides)
        self.backbone = build_backbone(
            backbone,
            dims=dims,
            in_channels=in_channels,
            width=width,
            norm=norm,
            axis_strides=axis_strides,
            checkpoint=checkpoint,
        )
        found: Sequence[int] = self.backbone.out_channels
        c64, c128, c256 = (scaled(c, width) for c in (64, 128, 256))

        def unit(n_in: int, n_out: int, kernel: int = 3, stride: int | Sequence[int] = 1) -> nn.Sequential:
            return nn.Sequential(
                conv(dims, n_in, n_out, kernel, stride=stride, bias=norm == "none"),
                norm_layer(norm, dims, n_out),
                nn.ReLU(inplace=True),
            )

        self.spatial = nn.Sequential(
            unit(in_channels, c64, 7, steps.strides[0]),
            unit(c64, c64, stride=steps.strides[1]),
            unit(c64, c64, stride=steps.strides[2]),
            unit(c64, c128, 1),
        )
        self.refine16 = _Gated(dims, unit(found[3], c128), c128, norm)
        self.refine32 = _Gated(dims, unit(found[4], c128), c128, norm)
        self.head16 = unit(c128, c128)
        self.head32 = unit(c128, c128)
        # One voxel a channel: see `pooled_norm`.
        self.average = nn.Sequential(
            conv(dims, found[4], c128, 1, bias=norm == "none"), pooled_norm(norm, dims, c128), nn.ReLU(inplace=True)
        )
        self.fusion = _Gated(dims, unit(2 * c128, c256, 1), c256, norm, added=True)
        self.head = nn.Sequential(unit(c256, c256), conv(dims, c256, out_channels, 1))
        self.auxiliary = nn.ModuleList(
            nn.Sequential(unit(c128, c64), conv(dims, c64, out_channels, 1)) for _ in range(2 if auxiliary else 0)
        )
        initialize(self, "relu")

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Logits of an image.

        Args:
            x: `(B, in_channels, I, J[, K])`.

        Returns:
            `(B, out_channels, I, J[, K])`. While training with auxiliary heads a tuple: these, then those of the
            context path at strides 8 and 16, at the image's size as in the paper.
        """
        size = x.shape[2:]
        *_, map8, map16, map32 = self.backbone(x)  # (B, C, I/8, ...), (B, C, I/16, ...), (B, C, I/32, ...), rounded up
        average = self.average(_mean(map32))  # (B, 128, 1, 1[, 1])
        context16 = F.interpolate(self.refine32(map32) + average, map16.shape[2:])  # (B, 128, I/16, ...)
        context16 = self.head32(context16)
        context8 = F.interpolate(self.refine16(map16) + context16, map8.shape[2:])  # (B, 128, I/8, ...)
        context8 = self.head16(context8)
        fused = self.fusion(cat([self.spatial(x), context8], dim=1))  # (B, 256, I/8, ...)
        main = upsample(self.head(fused), size)  # (B, out_channels, I, ...)
        if not (self.training and len(self.auxiliary)):
            return main
        maps = (context8, context16)
        return (main, *(upsample(head(m), size) for head, m in zip(self.auxiliary, maps, strict=True)))


class _Gated(nn.Module):
    """A convolution, then each channel times a number between 0 and 1 that depends on the means of all channels.

    Attention refinement, or with `added` feature fusion: x + x * gate.
    """

    def __init__(self, dims: int, unit: nn.Module, channels: int, norm: str, *, added: bool = False) -> None:
        super().__init__()
        self.unit = unit
        self.added = added
        self.gate = nn.Sequential(
            conv(dims, channels, channels, 1, bias=norm == "none"), pooled_norm(norm, dims, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.unit(x)  # (B, channels, ...)
        gated = x * sigmoid(self.gate(_mean(x)))  # the gate: (B, channels, 1, 1[, 1])
        return x + gated if self.added else gated


def pooled_norm(norm: str, dims: int, channels: int) -> nn.Module:
    """The norm of a map that was averaged to one voxel a channel.

    An instance norm of one voxel is its bias whatever the image: there a group norm stands in, over 8 channels a group.
    """
    return norm_layer("group" if norm == "instance" else norm, dims, channels)


def _mean(x: Tensor) -> Tensor:
    """`(B, C, 1, 1[, 1])`"""
    return x.mean(tuple(range(2, x.dim())), keepdim=True)
