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

from medseg.errors import ConfigError
from medseg.nets.icnet import BINS, ICNet, pyramid_of_means


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_parameter_count_is_the_published_one_without_what_a_segmentation_does_not_use():
    with torch.device("meta"):
        net = ICNet(2, 3, 19, norm="batch")
    # The published 28,298,376 holds ResNet-50's classifier of 1000 classes, and a stem of three 3x3 (64, 64, 128)
    # in place of the 7x7, after which layer1 has 128 channels to take.
    classifier = 2048 * 1000 + 1000
    stem = (3 * 64 + 64 * 64 + 64 * 128) * 9 + 2 * (64 + 64 + 128) - (3 * 64 * 49 + 2 * 64)
    layer1 = 64 * 64 + 64 * 256
    assert sum(p.numel() for p in net.parameters()) == 28_298_376 - classifier - stem - layer1


def seen_by(net: nn.Module, image: torch.Tensor) -> dict[str, list[tuple[int, ...]]]:
    """Output sizes of parts of the network, in the order of their calls."""
    found: dict[str, list[tuple[int, ...]]] = {}

    def note(name: str, out: torch.Tensor) -> None:
        found.setdefault(name, []).append(tuple(out.shape[1:]))

    for name in ("full", "backbone.layer2", "backbone.layer3", "backbone.layer4", "fuse_low.low", "fuse_high.low"):
        last = [*net.get_submodule(name).children()][-1]
        last.register_forward_hook(lambda _module, _inputs, out, name=name: note(name, out))
    with torch.no_grad():
        net.eval()(image)
    return found


def test_the_middle_image_stops_after_layer_two():
    net = ICNet(2, 1, 2)
    # layer2 sees the quarter and the half, layer3 and layer4 the quarter alone, at stride 8: 32 of the image.
    assert seen_by(net, torch.zeros(1, 1, 128, 192)) == {
        "full": [(64, 16, 24)],
        "backbone.layer2": [(512, 4, 6), (512, 8, 12)],
        "backbone.layer3": [(1024, 4, 6)],
        "backbone.layer4": [(2048, 4, 6)],
        "fuse_low.low": [(128, 8, 12)],
        "fuse_high.low": [(128, 16, 24)],
    }
    middle = {block.conv2.dilation[0] for block in list(net.backbone.layer3)[1:]}
    last = {block.conv2.dilation[0] for block in list(net.backbone.layer4)[1:]}
    assert (middle, last) == ({2}, {4})
    assert net.fuse_low.low[0].dilation == net.fuse_high.low[0].dilation == (2, 2)


@pytest.mark.parametrize("size", [(12, 18), (7, 13), (5, 1), (6, 7, 9), (1, 2, 3)])
def test_pyramid_is_the_sum_of_means_over_the_parts(size):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    pool, mode = (F.adaptive_avg_pool2d, "bilinear") if len(size) == 2 else (F.adaptive_avg_pool3d, "trilinear")
    wanted = x.clone()
    for bins in BINS:
        wanted += F.interpolate(pool(x, bins), size, mode=mode)
    torch.testing.assert_close(pyramid_of_means(x), wanted)


def test_pyramid_of_a_constant_map_is_five_times_the_map():
    assert torch.allclose(pyramid_of_means(torch.full((1, 1, 9, 7), 2.0)), torch.tensor(10.0))


def test_guidance_is_given_at_strides_eight_and_sixteen_in_training():
    outputs = ICNet(2, 1, 3, width=0.125)(torch.randn(2, 1, 65, 48))
    assert [tuple(o.shape) for o in outputs] == [(2, 3, 65, 48), (2, 3, 9, 6), (2, 3, 5, 3)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backbone": "resnet19"}, "did you mean 'resnet1"),
        ({"backbone": "vgg16"}, "net.backbone is 'vgg16'; icnet has one of resnet18, .*resnet152"),
    ],
)
def test_options_out_of_range_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        ICNet(**{"dims": 2, "in_channels": 1, "out_channels": 2, **options})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dims", "options", "steps", "rate"),
    # In 3D the quarter of 24 voxels ends as one: an instance norm would leave nothing of it.
    [(2, {"width": 0.125}, 80, 1e-2), (3, {"width": 0.25, "norm": "group"}, 60, 3e-3)],
)
def test_it_overfits_one_real_case(one_data_folder, dims, options, steps, rate):
    torch.manual_seed(0)
    x, truth = real_case(one_data_folder, dims)
    net = ICNet(dims, 1, 2, **options)
    # Logits are at stride 4, but the finest map that they come from is at stride 8.
    assert overfitted(net, x, truth, steps=steps, learning_rate=rate) >= 0.95 * allowed(truth, 8)


@pytest.mark.slow
@pytest.mark.parametrize("dims", [2, 3])
def test_onnx_gives_the_same_logits_at_sizes_that_the_export_has_not_seen(dims, tmp_path):
    exported_equals(ICNet(dims, 1, 2, norm="batch", width=0.125), dims, tmp_path)


@pytest.mark.slow
def test_compiled_it_gives_the_same_logits():
    compiled_equals(ICNet(2, 1, 2, norm="batch", width=0.125), (69, 50))
