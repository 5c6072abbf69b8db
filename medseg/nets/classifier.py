"""Which labels an image shows: a backbone, a score of each label at each place, and their pooled value.

B batch, L labels, I J K voxel axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medseg.nets.backbones import ResNet, build_backbone
from medseg.nets.blocks import conv

__all__ = ["Classifier"]

# Sharpness of the pooling: 0 would be the mean, infinity the maximum.
SHARPNESS = 1.0


class Classifier(nn.Module):
    """A multi-label classifier whose logits are pooled from a map of each label, its class activation map.

    The maps are pooled by log-mean-exp, which lies between mean and maximum: small findings count, and more than the
    most striking voxel of them learns.

    Args:
        dims: 2 or 3.
        in_channels: image channels.
        labels: how many.
        backbone: a key of `medseg.nets.BACKBONES`.
        width: multiplies the features.
        norm: as for the backbone.
        stage: which of the backbone's five maps is scored. A late one sees much of the image around each place, and may
            tell a label by what it does to its surroundings; an early one sees little, and tells where the label is.
        output_stride: of the last map: 8, 16 or 32.
        axis_strides: as for the backbone, for thick slices.

    Raises:
        ConfigError: for an unknown backbone, or options that do not fit together.

    Source:
        Zhou et al., Learning deep features for discriminative localization, CVPR 2016; pooling: Pinheiro and Collobert,
        From image-level to pixel-level labeling with convolutional networks, CVPR 2015, equation 1.

    Example:
        >>> net = Classifier(2, 1, 3, backbone="resnet18", width=0.125).eval()
        >>> net(torch.zeros(2, 1, 64, 64)).shape, net.maps(torch.zeros(2, 1, 64, 64)).shape
        (torch.Size([2, 3]), torch.Size([2, 3, 8, 8]))
        >>> Classifier(2, 1, 3, width=0.125, stage=1).maps(torch.zeros(2, 1, 64, 64)).shape
        torch.Size([2, 3, 32, 32])
    """

    def __init__(
        self,
        dims: int,
        in_channels: int,
        labels: int,
        *,
        backbone: str = "resnet18",
        width: float = 1.0,
        norm: str = "batch",
        stage: int = 5,
        output_stride: int = 8,
        axis_strides: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = build_backbone(
            backbone,
            dims=dims,
            in_channels=in_channels,
            width=width,
            norm=norm,
            output_stride=output_stride,
            axis_strides=axis_strides,
        )
        self.stage = stage
        self.head = conv(dims, self.backbone.out_channels[stage - 1], labels, 1)

    def features(self, x: Tensor) -> Tensor:
        """`(B, channels, I/stride, J/stride[, K/stride])`, the map of the backbone that is scored."""
        found = self.backbone.run(x, self.stage - 1) if isinstance(self.backbone, ResNet) else self.backbone(x)
        scored: Tensor = found[self.stage - 1]
        return scored

    def maps(self, x: Tensor) -> Tensor:
        """`(B, labels, I/stride, J/stride[, K/stride])` logits of each label at each place."""
        scores: Tensor = self.head(self.features(x))
        return scores

    def forward(self, x: Tensor) -> Tensor:
        """`(B, labels)` logits of an image `(B, in_channels, I, J[, K])`."""
        return pooled(self.maps(x))


def pooled(maps: Tensor) -> Tensor:
    """`(B, labels)` log-mean-exp over the places of `(B, labels, I, J[, K])`."""
    flat = maps.flatten(2).float() * SHARPNESS
    return (torch.logsumexp(flat, dim=2) - math.log(flat.shape[2])) / SHARPNESS
