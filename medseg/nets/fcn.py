"""FCN-32s, 16s, 8s on VGG-16, 2D and 3D (Long, Shelhamer, Darrell, CVPR 2015).

VGG-16's fully connected layers become a 7x7 and a 1x1 convolution, a 1x1 scores the classes at stride 32, transposed
convolutions that begin as linear interpolation bring the scores up, and scores of pool4 and pool3 are added on the way.
B batch, C classes, I J K voxel axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medseg.errors import ConfigError
from medseg.lookup import check_choice
from medseg.nets.backbones.vgg import VGG16
from medseg.nets.blocks import check_net, conv, initialize, scaled

__all__ = ["FCN", "fcn8s", "fcn16s", "fcn32s"]

MARGIN = 100  # the paper's padding of the first convolution


class FCN(nn.Module):
    """Fully convolutional VGG-16 with added score skips.

    At full width in 3D, fc6 alone has 719 million weights: give a `width`, e.g. 0.125.

    Args:
        finest: stride at which the last transposed convolution begins: 32, 16 (adds pool4) or 8 (adds pool4, pool3).
        dims: 2 or 3.
        in_channels: image channels.
        out_channels: logits per voxel.
        width: multiplies the features.
        norm: 'instance', 'batch', 'group', or 'none' as in the paper; fc6 and fc7 have none.
        axis_strides: stride of the coarsest map along each axis, for thick slices, e.g. (32, 32, 4).
        padding: 'same', or 'original': 100 voxels around the image, and crops by the paper's offsets.
        dropout: probability of dropping a feature of fc6 and fc7.
        checkpoint: while training, compute each stage twice instead of keeping its inner maps.

    Raises:
        ConfigError: for options that do not fit together.

    Example:
        >>> net = FCN(8, dims=2, in_channels=1, out_channels=2, width=0.125).eval()
        >>> net(torch.zeros(1, 1, 33, 70)).shape
        torch.Size([1, 2, 33, 70])
    """

    def __init__(
        self,
        finest: int,
        *,
        dims: int,
        in_channels: int,
        out_channels: int,
        width: float = 1.0,
        norm: str = "instance",
        axis_strides: Sequence[int] | None = None,
        padding: str = "same",
        dropout: float = 0.5,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        check_net("an FCN", dims, norm, width)
        check_choice("finest", finest, (8, 16, 32))
        check_choice("padding", padding, ("same", "original"))
        if padding == "original" and axis_strides is not None:
            raise ConfigError("padding: original has the paper's strides; leave axis_strides out, or use padding: same")
        self.finest, self.original = finest, padding == "original"
        self.backbone = VGG16(
            dims=dims,
            in_channels=in_channels,
            width=width,
            norm=norm,
            axis_strides=axis_strides,
            margin=MARGIN if self.original else 1,
            checkpoint=checkpoint,
        )
        features = scaled(4096, width)
        *_, n_pool3, n_pool4, n_pool5 = self.backbone.out_channels
        drop = nn.Dropout2d if dims == 2 else nn.Dropout3d
        self.fc6 = conv(dims, n_pool5, features, 7, padding=0 if self.original else 3)
        self.fc7 = conv(dims, features, features, 1)
        self.relu = nn.ReLU(inplace=True)
        self.drop6, self.drop7 = drop(dropout), drop(dropout)
        self.score_fr = conv(dims, features, out_channels, 1)
        # What lies between the stride of one score map and that of the next finer, one number per axis.
        stride3, stride4, stride5 = self.backbone.strides[2:]
        to_pool4 = tuple(a // b for a, b in zip(stride5, stride4, strict=True))
        to_pool3 = tuple(a // b for a, b in zip(stride4, stride3, strict=True))
        initialize(self, "relu")
        up = partial(_up, dims, out_channels, padded=not self.original)
        if finest == 32:
            self.upscore = up(stride5)
        else:
            self.score_pool4 = conv(dims, n_pool4, out_channels, 1)
            self.upscore2 = up(to_pool4)
        if finest == 16:
            self.upscore16 = up(stride4)
        if finest == 8:
            self.score_pool3 = conv(dims, n_pool3, out_channels, 1)
            self.upscore_pool4 = up(to_pool3)
            self.upscore8 = up(stride3)
        for name, value in self.named_parameters():
            if name.startswith("score_"):
                nn.init.zeros_(value)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of an image.

        Args:
            x: `(B, in_channels, I, J[, K])`.

        Returns:
            `(B, out_channels, I, J[, K])`.
        """
        size = x.shape[2:]
        *_, pool3, pool4, pool5 = self.backbone(x)  # (B, 256, I/8, ...), (B, 512, I/16, ...), (B, 512, I/32, ...)
        x = self.drop6(self.relu(self.fc6(pool5)))  # (B, 4096, I/32, ...)
        x = self.drop7(self.relu(self.fc7(x)))
        x = self.score_fr(x)  # (B, C, I/32, ...)
        if self.finest == 32:
            return self._cut(self.upscore(x), 19, size)  # (B, C, I, ...)
        x = self._add(self.upscore2(x), self.score_pool4(pool4), 5)  # (B, C, I/16, ...)
        if self.finest == 16:
            return self._cut(self.upscore16(x), 27, size)  # (B, C, I, ...)
        x = self._add(self.upscore_pool4(x), self.score_pool3(pool3), 9)  # (B, C, I/8, ...)
        return self._cut(self.upscore8(x), 31, size)  # (B, C, I, ...)

    def _add(self, coarse: Tensor, fine: Tensor, offset: int) -> Tensor:
        """The sum, at the smaller of the two maps' sizes: the padded one is cut."""
        if self.original:
            return coarse + self._cut(fine, offset, coarse.shape[2:])
        return self._cut(coarse, 0, fine.shape[2:]) + fine

    def _cut(self, x: Tensor, offset: int, size: Sequence[int]) -> Tensor:
        """`size` voxels of each axis from the paper's offset, or from the first where nothing was padded around."""
        # Padding by negative amounts: a graph with sizes left open keeps it, where slices bind the sizes.
        first = offset if self.original else 0
        amounts = [(-first, first + n - x.shape[axis]) for axis, n in enumerate(size, start=2)]
        return F.pad(x, [p for pair in reversed(amounts) for p in pair])


def _up(dims: int, channels: int, stride: Sequence[int], padded: bool) -> nn.Module:
    """Transposed convolution of kernel 2 x stride that begins as linear interpolation of each class by itself."""
    kernel = tuple(2 * s if s > 1 else 1 for s in stride)
    padding = tuple(s // 2 if padded else 0 for s in stride)  # with it, the output is stride times the input
    kind = nn.ConvTranspose2d if dims == 2 else nn.ConvTranspose3d
    up = kind(channels, channels, kernel, tuple(stride), padding, bias=False)  # type: ignore[arg-type]
    with torch.device("cpu"):  # on the meta device torch would import its compiler to count
        weights = torch.ones(())
        for k, s in zip(kernel, stride, strict=True):
            tent = 1 - (torch.arange(k) - (k - 1) / 2).abs() / s
            weights = weights[..., None] * tent
    with torch.no_grad():
        up.weight.zero_()
        for c in range(channels):
            up.weight[c, c] = weights
    return up


fcn32s = partial(FCN, 32)
fcn16s = partial(FCN, 16)
fcn8s = partial(FCN, 8)
