"""BiSeNet v2, 2D and 3D (Yu, Gao, Wang, Yu, Shen, Sang, IJCV 2021).

A wide, shallow detail branch at stride 8; a narrow, deep semantic branch to stride 32 of gather-and-expand layers;
a guided aggregation of both; booster heads on the semantic branch for training.
B batch, C channels, I J K voxel axes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, cat, nn, sigmoid
from torch.nn import functional as F

from medseg.nets.bisenet_v1 import pooled_norm
from medseg.nets.blocks import check_net, conv, initialize, max_pool, norm_layer, run_block, scaled, upsample

__all__ = ["BiSeNetV2"]

EXPANSION = 6


class BiSeNetV2(nn.Module):
    """Detail and semantic branch, at stride 8.

    Args:
        dims: 2 or 3.
        in_channels: image channels.
        out_channels: logits per voxel.
        norm: 'instance', 'batch' (the paper), 'group' or 'none'.
        auxiliary: four booster heads, on the semantic branch at strides 4, 8, 16, 32, for training only.
        checkpoint: while training, compute each gather-and-expand layer twice instead of keeping its inner maps.
        width: multiplies the features.

    Raises:
        ConfigError: for options out of range.

    Example:
        >>> BiSeNetV2(2, 1, 2, width=0.125).eval()(torch.zeros(1, 1, 33, 40)).shape
        torch.Size([1, 2, 33, 40])
    """

    # Of the boosters' logits, beside 1 for the main ones, as in the paper.
    auxiliary_weights = (1.0, 1.0, 1.0, 1.0)

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        *,
        norm: str = "instance",
        auxiliary: bool = True,
        checkpoint: bool = False,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        check_net("BiSeNet v2", dims, norm, width)
        make = _Maker(dims, norm)
        self.checkpoint = checkpoint
        c8, c16, c32, c64, c128, c1024 = (scaled(c, width) for c in (8, 16, 32, 64, 128, 1024))
        self.detail = nn.Sequential(
            *(make.unit(in_channels, c64, stride=2), make.unit(c64, c64)),
            *(make.unit(c64, c64, stride=2), make.unit(c64, c64), make.unit(c64, c64)),
            *(make.unit(c64, c128, stride=2), make.unit(c128, c128), make.unit(c128, c128)),
        )
        self.stem = _Stem(make, in_channels, c8, c16)
        self.stages = nn.ModuleList()
        for n_in, n_out, count in ((c16, c32, 2), (c32, c64, 2), (c64, c128, 4)):
            stage = nn.Sequential(_GatherExpand(make, n_in, n_out, stride=2))
            stage.extend(_GatherExpand(make, n_out, n_out, stride=1) for _ in range(count - 1))
            self.stages.append(stage)
        self.context = _Context(make, c128)
        self.aggregate = _Aggregation(make, c128)
        self.head = nn.Sequential(make.unit(c128, c1024), nn.Dropout(0.1), conv(dims, c1024, out_channels, 1))
        boosted = zip((c16, c32, c64, c128), (4, 8, 16, 32), strict=True) if auxiliary else ()
        self.auxiliary = nn.ModuleList(
            nn.Sequential(
                make.unit(n_in, c128),
                nn.Dropout(0.1),
                nn.Upsample(scale_factor=2),
                make.unit(c128, scaled(stride**2, width)),
                conv(dims, scaled(stride**2, width), out_channels, 1),
            )
            for n_in, stride in boosted
        )
        initialize(self, "relu")

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Logits of an image.

        Args:
            x: `(B, in_channels, I, J[, K])`.

        Returns:
            `(B, out_channels, I, J[, K])`. While training with auxiliary heads a tuple: these, then those of the
            semantic branch at strides 4, 8, 16 and 32, at the image's size as in the paper.
        """
        size = x.shape[2:]
        detail = self.detail(x)  # (B, 128, I/8, ...), sizes rounded up
        semantic = self.stem(x)  # (B, 16, I/4, ...)
        maps = [semantic]
        for stage in self.stages:
            for layer in stage.children():
                semantic = run_block(layer, semantic, save_memory=self.checkpoint)
            maps.append(semantic)  # (B, 32, I/8, ...), (B, 64, I/16, ...), (B, 128, I/32, ...)
        semantic = self.context(semantic)  # (B, 128, I/32, ...)
        joined = self.aggregate(detail, semantic)  # (B, 128, I/8, ...)
        main = upsample(self.head(joined), size)  # (B, out_channels, I, ...)
        if not (self.training and len(self.auxiliary)):
            return main
        return (main, *(upsample(head(m), size) for head, m in zip(self.auxiliary, maps, strict=True)))


class _Maker:
    """Convolutions with a norm, all for one `dims` and `norm`."""

    def __init__(self, dims: int, norm: str) -> None:
        self.dims, self.norm = dims, norm

    def conv(self, n_in: int, n_out: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Module:
        return conv(self.dims, n_in, n_out, kernel, stride=stride, groups=groups, bias=self.norm == "none")

    def normed(self, n_in: int, n_out: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
        return nn.Sequential(self.conv(n_in, n_out, kernel, stride, groups), norm_layer(self.norm, self.dims, n_out))

    def unit(self, n_in: int, n_out: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
        return self.normed(n_in, n_out, kernel, stride, groups).append(nn.ReLU(inplace=True))


class _Stem(nn.Module):
    """Stride 4 by a convolution, then a convolution beside a max-pool."""

    def __init__(self, make: _Maker, in_channels: int, narrow: int, channels: int) -> None:
        super().__init__()
        self.conv = make.unit(in_channels, channels, stride=2)
        self.left = nn.Sequential(make.unit(channels, narrow, 1), make.unit(narrow, channels, stride=2))
        self.right = max_pool(make.dims, 3, stride=2, padding=1)
        self.fuse = make.unit(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)  # (B, channels, I/2, ...)
        x = cat([self.left(x), self.right(x)], dim=1)  # (B, 2 * channels, I/4, ...)
        out: Tensor = self.fuse(x)  # (B, channels, I/4, ...)
        return out


class _GatherExpand(nn.Module):
    """3x3, depthwise 3x3 to six times the channels, 1x1 back, and the input added; with stride two depthwise ones."""

    def __init__(self, make: _Maker, n_in: int, n_out: int, *, stride: int) -> None:
        super().__init__()
        inner = EXPANSION * n_in
        self.branch = nn.Sequential(make.unit(n_in, n_in))
        if stride > 1:
            self.branch.append(make.normed(n_in, inner, stride=stride, groups=n_in))
            self.branch.append(make.unit(inner, inner, groups=inner))
        else:
            self.branch.append(make.unit(n_in, inner, groups=n_in))
        self.branch.append(make.normed(inner, n_out, 1))
        self.shortcut = nn.Sequential()
        if stride > 1:
            self.shortcut.append(make.normed(n_in, n_in, stride=stride, groups=n_in))
            self.shortcut.append(make.normed(n_in, n_out, 1))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.branch(x) + self.shortcut(x))  # (B, n_out, I/stride, ...)
        return out


class _Context(nn.Module):
    """Context embedding: the mean of the map, normalised and mixed by 1x1, is added to every voxel."""

    def __init__(self, make: _Maker, channels: int) -> None:
        super().__init__()
        self.pooled = nn.Sequential(
            pooled_norm(make.norm, make.dims, channels),
            make.conv(channels, channels, 1),
            pooled_norm(make.norm, make.dims, channels),
            nn.ReLU(inplace=True),
        )
        self.last = make.unit(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(tuple(range(2, x.dim())), keepdim=True)  # (B, C, 1, 1[, 1])
        out: Tensor = self.last(x + self.pooled(mean))
        return out


class _Aggregation(nn.Module):
    """Bilateral guided aggregation: each branch is gated by the other, at stride 8 and at stride 32."""

    def __init__(self, make: _Maker, channels: int) -> None:
        super().__init__()
        # Zeros around the map, then no padding in the pool, which in 3D refuses maps of one voxel otherwise.
        pad: Callable[..., nn.Module] = nn.ConstantPad2d if make.dims == 2 else nn.ConstantPad3d
        average: Callable[..., nn.Module] = nn.AvgPool2d if make.dims == 2 else nn.AvgPool3d

        def separable() -> nn.Sequential:
            return nn.Sequential(
                make.normed(channels, channels, groups=channels), conv(make.dims, channels, channels, 1, bias=False)
            )

        self.detail8 = separable()
        self.detail32 = nn.Sequential(make.normed(channels, channels, stride=2), pad(1, 0.0), average(3, 2))
        self.semantic8 = make.normed(channels, channels)
        self.semantic32 = separable()
        self.last = make.unit(channels, channels)

    def forward(self, detail: Tensor, semantic: Tensor) -> Tensor:
        """`(B, C, I/8, ...)` and `(B, C, I/32, ...)` to `(B, C, I/8, ...)`."""
        size: Sequence[int] = detail.shape[2:]
        at8 = self.detail8(detail) * sigmoid(F.interpolate(self.semantic8(semantic), size))  # (B, C, I/8, ...)
        at32 = self.detail32(detail) * sigmoid(self.semantic32(semantic))  # (B, C, I/32, ...)
        out: Tensor = self.last(at8 + F.interpolate(at32, size))  # (B, C, I/8, ...)
        return out
