from __future__ import annotations

import pytest
import torch
from net_contract import exported_equals
from torch import nn

from medseg.errors import ConfigError
from medseg.nets import UNet
from medseg.nets.blocks import crop_to, pad_to_multiple


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(("in_channels", "expected"), [(3, 31_037_698), (1, 31_036_546)])
def test_parameter_count_is_the_published_one(in_channels, expected):
    with torch.device("meta"):
        net = UNet(2, in_channels, 2, norm="batch")
    assert count(net) == expected


def test_there_are_23_convolutions_and_four_transposed_of_stride_two():
    with torch.device("meta"):
        net = UNet(2, 1, 2)
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    ups = [m for m in net.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert len(convs) + len(ups) == 23
    assert [m.kernel_size for m in convs] == [(3, 3)] * 18 + [(1, 1)]
    assert [(m.kernel_size, m.stride, m.in_channels, m.out_channels) for m in ups] == [
        ((2, 2), (2, 2), n, n // 2) for n in (1024, 512, 256, 128)
    ]


def test_valid_padding_turns_572_into_388():
    net = UNet(2, 1, 2, padding="valid", norm="none", width=1 / 16).eval()
    with torch.no_grad():
        assert net(torch.zeros(1, 1, 572, 572)).shape == (1, 2, 388, 388)


def test_valid_padding_names_the_next_size_that_fits():
    net = UNet(2, 1, 2, padding="valid", norm="none", width=1 / 32).eval()
    with pytest.raises(ConfigError, match=r"570 x 560 does not fit .* 572 x 572"):
        net(torch.zeros(1, 1, 570, 560))
    small = UNet(3, 1, 2, channels=(2, 2), padding="valid").eval()
    with torch.no_grad():
        assert small(torch.zeros(1, 1, 20, 22, 24)).shape == (1, 2, 4, 6, 8)


def test_valid_equals_the_middle_of_same_where_padding_is_out_of_sight():
    valid = UNet(2, 1, 2, channels=(3, 5), padding="valid", norm="none").eval()
    same = UNet(2, 1, 2, channels=(3, 5), norm="none").eval()
    same.load_state_dict(valid.state_dict())
    image = torch.randn(1, 1, 60, 60)
    with torch.no_grad():
        small, full = valid(image), same(image)
    torch.testing.assert_close(small, crop_to(full, small.shape[2:]))


def test_skip_carries_the_centre_to_the_output_with_the_bottleneck_at_zero():
    net = UNet(2, 1, 2, channels=(4, 4, 4), norm="none").eval()
    with torch.no_grad():
        for up in net.up:
            up.weight.zero_()
            up.bias.zero_()
        image = torch.randn(1, 1, 32, 32)
        changed = image.clone()
        changed[0, 0, 16, 16] += 5
        difference = (net(changed) - net(image)).abs().amax(1)[0]
    assert difference[16, 16] > 1e-4
    # Four 3x3 convolutions at full resolution see 4 voxels each way; anything wider came through the bottleneck.
    rows, columns = torch.nonzero(difference).unbind(1)
    assert rows.min() >= 12
    assert rows.max() <= 20
    assert columns.min() >= 12
    assert columns.max() <= 20


def test_zeroed_skips_leave_only_the_bottleneck():
    net = UNet(2, 1, 2, channels=(4, 4), norm="none").eval()
    image = torch.randn(1, 1, 16, 16)
    with torch.no_grad():
        before = net(image)
        net.decoder[0].first.conv.weight[:, :4] = 0  # concatenation: skip first, then what comes from below
        assert not torch.equal(net(image), before)


@pytest.mark.parametrize(
    ("strides", "lowest"),
    [
        (((1, 1, 1), (2, 2, 1), (2, 2, 2)), (4, 4, 3)),
        (((1, 1, 1), (2, 2, 1), (2, 2, 1)), (4, 4, 5)),
        (((1, 1, 1), (1, 2, 3), (2, 1, 1)), (8, 8, 2)),
    ],
)
def test_strides_per_axis_reach_the_bottleneck(strides, lowest):
    net = UNet(3, 1, 2, channels=(2, 3, 4), strides=strides).eval()
    seen = []
    net.encoder[-1].register_forward_hook(lambda _module, _inputs, out: seen.append(tuple(out.shape[2:])))
    with torch.no_grad():
        assert net(torch.randn(1, 1, 16, 16, 5)).shape == (1, 2, 16, 16, 5)
    assert seen == [lowest]


def test_auxiliary_logits_have_the_resolution_of_their_stage():
    net = UNet(3, 1, 3, channels=(2, 2, 2, 2, 2), deep_supervision=True)
    sizes = [tuple(o.shape) for o in net(torch.randn(2, 1, 21, 32, 17))]
    assert sizes == [(2, 3, 21, 32, 17), (2, 3, 11, 16, 9), (2, 3, 6, 8, 5)]


def test_auxiliary_heads_change_no_other_key():
    plain = set(UNet(2, 1, 2, channels=(2, 2, 2)).state_dict())
    deep = set(UNet(2, 1, 2, channels=(2, 2, 2), deep_supervision=True).state_dict())
    assert deep - plain == {"auxiliary.1.weight", "auxiliary.1.bias"}
    assert plain < deep


def test_state_dict_keys_stay_as_saved_models_have_them():
    assert list(UNet(2, 1, 2, channels=(2, 4), residual=True).state_dict()) == [
        "encoder.0.first.conv.weight",
        "encoder.0.first.norm.weight",
        "encoder.0.first.norm.bias",
        "encoder.0.second.conv.weight",
        "encoder.0.second.norm.weight",
        "encoder.0.second.norm.bias",
        "encoder.0.shortcut.0.weight",
        "encoder.0.shortcut.1.weight",
        "encoder.0.shortcut.1.bias",
        "encoder.1.first.conv.weight",
        "encoder.1.first.norm.weight",
        "encoder.1.first.norm.bias",
        "encoder.1.second.conv.weight",
        "encoder.1.second.norm.weight",
        "encoder.1.second.norm.bias",
        "encoder.1.shortcut.0.weight",
        "encoder.1.shortcut.1.weight",
        "encoder.1.shortcut.1.bias",
        "up.0.weight",
        "up.0.bias",
        "decoder.0.first.conv.weight",
        "decoder.0.first.norm.weight",
        "decoder.0.first.norm.bias",
        "decoder.0.second.conv.weight",
        "decoder.0.second.norm.weight",
        "decoder.0.second.norm.bias",
        "decoder.0.shortcut.0.weight",
        "decoder.0.shortcut.1.weight",
        "decoder.0.shortcut.1.bias",
        "head.weight",
        "head.bias",
    ]


@pytest.mark.parametrize("features", [8, 64])
def test_first_logits_are_of_order_one_whatever_the_features(features):
    torch.manual_seed(0)
    net = UNet(2, 1, 4, channels=(features, features)).eval()
    with torch.no_grad():
        logits = net(torch.randn(1, 1, 32, 32))
    assert 0.2 < logits.std() < 2


def test_signal_neither_fades_nor_grows_without_norm():
    torch.manual_seed(0)
    net = UNet(2, 1, 2, channels=(16, 32, 64), norm="none", activation="relu").eval()
    seen = []
    net.decoder[-1].register_forward_hook(lambda _module, _inputs, out: seen.append(out.std().item()))
    with torch.no_grad():
        net(torch.randn(1, 1, 64, 64))
    assert 0.2 < seen[0] < 20


def test_dropout_acts_in_training_only():
    net = UNet(2, 1, 2, channels=(4, 8), dropout=0.5)
    image = torch.randn(1, 1, 16, 16)
    assert not torch.equal(net(image), net(image))
    net.eval()
    assert torch.equal(net(image), net(image))


def test_a_shift_by_the_total_stride_shifts_the_logits():
    net = UNet(2, 1, 2, channels=(3, 4, 5), norm="none").eval()
    image = torch.zeros(1, 1, 96, 96)
    image[..., 40:52, 44:50] = torch.randn(12, 6)
    with torch.no_grad():
        out, moved = net(image), net(image.roll((4, 8), (2, 3)))
    torch.testing.assert_close(moved[..., 24:80, 24:80], out.roll((4, 8), (2, 3))[..., 24:80, 24:80])


def test_it_learns_one_small_case():
    torch.manual_seed(0)
    net = UNet(3, 1, 2, channels=(8, 16))
    grid = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, 16)] * 3, indexing="ij"))
    truth = (grid.square().sum(0) < 0.4).long()[None]
    image = (truth + 0.5 * torch.randn(1, 16, 16, 16))[:, None].float()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(image), truth).backward()
        optimizer.step()
    found = net(image).argmax(1)
    dice = 2 * (found * truth).sum() / (found.sum() + truth.sum())
    assert dice > 0.95


def test_padding_repeats_the_last_voxel_at_the_end():
    x = torch.tensor([[[[1.0, 2.0, 3.0]]]])
    assert pad_to_multiple(x, (1, 4)).tolist() == [[[[1.0, 2.0, 3.0, 3.0]]]]
    assert pad_to_multiple(x, (2, 3)).tolist() == [[[[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]]]
    assert pad_to_multiple(x, (1, 3)) is x


def test_cropping_keeps_the_middle():
    assert crop_to(torch.arange(6.0).view(1, 1, 6), (2,)).tolist() == [[[2.0, 3.0]]]


@pytest.mark.slow
@pytest.mark.parametrize("dims", [2, 3])
def test_onnx_gives_the_same_logits_at_sizes_that_the_stages_do_not_divide(dims, tmp_path):
    # An export that asked whether its example divides would pad all images or none.
    exported_equals(UNet(dims, 1, 2, channels=(4, 6, 8, 8, 8)), dims, tmp_path)
