"""nnU-Net's U-Nets, 2D and 3D, under nnU-Net's own names of parameters, so that its weights can be loaded.

`nnunet_plain` (Isensee et al., nnU-Net, Nature Methods 18, 2021): strided convolutions down, two a stage.
`nnunet_resenc` (Isensee et al., "nnU-Net Revisited", MICCAI 2024): an encoder of residual blocks as in ResNet-D (He et
al., "Bag of Tricks", CVPR 2019), and a decoder of one convolution a stage.
Unlike nnU-Net's they take any size: the last voxels are repeated up to a multiple of the strides, and the logits cut.
B batch, C channels, I J K voxel axes, S stages; stage 0 has the input's resolution, stage S - 1 the lowest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor, channels_last, channels_last_3d, nn

from medseg.errors import ConfigError
from medseg.nets.blocks import activation, check_net, first_voxels, initialize, pad_to_multiple, scaled
from medseg.nets.nnunet_parts import ConvNorm, Convs, Decoder, Stages, Style, check_counts, layout

__all__ = ["NnunetPlain", "NnunetResenc"]

# Residual blocks of each stage, the last number for all further ones.
BLOCKS = (1, 3, 4, 6)


class _Nnunet(nn.Module):
    """What both networks share: an encoder that gives the map of each stage, the decoder, sizes and initialisation."""

    def __init__(self, style: Style, stages: Stages, encoder: nn.Module, out_channels: int) -> None:
        super().__init__()
        self.strides = stages.strides
        self.total_stride = tuple(math.prod(s[axis] for s in self.strides) for axis in range(style.dims))
        self.encoder = encoder
        self.decoder = Decoder(style, stages, out_channels)
        initialize(self, style.act)
        for head in self.decoder.seg_layers:
            # Logits of the features' own scale, whatever their number.
            nn.init.kaiming_normal_(head.weight, nonlinearity="linear")  # type: ignore[arg-type]
        self.decoder.keep_untrained_heads()

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Logits of an image.

        Args:
            x: `(B, in_channels, I, J[, K])`.

        Returns:
            `(B, out_channels, I, J[, K])`. While training with deep supervision a tuple: these, then the auxiliary
            logits from fine to coarse at their own resolutions.
        """
        size = tuple(x.shape[2:])
        x = pad_to_multiple(x, self.total_stride)  # (B, in_channels, I, ...), sizes rounded up
        if x.device.type == "cpu" and (x.dim() == 5 or not self.training):
            # As in `UNet`: convolutions are faster in this layout, but for a 2D training step.
            x = x.clone(memory_format=channels_last if x.dim() == 4 else channels_last_3d)
        logits: list[Tensor] = self.decoder(self.encoder(x))
        main = first_voxels(logits[0], size)  # (B, out_channels, I, ...)
        if len(logits) == 1:
            return main
        auxiliary = []
        for each, stride in zip(logits[1:], self.strides[1:], strict=False):
            size = tuple(-(-n // s) for n, s in zip(size, stride, strict=True))
            auxiliary.append(first_voxels(each, size))
        return (main, *auxiliary)


class NnunetPlain(_Nnunet):
    """nnU-Net's plain U-Net.

    Args:
        dims: 2 or 3 voxel axes.
        in_channels: image channels.
        out_channels: logits per voxel.
        channels: features of each stage, highest resolution first, at least 2 stages.
        strides: per stage, one number per axis, 1 to 4; the first is all 1 (default: 1, then 2 on every axis).
        kernels: per stage, one number per axis, 1, 3, 5 or 7 (default: 3); a decoder stage has that of the encoder
            stage of the same resolution.
        convs: convolutions of each stage (default: 2).
        decoder_convs: convolutions of each decoder stage, the lowest first (default: 2).
        norm: 'instance' (nnU-Net), 'batch' (its trainer `nnUNetTrainerBN`), 'group' or 'none'.
        activation: 'leaky_relu' (slope 0.01) or 'relu'.
        conv_bias: whether the convolutions before a normalisation have a bias, as in nnU-Net's plans.
        deep_supervision: auxiliary logits of all decoder stages but the main and the lowest one. The heads of the
            others are part of the state dict all the same, as in nnU-Net's files.
        width: multiplies `channels`.

    Raises:
        ConfigError: for options that do not fit together.

    Source:
        Isensee et al., nnU-Net, Nature Methods 18 (2021); `PlainConvUNet` of dynamic_network_architectures 0.4.4.

    Example:
        >>> net = NnunetPlain(3, 1, 3, channels=(8, 16, 32), kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3))).eval()
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
        strides: Sequence[Sequence[int]] | None = None,
        kernels: Sequence[Sequence[int]] | None = None,
        convs: Sequence[int] | None = None,
        decoder_convs: Sequence[int] | None = None,
        norm: str = "instance",
        activation: str = "leaky_relu",
        conv_bias: bool = True,
        deep_supervision: bool = False,
        width: float = 1.0,
    ) -> None:
        name = "nnunet_plain"
        check_net(name, dims, norm, width)
        style = Style(dims, norm, activation, conv_bias)
        features = [scaled(c, width) for c in channels]
        counts = ("convs", (2,) * len(features) if convs is None else convs)
        decoder = (2,) * (len(features) - 1) if decoder_convs is None else decoder_convs
        stages = layout(name, style, features, strides, kernels, counts, decoder, deep_supervision)
        super().__init__(style, stages, _PlainEncoder(style, stages, in_channels), out_channels)


class NnunetResenc(_Nnunet):
    """nnU-Net's U-Net with a residual encoder ("ResEnc").

    Args:
        dims, in_channels, out_channels, channels, strides, kernels: as in `NnunetPlain`.
        blocks: residual blocks of each stage (default: 1, 3, 4, then 6 each).
        decoder_convs: convolutions of each decoder stage, the lowest first (default: 1).
        bottleneck: features between the 1x1 convolutions of each stage's blocks, which then are of three convolutions
            (default: blocks of two convolutions).
        stem_channels: features of the convolution before the first stage (default: those of the first stage).
        norm, activation, conv_bias, deep_supervision: as in `NnunetPlain`.
        width: multiplies `channels`, `bottleneck` and `stem_channels`.

    Raises:
        ConfigError: for options that do not fit together.

    Source:
        Isensee et al., MICCAI 2024; `ResidualEncoderUNet` of dynamic_network_architectures 0.4.4.

    Example:
        >>> net = NnunetResenc(2, 1, 3, channels=(8, 16, 32)).eval()
        >>> net(torch.zeros(1, 1, 21, 30)).shape
        torch.Size([1, 3, 21, 30])
    """

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        *,
        channels: Sequence[int] = (32, 64, 128, 256, 320, 320),
        strides: Sequence[Sequence[int]] | None = None,
        kernels: Sequence[Sequence[int]] | None = None,
        blocks: Sequence[int] | None = None,
        decoder_convs: Sequence[int] | None = None,
        bottleneck: Sequence[int] | None = None,
        stem_channels: int | None = None,
        norm: str = "instance",
        activation: str = "leaky_relu",
        conv_bias: bool = True,
        deep_supervision: bool = False,
        width: float = 1.0,
    ) -> None:
        name = "nnunet_resenc"
        check_net(name, dims, norm, width)
        style = Style(dims, norm, activation, conv_bias)
        features = [scaled(c, width) for c in channels]
        usual = [*BLOCKS, *[BLOCKS[-1]] * len(features)][: len(features)]
        counts = ("blocks", usual if blocks is None else blocks)
        decoder = (1,) * (len(features) - 1) if decoder_convs is None else decoder_convs
        stages = layout(name, style, features, strides, kernels, counts, decoder, deep_supervision)
        if bottleneck is not None:
            check_counts("bottleneck", bottleneck, len(features), "stage")
        if stem_channels is not None and stem_channels < 1:
            raise ConfigError(f"stem_channels is {stem_channels}; expected a positive number")
        narrow = [None] * len(features) if bottleneck is None else [scaled(c, width) for c in bottleneck]
        stem = features[0] if stem_channels is None else scaled(stem_channels, width)
        encoder = _ResidualEncoder(style, stages, in_channels, stem, narrow)
        super().__init__(style, stages, encoder, out_channels)
        for block in self.modules():
            if isinstance(block, _Block):
                block.begin_as_shortcut()


class _PlainEncoder(nn.Module):
    def __init__(self, style: Style, stages: Stages, in_channels: int) -> None:
        super().__init__()
        self.stages = nn.Sequential()
        per_stage = zip(stages.features, stages.encoder, stages.kernels, stages.strides, strict=True)
        for features, count, kernel, stride in per_stage:
            self.stages.append(nn.Sequential(Convs(style, in_channels, features, count, kernel, stride)))
            in_channels = features

    def forward(self, x: Tensor) -> list[Tensor]:
        return _maps(self.stages, x)


class _ResidualEncoder(nn.Module):
    def __init__(
        self, style: Style, stages: Stages, in_channels: int, stem: int, bottleneck: Sequence[int | None]
    ) -> None:
        super().__init__()
        self.stem = Convs(style, in_channels, stem, 1, stages.kernels[0])
        self.stages = nn.Sequential()
        before = stem
        for n, features in enumerate(stages.features):
            kernel, stride = stages.kernels[n], stages.strides[n]
            blocks = [_Block(style, before, features, bottleneck[n], kernel, stride)]
            unmoved = (1,) * style.dims
            more = stages.encoder[n] - 1
            blocks += [_Block(style, features, features, bottleneck[n], kernel, unmoved) for _ in range(more)]
            self.stages.append(_Blocks(blocks))
            before = features

    def forward(self, x: Tensor) -> list[Tensor]:
        return _maps(self.stages, self.stem(x))


class _Blocks(nn.Module):
    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.blocks(x)  # (B, channels[n], I/stride, ...)
        return out


class _Block(nn.Module):
    """Two convolutions, or with `bottleneck` features one between two of 1x1; the input is added before activation.

    The stride is that of the kernel that comes first. The shortcut averages over it, then has a 1x1 convolution without
    bias and a norm where the number of channels changes.
    """

    def __init__(
        self,
        style: Style,
        in_channels: int,
        out_channels: int,
        bottleneck: int | None,
        kernel: Sequence[int],
        stride: Sequence[int],
    ) -> None:
        super().__init__()
        if bottleneck is None:
            self.conv1 = ConvNorm(style, in_channels, out_channels, kernel, stride)
            self.conv2 = ConvNorm(style, out_channels, out_channels, kernel, act=False)
        else:
            self.conv1 = ConvNorm(style, in_channels, bottleneck, 1)
            self.conv2 = ConvNorm(style, bottleneck, bottleneck, kernel, stride)
            self.conv3 = ConvNorm(style, bottleneck, out_channels, 1, act=False)
        self.deep = bottleneck is not None
        self.skip = nn.Sequential()
        if any(s != 1 for s in stride):
            pool: Callable[..., nn.Module] = nn.AvgPool2d if style.dims == 2 else nn.AvgPool3d
            self.skip.append(pool(tuple(stride), tuple(stride)))
        if in_channels != out_channels:
            self.skip.append(ConvNorm(style, in_channels, out_channels, 1, act=False, bias=False))
        self.nonlin = activation(style.act)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv2(self.conv1(x))
        if self.deep:
            inner = self.conv3(inner)
        out: Tensor = self.nonlin(inner + self.skip(x))  # (B, out_channels, I/stride, ...)
        return out

    def begin_as_shortcut(self) -> None:
        """Zero the scale that comes last, as nnU-Net does; without norms the last convolution (Fixup, ICLR 2019)."""
        last = self.conv3 if self.deep else self.conv2
        scale = getattr(last.norm, "weight", None)
        nn.init.zeros_(last.conv.weight if scale is None else scale)  # type: ignore[arg-type]


def _maps(stages: nn.Sequential, x: Tensor) -> list[Tensor]:
    """The map of each stage, `(B, channels[n], I/stride, ...)`."""
    maps = []
    for stage in stages:
        x = stage(x)
        maps.append(x)
    return maps
