"""FCN on a dilated backbone, 2D and 3D: the form that torchvision calls `fcn_resnet50`.

No skips and no transposed convolutions (those are `fcn8s` and its like): a backbone dilated to stride 8, one 3x3, a 1x1
per class and linear interpolation (Long et al., CVPR 2015; dilated as in Yu et al., CVPR 2017).
B batch, C channels, I J K voxel axes.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from medseg.nets.backbones import build_backbone
from medseg.nets.blocks import check_net, conv, initialize, norm_layer, upsample

__all__ = ["DilatedFCN", "FCNHead", "linear_output"]


class FCNHead(nn.Sequential):
    """3x3 to a quarter of the channels, norm, ReLU, dropout 0.1, 1x1: main head here, auxiliary head of DeepLab v3."""

    def __init__(self, dims: int, in_channels: int, out_channels: int, *, norm: str) -> None:
        inner = max(1, in_channels // 4)
        super().__init__(
            conv(dims, in_channels, inner, 3, bias=norm == "none"),
            norm_layer(norm, dims, inner),
            nn.ReLU(inplace=True),
            nn.Dropout(0.1),
            conv(dims, inner, out_channels, 1),
        )


class DilatedFCN(nn.Module):
    """Backbone at stride 8 and a small head.

    Args:
        dims: 2 or 3.
        in_channels: image channels.
        out_channels: logits per voxel.
        backbone: a key of `medseg.nets.BACKBONES`.
        width: multiplies the features.
        norm: 'instance', 'batch' (torchvision's weights), 'group' or 'none'.
        output_stride: of the backbone: 8, 16 or 32.
        axis_strides: stride of the coarsest map along each axis, for thick slices, e.g. (8, 8, 2).
        auxiliary: a second head on the map of layer3; in training its logits follow the main ones.
        checkpoint: while training, compute each block of the backbone twice instead of keeping its inner maps.

    Raises:
        ConfigError: for options that do not fit together.

    Example:
        >>> net = DilatedFCN(2, 1, 2, backbone="resnet18", width=0.125).eval()
        >>> net(torch.zeros(1, 1, 33, 70)).shape
        torch.Size([1, 2, 33, 70])
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
        auxiliary: bool = False,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        check_net("an FCN", dims, norm, width)
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
        channels = self.backbone.out_channels
        self.classifier = FCNHead(dims, channels[-1], out_channels, norm=norm)
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


def linear_output(head: nn.Sequential) -> None:
    """Initialise the last layer so that logits have the scale of the features before it."""
    nn.init.kaiming_normal_(head[-1].weight, nonlinearity="linear")  # type: ignore[arg-type]
