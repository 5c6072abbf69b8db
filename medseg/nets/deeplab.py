"""DeepLab v3 and v3+, 2D and 3D.

v3 (Chen et al., 2017): dilated backbone, ASPP with image pooling, 3x3, 1x1. v3+ (Chen et al., ECCV 2018): the same
encoder at stride 16 and a decoder that joins the map at stride 4. B batch, C channels, I J K voxel axes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medseg.nets.backbones import build_backbone
from medseg.nets.blocks import check_net, conv, initialize, norm_layer, scaled, upsample
from medseg.nets.deeplab_heads import ASPP, check_rates, unit
from medseg.nets.fcn_resnet import FCNHead, linear_output

__all__ = ["DeepLabV3", "DeepLabV3Plus"]

FEATURES = 256
LOW_LEVEL = 1  # the map at stride 4


class DeepLabV3(nn.Module):
    """Dilated backbone, ASPP with image pooling, interpolation; keys are torchvision's.

    A rate larger than the coarsest map reduces its 3x3 to the centre tap: patches should be longer than `useful_size`
    along each axis, or `rates` smaller. With `norm='batch'` a training batch needs two images (the pooled map
    has one voxel).

    Args:
        dims: 2 or 3.
        in_channels: image channels.
        out_channels: logits per voxel.
        backbone: a key of `medseg.nets.BACKBONES`.
        width: multiplies the features.
        norm: 'instance', 'batch' (torchvision's weights), 'group' or 'none'.
        output_stride: of the backbone: 8, 16 or 32.
        axis_strides: stride of the coarsest map along each axis, for thick slices, e.g. (8, 8, 2).
        rates: of ASPP: by default 12, 24, 36 at stride 8, 6, 12, 18 at 16 and 3, 6, 9 at 32. (torchvision's MobileNet
            has 12, 24, 36 at stride 16.)
        multi_grid: factors on the dilations of a ResNet's layer4 (the paper: 1, 2, 4; torchvision has none).
        auxiliary: a second head on the map of layer3 (MobileNet: at stride 8); in training its logits follow the main
            ones.
        dropout: probability of dropping a feature of ASPP.
        checkpoint: while training, compute each block of the backbone twice instead of keeping its inner maps.

    Raises:
        ConfigError: for options that do not fit together.

    Example:
        >>> net = DeepLabV3(3, 1, 2, backbone="resnet18", width=0.125, axis_strides=(8, 8, 2)).eval()
        >>> net(torch.zeros(1, 1, 33, 30, 5)).shape
        torch.Size([1, 2, 33, 30, 5])
    """

    # Of the auxiliary logits, beside 1 for the main ones, as in torchvision's training.
    auxiliary_weights = (0.5,)

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        *,
        backbone: str = "resnet50",
        width: float = 1.0,
        norm: str = "instance",
        output_stride: int = 8,
        axis_strides: Sequence[int] | None = None,
        rates: Sequence[int] | None = None,
        multi_grid: Sequence[int] | None = None,
        auxiliary: bool = False,
        dropout: float = 0.5,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        check_net("DeepLab v3", dims, norm, width)
        self.backbone = build_backbone(
            backbone,
            dims=dims,
            in_channels=in_channels,
            width=width,
            norm=norm,
            output_stride=output_stride,
            axis_strides=axis_strides,
            checkpoint=checkpoint,
            **({} if multi_grid is None else {"multi_grid": multi_grid}),
        )
        self.rates = _rates(rates, output_stride)
        self.useful_size = _useful_size(self.rates, self.backbone.strides[-1])
        channels, features = self.backbone.out_channels, scaled(FEATURES, width)
        self.classifier = nn.Sequential(
            ASPP(dims, channels[-1], features, self.rates, norm=norm, dropout=dropout),
            conv(dims, features, features, 3, bias=norm == "none"),
            norm_layer(norm, dims, features),
            nn.ReLU(inplace=True),
            conv(dims, features, out_channels, 1),
        )
        self.aux_classifier = (
            FCNHead(dims, channels[self.backbone.auxiliary_map], out_channels, norm=norm) if auxiliary else None
        )
        for head in (self.classifier, self.aux_classifier):
            if head is not None:
                initialize(head, "relu")
                linear_output(head)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Logits of an image.

        Args:
            x: `(B, in_channels, I, J[, K])`.

        Returns:
            `(B, out_channels, I, J[, K])`; while training with `auxiliary` a pair, main and auxiliary logits, both of
            that size.
        """
        maps = self.backbone(x)  # the last: (B, 2048, I/8, ...)
        main = upsample(self.classifier(maps[-1]), x.shape[2:])  # (B, out_channels, I, ...)
        if self.aux_classifier is None or not self.training:
            return main
        return main, upsample(self.aux_classifier(maps[self.backbone.auxiliary_map]), x.shape[2:])


class DeepLabV3Plus(nn.Module):
    """DeepLab v3's encoder and a decoder that joins the backbone's map at stride 4.

    The notes on rates and batch norm of `DeepLabV3` apply here as well.

    Args:
        dims: 2 or 3.
        in_channels: image channels.
        out_channels: logits per voxel.
        backbone: a key of `medseg.nets.BACKBONES`.
        width: multiplies the features.
        norm: 'instance', 'batch', 'group' or 'none'.
        output_stride: of the backbone: 8, 16 (the paper) or 32.
        axis_strides: stride of the coarsest map along each axis, for thick slices, e.g. (16, 16, 4).
        rates: of ASPP: by default 12, 24, 36 at stride 8, 6, 12, 18 at 16 and 3, 6, 9 at 32.
        separable: separable 3x3 convolutions in ASPP, and one before and one after the concatenation, as
            segmentation_models_pytorch has it; else two plain ones after it.
        dropout: probability of dropping a feature of ASPP and of the decoder's first convolution.
        checkpoint: while training, compute each block of the backbone twice instead of keeping its inner maps.

    Raises:
        ConfigError: for options that do not fit together.

    Example:
        >>> net = DeepLabV3Plus(2, 1, 2, backbone="mobilenet_v3_small", width=0.5).eval()
        >>> net(torch.zeros(1, 1, 33, 70)).shape
        torch.Size([1, 2, 33, 70])
    """

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        *,
        backbone: str = "resnet50",
        width: float = 1.0,
        norm: str = "instance",
        output_stride: int = 16,
        axis_strides: Sequence[int] | None = None,
        rates: Sequence[int] | None = None,
        separable: bool = False,
        dropout: float = 0.5,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        check_net("DeepLab v3+", dims, norm, width)
        self.backbone = build_backbone(
            backbone,
            dims=dims,
            in_channels=in_channels,
            width=width,
            norm=norm,
            output_stride=output_stride,
            axis_strides=axis_strides,
            checkpoint=checkpoint,
        )
        self.rates = _rates(rates, output_stride)
        self.useful_size = _useful_size(self.rates, self.backbone.strides[-1])
        channels, features = self.backbone.out_channels, scaled(FEATURES, width)
        self.aspp = ASPP(dims, channels[-1], features, self.rates, norm=norm, dropout=dropout, apart=separable)
        self.after_aspp = unit(dims, features, features, 3, norm=norm, apart=True) if separable else nn.Identity()
        low_level = (channels[LOW_LEVEL], scaled(48, width))
        self.decoder = _Decoder(
            dims, low_level, features, out_channels, norm=norm, separable=separable, dropout=dropout
        )
        for part in (self.aspp, self.after_aspp, self.decoder):
            initialize(part, "relu")
        linear_output(self.decoder.last_conv)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(B, out_channels, I, J[, K])` of an image `(B, in_channels, I, J[, K])`."""
        maps = self.backbone(x)  # the second: (B, 256, I/4, ...), the last: (B, 2048, I/16, ...)
        high = self.after_aspp(self.aspp(maps[-1]))  # (B, 256, I/16, ...)
        logits = self.decoder(high, maps[LOW_LEVEL])  # (B, out_channels, I/4, ...)
        return upsample(logits, x.shape[2:])  # (B, out_channels, I, ...)


class _Decoder(nn.Module):
    """Low-level map to 48 channels, concatenated with ASPP's at stride 4, convolutions, classes."""

    def __init__(
        self,
        dims: int,
        low_level: tuple[int, int],
        features: int,
        out_channels: int,
        *,
        norm: str,
        separable: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        given, kept = low_level
        self.conv1 = conv(dims, given, kept, 1, bias=norm == "none")
        self.bn1 = norm_layer(norm, dims, kept)
        self.relu = nn.ReLU(inplace=True)
        self.last_conv = unit(dims, kept + features, features, 3, norm=norm, apart=separable)
        if not separable:
            self.last_conv.append(nn.Dropout(dropout))
            self.last_conv.extend(unit(dims, features, features, 3, norm=norm))
            self.last_conv.append(nn.Dropout(0.1))
        self.last_conv.append(conv(dims, features, out_channels, 1))

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        low = self.relu(self.bn1(self.conv1(low)))  # (B, 48, I/4, ...)
        both = torch.cat([upsample(high, low.shape[2:]), low], dim=1)  # (B, 304, I/4, ...)
        out: Tensor = self.last_conv(both)  # (B, out_channels, I/4, ...)
        return out


def _rates(rates: Sequence[int] | None, output_stride: int) -> tuple[int, ...]:
    return check_rates(rates, [n * 96 // output_stride for n in (1, 2, 3)])


def _useful_size(rates: Sequence[int], strides: Sequence[int]) -> tuple[int, ...]:
    """Voxels along each axis up to which the largest rate reaches only padding, besides its centre tap."""
    return tuple(max(rates) * stride for stride in strides)
