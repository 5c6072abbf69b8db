"""Aligned Xception-65, 2D and 3D (Chollet, CVPR 2017; modified: Chen et al., DeepLab v3+, ECCV 2018, section 3.2).

Separable convolutions throughout, also where the map is halved (no max-pool); a norm after each depthwise convolution.
Names are those of the widespread PyTorch form (`block1.rep.0.conv1 ...`), which has no activation after the depthwise.
B batch, C channels, I J K voxel axes.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from medseg.nets.backbones.strides import Backbone, five_steps
from medseg.nets.blocks import check_net, conv, initialize, norm_layer, run_block, scaled

__all__ = ["SeparableConv", "Xception"]

MIDDLE = 16  # blocks of the middle flow


class SeparableConv(nn.Module):
    """Depthwise 3x3 with a norm, then 1x1."""

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        *,
        norm: str,
        stride: int | Sequence[int] = 1,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        bias = norm == "none"
        self.conv1 = conv(
            dims, in_channels, in_channels, 3, stride=stride, dilation=dilation, groups=in_channels, bias=bias
        )
        self.bn = norm_layer(norm, dims, in_channels)
        self.pointwise = conv(dims, in_channels, out_channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, in_channels, ...)` to `(B, out_channels, ...)` at 1/stride."""
        x = self.bn(self.conv1(x))  # (B, in_channels, I/stride, ...)
        out: Tensor = self.pointwise(x)  # (B, out_channels, I/stride, ...)
        return out


class Xception(Backbone):
    """Five maps, fine to coarse, at strides 2, 4, 8, 16, 32; the second is DeepLab v3+'s low-level map.

    Args:
        dims: 2 or 3.
        in_channels: image channels.
        width: multiplies the features.
        norm: 'instance', 'batch', 'group' or 'none'.
        output_stride: 8, 16 or 32; blocks beyond it are dilated instead (16: exit flow 1, 2; 8: middle 2, exit 2, 4).
        axis_strides: stride of the coarsest map along each axis, for thick slices, e.g. (16, 16, 4).
        checkpoint: while training, compute each block twice instead of keeping its inner maps.

    Raises:
        ConfigError: for options out of range.

    Example:
        >>> Xception(dims=2, in_channels=1, width=0.125).out_channels
        (8, 16, 32, 91, 256)
    """

    def __init__(
        self,
        *,
        dims: int,
        in_channels: int,
        width: float = 1.0,
        norm: str = "instance",
        output_stride: int = 32,
        axis_strides: Sequence[int] | None = None,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        check_net("Xception", dims, norm, width)
        steps = five_steps(dims, output_stride, axis_strides)
        self.checkpoint = checkpoint
        self.strides = steps.total
        bias = norm == "none"
        names = (32, 64, 128, 256, 728, 1024, 1536, 2048)
        c32, c64, c128, c256, c728, c1024, c1536, c2048 = (scaled(c, width) for c in names)
        self.out_channels = (c64, c128, c256, c728, c2048)
        one = (1,) * dims

        def block(n_in: int, n_out: int, step: int, **options: bool) -> _Block:
            return _Block(
                dims, n_in, n_out, norm=norm, stride=steps.strides[step], dilation=steps.dilations[step - 1], **options
            )

        # Entry flow.
        self.conv1 = conv(dims, in_channels, c32, 3, stride=steps.strides[0], bias=bias)
        self.bn1 = norm_layer(norm, dims, c32)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = conv(dims, c32, c64, 3, bias=bias)
        self.bn2 = norm_layer(norm, dims, c64)
        self.block1 = block(c64, c128, 1, relu_first=False)
        self.block2 = block(c128, c256, 2, relu_first=False)
        self.block3 = block(c256, c728, 3)
        # Middle flow.
        for n in range(MIDDLE):
            middle = _Block(dims, c728, c728, norm=norm, stride=one, dilation=steps.dilations[3], middle=True)
            self.add_module(f"block{n + 4}", middle)
        # Exit flow.
        self.block20 = block(c728, c1024, 4, grow_last=True)
        last = steps.dilations[4]
        self.conv3 = SeparableConv(dims, c1024, c1536, norm=norm, dilation=last)
        self.bn3 = norm_layer(norm, dims, c1536)
        self.conv4 = SeparableConv(dims, c1536, c1536, norm=norm, dilation=last)
        self.bn4 = norm_layer(norm, dims, c1536)
        self.conv5 = SeparableConv(dims, c1536, c2048, norm=norm, dilation=last)
        self.bn5 = norm_layer(norm, dims, c2048)
        initialize(self, "relu")

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps of an image.

        Args:
            x: `(B, in_channels, I, J[, K])`.

        Returns:
            `(B, out_channels[n], I / strides[n][0], ...)` for each n, sizes rounded up.
        """
        x = self.relu(self.bn1(self.conv1(x)))  # (B, 32, I/2, ...), sizes rounded up
        x = self.relu(self.bn2(self.conv2(x)))  # (B, 64, I/2, ...)
        maps = [x]
        for n in range(1, MIDDLE + 5):
            x = run_block(self.get_submodule(f"block{n}"), x, save_memory=self.checkpoint)
            if n == 1:
                x = self.relu(x)
            if n in (1, 2, MIDDLE + 3):  # the last of them before the exit flow halves it
                maps.append(x)  # (B, 128, I/4, ...), (B, 256, I/8, ...), (B, 728, I/16, ...)
        x = self.relu(x)  # (B, 1024, I/32, ...)
        x = self.relu(self.bn3(self.conv3(x)))  # (B, 1536, I/32, ...)
        x = self.relu(self.bn4(self.conv4(x)))
        x = self.relu(self.bn5(self.conv5(x)))  # (B, 2048, I/32, ...)
        return [*maps, x]


class _Block(nn.Module):
    """Separable convolutions with a sum around them; all but the middle flow's end in one that takes the stride."""

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        *,
        norm: str,
        stride: Sequence[int],
        dilation: int,
        relu_first: bool = True,
        grow_last: bool = False,
        middle: bool = False,
    ) -> None:
        super().__init__()
        inner = in_channels if grow_last else out_channels
        plan = [(in_channels, inner, dilation), (inner, out_channels, dilation)]
        plan.append((out_channels, out_channels, dilation if middle else 1))
        self.rep = nn.Sequential()
        for n, (n_in, n_out, rate) in enumerate(plan):
            if n or relu_first:
                # Not in place: the sum around the block takes its input as it was.
                self.rep.append(nn.ReLU(inplace=n > 0))
            last = stride if n == 2 else 1
            self.rep.append(SeparableConv(dims, n_in, n_out, norm=norm, stride=last, dilation=rate))
            self.rep.append(norm_layer(norm, dims, n_out))
        self.skip: nn.Module | None = None
        if in_channels != out_channels or any(s != 1 for s in stride):
            self.skip = conv(dims, in_channels, out_channels, 1, stride=stride, bias=norm == "none")
            self.skipbn = norm_layer(norm, dims, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.rep(x)  # (B, out_channels, I/stride, ...)
        return out + (x if self.skip is None else self.skipbn(self.skip(x)))
