"""ENet, 2D and 3D (Paszke, Chaurasia, Kim, Culurciello, "ENet", arXiv 1606.02147, 2016; tables 1 and 2).

Bottlenecks at a quarter of the channels (plain, dilated or asymmetric), a large encoder with PReLU, and a small decoder
with ReLU that puts each value back where the encoder's max-pool had found its maximum. Stride 8 at the lowest. In 3D
the asymmetric convolution has three factors, 5x1x1, 1x5x1 and 1x1x5.
B batch, C channels, I J K voxel axes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, cat, nn
from torch.nn import functional as F

from medseg.nets.blocks import check_net, conv, initialize, max_pool, norm_layer, scaled

__all__ = ["ENet"]

RATIO = 4  # a bottleneck's inner features are 1/4 of the outer ones
ASYMMETRIC = 5  # length of an asymmetric kernel
# Stages 2 and 3 after the down-sampling: the dilation of each bottleneck, 0 for an asymmetric one.
CONTEXT = (1, 2, 0, 4, 1, 8, 0, 16)

Act = Callable[[], nn.Module]


class ENet(nn.Module):
    """Real-time network of 0.35 million parameters.

    Args:
        dims: 2 or 3.
        in_channels: image channels; they pass beside the first convolution, so there are at least as many features + 1.
        out_channels: logits per voxel.
        norm: 'instance', 'batch' (the paper), 'group' or 'none'.
        width: multiplies the features 16, 64, 128.

    Raises:
        ConfigError: for options out of range.

    Example:
        >>> ENet(2, 1, 2, width=0.25).eval()(torch.zeros(1, 1, 33, 40)).shape
        torch.Size([1, 2, 33, 40])
    """

    def __init__(
        self, dims: int, in_channels: int, out_channels: int, *, norm: str = "instance", width: float = 1.0
    ) -> None:
        super().__init__()
        check_net("ENet", dims, norm, width)
        first = max(scaled(16, width), in_channels + 1)
        second = max(scaled(64, width), first)  # the shortcut of a down-sampling adds channels and never drops any
        third = max(scaled(128, width), second)
        self.initial = conv(dims, in_channels, first - in_channels, stride=2, bias=norm == "none")
        self.initial_pool = max_pool(dims, 3, stride=2, padding=1)
        self.initial_norm = nn.Sequential(norm_layer(norm, dims, first), nn.PReLU())

        def regular(channels: int, dilation: int, dropout: float, act: Act) -> _Regular:
            return _Regular(dims, channels, dilation=dilation, dropout=dropout, norm=norm, act=act)

        self.down1 = _Down(dims, first, second, dropout=0.01, norm=norm)
        self.stage1 = nn.Sequential(*(regular(second, 1, 0.01, nn.PReLU) for _ in range(4)))
        self.down2 = _Down(dims, second, third, dropout=0.1, norm=norm)
        self.stage2 = nn.Sequential(*(regular(third, rate, 0.1, nn.PReLU) for rate in CONTEXT))
        self.stage3 = nn.Sequential(*(regular(third, rate, 0.1, nn.PReLU) for rate in CONTEXT))
        self.up4 = _Up(dims, third, second, dropout=0.1, norm=norm)
        self.stage4 = nn.Sequential(*(regular(second, 1, 0.1, nn.ReLU) for _ in range(2)))
        self.up5 = _Up(dims, second, first, dropout=0.1, norm=norm)
        self.stage5 = regular(first, 1, 0.1, nn.ReLU)
        up = nn.ConvTranspose2d if dims == 2 else nn.ConvTranspose3d
        self.head = up(first, out_channels, 3, stride=2, padding=1, output_padding=1, bias=False)
        initialize(self, "relu")

    def forward(self, x: Tensor) -> Tensor:
        """Logits of an image.

        Args:
            x: `(B, in_channels, I, J[, K])`.

        Returns:
            `(B, out_channels, I, J[, K])`.
        """
        size = x.shape[2:]
        x = cat([self.initial(x), self.initial_pool(x)], dim=1)  # (B, 16, I/2, ...), sizes rounded up
        x = self.initial_norm(x)
        size1 = x.shape[2:]
        x, places1 = self.down1(x)  # (B, 64, I/4, ...)
        x = self.stage1(x)
        size2 = x.shape[2:]
        x, places2 = self.down2(x)  # (B, 128, I/8, ...)
        x = self.stage3(self.stage2(x))
        x = self.stage4(self.up4(x, places2, size2))  # (B, 64, I/4, ...)
        x = self.stage5(self.up5(x, places1, size1))  # (B, 16, I/2, ...)
        return _first(self.head(x), size)  # (B, out_channels, I, ...)


class _Regular(nn.Module):
    """1x1 to a quarter of the channels, a 3x3 (dilated) or asymmetric 5x5, 1x1 back, dropout; added to the input."""

    def __init__(self, dims: int, channels: int, *, dilation: int, dropout: float, norm: str, act: Act) -> None:
        super().__init__()
        inner = max(1, channels // RATIO)
        bias = norm == "none"
        branch = nn.Sequential(_Unit(conv(dims, channels, inner, 1, bias=bias), dims, norm, act))
        if dilation:
            branch.append(_Unit(conv(dims, inner, inner, dilation=dilation, bias=bias), dims, norm, act))
        else:
            kind = nn.Conv2d if dims == 2 else nn.Conv3d
            for axis in range(dims):
                kernel = tuple(ASYMMETRIC if a == axis else 1 for a in range(dims))
                padding = tuple(k // 2 for k in kernel)
                line = kind(inner, inner, kernel, padding=padding, bias=bias)  # type: ignore[arg-type]
                branch.append(_Unit(line, dims, norm, act))
        branch.append(_Unit(conv(dims, inner, channels, 1, bias=bias), dims, norm, act))
        branch.append(_dropout(dims, dropout))
        self.branch = branch
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(x + self.branch(x))
        return out


class _Down(nn.Module):
    """Half the size and more channels: 2x2 with stride 2, 3x3, 1x1, added to a max-pool whose new channels are zero.

    Gives the map and the places of the maxima, for `_Up`.
    """

    def __init__(self, dims: int, in_channels: int, out_channels: int, *, dropout: float, norm: str) -> None:
        super().__init__()
        inner = max(1, in_channels // RATIO)
        bias = norm == "none"
        self.dims, self.new_channels = dims, out_channels - in_channels
        self.branch = nn.Sequential(
            _Unit(conv(dims, in_channels, inner, 2, stride=2, padding=0, bias=bias), dims, norm, nn.PReLU),
            _Unit(conv(dims, inner, inner, bias=bias), dims, norm, nn.PReLU),
            _Unit(conv(dims, inner, out_channels, 1, bias=bias), dims, norm, nn.PReLU),
            _dropout(dims, dropout),
        )
        self.act = nn.PReLU()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        pool = F.max_pool2d if self.dims == 2 else F.max_pool3d
        main, places = pool(x, 2, 2, ceil_mode=True, return_indices=True)  # (B, in_channels, I/2, ...), rounded up
        main = F.pad(main, [0, 0] * self.dims + [0, self.new_channels])  # (B, out_channels, I/2, ...)
        # Of an odd size the last window is half outside; there the convolution sees zeros. An even size ignores them.
        out: Tensor = self.act(main + self.branch(F.pad(x, [0, 1] * self.dims)))
        return out, places


class _Up(nn.Module):
    """Twice the size and fewer channels: each value goes to the place of the maximum, plus a 2x2 transposed branch."""

    def __init__(self, dims: int, in_channels: int, out_channels: int, *, dropout: float, norm: str) -> None:
        super().__init__()
        inner = max(1, in_channels // RATIO)
        bias = norm == "none"
        up = nn.ConvTranspose2d if dims == 2 else nn.ConvTranspose3d
        self.main = nn.Sequential(
            conv(dims, in_channels, out_channels, 1, bias=bias), norm_layer(norm, dims, out_channels)
        )
        self.branch = nn.Sequential(
            _Unit(conv(dims, in_channels, inner, 1, bias=bias), dims, norm, nn.ReLU),
            _Unit(up(inner, inner, 2, stride=2, bias=bias), dims, norm, nn.ReLU),
            _Unit(conv(dims, inner, out_channels, 1, bias=bias), dims, norm, nn.ReLU),
            _dropout(dims, dropout),
        )
        self.act = nn.ReLU()

    def forward(self, x: Tensor, places: Tensor, size: Sequence[int]) -> Tensor:
        main = unpool(self.main(x), places, size)  # (B, out_channels, *size)
        out: Tensor = self.act(main + _first(self.branch(x), size))
        return out


class _Unit(nn.Sequential):
    """A convolution, norm and an activation of its own."""

    def __init__(self, kernels: nn.Module, dims: int, norm: str, act: Act) -> None:
        super().__init__(kernels, norm_layer(norm, dims, int(kernels.out_channels)), act())  # type: ignore[arg-type]


def unpool(x: Tensor, places: Tensor, size: Sequence[int]) -> Tensor:
    """Each value at the place where its maximum was, zeros elsewhere.

    The same numbers as `F.max_unpool2d/3d`, as a scatter: ONNX export knows it, and it is reproducible on a GPU.

    Args:
        x: `(B, C, ...)`, one value per window.
        places: of the same shape, the index of each window's maximum in the flattened map.
        size: voxels of the map along each axis.
    """
    count = 1
    for n in size:
        count *= n
    flat = x.new_zeros((x.shape[0], x.shape[1], count)).scatter(2, places.flatten(2), x.flatten(2))  # (B, C, count)
    return flat.view(x.shape[0], x.shape[1], *size)


def _dropout(dims: int, probability: float) -> nn.Module:
    """Whole channels are dropped (spatial dropout)."""
    return nn.Dropout2d(probability) if dims == 2 else nn.Dropout3d(probability)


def _first(x: Tensor, size: Sequence[int]) -> Tensor:
    """The first `size` voxels of each axis."""
    for axis, n in enumerate(size, start=2):
        x = x.narrow(axis, 0, n)
    return x
