from __future__ import annotations

import pytest
import torch
from net_contract import (
    allowed,
    compiled_equals,
    exported_equals,
    overfitted,
    real_case,
)
from torch import nn
from torch.nn import functional as F

from medseg.nets.enet import ENet, unpool


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("classes", "expected"), [(2, 349_212), (12, 350_652), (19, 351_660), (20, 351_804)])
def test_parameter_count_is_the_published_one(classes, expected):
    with torch.device("meta"):
        net = ENet(2, 3, classes, norm="batch")
    assert sum(p.numel() for p in net.parameters()) == expected


def test_dilations_and_asymmetric_kernels_are_those_of_the_table():
    with torch.device("meta"):
        net = ENet(2, 3, 19)
    for stage in (net.stage2, net.stage3):
        kernels = [[(c.kernel_size, c.dilation[0]) for c in b.modules() if isinstance(c, nn.Conv2d)] for b in stage]
        inner = [[k for k in block if k[0] != (1, 1)] for block in kernels]
        lines = [((5, 1), 1), ((1, 5), 1)]
        plain = [[((3, 3), rate)] for rate in (1, 2, 4, 8, 16)]
        assert inner == [plain[0], plain[1], lines, plain[2], plain[0], plain[3], lines, plain[4]]
    assert all(c.bias is None for c in net.modules() if isinstance(c, nn.Conv2d | nn.ConvTranspose2d))
    rates = sorted({m.p for m in net.modules() if isinstance(m, nn.Dropout2d)})
    assert rates == [0.01, 0.1]
    prelus = [name for name, m in net.named_modules() if isinstance(m, nn.PReLU)]
    assert not [name for name in prelus if name.startswith(("up", "stage4", "stage5"))]


def test_in_3d_an_asymmetric_convolution_has_three_factors():
    with torch.device("meta"):
        net = ENet(3, 1, 2)
    kernels = [c.kernel_size for c in net.stage2[2].modules() if isinstance(c, nn.Conv3d)]
    assert kernels == [(1, 1, 1), (5, 1, 1), (1, 5, 1), (1, 1, 5), (1, 1, 1)]


@pytest.mark.parametrize("size", [(8, 6), (7, 9), (1, 1), (4, 6, 8), (5, 3, 1)])
def test_unpooling_puts_each_maximum_back_where_it_was(size):
    dims = len(size)
    pool = F.max_pool2d if dims == 2 else F.max_pool3d
    x = torch.rand(2, 3, *size) + 1
    kept, places = pool(x, 2, 2, ceil_mode=True, return_indices=True)
    out = unpool(kept, places, size)
    assert out.shape == x.shape
    again = pool(out, 2, 2, ceil_mode=True)
    assert torch.equal(again, kept)
    assert torch.equal(out[out != 0], x[out != 0])
    assert int((out != 0).sum()) == kept.numel()
    if all(n % 2 == 0 for n in size):
        torchs = F.max_unpool2d if dims == 2 else F.max_unpool3d
        assert torch.equal(out, torchs(kept, places, 2))


def test_the_places_of_the_maxima_reach_the_output():
    torch.manual_seed(0)
    net = ENet(2, 1, 2, norm="none", width=0.25).eval()
    image = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        right = net(image)
        for up in (net.up4, net.up5):
            for p in up.branch.parameters():
                p.zero_()
        # Without the transposed branch, what is left of the coarse map has come through the places alone.
        assert net(image).std() > 0
        assert not torch.equal(net(image), right)


def test_every_size_up_to_forty_comes_back():
    net = ENet(2, 1, 2, width=0.0625).eval()
    with torch.no_grad():
        for n in range(1, 41):
            assert net(torch.zeros(1, 1, n, 41 - n)).shape == (1, 2, n, 41 - n)


def test_more_image_channels_than_first_features_still_pass_beside_the_convolution():
    net = ENet(2, 20, 2, width=0.25).eval()
    assert net.initial.out_channels == 1
    assert net(torch.zeros(1, 20, 9, 9)).shape == (1, 2, 9, 9)


@pytest.mark.slow
@pytest.mark.parametrize(("dims", "steps"), [(2, 60), (3, 80)])
def test_it_overfits_one_real_case(one_data_folder, dims, steps):
    torch.manual_seed(0)
    x, truth = real_case(one_data_folder, dims)
    net = ENet(dims, 1, 2)
    assert overfitted(net, x, truth, steps=steps, learning_rate=5e-3) >= 0.95 * allowed(truth, 2)


@pytest.mark.slow
@pytest.mark.parametrize(("dims", "norm"), [(2, "batch"), (2, "instance"), (3, "instance")])
def test_onnx_gives_the_same_logits_at_sizes_that_the_export_has_not_seen(dims, norm, tmp_path):
    exported_equals(ENet(dims, 1, 2, norm=norm, width=0.25), dims, tmp_path)


@pytest.mark.slow
def test_compiled_it_gives_the_same_logits():
    compiled_equals(ENet(2, 1, 2, norm="batch", width=0.25), (37, 50))
