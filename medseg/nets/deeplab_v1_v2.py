"""DeepLab v1 and v2, 2D and 3D.

v1 (Chen et al., ICLR 2015): VGG-16 whose last two pools keep the size, and a 3x3 of dilation 12 that sees as far as a
7x7 at stride 32 ("LargeFOV"). v2 (Chen et al., TPAMI 2018): ResNet and ASPP at stride 8. Both papers sharpen the result
with a dense CRF (`medseg.nets.crf`). B batch, C channels, I J K voxel axes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medseg.errors import ConfigError
from medseg.nets.backbones import build_backbone
from medseg.nets.backbones.vgg import VGG16
from medseg.nets.blocks import check_net, conv, initialize, scaled, upsample
from medseg.nets.deeplab_heads import ScoreASPP, check_rates

__all__ = ["DeepLabV1", "DeepLabV2"]


class DeepLabV1(nn.Module):
    """VGG-16 LargeFOV at stride 8, interpolated to the image.

    Args:
        dims: 2 or 3.
        in_channels: image channels.
        out_channels: logits per voxel.
        width: multiplies the features.
        norm: 'instance', 'batch', 'group', or 'none' as in the paper; fc6 and fc7 have none.
        output_stride: 8 (the paper), 16 or 32; fc6's dilation follows it: 12, 6, 3.
        axis_strides: stride of the coarsest map along each axis, for thick slices, e.g. (8, 8, 2).
        dropout: probability of dropping a feature of fc6 and fc7.
        checkpoint: while training, compute each stage twice instead of keeping its inner maps.

    Raises:
        ConfigError: for options that do not fit together.

    Example:
        >>> DeepLabV1(2, 1, 2, width=0.125).eval()(torch.zeros(1, 1, 33, 70)).shape
        torch.Size([1, 2, 33, 70])
    """

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        *,
        width: float = 1.0,
        norm: str = "instance",
        output_stride: int = 8,
        axis_strides: Sequence[int] | None = None,
        dropout: float = 0.5,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        check_net("DeepLab v1", dims, norm, width)
        self.backbone = VGG16(
            dims=dims,
            in_channels=in_channels,
            width=width,
            norm=norm,
            output_stride=output_stride,
            axis_strides=axis_strides,
            pool=3,
            checkpoint=checkpoint,
        )
        features = scaled(1024, width)
        drop = nn.Dropout2d if dims == 2 else nn.Dropout3d
        self.fc6 = conv(dims, self.backbone.out_channels[-1], features, 3, dilation=3 * self.backbone.dilation)
        self.fc7 = conv(dims, features, features, 1)
        self.relu = nn.ReLU(inplace=True)
        self.drop6, self.drop7 = drop(dropout), drop(dropout)
        self.score = conv(dims, features, out_channels, 1)
        initialize(self, "relu")
        nn.init.kaiming_normal_(self.score.weight, nonlinearity="linear")  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(B, out_channels, I, J[, K])` of an image `(B, in_channels, I, J[, K])`."""
        y = self.backbone(x)[-1]  # (B, 512, I/8, ...)
        y = self.drop6(self.relu(self.fc6(y)))  # (B, 1024, I/8, ...)
        y = self.drop7(self.relu(self.fc7(y)))
        return upsample(self.score(y), x.shape[2:])  # (B, out_channels, I, ...)


class DeepLabV2(nn.Module):
    """Dilated backbone at stride 8 and the sum of four dilated score layers.

    Args:
        dims: 2 or 3.
        in_channels: image channels.
        out_channels: logits per voxel.
        backbone: a key of `medseg.nets.BACKBONES`; ResNets take the paper's form (stride on the first 1x1).
        width: multiplies the features.
        norm: 'instance', 'batch' (the paper, frozen), 'group' or 'none'.
        output_stride: 8 (the paper), 16 or 32.
        axis_strides: stride of the coarsest map along each axis, for thick slices, e.g. (8, 8, 2).
        rates: of ASPP (6, 12, 18, 24 at stride 8, and proportionally less above it).
        scales: relative sizes at which the image is evaluated; the largest logit is taken (the paper: 0.5, 0.75, 1).
        checkpoint: while training, compute each block of the backbone twice instead of keeping its inner maps.

    Raises:
        ConfigError: for options that do not fit together.

    Example:
        >>> DeepLabV2(2, 1, 2, backbone="resnet18", width=0.125).eval()(torch.zeros(1, 1, 33, 70)).shape
        torch.Size([1, 2, 33, 70])
    """

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        *,
        backbone: str = "resnet101",
        width: float = 1.0,
        norm: str = "instance",
        output_stride: int = 8,
        axis_strides: Sequence[int] | None = None,
        rates: Sequence[int] | None = None,
        scales: Sequence[float] = (1.0,),
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        check_net("DeepLab v2", dims, norm, width)
        if not scales or min(scales) <= 0:
            raise ConfigError(f"scales is {list(scales)}; expected positive numbers, e.g. [0.5, 0.75, 1]")
        self.scales = tuple(scales)
        self.rates = check_rates(rates, [max(1, r * 8 // output_stride) for r in (6, 12, 18, 24)])
        caffe = {"caffe": True} if backbone.startswith("resnet") else {}
        self.backbone = build_backbone(
            backbone,
            dims=dims,
            in_channels=in_channels,
            width=width,
            norm=norm,
            output_stride=output_stride,
            axis_strides=axis_strides,
            checkpoint=checkpoint,
            **caffe,
        )
        self.aspp = ScoreASPP(dims, self.backbone.out_channels[-1], out_channels, self.rates)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(B, out_channels, I, J[, K])` of an image `(B, in_channels, I, J[, K])`."""
        size = x.shape[2:]
        found: Tensor | None = None
        for scale in self.scales:
            seen = x if scale == 1 else upsample(x, [max(1, round(n * scale)) for n in size])
            logits = self.aspp(self.backbone(seen)[-1])  # (B, out_channels, scale * I/8, ...)
            if found is not None:
                small, large = sorted((found, logits), key=lambda t: t.shape[2])
                found = torch.maximum(upsample(small, large.shape[2:]), large)
            else:
                found = logits
        assert found is not None
        return upsample(found, size)  # (B, out_channels, I, ...)
