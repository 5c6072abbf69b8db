"""U-Net, 2D and 3D (Ronneberger, Fischer, Brox, MICCAI 2015; 3D: Çiçek et al., MICCAI 2016).

The original form: two 3x3(x3) convolutions a stage, max-pool down, transposed convolution up, concatenation, and a
final 1x1. B batch, C channels, I J K voxel axes, S stages; stage 0 has the input's resolution, stage S - 1 the lowest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor, cat, channels_last, channels_last_3d, nn
from torch.nn import functional as F

from medseg.errors import ConfigError
from medseg.lookup import check_choice
from medseg.nets.blocks import (
    ACTIVATIONS,
    Stage,
    check_net,
    conv,
    crop_to,
    first_voxels,
    initialize,
    pad_to_multiple,
    scaled,
)
from medseg.nets.convolution3d import UpConv3d

__all__ = ["UNet"]


class UNet(nn.Module):
    """Contracting and expanding path joined by concatenated skips.

    Args:
        dims: 2 or 3 voxel axes.
        in_channels: image channels.
        out_channels: logits per voxel.
        channels: features of each stage, highest resolution first.
        strides: per stage, one number per axis; the first is all 1 (default: 1, then 2 on every axis).
            A stage with stride 1 along an axis keeps that axis, for thick slices.
        norm: 'instance', 'batch', 'group' or 'none' (the paper has none).
        activation: 'leaky_relu' or 'relu' (the paper).
        residual: add each stage's input to its output.
        deep_supervision: auxiliary heads on all decoder stages but the main one and the lowest resolutions.
        padding: 'same' (any input size, output of that size) or 'valid' (the paper: 572 x 572 gives 388 x 388).
        dropout: probability of dropping a feature at the end of the contracting path (the paper has 0.5).
        width: multiplies `channels`.

    Raises:
        ConfigError: for options that do not fit together.

    Source:
        Ronneberger et al., MICCAI 2015, section 2 and figure 1 (`norm="none"`, `activation="relu"`, `padding="valid"`,
        `dropout=0.5`, 2D).

    Example:
        >>> net = UNet(dims=3, in_channels=1, out_channels=3, channels=(16, 32, 64)).eval()
        >>> net(torch.zeros(1, 1, 21, 30, 17)).shape
        torch.Size([1, 3, 21, 30, 17])
    """

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        *,
        channels: Sequence[int] = (64, 128, 256, 512, 1024),
        strides: Sequence[Sequence[int]] | None = None,
        norm: str = "instance",
        activation: str = "leaky_relu",
        residual: bool = False,
        deep_supervision: bool = False,
        padding: str = "same",
        dropout: float = 0.0,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        check_net("a U-Net", dims, norm, width)
        features = tuple(scaled(c, width) for c in channels)
        stages = len(features)
        given = strides if strides is not None else [(1,) * dims] + [(2,) * dims] * (stages - 1)
        self.strides = tuple(tuple(int(s) for s in stride) for stride in given)
        self.valid = padding == "valid"
        _check_options(dims, features, self.strides, activation, padding, dropout, deep_supervision)
        self.total_stride = tuple(math.prod(s[axis] for s in self.strides) for axis in range(dims))

        def stage(n_in: int, n_out: int) -> Stage:
            return Stage(dims, n_in, n_out, norm=norm, act=activation, residual=residual, valid=self.valid)

        up: Callable[..., nn.Module] = nn.ConvTranspose2d if dims == 2 else UpConv3d
        self.encoder = nn.ModuleList(
            stage(n_in, n_out) for n_in, n_out in zip((in_channels, *features), features, strict=False)
        )
        self.dropout = nn.Dropout(dropout)
        # Decoder lists run from the lowest stage upwards, in the order of the computation.
        lower_to_upper = [(features[n + 1], features[n], self.strides[n + 1]) for n in reversed(range(stages - 1))]
        self.up = nn.ModuleList(up(low, high, stride, stride) for low, high, stride in lower_to_upper)
        self.decoder = nn.ModuleList(stage(2 * high, high) for _, high, _ in lower_to_upper)
        self.head = conv(dims, features[0], out_channels, 1)
        # The stages that are supervised: all but the main one and the two lowest resolutions (at least one).
        supervised = range(max(1, stages - 3), 0, -1) if deep_supervision else ()
        self.auxiliary = nn.ModuleDict({str(n): conv(dims, features[n], out_channels, 1) for n in supervised})
        initialize(self, activation)
        for head in (self.head, *self.auxiliary.values()):
            # Logits of the features' own scale, whatever their number; much smaller ones cost tens of steps.
            nn.init.kaiming_normal_(head.weight, nonlinearity="linear")  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Logits of an image.

        Args:
            x: `(B, in_channels, I, J[, K])`.

        Returns:
            `(B, out_channels, I, J[, K])` ('valid' padding: the smaller central part). While training with deep
            supervision a tuple: these, then the auxiliary logits from fine to coarse at their own resolutions.
        """
        size = tuple(x.shape[2:])
        if self.valid:
            self._check_valid_size(size)
        else:
            x = pad_to_multiple(x, self.total_stride)  # (B, in_channels, I, ...), sizes rounded up
        if x.device.type == "cpu" and (x.dim() == 5 or not self.training):
            # Measured with AVX2: a 3D training step takes 0.7 of the time in this layout, which every later layer
            # keeps, and inference 0.8; a 2D training step would take 1.1.
            x = x.clone(memory_format=channels_last if x.dim() == 4 else channels_last_3d)
        skips: list[Tensor] = []
        for n, encode in enumerate(self.encoder):
            if n:
                skips.append(x)
                x = _max_pool(x, self.strides[n])  # (B, channels[n - 1], I/stride, ...) with the strides so far
            x = encode(x)  # (B, channels[n], I/stride, ...)
        x = self.dropout(x)
        auxiliary: list[Tensor] = []
        for up, decode in zip(self.up, self.decoder, strict=True):
            x = up(x)  # (B, channels[n], I/stride, ...) of the next finer stage n
            skip = skips.pop()
            if self.valid:
                skip = crop_to(skip, x.shape[2:])
            # Both have the same size, but an export, where sizes are symbols, cannot know it.
            x = decode(
                cat([skip, first_voxels(x, skip.shape[2:])], dim=1)
            )  # (B, 2 * channels[n], ...) to (B, channels[n], ...)
            level = str(len(skips))
            if self.training and level in self.auxiliary:
                auxiliary.insert(0, self.auxiliary[level](x))
        main: Tensor = self.head(x)  # (B, out_channels, I, ...)
        if self.valid:
            return main
        main = first_voxels(main, size)
        if not auxiliary:
            return main
        sizes = self._sizes(size)
        return (main, *(first_voxels(a, sizes[n]) for n, a in enumerate(auxiliary, start=1)))

    def _sizes(self, size: Sequence[int]) -> list[tuple[int, ...]]:
        """Size of each stage that the input covers, rounded up."""
        sizes = [tuple(size)]
        for stride in self.strides[1:]:
            sizes.append(tuple(-(-n // s) for n, s in zip(sizes[-1], stride, strict=True)))
        return sizes

    def _check_valid_size(self, size: Sequence[int]) -> None:
        """Without padding only some sizes divide evenly at every pool; say so before a pool drops a voxel row.

        Raises:
            ConfigError: with the nearest size that fits.
        """
        wanted = tuple(next(m for m in range(n, n + 10_000) if self._fits(m, axis)) for axis, n in enumerate(size))
        if wanted != tuple(size):
            raise ConfigError(
                f"input of {' x '.join(map(str, size))} does not fit a U-Net with padding: valid; "
                f"the next size that does is {' x '.join(map(str, wanted))} (or use padding: same)"
            )

    def _fits(self, n: int, axis: int) -> bool:
        for stride in self.strides[1:]:
            n -= 4
            if n <= 0 or n % stride[axis]:
                return False
            n //= stride[axis]
        n -= 4
        for stride in reversed(self.strides[1:]):
            n = n * stride[axis] - 4
            if n <= 0:
                return False
        return n > 0


def _max_pool(x: Tensor, stride: Sequence[int]) -> Tensor:
    pool = F.max_pool2d if x.dim() == 4 else F.max_pool3d
    return pool(x, tuple(stride))


def _check_options(
    dims: int,
    features: Sequence[int],
    strides: Sequence[Sequence[int]],
    activation: str,
    padding: str,
    dropout: float,
    deep_supervision: bool,
) -> None:
    check_choice("activation", activation, ACTIVATIONS)
    check_choice("padding", padding, ("same", "valid"))
    if not features:
        raise ConfigError("channels is empty; give the features of each stage, e.g. [32, 64, 128]")
    if len(strides) != len(features) or any(len(s) != dims or min(s) < 1 for s in strides):
        raise ConfigError(
            f"strides is {[list(s) for s in strides]}; expected {len(features)} stages (as channels has) of {dims} "
            "positive numbers each"
        )
    if any(s != 1 for s in strides[0]):
        raise ConfigError(f"strides begins with {list(strides[0])}; the first stage has the input's resolution: all 1")
    if not 0 <= dropout < 1:
        raise ConfigError(f"dropout is {dropout}; expected a probability, 0 or more and below 1")
    if deep_supervision and padding == "valid":
        raise ConfigError("deep_supervision needs padding: same, so that auxiliary logits lie on the labels")
    if deep_supervision and len(features) < 3:
        raise ConfigError(f"deep_supervision needs at least 3 stages; channels has {len(features)}")
