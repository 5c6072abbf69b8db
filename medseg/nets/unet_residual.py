"""U-Net with a residual encoder, 2D and 3D (Isensee et al., "nnU-Net Revisited", MICCAI 2024: "ResEnc").

The encoder is a ResNet-D (He et al., "Bag of Tricks", CVPR 2019) of many blocks, halved by strided convolutions; the
decoder is plain, one convolution a stage.
B batch, C channels, I J K voxel axes, S stages; stage 0 has the input's resolution, stage S - 1 the lowest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, cat, channels_last, channels_last_3d, nn

from medseg.errors import ConfigError
from medseg.nets.blocks import activation, check_net, conv, first_voxels, initialize, norm_layer, run_block, scaled
from medseg.nets.convolution3d import UpConv3d

__all__ = ["ResidualUNet"]

ACT = "leaky_relu"


class ResidualUNet(nn.Module):
    """U-Net whose encoder has residual blocks, 1, 3, 4, 6, 6, 6 of them.

    Args:
        dims: 2 or 3 voxel axes.
        in_channels: image channels.
        out_channels: logits per voxel.
        channels: features of each stage, highest resolution first.
        blocks: residual blocks of each stage (default: 1, 3, 4, then 6 each).
        strides: per stage, one number per axis; the first is all 1 (default: 1, then 2 on every axis).
            A stage with stride 1 along an axis keeps that axis, for thick slices.
        norm: 'instance' (nnU-Net), 'batch', 'group' or 'none'.
        deep_supervision: auxiliary heads on all decoder stages but the main one and the lowest resolutions.
        checkpoint: while training, compute each residual block twice instead of keeping its inner maps.
        width: multiplies `channels`.

    Raises:
        ConfigError: for options that do not fit together.

    Example:
        >>> net = ResidualUNet(dims=3, in_channels=1, out_channels=3, channels=(8, 16, 32)).eval()
        >>> net(torch.zeros(1, 1, 21, 30, 17)).shape
        torch.Size([1, 3, 21, 30, 17])
    """

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        *,
        channels: Sequence[int] = (32, 64, 128, 256, 320, 320),
        blocks: Sequence[int] | None = None,
        strides: Sequence[Sequence[int]] | None = None,
        norm: str = "instance",
        deep_supervision: bool = False,
        checkpoint: bool = False,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        check_net("a residual U-Net", dims, norm, width)
        features = tuple(scaled(c, width) for c in channels)
        stages = len(features)
        counts = tuple(blocks) if blocks is not None else (1, 3, 4, *[6] * stages)[:stages]
        given = strides if strides is not None else [(1,) * dims] + [(2,) * dims] * (stages - 1)
        self.strides = tuple(tuple(int(s) for s in stride) for stride in given)
        _check_stages(dims, features, counts, self.strides, deep_supervision)
        self.checkpoint = checkpoint
        self.stem = _unit(dims, in_channels, features[0], norm)
        self.encoder = nn.ModuleList()
        before = features[0]
        for after, count, stride in zip(features, counts, self.strides, strict=True):
            stage = nn.Sequential(_Block(dims, before, after, stride, norm))
            stage.extend(_Block(dims, after, after, (1,) * dims, norm) for _ in range(count - 1))
            self.encoder.append(stage)
            before = after
        # Decoder lists run from the lowest stage upwards, in the order of the computation.
        up: Callable[..., nn.Module] = nn.ConvTranspose2d if dims == 2 else UpConv3d
        lower_to_upper = [(features[n + 1], features[n], self.strides[n + 1]) for n in reversed(range(stages - 1))]
        self.up = nn.ModuleList(up(low, high, stride, stride) for low, high, stride in lower_to_upper)
        self.decoder = nn.ModuleList(_unit(dims, 2 * high, high, norm) for _, high, _ in lower_to_upper)
        self.head = conv(dims, features[0], out_channels, 1)
        supervised = range(max(1, stages - 3), 0, -1) if deep_supervision else ()
        self.auxiliary = nn.ModuleDict({str(n): conv(dims, features[n], out_channels, 1) for n in supervised})
        initialize(self, ACT)
        for head in (self.head, *self.auxiliary.values()):
            # Logits of the features' own scale, whatever their number.
            nn.init.kaiming_normal_(head.weight, nonlinearity="linear")  # type: ignore[arg-type]
        if norm == "none":
            # Without norms the sums would grow from block to block (Zhang et al., Fixup, ICLR 2019).
            for block in self.modules():
                if isinstance(block, _Block):
                    nn.init.zeros_(block.second.get_submodule("0").weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Logits of an image.

        Args:
            x: `(B, in_channels, I, J[, K])`.

        Returns:
            `(B, out_channels, I, J[, K])`. While training with deep supervision a tuple: these, then the auxiliary
            logits from fine to coarse at their own resolutions.
        """
        if x.device.type == "cpu" and (x.dim() == 5 or not self.training):
            # As in `UNet`: convolutions are faster in this layout, but for a 2D training step.
            x = x.clone(memory_format=channels_last if x.dim() == 4 else channels_last_3d)
        x = self.stem(x)  # (B, channels[0], I, ...)
        skips: list[Tensor] = []
        for stage in self.encoder:
            for block in stage.children():
                x = run_block(block, x, save_memory=self.checkpoint)
            skips.append(x)  # (B, channels[n], I/stride, ...) of stage n, sizes rounded up
        skips.pop()
        auxiliary: list[Tensor] = []
        for up, decode in zip(self.up, self.decoder, strict=True):
            skip = skips.pop()
            # Where the size was rounded up, the transposed convolution gives more voxels than the skip has.
            x = decode(
                cat([first_voxels(up(x), skip.shape[2:]), skip], dim=1)
            )  # (B, 2 * channels[n], ...) to (B, channels[n], ...)
            level = str(len(skips))
            if self.training and level in self.auxiliary:
                auxiliary.insert(0, self.auxiliary[level](x))
        main: Tensor = self.head(x)  # (B, out_channels, I, ...)
        return (main, *auxiliary) if auxiliary else main


class _Block(nn.Module):
    """Two 3x3 convolutions, the first with the stride; the input is added, by average pooling and 1x1 where needed."""

    def __init__(self, dims: int, in_channels: int, out_channels: int, stride: Sequence[int], norm: str) -> None:
        super().__init__()
        bias = norm == "none"
        self.first = _unit(dims, in_channels, out_channels, norm, stride=stride)
        self.second = nn.Sequential(
            conv(dims, out_channels, out_channels, bias=bias), norm_layer(norm, dims, out_channels)
        )
        self.shortcut = nn.Sequential()
        if any(s != 1 for s in stride):
            pad: Callable[..., nn.Module] = nn.ReplicationPad2d if dims == 2 else nn.ReplicationPad3d
            pool: Callable[..., nn.Module] = nn.AvgPool2d if dims == 2 else nn.AvgPool3d
            # The last window of a size that does not divide is filled up; any other size ignores the padding.
            self.shortcut.append(pad(tuple(p for s in reversed(stride) for p in (0, s - 1))))
            self.shortcut.append(pool(tuple(stride), tuple(stride)))
        if in_channels != out_channels:
            self.shortcut.append(conv(dims, in_channels, out_channels, 1, bias=bias))
            self.shortcut.append(norm_layer(norm, dims, out_channels))
        self.act = activation(ACT)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.second(self.first(x)) + self.shortcut(x))  # (B, out_channels, I/stride, ...)
        return out


def _unit(dims: int, in_channels: int, out_channels: int, norm: str, stride: int | Sequence[int] = 1) -> nn.Sequential:
    return nn.Sequential(
        conv(dims, in_channels, out_channels, stride=stride, bias=norm == "none"),
        norm_layer(norm, dims, out_channels),
        activation(ACT),
    )


def _check_stages(
    dims: int,
    features: Sequence[int],
    counts: Sequence[int],
    strides: Sequence[Sequence[int]],
    deep_supervision: bool,
) -> None:
    stages = len(features)
    if not features:
        raise ConfigError("channels is empty; give the features of each stage, e.g. [32, 64, 128]")
    if len(counts) != stages or min(counts) < 1:
        raise ConfigError(f"blocks is {list(counts)}; expected {stages} positive numbers (as many as channels)")
    if len(strides) != stages or any(len(s) != dims or not set(s) <= {1, 2, 3} for s in strides):
        # A 3x3 convolution with a longer stride would skip voxels.
        raise ConfigError(
            f"strides is {[list(s) for s in strides]}; expected {stages} stages (as channels has) of {dims} numbers "
            "each, 1, 2 or 3"
        )
    if any(s != 1 for s in strides[0]):
        raise ConfigError(f"strides begins with {list(strides[0])}; the first stage has the input's resolution: all 1")
    if deep_supervision and stages < 3:
        raise ConfigError(f"deep_supervision needs at least 3 stages; channels has {stages}")
