"""Winograd's 3D convolution: the sums of the definition, and only where it is called for."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from medseg.nets import build_net, winograd
from medseg.nets.convolution3d import OneDnnConv3d
from medseg.nets.winograd import WinogradConv3d, with_winograd


def _last(x):
    return x.contiguous(memory_format=torch.channels_last_3d)


def test_a_kernel_of_whole_numbers_gives_the_sums_of_the_definition():
    # 24 divides what F(4, 3) divides by, so that each product is a whole number.
    direct = nn.Conv3d(8, 8, 3, padding=1, bias=False)
    nn.init.zeros_(direct.weight)
    direct.weight.data[:, :, :, 1, 1] = torch.tensor([24.0, 48.0, 72.0])
    x = torch.zeros(1, 8, 6, 1, 1)
    x[0, :, :, 0, 0] = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    with torch.no_grad():
        got = WinogradConv3d(direct)(_last(x))
    # 8 channels x 24 x (x[n - 1] + 2 x[n] + 3 x[n + 1]) with zeros outside.
    assert got[0, 3, :, 0, 0].tolist() == [192.0 * n for n in (8, 14, 20, 26, 32, 17)]


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(1, 3), st.integers(3, 30), *[st.integers(3, 14)] * 2),
    channels=st.tuples(st.integers(8, 20), st.integers(8, 20)),
    pads=st.tuples(*[st.integers(0, 2)] * 3),
    bias=st.booleans(),
    together=st.sampled_from([1, 4000, 2**17]),
    seed=st.integers(0, 2**16),
)
def test_any_size_and_padding_gives_what_the_definition_gives_in_double_precision(
    size, channels, pads, bias, together, seed
):
    torch.manual_seed(seed)
    direct = OneDnnConv3d(*channels, 3, padding=pads, bias=bias).requires_grad_(False)
    x = _last(torch.randn(size[0], channels[0], *size[1:]))
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "NUMBERS_TOGETHER", together)
        got = WinogradConv3d(direct)(x)
    expected = direct.double()(x.double())
    assert got.shape == expected.shape
    assert float((got - expected).abs().max()) < 1e-4


def test_only_plain_kernels_of_three_voxels_are_exchanged_and_the_weights_are_shared():
    kept = [
        nn.Conv3d(8, 8, 1),
        nn.Conv3d(8, 8, 3, stride=2),
        nn.Conv3d(8, 8, 3, dilation=2),
        nn.Conv3d(8, 8, 3, groups=8),
        nn.Conv3d(8, 8, 3, padding="same"),
        nn.Conv3d(8, 8, 3, padding_mode="replicate"),
        nn.Conv3d(8, 8, (1, 3, 3)),
        nn.Conv3d(1, 8, 3),
        nn.Conv2d(8, 8, 3),
    ]
    assert with_winograd(nn.Sequential(*kept)) is None
    net = nn.Sequential(*kept, nn.Sequential(nn.Conv3d(8, 8, 3), nn.ReLU()))
    changed = with_winograd(net)
    assert [type(each) for each in changed][:-1] == [type(each) for each in kept]
    assert isinstance(changed[-1][0], WinogradConv3d) and isinstance(net[-1][0], nn.Conv3d)
    own = {each.data_ptr() for each in net.parameters()}
    assert {each.data_ptr() for each in changed.parameters()} == own


@pytest.mark.parametrize("case", ["gradients", "layout", "double", "too flat"])
def test_elsewhere_the_given_convolution_runs(case):
    direct = nn.Conv3d(8, 8, 3, padding=1)
    x = torch.randn(2, 8, 3 if case == "too flat" else 8, 6, 6)
    x = x if case == "layout" else _last(x)
    if case == "double":
        direct, x = direct.double(), x.double()
    with torch.set_grad_enabled(case == "gradients"):
        assert torch.equal(WinogradConv3d(direct)(x), direct(x))


@pytest.mark.parametrize("name", ["unet", "unet_residual"])
@pytest.mark.parametrize("batch", [1, 2])
def test_the_u_nets_keep_the_layout_from_first_to_last_convolution(name, batch, monkeypatch):
    torch.manual_seed(0)
    net = build_net(name, dims=3, in_channels=1, out_channels=2, channels=(8, 16, 32)).eval()
    fast, x = with_winograd(net), torch.randn(batch, 1, 16, 16, 16)
    with torch.inference_mode():
        expected = net(x)
        # From here on, the direct convolution is out of reach of those that were exchanged.
        for each in fast.modules():
            if isinstance(each, WinogradConv3d):
                monkeypatch.setattr(each, "direct", _Parameters(each.direct))
        got = fast(x)
    assert torch.allclose(got, expected, atol=1e-3)


class _Parameters(nn.Module):
    def __init__(self, conv):
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self.padding, self.out_channels = conv.padding, conv.out_channels

    def forward(self, x):
        raise AssertionError(f"{tuple(x.shape)}, strides {x.stride()}")
