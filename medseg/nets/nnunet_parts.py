"""The parts of nnU-Net's U-Nets, with the names of parameters that nnU-Net gives them.

Names and arithmetic are those of `dynamic_network_architectures` 0.4.4 (nnU-Net 2.8.1), so that its state dicts load
once its duplicates are left out: `all_modules` beside `conv` and `norm`, and the encoder within the decoder.
B batch, C channels, I J K voxel axes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from torch import Tensor, cat, nn

from medseg.errors import ConfigError
from medseg.lookup import check_choice
from medseg.nets.blocks import ACTIVATIONS, activation, check_net, conv, first_voxels, norm_layer
from medseg.nets.convolution3d import UpConv3d
from medseg.nets.limits import LARGEST_NUMBER

__all__ = ["ConvNorm", "Convs", "Decoder", "Stages", "Style", "check_counts", "layout"]

KERNELS = (1, 3, 5, 7)
LARGEST_STRIDE = 4


@dataclass(frozen=True, slots=True)
class Style:
    """What all layers of a network share.

    Args:
        dims: 2 or 3.
        norm, act: kinds of normalisation and activation.
        bias: whether convolutions have a bias although a normalisation follows, as nnU-Net's plans want it.
    """

    dims: int
    norm: str
    act: str
    bias: bool


@dataclass(frozen=True, slots=True)
class Stages:
    """The stages of a network, highest resolution first.

    Args:
        features: of each stage.
        strides, kernels: of each stage, one number per axis.
        encoder: convolutions or blocks of each stage.
        decoder: convolutions of each decoder stage, the lowest first.
        supervised: the decoder stages that have logits in training; the last one is the main one.
    """

    features: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    kernels: tuple[tuple[int, ...], ...]
    encoder: tuple[int, ...]
    decoder: tuple[int, ...]
    supervised: tuple[int, ...]


class ConvNorm(nn.Module):
    """Convolution, normalisation and, unless `act` is False, activation."""

    def __init__(
        self,
        style: Style,
        in_channels: int,
        out_channels: int,
        kernel: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        *,
        act: bool = True,
        bias: bool | None = None,
    ) -> None:
        super().__init__()
        biased = style.bias if bias is None else bias
        self.conv = conv(style.dims, in_channels, out_channels, kernel, stride=stride, bias=biased)
        self.norm = norm_layer(style.norm, style.dims, out_channels)
        self.nonlin = activation(style.act) if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.nonlin(self.norm(self.conv(x)))  # (B, out_channels, I/stride, ...)
        return out


class Convs(nn.Module):
    """Several convolutions in a row, the first with the stride."""

    def __init__(
        self,
        style: Style,
        in_channels: int,
        out_channels: int,
        count: int,
        kernel: Sequence[int],
        stride: int | Sequence[int] = 1,
    ) -> None:
        super().__init__()
        first = ConvNorm(style, in_channels, out_channels, kernel, stride)
        rest = [ConvNorm(style, out_channels, out_channels, kernel) for _ in range(count - 1)]
        self.convs = nn.Sequential(first, *rest)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.convs(x)  # (B, out_channels, I/stride, ...)
        return out


class UntrainedHead(nn.Module):
    """A head that is kept for the sake of the file: no logits are computed with it, so its values are not learned."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        for key, value in head.state_dict().items():
            self.register_buffer(key, value)


class Decoder(nn.Module):
    """Transposed convolution up, concatenation with the encoder's map, convolutions; a 1x1 head on every stage.

    Lists run from the lowest stage upwards, in the order of the computation.
    """

    def __init__(self, style: Style, stages: Stages, out_channels: int) -> None:
        super().__init__()
        up: Callable[..., nn.Module] = nn.ConvTranspose2d if style.dims == 2 else UpConv3d
        self.stages, self.transpconvs, self.seg_layers = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        self.supervised = stages.supervised
        for n, count in enumerate(stages.decoder, start=1):
            low, high, stride = stages.features[-n], stages.features[-n - 1], stages.strides[-n]
            self.stages.append(Convs(style, 2 * high, high, count, stages.kernels[-n - 1]))
            self.transpconvs.append(up(low, high, stride, stride, bias=style.bias))
            self.seg_layers.append(conv(style.dims, high, out_channels, 1))

    def keep_untrained_heads(self) -> None:
        """Turn the heads of stages that are not supervised into buffers of the same names."""
        for n, head in enumerate(self.seg_layers):
            if n not in self.supervised:
                self.seg_layers[n] = UntrainedHead(head)

    def forward(self, skips: list[Tensor]) -> list[Tensor]:
        """Logits of the encoder's maps (used up), the main ones first, while training then from fine to coarse."""
        x = skips.pop()
        logits: list[Tensor] = []
        for n, (up, stage, head) in enumerate(zip(self.transpconvs, self.stages, self.seg_layers, strict=True)):
            skip = skips.pop()
            # Both have the same size, but an export, where sizes are symbols, cannot know it.
            x = cat([first_voxels(up(x), skip.shape[2:]), skip], dim=1)  # (B, 2 * channels[n], ...)
            x = stage(x)  # (B, channels[n], ...)
            if n == len(self.stages) - 1 or (self.training and n in self.supervised):
                logits.insert(0, head(x))
        return logits


def layout(
    name: str,
    style: Style,
    features: Sequence[int],
    strides: Sequence[Sequence[int]] | None,
    kernels: Sequence[Sequence[int]] | None,
    counts: tuple[str, Sequence[int]],
    decoder: Sequence[int],
    deep_supervision: bool,
) -> Stages:
    """The stages that the options of a network describe.

    Args:
        name: of the network, for messages.
        style: what its layers share.
        features: of each stage.
        strides, kernels: per stage, one number per axis; None: 2 on every axis but for the first stage, and 3.
        counts: name of the option, and convolutions or blocks of each stage.
        decoder: convolutions of each decoder stage, the lowest first.
        deep_supervision: whether all decoder stages but the lowest have logits in training.

    Raises:
        ConfigError: for options that do not fit together.
    """
    check_net(name, style.dims, style.norm)
    check_choice("activation", style.act, ACTIVATIONS)
    stages, dims = len(features), style.dims
    if stages < 2:
        raise ConfigError(f"channels has {stages} stages; {name} needs at least 2")
    if deep_supervision and stages < 3:
        raise ConfigError(f"deep_supervision needs at least 3 stages; channels has {stages}")
    steps = strides if strides is not None else [(1,) * dims] + [(2,) * dims] * (stages - 1)
    widths = kernels if kernels is not None else [(3,) * dims] * stages
    allowed = range(1, LARGEST_STRIDE + 1)
    _check_axes("strides", steps, stages, dims, allowed)
    _check_axes("kernels", widths, stages, dims, KERNELS)
    if any(s != 1 for s in steps[0]):
        raise ConfigError(f"strides begins with {list(steps[0])}; the first stage has the input's resolution: all 1")
    check_counts(*counts, stages, "stage")
    check_counts("decoder_convs", decoder, stages - 1, "stage but the lowest")
    # nnU-Net's loss gives the lowest stage the weight 0, so no logits are computed there.
    supervised = range(min(1, stages - 3), stages - 1) if deep_supervision else (stages - 2,)
    return Stages(
        features=tuple(features),
        strides=tuple(tuple(s) for s in steps),
        kernels=tuple(tuple(k) for k in widths),
        encoder=tuple(counts[1]),
        decoder=tuple(decoder),
        supervised=tuple(supervised),
    )


def _check_axes(key: str, values: object, stages: int, dims: int, allowed: Collection[int]) -> None:
    rows = values if isinstance(values, list | tuple) else ()
    if len(rows) != stages or not all(_are_from(each, allowed, dims) for each in rows):
        raise ConfigError(
            f"{key} is {values}; expected {stages} stages (as channels has) of {dims} numbers each, out of "
            f"{', '.join(map(str, allowed))}"
        )


def check_counts(key: str, values: object, expected: int, each: str) -> None:
    """Refuse an option that is not a list of so many positive numbers.

    Raises:
        ConfigError: naming the option, what was given and what was expected.
    """
    if not _are_from(values, range(1, LARGEST_NUMBER + 1), expected):
        raise ConfigError(f"{key} is {values}; expected {expected} positive numbers, one for each {each}")


def _are_from(values: object, allowed: Collection[int], count: int) -> bool:
    """Whether it is a list of so many whole numbers of those."""
    listed = isinstance(values, list | tuple) and len(values) == count
    return listed and all(type(n) is int and n in allowed for n in values)  # type: ignore[attr-defined]
