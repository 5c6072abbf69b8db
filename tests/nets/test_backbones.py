from __future__ import annotations

import pytest
import torch
from torch import nn

from medseg.errors import ConfigError
from medseg.nets import BACKBONES, build_backbone
from medseg.nets.backbones.strides import five_steps
from medseg.nets.blocks import conv, max_pool, norm_layer


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def on_meta(name: str, **options) -> nn.Module:
    with torch.device("meta"):
        return build_backbone(name, **{"dims": 2, "in_channels": 3, "norm": "batch", **options})


def convolutions(net: nn.Module, kernel: int) -> list[nn.Conv2d]:
    return [m for m in net.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (kernel, kernel)]


# Published counts less the classifier: ResNet 1000 classes on 512 or 2048 features, VGG's three fully connected
# layers, MobileNet v3's two.
PUBLISHED = {
    "resnet18": 11_689_512 - 513_000,
    "resnet34": 21_797_672 - 513_000,
    "resnet50": 25_557_032 - 2_049_000,
    "resnet101": 44_549_160 - 2_049_000,
    "resnet152": 60_192_808 - 2_049_000,
    "vgg16": 138_357_544 - 123_642_856,
    "mobilenet_v3_small": 2_542_856 - (576 * 1024 + 1024 + 1024 * 1000 + 1000),
    "mobilenet_v3_large": 5_483_032 - (960 * 1280 + 1280 + 1280 * 1000 + 1000),
    "xception": 37_867_312,
}


@pytest.mark.parametrize("name", BACKBONES)
def test_parameter_count_is_the_published_one(name):
    assert count(on_meta(name, norm="none" if name == "vgg16" else "batch")) == PUBLISHED[name]


@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", BACKBONES)
def test_maps_have_the_channels_and_strides_that_are_stated(name, dims, output_stride):
    axes = None if dims == 2 else (output_stride, output_stride, 2)
    net = build_backbone(
        name, dims=dims, in_channels=2, width=0.125, output_stride=output_stride, axis_strides=axes
    ).eval()
    size = (37, 50, 5)[:dims]
    with torch.no_grad():
        maps = net(torch.randn(1, 2, *size))
    assert [m.shape[1] for m in maps] == list(net.out_channels)
    for found, stride in zip(maps, net.strides, strict=True):
        assert tuple(found.shape[2:]) == tuple(-(-n // s) for n, s in zip(size, stride, strict=True))
    assert net.strides[-1] == ((output_stride,) * 2 if dims == 2 else (output_stride, output_stride, 2))
    assert net.strides[1][:2] == (4, 4)


@pytest.mark.parametrize("name", BACKBONES)
def test_one_voxel_is_still_an_image(name):
    net = build_backbone(name, dims=2, in_channels=1, width=0.125)
    assert all(torch.isfinite(m).all() and m.shape[2:] == (1, 1) for m in net(torch.randn(1, 1, 1, 1)))


def test_channels_are_those_of_the_papers():
    assert on_meta("resnet34").out_channels == (64, 64, 128, 256, 512)
    assert on_meta("resnet50").out_channels == (64, 256, 512, 1024, 2048)
    assert on_meta("vgg16").out_channels == (64, 128, 256, 512, 512)
    assert on_meta("xception").out_channels == (64, 128, 256, 728, 2048)
    assert on_meta("mobilenet_v3_large").out_channels == (16, 24, 40, 112, 960)
    assert on_meta("mobilenet_v3_small").out_channels == (16, 16, 24, 48, 576)


def test_stride_8_dilates_layer3_by_two_and_layer4_by_four_with_first_blocks_as_before():
    net = on_meta("resnet50", output_stride=8)
    rates = [[b.conv2.dilation[0] for b in stage] for stage in (net.layer2, net.layer3, net.layer4)]
    assert rates == [[1] * 4, [1, 2, 2, 2, 2, 2], [2, 4, 4]]
    assert [stage[0].conv2.stride for stage in (net.layer2, net.layer3, net.layer4)] == [(2, 2), (1, 1), (1, 1)]
    assert all(b.conv1.stride == (1, 1) for b in net.layer2)


def test_multi_grid_multiplies_the_dilations_of_layer4():
    net = on_meta("resnet50", output_stride=16, multi_grid=(1, 2, 4))
    assert [b.conv2.dilation[0] for b in net.layer4] == [2, 4, 8]
    with pytest.raises(ConfigError, match="layer4 has 3 blocks"):
        on_meta("resnet50", multi_grid=(1, 2))


def test_caffe_form_has_the_stride_on_the_first_1x1_and_dilates_every_block():
    net = on_meta("resnet101", output_stride=8, caffe=True)
    assert net.layer2[0].conv1.stride == (2, 2)
    assert net.layer2[0].conv2.stride == (1, 1)
    assert {b.conv2.dilation[0] for b in net.layer3} == {2}
    assert {b.conv2.dilation[0] for b in net.layer4} == {4}
    assert net.maxpool.ceil_mode


def test_mobilenet_at_stride_16_has_5x5_depthwise_of_dilation_two_in_its_last_three_blocks():
    net = on_meta("mobilenet_v3_large", output_stride=16)
    last = [m for n in (13, 14, 15) for m in convolutions(net.features[n], 5)]
    assert [(m.dilation, m.stride, m.groups) for m in last] == [((2, 2), (1, 1), g) for g in (672, 960, 960)]
    assert {m.dilation for m in convolutions(net.features[:13], 5)} == {(1, 1)}


@pytest.mark.parametrize(("output_stride", "expected"), [(16, (1, 1, 1, 2)), (8, (1, 2, 2, 4))])
def test_xception_dilates_middle_and_exit_flow(output_stride, expected):
    net = on_meta("xception", output_stride=output_stride)
    entry, middle = net.block3.rep[1].conv1, net.block4.rep[1].conv1
    block20, last = net.block20.rep[1].conv1, net.conv5.conv1
    assert tuple(m.dilation[0] for m in (entry, middle, block20, last)) == expected
    assert sum(name.startswith("block") for name, _ in net.named_children()) == 20


def test_xception_has_no_max_pool_and_vgg_has_five():
    assert not [m for m in on_meta("xception").modules() if isinstance(m, nn.MaxPool2d)]
    pools = [m for m in on_meta("vgg16").modules() if isinstance(m, nn.MaxPool2d)]
    assert [(p.kernel_size, p.stride, p.ceil_mode) for p in pools] == [((2, 2), (2, 2), True)] * 5


def test_rate_two_sees_five_by_five_with_nine_weights():
    kernel = conv(2, 1, 1, 3, dilation=2, bias=False)
    nn.init.ones_(kernel.weight)
    image = torch.zeros(1, 1, 11, 11, requires_grad=True)
    kernel(image)[0, 0, 5, 5].backward()
    rows, columns = torch.nonzero(image.grad[0, 0]).unbind(1)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (3, 7, 3, 7)
    assert len(rows) == 9 == kernel.weight.numel()


@pytest.mark.parametrize(("name", "caffe"), [("resnet18", False), ("resnet50", False), ("resnet50", True)])
def test_the_map_at_stride_8_holds_that_at_stride_32_with_the_same_weights(name, caffe):
    torch.manual_seed(0)
    options = {"dims": 2, "in_channels": 1, "width": 0.125, "norm": "batch", "caffe": caffe}
    coarse = build_backbone(name, **options).eval()
    fine = build_backbone(name, **options, output_stride=8).eval()
    fine.load_state_dict(coarse.state_dict())
    image = torch.randn(1, 1, 65, 65)
    with torch.no_grad():
        wanted, found = coarse(image)[-1], fine(image)[-1]
    assert wanted.shape == (*found.shape[:2], 3, 3)
    assert (found[..., ::4, ::4] - wanted).abs().max() < 1e-5 * wanted.abs().max()


def test_thick_axis_skips_the_first_steps():
    steps = five_steps(3, 16, (16, 16, 4))
    assert steps.strides == ((2, 2, 1), (2, 2, 1), (2, 2, 2), (2, 2, 2), (1, 1, 1))
    assert steps.dilations == (1, 1, 1, 1, 2)
    assert steps.total[-1] == (16, 16, 4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"output_stride": 4}, "output_stride is 4; choose one of 8, 16, 32"),
        ({"axis_strides": (8, 8)}, "expected 3 powers of two"),
        ({"axis_strides": (8, 8, 3)}, "expected 3 powers of two"),
        ({"output_stride": 8, "axis_strides": (16, 8, 8)}, "none above output_stride 8"),
        ({"norm": "layer"}, "norm is 'layer'"),
        ({"dims": 4}, "dims is 4"),
        ({"width": 0}, "width is 0"),
        ({"depth": 18}, "has no option 'depth'"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        build_backbone("resnet18", **{"dims": 3, "in_channels": 1, **options})


def test_unknown_backbone_names_the_nearest():
    with pytest.raises(ConfigError, match=r"'resnet5'.*did you mean 'resnet"):
        build_backbone("resnet5", dims=2, in_channels=1)


@pytest.mark.parametrize("name", ["resnet18", "vgg16", "mobilenet_v3_small", "xception"])
def test_memory_checkpointing_changes_neither_gradients_nor_running_statistics(name):
    image = torch.randn(2, 1, 33, 40)
    results = []
    for checkpoint in (False, True):
        torch.manual_seed(0)
        net = build_backbone(name, dims=2, in_channels=1, width=0.125, norm="batch", checkpoint=checkpoint)
        sum(m.square().mean() for m in net(image)).backward()
        results.append(([p.grad for p in net.parameters()], list(net.buffers())))
    torch.testing.assert_close(results[0], results[1])


def test_norms_are_those_asked_for():
    for norm, kind in (("batch", nn.BatchNorm3d), ("group", nn.GroupNorm)):
        net = build_backbone("resnet18", dims=3, in_channels=1, width=0.125, norm=norm)
        assert isinstance(net.bn1, kind)
    assert norm_layer("batch", 2, 4, 1e-3).eps == 1e-3


def test_a_pool_does_not_look_along_an_axis_that_others_are_halved_before():
    assert max_pool(3, 3, stride=(2, 2, 1), padding=1).kernel_size == (3, 3, 1)
    assert max_pool(3, 3, stride=(1, 1, 1), padding=1).kernel_size == (3, 3, 3)
    assert max_pool(2, 2, stride=1).kernel_size == (1, 1)
