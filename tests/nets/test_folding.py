"""Batch norms go into the convolutions before them where the run of the network shows that nothing lies between."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medseg.net_catalogue import NETS as CATALOGUE
from medseg.nets import NETS, build_net
from medseg.nets.convolution3d import OneDnnConv3d, UpConv3d, WideConv3d
from medseg.nets.folding import folded
from medseg.nets.frozen_batch_norm import FrozenBatchNorm

WITH_BATCH_NORM = [name for name, builder in NETS.items() if "norm" in inspect.signature(builder).parameters]
DEFAULT = (("unet", 3), ("bisenetv2", 2))
SIZES = {2: (64, 96), 3: (32, 48, 32)}


def shaken(net: nn.Module) -> nn.Module:
    """Statistics, scales and shifts as training leaves them: no norm is the identity any more."""
    torch.manual_seed(1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.3, 2)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.3)
    return net.eval()


def norms_left(net: nn.Module) -> int:
    return sum(isinstance(each, nn.BatchNorm2d | nn.BatchNorm3d | FrozenBatchNorm) for each in net.modules())


def small(name: str, dims: int) -> nn.Module:
    options = {"channels": (8, 16, 32), "strides": ((1,) * dims, (2,) * dims, (2,) * dims)}
    staged = options if CATALOGUE[name].needs is None else {}
    if name in ("unet", "nnunet_plain"):
        staged = {**staged, "deep_supervision": True}
    return build_net(name, dims=dims, in_channels=2, out_channels=3, norm="batch", width=0.25, **staged)


@pytest.mark.parametrize(
    ("name", "dims"),
    [
        pytest.param(name, dims, marks=() if (name, dims) in DEFAULT else pytest.mark.slow)
        for name in WITH_BATCH_NORM
        for dims in (2, 3)
    ],
)
def test_every_batch_norm_network_gives_the_same_logits_when_folded(name: str, dims: int) -> None:
    torch.manual_seed(0)
    net = shaken(small(name, dims))
    before = {key: value.clone() for key, value in net.state_dict().items()}
    example = torch.randn(1, 2, *(n // 2 for n in SIZES[dims]))
    faster = folded(net, example)
    assert norms_left(faster) < norms_left(net)
    for image in (example, torch.randn(2, 2, *SIZES[dims])):
        with torch.no_grad():
            wanted, found = net(image), faster(image)
        assert (found - wanted).abs().max() <= 1e-5 * max(1.0, float(wanted.abs().max()))
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


class Block(nn.Module):
    """A convolution, a norm, and what lies between or beside them."""

    def __init__(self, way: Callable[[Block, Tensor], Tensor]) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(4)
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.other = nn.Conv2d(4, 4, 1)
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        return self.way(self, x)


def both(block: Block, x: Tensor) -> Tensor:
    y = block.conv(x)
    return block.norm(y) + block.norm(block.other(x))


def kept(block: Block, x: Tensor) -> Tensor:
    y = block.conv(x)
    return torch.cat([block.norm(y), y], 1)


def changed_in_place(block: Block, x: Tensor) -> Tensor:
    y = block.conv(x)
    y[:, 0] = 0
    return block.norm(y)


def returned_too(block: Block, x: Tensor) -> Tensor:
    y = block.conv(x)
    return block.norm(y), y  # type: ignore[return-value]


def looked_at(block: Block, x: Tensor) -> Tensor:
    y = block.conv(x)
    return block.norm(y) * float(y.abs().max().item())


STAYS = {
    "a function lies between": lambda block, x: block.norm(F.relu(block.conv(x))),
    "a function changes it in place": lambda block, x: block.norm(F.relu_(block.conv(x))),
    "an assignment changes it in place": changed_in_place,
    "something else sees it": kept,
    "a number is taken from it": looked_at,
    "it is returned as well": returned_too,
    "the norm comes first": lambda block, x: block.conv(block.norm(x)),
    "two convolutions share the norm": both,
    "a part of it is normalised": lambda block, x: block.norm(block.conv(x)[:, :, 1:]),
    "the convolution is used without it as well": lambda block, x: block.norm(block.conv(x)) + block.conv(x),
}
GOES = {
    "directly": lambda block, x: block.norm(block.conv(x)),
    "registered the other way round, and its shape is asked for": lambda block, x: (
        block.norm(y) if (y := block.conv(x)).shape[1] == 4 and y.dim() == 4 else x
    ),
    "both are used twice": lambda block, x: block.norm(block.conv(block.norm(block.conv(x)))),
    "another convolution without a norm is there": lambda block, x: block.other(block.norm(block.conv(x))),
}


def agrees(net: nn.Module, image: Tensor, left: int) -> None:
    faster = folded(net, image)
    assert norms_left(faster) == left
    with torch.no_grad():
        torch.testing.assert_close(faster(image), net(image), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("way", STAYS.values(), ids=STAYS.keys())
def test_a_norm_stays_where(way: Callable[[Block, Tensor], Tensor]) -> None:
    agrees(shaken(Block(way)), torch.randn(2, 4, 8, 8), left=1)


@pytest.mark.parametrize("way", GOES.values(), ids=GOES.keys())
def test_a_norm_is_folded_where_it_follows(way: Callable[[Block, Tensor], Tensor]) -> None:
    agrees(shaken(Block(way)), torch.randn(2, 4, 8, 8), left=0)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv3d(4, 4, 3, groups=2, bias=False, padding=1, padding_mode="replicate"),
        OneDnnConv3d(4, 4, 1),
        WideConv3d(4, 4, 7, padding=3, stride=2),
        UpConv3d(4, 4, 2, stride=2, bias=False),
        nn.ConvTranspose3d(4, 4, 3, stride=2, padding=1, output_padding=1),
    ],
    ids=lambda conv: type(conv).__name__,
)
def test_every_kind_of_convolution_takes_a_norm(conv: nn.Module) -> None:
    for norm in (nn.BatchNorm3d(4), nn.BatchNorm3d(4, affine=False, eps=0.1)):
        agrees(shaken(nn.Sequential(conv, norm)), torch.randn(1, 4, 6, 7, 8), left=0)
    frozen = nn.Sequential(conv, FrozenBatchNorm(shaken(nn.Sequential(nn.BatchNorm3d(4)))[0]))
    agrees(frozen.eval(), torch.randn(1, 4, 6, 7, 8), left=0)


def test_layers_that_share_weights_or_have_no_statistics_stay() -> None:
    tied = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    tied[2].weight = tied[0].weight
    agrees(shaken(tied), torch.randn(2, 4, 8, 8), left=2)
    groups = nn.Sequential(nn.ConvTranspose2d(4, 4, 2, groups=2), nn.BatchNorm2d(4))
    agrees(shaken(groups), torch.randn(2, 4, 8, 8), left=1)
    of_batch = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)).eval()
    agrees(of_batch, torch.randn(2, 4, 8, 8), left=1)


def test_a_norm_under_two_names_is_replaced_under_both() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
            self.again = self.norm

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.again(self.conv(self.norm(self.conv(x))))
            return out

    agrees(shaken(Twice()), torch.randn(2, 4, 8, 8), left=0)
