"""MobileNet v3, small and large, 2D and 3D (Howard et al., ICCV 2019), dilated by option.

Names and computation are torchvision's (`features.N`). A block: 1x1 to more channels, depthwise 3x3 or 5x5,
squeeze-and-excitation in some, 1x1 to fewer, and the input added where size and channels agree.
B batch, C channels, I J K voxel axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from medseg.lookup import check_choice
from medseg.nets.backbones.strides import Backbone, five_steps
from medseg.nets.blocks import check_net, conv, initialize, norm_layer, run_block

__all__ = ["MobileNetV3"]

EPS = 1e-3  # of the norms, as the published weights were trained

# Table 1 and 2 of the paper: kernel, expanded, out, squeeze-and-excitation, h-swish, whether the map is halved here.
LARGE = (
    (3, 16, 16, False, False, False),
    (3, 64, 24, False, False, True),
    (3, 72, 24, False, False, False),
    (5, 72, 40, True, False, True),
    (5, 120, 40, True, False, False),
    (5, 120, 40, True, False, False),
    (3, 240, 80, False, True, True),
    (3, 200, 80, False, True, False),
    (3, 184, 80, False, True, False),
    (3, 184, 80, False, True, False),
    (3, 480, 112, True, True, False),
    (3, 672, 112, True, True, False),
    (5, 672, 160, True, True, True),
    (5, 960, 160, True, True, False),
    (5, 960, 160, True, True, False),
)
SMALL = (
    (3, 16, 16, True, False, True),
    (3, 72, 24, False, False, True),
    (3, 88, 24, False, False, False),
    (5, 96, 40, True, True, True),
    (5, 240, 40, True, True, False),
    (5, 240, 40, True, True, False),
    (5, 120, 48, True, True, False),
    (5, 144, 48, True, True, False),
    (5, 288, 96, True, True, True),
    (5, 576, 96, True, True, False),
    (5, 576, 96, True, True, False),
)
TABLES = {"large": LARGE, "small": SMALL}


@dataclass(frozen=True, slots=True)
class _Row:
    kernel: int
    expanded: int
    out_channels: int
    squeeze: bool
    h_swish: bool


class MobileNetV3(Backbone):
    """Five maps, fine to coarse, at strides 2, 4, 8, 16, 32: the last before each halving, and the last of all.

    Args:
        size: 'small' or 'large'.
        dims: 2 or 3.
        in_channels: image channels.
        width: multiplies the features, which stay multiples of 8.
        norm: 'instance', 'batch' (torchvision's weights), 'group' or 'none'.
        output_stride: 8, 16 or 32; depthwise convolutions beyond it are dilated instead.
        axis_strides: stride of the coarsest map along each axis, for thick slices, e.g. (16, 16, 4).
        checkpoint: while training, compute each block twice instead of keeping its inner maps.

    Raises:
        ConfigError: for options out of range.

    Example:
        >>> MobileNetV3("large", dims=3, in_channels=1, output_stride=16).out_channels
        (16, 24, 40, 112, 960)
    """

    auxiliary_map = 2  # torchvision's DeepLab v3 takes 40 channels at stride 8

    def __init__(
        self,
        size: str,
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
        check_net("a MobileNet v3", dims, norm, width)
        check_choice("size", size, TABLES)
        steps = five_steps(dims, output_stride, axis_strides)
        self.checkpoint = checkpoint
        self.strides = steps.total
        channels = _multiple_of_8(16 * width)
        self.features = nn.Sequential(
            _unit(dims, in_channels, channels, 3, norm, nn.Hardswish(inplace=True), stride=steps.strides[0])
        )
        step, ends, found = 0, [], []
        for kernel, expanded, out, squeeze, h_swish, halved in TABLES[size]:
            if halved:
                ends.append(len(self.features) - 1)
                found.append(channels)
                step += 1
            row = _Row(kernel, _multiple_of_8(expanded * width), _multiple_of_8(out * width), squeeze, h_swish)
            stride = steps.strides[step] if halved else (1,) * dims
            self.features.append(_Block(dims, channels, row, norm, stride=stride, dilation=steps.dilations[step]))
            channels = row.out_channels
        self.features.append(_unit(dims, channels, 6 * channels, 1, norm, nn.Hardswish(inplace=True)))
        self.ends = (*ends, len(self.features) - 1)  # the features whose maps are given
        self.out_channels = (*found, 6 * channels)
        initialize(self, "relu")

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps of an image.

        Args:
            x: `(B, in_channels, I, J[, K])`.

        Returns:
            `(B, out_channels[n], I / strides[n][0], ...)` for each n, sizes rounded up.
        """
        maps: list[Tensor] = []
        for n, block in enumerate(self.features):
            x = run_block(block, x, save_memory=self.checkpoint)
            if n in self.ends:
                maps.append(x)  # (B, out_channels[n], I/strides[n], ...)
        return maps


class _Block(nn.Module):
    """Inverted residual; the list's name and indices are torchvision's `block.N`."""

    def __init__(
        self, dims: int, in_channels: int, row: _Row, norm: str, *, stride: Sequence[int], dilation: int
    ) -> None:
        super().__init__()
        self.added = in_channels == row.out_channels and all(s == 1 for s in stride)
        act = nn.Hardswish if row.h_swish else nn.ReLU
        self.block = nn.Sequential()
        if row.expanded != in_channels:
            self.block.append(_unit(dims, in_channels, row.expanded, 1, norm, act(inplace=True)))
        depthwise = _unit(
            dims,
            row.expanded,
            row.expanded,
            row.kernel,
            norm,
            act(inplace=True),
            stride=stride,
            dilation=dilation,
            groups=row.expanded,
        )
        self.block.append(depthwise)
        if row.squeeze:
            self.block.append(_SqueezeExcitation(dims, row.expanded))
        self.block.append(_unit(dims, row.expanded, row.out_channels, 1, norm, None))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block(x)  # (B, row.out_channels, I/stride, ...)
        return out + x if self.added else out


class _SqueezeExcitation(nn.Module):
    """Each channel times a number between 0 and 1 that depends on the means of all (Hu et al., CVPR 2018)."""

    def __init__(self, dims: int, channels: int) -> None:
        super().__init__()
        squeezed = _multiple_of_8(channels / 4)
        self.fc1 = conv(dims, channels, squeezed, 1)
        self.fc2 = conv(dims, squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(tuple(range(2, x.dim())), keepdim=True)  # (B, C, 1, 1[, 1])
        gate = F.hardsigmoid(self.fc2(F.relu(self.fc1(mean))))  # (B, C, 1, 1[, 1])
        out: Tensor = x * gate
        return out


def _unit(
    dims: int,
    in_channels: int,
    out_channels: int,
    kernel: int,
    norm: str,
    act: nn.Module | None,
    *,
    stride: int | Sequence[int] = 1,
    dilation: int = 1,
    groups: int = 1,
) -> nn.Sequential:
    """Convolution, norm and activation."""
    kernels = conv(
        dims, in_channels, out_channels, kernel, stride=stride, dilation=dilation, groups=groups, bias=norm == "none"
    )
    unit = nn.Sequential(kernels, norm_layer(norm, dims, out_channels, EPS))
    return unit if act is None else unit.append(act)


def _multiple_of_8(channels: float) -> int:
    """The nearest multiple of 8, at least 8, and not more than 10 % below (the authors' rule)."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
