"""ResNet 18, 34, 50, 101, 152, 2D and 3D (He et al., CVPR 2016), dilated by option (Yu et al., CVPR 2017).

Names and, at the defaults, computation are torchvision's: stride on the 3x3 of a bottleneck ("v1.5"), and in a stage
whose stride became dilation the first block keeps the dilation of the stage before. `caffe=True` is the older form that
DeepLab v2 uses: stride on the first 1x1, hence a stage's dilation in all its blocks, and a pool with ceil_mode.
B batch, C channels, I J K voxel axes.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from medseg.errors import ConfigError
from medseg.lookup import check_choice
from medseg.nets.backbones.strides import Backbone, five_steps
from medseg.nets.blocks import check_net, conv, initialize, max_pool, norm_layer, run_block, scaled

__all__ = ["BasicBlock", "Bottleneck", "ResNet"]

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the input added (ResNet 18 and 34); `rates` are their dilations."""

    expansion = 1

    def __init__(
        self,
        dims: int,
        in_channels: int,
        planes: int,
        *,
        stride: Sequence[int],
        rates: tuple[int, int],
        norm: str,
        caffe: bool,
    ) -> None:
        super().__init__()
        bias = norm == "none"
        self.conv1 = conv(dims, in_channels, planes, 3, stride=stride, dilation=rates[0], bias=bias)
        self.bn1 = norm_layer(norm, dims, planes)
        self.conv2 = conv(dims, planes, planes, 3, dilation=rates[1], bias=bias)
        self.bn2 = norm_layer(norm, dims, planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(dims, in_channels, planes, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, ...)` to `(B, planes, ...)` at 1/stride."""
        out = self.relu(self.bn1(self.conv1(x)))  # (B, planes, I/stride, ...)
        out = self.bn2(self.conv2(out))
        added: Tensor = self.relu(out + (x if self.downsample is None else self.downsample(x)))
        return added


class Bottleneck(nn.Module):
    """1x1 to few channels, 3x3, 1x1 to four times as many, and the input added (ResNet 50 and deeper).

    The 3x3 is dilated by the first of `rates`, or by the second where the stride comes before it.
    """

    expansion = 4

    def __init__(
        self,
        dims: int,
        in_channels: int,
        planes: int,
        *,
        stride: Sequence[int],
        rates: tuple[int, int],
        norm: str,
        caffe: bool,
    ) -> None:
        super().__init__()
        bias = norm == "none"
        first, second, rate = (stride, 1, rates[1]) if caffe else (1, stride, rates[0])
        self.conv1 = conv(dims, in_channels, planes, 1, stride=first, bias=bias)
        self.bn1 = norm_layer(norm, dims, planes)
        self.conv2 = conv(dims, planes, planes, 3, stride=second, dilation=rate, bias=bias)
        self.bn2 = norm_layer(norm, dims, planes)
        self.conv3 = conv(dims, planes, planes * self.expansion, 1, bias=bias)
        self.bn3 = norm_layer(norm, dims, planes * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(dims, in_channels, planes * self.expansion, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, ...)` to `(B, 4 * planes, ...)` at 1/stride."""
        out = self.relu(self.bn1(self.conv1(x)))  # (B, planes, I, ...); with `caffe` at I/stride
        out = self.relu(self.bn2(self.conv2(out)))  # (B, planes, I/stride, ...)
        out = self.bn3(self.conv3(out))  # (B, 4 * planes, I/stride, ...)
        added: Tensor = self.relu(out + (x if self.downsample is None else self.downsample(x)))
        return added


class ResNet(Backbone):
    """Five maps, fine to coarse: stem and layer1 to layer4, at strides 2, 4, 8, 16, 32.

    Args:
        depth: 18, 34, 50, 101 or 152.
        dims: 2 or 3.
        in_channels: image channels.
        width: multiplies the features.
        norm: 'instance', 'batch' (torchvision's weights), 'group' or 'none'.
        output_stride: 8, 16 or 32; stages beyond it are dilated instead.
        axis_strides: stride of the coarsest map along each axis, for thick slices, e.g. (16, 16, 4).
        multi_grid: factors on the dilations of layer4's blocks (DeepLab v3, section 3.2.1: 1, 2, 4).
        caffe: stride on the first 1x1 and a pool with ceil_mode, as DeepLab v2 has it (maps of stride 4 and coarser
            may have a voxel more than stated).
        checkpoint: while training, compute each block twice instead of keeping its inner maps.

    Raises:
        ConfigError: for options out of range.

    Example:
        >>> [tuple(m.shape) for m in ResNet(18, dims=2, in_channels=1, width=0.125)(torch.zeros(1, 1, 33, 40))]
        [(1, 8, 17, 20), (1, 8, 9, 10), (1, 16, 5, 5), (1, 32, 3, 3), (1, 64, 2, 2)]
    """

    def __init__(
        self,
        depth: int,
        *,
        dims: int,
        in_channels: int,
        width: float = 1.0,
        norm: str = "instance",
        output_stride: int = 32,
        axis_strides: Sequence[int] | None = None,
        multi_grid: Sequence[int] | None = None,
        caffe: bool = False,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        check_net("a ResNet", dims, norm, width)
        check_choice("depth", depth, BLOCKS)
        blocks = BLOCKS[depth]
        if multi_grid is not None and len(multi_grid) != blocks[3]:
            raise ConfigError(f"multi_grid is {list(multi_grid)}; layer4 has {blocks[3]} blocks, give one factor each")
        kind = BasicBlock if depth < 50 else Bottleneck
        steps = five_steps(dims, output_stride, axis_strides)
        self.checkpoint = checkpoint
        self.strides = steps.total
        channels = scaled(64, width)
        self.conv1 = conv(dims, in_channels, channels, 7, stride=steps.strides[0], bias=norm == "none")
        self.bn1 = norm_layer(norm, dims, channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = max_pool(dims, 3, stride=steps.strides[1], padding=1, ceil_mode=caffe)
        found = [channels]
        for n, count in enumerate(blocks):
            planes = scaled(64 * 2**n, width)
            before, dilation = steps.dilations[n : n + 2]
            stage = nn.Sequential()
            for b in range(count):
                # What takes the step sees the map before it; what comes after is dilated.
                rates = (before if b == 0 else dilation, dilation)
                if n == 3 and multi_grid is not None:
                    rates = (dilation * multi_grid[b],) * 2
                # The pool before layer1 has taken its step.
                stride = steps.strides[n + 1] if b == 0 and n else (1,) * dims
                stage.append(kind(dims, channels, planes, stride=stride, rates=rates, norm=norm, caffe=caffe))
                channels = planes * kind.expansion
            self.add_module(f"layer{n + 1}", stage)
            found.append(channels)
        self.out_channels = tuple(found)
        initialize(self, "relu")
        if norm == "none":
            # Without norms the sums would grow from block to block (Zhang et al., Fixup, ICLR 2019).
            for block in self.modules():
                if isinstance(block, BasicBlock | Bottleneck):
                    last = block.conv2 if isinstance(block, BasicBlock) else block.conv3
                    nn.init.zeros_(last.weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps of an image.

        Args:
            x: `(B, in_channels, I, J[, K])`.

        Returns:
            `(B, out_channels[n], I / strides[n][0], ...)` for each n, sizes rounded up.
        """
        return self.run(x, 4)

    def run(self, x: Tensor, layers: int) -> list[Tensor]:
        """The first maps only: the stem's and those of the first `layers` stages."""
        x = self.relu(self.bn1(self.conv1(x)))  # (B, 64, I/2, ...)
        maps = [x]
        x = self.maxpool(x)  # (B, 64, I/4, ...)
        for n in range(1, layers + 1):
            for block in self.get_submodule(f"layer{n}").children():
                x = run_block(block, x, save_memory=self.checkpoint)
            maps.append(x)  # (B, out_channels[n], I/strides[n], ...)
        return maps


def _shortcut(dims: int, in_channels: int, channels: int, stride: Sequence[int], norm: str) -> nn.Module | None:
    """1x1 and norm where size or channels change, else None: torchvision's `downsample`."""
    if in_channels == channels and all(s == 1 for s in stride):
        return None
    project = conv(dims, in_channels, channels, 1, stride=stride, bias=norm == "none")
    return nn.Sequential(project, norm_layer(norm, dims, channels))
