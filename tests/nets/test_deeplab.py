from __future__ import annotations

import pytest
import torch
from torch import nn

from medseg.errors import ConfigError
from medseg.nets import build_net
from medseg.nets.blocks import upsample
from medseg.nets.deeplab_heads import ASPP, ImagePooling, ScoreASPP

FIXED = {"dims": 2, "in_channels": 3, "out_channels": 21}
SMALL = {"dims": 2, "in_channels": 1, "out_channels": 3, "width": 0.125}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def on_meta(name: str, **options) -> nn.Module:
    with torch.device("meta"):
        return build_net(name, **{**FIXED, "norm": "batch", **options})


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def rates(module: nn.Module) -> list[int]:
    return [m.dilation[0] for m in module.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("deeplabv1", {"norm": "none"}, 20_505_429),
        ("deeplabv2", {}, 44_048_532),
        ("deeplabv3", {"backbone": "resnet50"}, 39_638_869),
        ("deeplabv3", {"backbone": "resnet50", "auxiliary": True}, 42_004_074),
        ("deeplabv3", {"backbone": "resnet101"}, 58_630_997),
        ("deeplabv3", {"backbone": "resnet101", "auxiliary": True}, 60_996_202),
        ("deeplabv3", {"backbone": "mobilenet_v3_large"}, 11_025_477),
        ("deeplabv3", {"backbone": "mobilenet_v3_large", "auxiliary": True}, 11_029_328),
        ("deeplabv3plus", {"backbone": "resnet101"}, 59_344_309),
        ("deeplabv3plus", {"backbone": "xception"}, 54_705_317),
        ("deeplabv3plus", {"backbone": "resnet101", "separable": True}, 45_674_853),
        ("deeplabv3plus", {"backbone": "resnet50", "separable": True}, 26_682_725),
        ("deeplabv3plus", {"backbone": "mobilenet_v3_large", "separable": True}, 4_713_493),
    ],
)
def test_parameter_count_is_the_published_one(name, options, expected):
    assert count(on_meta(name, **options)) == expected


def test_number_of_keys_is_that_of_the_published_state_dicts():
    assert len(on_meta("deeplabv2").state_dict()) == 632
    assert len(on_meta("deeplabv3").state_dict()) == 362
    assert len(on_meta("deeplabv3", auxiliary=True).state_dict()) == 370
    assert len(on_meta("deeplabv3plus", backbone="resnet101").state_dict()) == 680


def test_parts_of_v3plus_have_the_published_sizes():
    net = on_meta("deeplabv3plus", backbone="resnet101")
    assert (count(net.backbone), count(net.aspp), count(net.decoder)) == (42_500_160, 15_535_104, 1_309_045)
    assert count(on_meta("deeplabv3plus", backbone="xception").decoder) == 1_302_901


def test_v1_sees_with_rate_12_at_stride_8_and_its_last_pools_keep_the_size():
    net = on_meta("deeplabv1", norm="none")
    pools = [m for m in net.modules() if isinstance(m, nn.MaxPool2d)]
    assert [(p.kernel_size, p.stride) for p in pools] == [((3, 3), (s, s)) for s in (2, 2, 2, 1, 1)]
    assert rates(net.backbone)[-3:] == [2, 2, 2]
    assert rates(net.backbone)[:-3] == [1] * 10
    assert (net.fc6.kernel_size, net.fc6.dilation, net.fc6.out_channels) == ((3, 3), (12, 12), 1024)
    assert (net.fc7.kernel_size, net.score.kernel_size) == ((1, 1), (1, 1))
    assert net.backbone.strides[-1] == (8, 8)


def test_v2_sums_scores_of_rates_6_12_18_24_without_norm():
    net = on_meta("deeplabv2")
    assert rates(net.aspp) == [6, 12, 18, 24]
    assert net.backbone.layer2[0].conv1.stride == (2, 2)
    assert net.backbone.maxpool.ceil_mode
    assert {b.conv2.dilation[0] for b in net.backbone.layer3} == {2}
    assert {b.conv2.dilation[0] for b in net.backbone.layer4} == {4}
    head = ScoreASPP(2, 5, 3, (1, 2))
    assert not [m for m in head.modules() if not isinstance(m, nn.Conv2d | ScoreASPP)]
    x = torch.randn(1, 5, 7, 8)
    torch.testing.assert_close(head(x), head.c0(x) + head.c1(x))
    assert head.c0.weight.std() < 0.02
    assert head.c0.bias.abs().max() == 0


def test_v2_at_several_scales_takes_the_greatest_logit():
    torch.manual_seed(0)
    one = build_net("deeplabv2", **SMALL, backbone="resnet18").eval()
    several = build_net("deeplabv2", **SMALL, backbone="resnet18", scales=(0.5, 0.75, 1)).eval()
    several.load_state_dict(one.state_dict())
    image = torch.randn(1, 1, 65, 65)
    with torch.no_grad():
        single, fused = one(image), several(image)
    assert (fused - single).min() >= -1e-6
    assert (fused - single).max() > 1e-4


@pytest.mark.parametrize(("stride", "expected"), [(8, [12, 24, 36]), (16, [6, 12, 18]), (32, [3, 6, 9])])
@pytest.mark.parametrize("name", ["deeplabv3", "deeplabv3plus"])
def test_rates_of_aspp_follow_the_output_stride(name, stride, expected):
    net = on_meta(name, output_stride=stride)
    head = net.aspp if name == "deeplabv3plus" else net.classifier[0]
    assert rates(head) == expected
    assert net.backbone.strides[-1] == (stride, stride)
    assert net.useful_size == (288, 288)


def test_aspp_of_v3_has_1x1_three_rates_and_image_pooling_concatenated():
    head = on_meta("deeplabv3").classifier[0]
    assert [type(b).__name__ for b in head.convs] == ["Sequential"] * 4 + ["ImagePooling"]
    assert (head.project[0].in_channels, head.project[0].out_channels) == (1280, 256)
    assert head.project[3].p == 0.5


def test_image_pooling_gives_every_voxel_the_same_and_depends_on_the_image():
    torch.manual_seed(0)
    for norm in ("instance", "group", "none"):
        pool = ImagePooling(3, 8, 16, norm=norm)
        with torch.no_grad():
            first, second = pool(torch.rand(1, 8, 3, 4, 5)), pool(torch.rand(1, 8, 3, 4, 5) * 3)
        assert torch.equal(first, first[..., :1, :1, :1].expand_as(first))
        assert (first - second).abs().max() > 1e-3


def test_a_rate_beyond_the_map_leaves_the_centre_alone():
    torch.manual_seed(0)
    head = ASPP(2, 4, 4, (18,), norm="none").eval()
    x = torch.randn(1, 4, 16, 16)
    kernel, bias = head.convs[1][0].weight, head.convs[1][0].bias
    with torch.no_grad():
        wanted = nn.functional.conv2d(x, kernel[..., 1:2, 1:2], bias).relu()
        torch.testing.assert_close(head.convs[1](x), wanted)


def test_decoder_of_v3plus_joins_48_channels_at_stride_4():
    net = build_net("deeplabv3plus", **{**SMALL, "width": 0.25}, backbone="resnet18").eval()
    assert on_meta("deeplabv3plus").decoder.conv1.out_channels == 48
    assert on_meta("deeplabv3plus").decoder.last_conv[0].in_channels == 304
    seen = []
    net.decoder.register_forward_hook(lambda _module, inputs, out: seen.append((inputs[1].shape[2:], out.shape[2:])))
    with torch.no_grad():
        net(torch.randn(1, 1, 65, 80))
    assert seen == [((17, 20), (17, 20))]


def test_the_decoder_sees_fine_detail_with_aspp_at_zero():
    torch.manual_seed(0)
    net = build_net("deeplabv3plus", **SMALL, backbone="resnet18", norm="none").eval()
    with torch.no_grad():
        net.aspp.project[0].weight.zero_()
        image = torch.randn(1, 1, 64, 64)
        changed = image.clone()
        changed[..., 32, 32] += 5
        moved = (net(changed) - net(image)).abs().amax((0, 1))
    assert moved[32, 32] > 1e-4
    assert moved[0, 0] == 0


@pytest.mark.parametrize(("name", "backbone"), [("deeplabv3", "resnet18"), ("deeplabv3", "mobilenet_v3_large")])
def test_auxiliary_logits_come_in_training_only(name, backbone):
    net = build_net(name, **SMALL, backbone=backbone, auxiliary=True)
    image = torch.randn(2, 1, 33, 40)
    assert [tuple(o.shape) for o in net(image)] == [(2, 3, 33, 40)] * 2
    assert net.eval()(image).shape == (2, 3, 33, 40)
    assert isinstance(build_net(name, **SMALL, backbone=backbone)(image), torch.Tensor)


@pytest.mark.parametrize("name", ["deeplabv1", "deeplabv2", "deeplabv3", "deeplabv3plus"])
def test_thick_slices_keep_their_number_in_3d(name):
    net = build_net(name, **{**SMALL, "dims": 3}, output_stride=8, axis_strides=(8, 8, 1)).eval()
    assert net.backbone.strides[-1] == (8, 8, 1)
    with torch.no_grad():
        assert net(torch.randn(1, 1, 33, 40, 5)).shape == (1, 3, 33, 40, 5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deeplabv1", "deeplabv2", "deeplabv3", "deeplabv3plus"])
@pytest.mark.parametrize("dims", [2, 3])
def test_it_learns_one_small_case_as_well_as_its_stride_allows(name, dims):
    torch.manual_seed(0)
    # The paper's dropout before v1's scores makes single steps differ too much to be judged after thirty.
    options = {"dropout": 0.0} if name == "deeplabv1" else {"backbone": "resnet18"}
    size, strides = ((48, 48), (8, 8)) if dims == 2 else ((40, 40, 10), (8, 8, 2))
    net = build_net(
        name, dims=dims, in_channels=1, out_channels=2, width=0.25, output_stride=8, axis_strides=strides, **options
    )
    grid = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, n) for n in size], indexing="ij"))
    truth = (grid.square().sum(0) < 0.5).long().expand(2, *size)
    image = (truth + 0.5 * torch.randn(2, *size))[:, None].float()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(image), truth).backward()
        optimizer.step()
    pool = nn.functional.avg_pool2d if dims == 2 else nn.functional.avg_pool3d
    allowed = upsample(pool(truth[:, None].float(), strides), size)[:, 0] > 0.5
    with torch.no_grad():
        found = net.eval()(image).argmax(1)
    assert dice(found, truth) > 0.9 * dice(allowed, truth)


def dice(found: torch.Tensor, truth: torch.Tensor) -> float:
    return (2 * (found * truth).sum() / (found.sum() + truth.sum())).item()


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("deeplabv3", {"backbone": "resnet52"}, "did you mean 'resnet"),
        ("deeplabv3", {"rates": ()}, "rates is"),
        ("deeplabv3", {"output_stride": 4}, "output_stride is 4"),
        ("deeplabv3", {"backbone": "vgg16", "multi_grid": (1, 2, 4)}, "vgg16 has no option 'multi_grid'"),
        ("deeplabv2", {"scales": ()}, "scales is"),
        ("deeplabv1", {"backbone": "resnet18"}, "no choice of backbone"),
    ],
)
def test_options_that_do_not_fit_are_refused(name, options, words):
    with pytest.raises(ConfigError, match=words):
        build_net(name, **SMALL, **options)
