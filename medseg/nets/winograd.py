"""3x3x3 convolutions with half of the multiplications, for inference on a CPU.

Winograd's minimal filtering F(4, 3) along the first axis (Lavin, Gray, CVPR 2016, eq. 5 to 8 and section 4.1, points 0,
1, -1, 2, -2): four slices of the output come from six 2D convolutions of sums of six slices of the input, where the
definition takes twelve. Along one axis alone, so that a tile is whole slices, which stay in the cache, and the 2D
convolutions are oneDNN's.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medseg.nets.convolution3d import OneDnnConv3d, fits_onednn

__all__ = ["WinogradConv3d", "with_winograd"]

TILE = 4  # output slices of a tile
SEEN = TILE + 2  # input slices that it depends on
# G of F(4, 3): the kernel's three slices to those of the six 2D convolutions.
_KERNEL = (
    (1 / 4, 0.0, 0.0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0.0, 0.0, 1.0),
)
# Of one slice, or of as many as are summed at a time: enough for a call of oneDNN, few enough for the cache.
NUMBERS_TOGETHER = 2**17
# With fewer channels the sums of slices cost what the multiplications save.
FEWEST_CHANNELS = 8


class WinogradConv3d(nn.Module):
    """A 3D convolution by Winograd's algorithm where that is exact and pays, by the given one elsewhere.

    For float32 in the channels-last layout on a CPU, without gradients. The error is about two and a half times that of
    the direct sum (2e-5 of outputs of standard deviation 1).

    Args:
        direct: the convolution; its weights are read once.

    Example:
        >>> direct = nn.Conv3d(16, 16, 3, padding=1)
        >>> x = torch.randn(1, 16, 9, 8, 8).to(memory_format=torch.channels_last_3d)
        >>> with torch.no_grad():
        ...     bool(torch.allclose(WinogradConv3d(direct)(x), direct(x), atol=1e-4))
        True
    """

    def __init__(self, direct: nn.Conv3d) -> None:
        super().__init__()
        self.direct = direct
        weight = direct.weight.detach()
        with torch.inference_mode(False):
            slices = torch.einsum("ns,kcsij->nkcij", weight.new_tensor(_KERNEL), weight)
        self.kernels = [each.contiguous() for each in slices]

    def forward(self, x: Tensor) -> Tensor:
        """`(B, out_channels, I, J, K)` of `(B, in_channels, I, J, K)`."""
        channels_last = x.dim() == 5 and x.is_contiguous(memory_format=torch.channels_last_3d)
        if not channels_last or torch.is_grad_enabled() or not fits_onednn(x, self.direct.weight):
            direct: Tensor = self.direct(x)
            return direct
        pads = [int(p) for p in self.direct.padding]
        shape = [n + 2 * p - 2 for n, p in zip(x.shape[2:], pads, strict=True)]
        if shape[0] < TILE or min(shape) < 1:
            small: Tensor = self.direct(x)
            return small
        out = torch.empty((len(x), self.direct.out_channels, *shape), memory_format=torch.channels_last_3d)
        rows_in, rows_out = (each.permute(0, 2, 3, 4, 1) for each in (x, out))
        tiles = -(-shape[0] // TILE)
        together = max(1, NUMBERS_TOGETHER // rows_in[0, 0].numel())
        samples = max(1, together // tiles)
        scratch = x.new_empty((SEEN + 2, min(samples, len(x)) * min(together, tiles), *rows_in.shape[2:]))
        for one, result in zip(torch.split(rows_in, samples), torch.split(rows_out, samples), strict=True):
            for first in range(0, tiles, together):
                self._fill(one, result, first, min(together, tiles - first), scratch)
        return out

    def _fill(self, x: Tensor, out: Tensor, first: int, tiles: int, scratch: Tensor) -> None:
        """Fill some tiles of `out` (n, I', J', K', out_channels) from `x` (n, I, J, K, in_channels)."""
        pads = [int(p) for p in self.direct.padding]
        start = first * TILE - pads[0]
        stop = start + (tiles - 1) * TILE + SEEN
        seen = x[:, max(0, start) : stop]
        if seen.shape[1] < stop - start:
            before = max(0, -start)
            seen = F.pad(seen, (0, 0, 0, 0, 0, 0, before, stop - start - before - seen.shape[1]))
        sums = scratch[:, : len(x) * tiles]
        _sums_of_input(
            [seen[:, n : n + (tiles - 1) * TILE + 1 : TILE] for n in range(SEEN)],
            [each.view(len(x), tiles, *x.shape[2:]) for each in sums],
        )
        # The second product is a term of all four slices of the output, with the factor 1.
        biases = [None, self.direct.bias, *[None] * (SEEN - 2)]
        products = [
            torch.mkldnn_convolution(each.permute(0, 3, 1, 2), kernel, bias, pads[1:], (1, 1), (1, 1), 1)
            .permute(0, 2, 3, 1)
            .view(len(x), tiles, *out.shape[2:])
            for each, kernel, bias in zip(sums, self.kernels, biases, strict=False)
        ]
        filled = out[:, first * TILE : (first + tiles) * TILE]
        _sums_of_products(products, [filled[:, n::TILE] for n in range(TILE)])


def _sums_of_input(x: list[Tensor], out: list[Tensor]) -> None:
    """B^T of F(4, 3) times six slices, into the first six of `out`; the last two are scratch."""
    even, odd = out[SEEN], out[SEEN + 1]
    torch.add(x[4], x[2], alpha=-4, out=even)
    torch.add(x[3], x[1], alpha=-4, out=odd)
    torch.add(even, odd, out=out[1])
    torch.sub(even, odd, out=out[2])
    torch.sub(x[4], x[2], out=even)
    torch.sub(x[3], x[1], out=odd)
    torch.add(even, odd, alpha=2, out=out[3])
    torch.add(even, odd, alpha=-2, out=out[4])
    # 4 x0 - 5 x2 + x4 and 4 x1 - 5 x3 + x5
    torch.sub(x[0], x[2], out=out[0])
    torch.add(even, out[0], alpha=4, out=out[0])
    torch.sub(x[5], x[3], out=out[5])
    torch.add(out[5], odd, alpha=-4, out=out[5])


def _sums_of_products(m: list[Tensor], out: list[Tensor]) -> None:
    """A^T of F(4, 3) times the six products, which are used up; the last tile may have fewer than four slices."""
    even, odd = m[1] + m[2], m[1].sub_(m[2])
    even2, odd2 = torch.add(m[3], m[4], out=m[2]), m[3].sub_(m[4])
    torch.add(even, even2, out=out[0]).add_(m[0])
    for each, one, two, factor in ((out[1], odd, odd2, 2), (out[2], even, even2, 4), (out[3], odd, odd2, 8)):
        count = each.shape[1]
        torch.add(one[:, :count], two[:, :count], alpha=factor, out=each)
    out[3].add_(m[5][:, : out[3].shape[1]])


def with_winograd(net: nn.Module) -> nn.Module | None:
    """A copy of a network on the same weights whose 3x3x3 convolutions are `WinogradConv3d`; None if it has none.

    Args:
        net: in eval mode; later changes of its weights do not reach the copy's convolutions.
    """
    if not any(map(_fits, net.modules())):
        return None
    shared = {id(each): each for each in (*net.parameters(), *net.buffers())}
    changed = copy.deepcopy(net, shared)
    for parent in list(changed.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv3d) and _fits(child):
                setattr(parent, name, WinogradConv3d(child))
    return changed


def _fits(module: nn.Module) -> bool:
    """Whether it is a plain 3D convolution of three voxels, step 1 and enough channels."""
    return (
        type(module) in (nn.Conv3d, OneDnnConv3d)
        and isinstance(module, nn.Conv3d)
        and tuple(module.kernel_size) == (3, 3, 3)
        and {*module.stride, *module.dilation, module.groups} == {1}
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
        and min(module.in_channels, module.out_channels) >= FEWEST_CHANNELS
    )
