from __future__ import annotations

import pytest
import torch
from torch import nn

from medseg.errors import ConfigError
from medseg.nets import build_net

FIXED = {"dims": 2, "in_channels": 3, "out_channels": 21}
SMALL = {"dims": 2, "in_channels": 1, "out_channels": 3, "width": 1 / 32}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def on_meta(name: str, **options) -> nn.Module:
    with torch.device("meta"):
        return build_net(name, **FIXED, **options)


@pytest.mark.parametrize(
    ("name", "count", "keys"),
    [("fcn32s", 136_152_917, 33), ("fcn16s", 134_815_994, 36), ("fcn8s", 134_489_759, 39)],
)
@pytest.mark.parametrize("padding", ["same", "original"])
def test_parameter_count_is_the_published_one(name, count, keys, padding):
    net = on_meta(name, norm="none", padding=padding)
    assert sum(p.numel() for p in net.parameters()) == count
    assert len(net.state_dict()) == keys


@pytest.mark.parametrize(
    ("backbone", "auxiliary", "count"),
    [
        ("resnet50", False, 32_957_013),
        ("resnet50", True, 35_322_218),
        ("resnet101", False, 51_949_141),
        ("resnet101", True, 54_314_346),
    ],
)
def test_dilated_fcn_has_torchvisions_parameter_count(backbone, auxiliary, count):
    net = on_meta("fcn", backbone=backbone, norm="batch", auxiliary=auxiliary)
    assert sum(p.numel() for p in net.parameters()) == count


def test_fc6_is_seven_wide_and_fc7_and_scores_are_1x1():
    net = on_meta("fcn8s", norm="none", padding="original")
    assert (net.fc6.kernel_size, net.fc6.in_channels, net.fc6.out_channels) == ((7, 7), 512, 4096)
    assert net.backbone.features[0].padding == (100, 100)
    for layer, channels in ((net.fc7, 4096), (net.score_fr, 4096), (net.score_pool4, 512), (net.score_pool3, 256)):
        assert (layer.kernel_size, layer.in_channels) == ((1, 1), channels)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fcn32s", {"upscore": (64, 32)}),
        ("fcn16s", {"upscore2": (4, 2), "upscore16": (32, 16)}),
        ("fcn8s", {"upscore2": (4, 2), "upscore_pool4": (4, 2), "upscore8": (16, 8)}),
    ],
)
def test_transposed_convolutions_begin_as_linear_interpolation_of_each_class(name, expected):
    net = build_net(name, **SMALL)
    ups = {key: m for key, m in net.named_modules() if isinstance(m, nn.ConvTranspose2d)}
    assert {key: (m.kernel_size[0], m.stride[0]) for key, m in ups.items()} == expected
    for up in ups.values():
        assert up.bias is None
        x = torch.randn(1, 3, 9, 9)
        stride = up.stride[0]
        wanted = nn.functional.interpolate(x, scale_factor=stride, mode="bilinear", align_corners=False)
        inner = slice(stride, -stride)  # at the border the interpolation repeats, the convolution meets zeros
        with torch.no_grad():
            torch.testing.assert_close(up(x)[..., inner, inner], wanted[..., inner, inner], rtol=1e-4, atol=1e-5)


def test_scores_begin_at_zero():
    net = build_net("fcn8s", **SMALL).eval()
    with torch.no_grad():
        assert net(torch.randn(1, 1, 40, 40)).abs().max() == 0


@pytest.mark.parametrize("padding", ["same", "original"])
def test_with_zero_skips_fcn8s_is_the_cascade_of_its_interpolations(padding):
    torch.manual_seed(0)
    net = build_net("fcn8s", **SMALL, padding=padding).eval()
    nn.init.normal_(net.score_fr.weight)
    image = torch.randn(1, 1, 64, 96)
    with torch.no_grad():
        x = net.relu(net.fc7(net.relu(net.fc6(net.backbone(image)[-1]))))
        x = net.upscore8(net.upscore_pool4(net.upscore2(net.score_fr(x))))
        offset = 31 if padding == "original" else 0
        torch.testing.assert_close(net(image), x[..., offset : offset + 64, offset : offset + 96])


def test_skips_are_added_to_the_scores():
    """What pool3 adds to the logits is its own interpolation, whatever the coarser scores are."""
    torch.manual_seed(0)
    net = build_net("fcn8s", **SMALL, norm="none").eval()
    image = torch.randn(1, 1, 64, 64)
    nn.init.normal_(net.score_pool3.weight)
    with torch.no_grad():
        alone = net(image)
        nn.init.normal_(net.score_fr.weight)
        nn.init.normal_(net.score_pool4.weight)
        both = net(image)
        net.score_pool3.weight.zero_()
        torch.testing.assert_close(both - alone, net(image), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("padding", ["same", "original"])
@pytest.mark.parametrize("name", ["fcn32s", "fcn16s", "fcn8s"])
def test_every_size_from_1_to_70_comes_back(name, padding):
    net = build_net(name, **{**SMALL, "width": 1 / 64}, padding=padding).eval()
    with torch.no_grad():
        for n in range(1, 71):
            assert net(torch.zeros(1, 1, n, 71 - n)).shape == (1, 3, n, 71 - n)


@pytest.mark.parametrize("padding", ["same", "original"])
def test_its_graph_leaves_the_sizes_open(padding):
    torch.manual_seed(0)
    # In double precision, as the graph has another operator for the norms, whose sums are in another order.
    net = build_net("fcn8s", **SMALL, padding=padding).eval().double()
    nn.init.normal_(net.score_fr.weight)
    sizes = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    example = torch.randn(1, 1, 40, 48, dtype=torch.double)
    graph = torch.export.export(net, (example,), dynamic_shapes=(sizes,)).module()
    for size in ((51, 35), (64, 64), (33, 100)):
        image = torch.randn(1, 1, *size, dtype=torch.double)
        with torch.no_grad():
            torch.testing.assert_close(graph(image), net(image))


def test_thick_slices_are_not_halved_first():
    net = build_net("fcn8s", dims=3, in_channels=1, out_channels=2, width=1 / 64, axis_strides=(32, 32, 4)).eval()
    assert net.backbone.strides == ((2, 2, 1), (4, 4, 1), (8, 8, 1), (16, 16, 2), (32, 32, 4))
    assert net.upscore8.kernel_size == (16, 16, 1)
    with torch.no_grad():
        assert net(torch.randn(1, 1, 33, 40, 5)).shape == (1, 2, 33, 40, 5)


def test_dilated_fcn_has_no_skip_and_no_transposed_convolution():
    net = on_meta("fcn", norm="batch")
    assert not [m for m in net.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert net.backbone.strides[-1] == (8, 8)


def test_auxiliary_logits_come_in_training_only():
    net = build_net("fcn", **SMALL, backbone="resnet18", auxiliary=True)
    image = torch.randn(2, 1, 33, 40)
    assert [tuple(o.shape) for o in net(image)] == [(2, 3, 33, 40)] * 2
    assert net.eval()(image).shape == (2, 3, 33, 40)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"padding": "valid"}, "padding is 'valid'; choose one of same, original"),
        ({"padding": "original", "axis_strides": (32, 8)}, "leave axis_strides out"),
        ({"backbone": "resnet18"}, "no choice of backbone"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        build_net("fcn8s", **SMALL, **options)
