from __future__ import annotations

import pytest
import torch
from net_contract import (
    any_size_gives_finite_logits_and_gradients,
    compiled_equals,
    exported_equals,
    overfitted,
    real_case,
)
from torch import nn

from medseg.errors import ConfigError
from medseg.nets.instance_norm import InstanceNorm
from medseg.nets.unet_residual import ResidualUNet

SMALL = {"channels": (4, 6, 8)}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("dims", "reference"), [(2, 34_531_722), (3, 102_349_770)])
def test_parameter_count_is_that_of_nnunet_but_for_what_it_does_not_use(dims, reference):
    with torch.device("meta"):
        net = ResidualUNet(dims, 1, 2)
    # nnU-Net's has a bias before each norm, which the norm takes away again, and heads of deep supervision always.
    useless = sum(len(m.weight) for m in net.modules() if isinstance(m, InstanceNorm))
    shortcuts = 64 + 128 + 256 + 320  # of the 1x1 in a shortcut, which has no bias there either
    heads = sum(2 * features + 2 for features in (320, 256, 128, 64))
    assert sum(p.numel() for p in net.parameters()) == reference - (useless - shortcuts) - heads


def test_blocks_strides_and_decoder_are_those_of_resenc():
    with torch.device("meta"):
        net = ResidualUNet(3, 1, 2)
    assert [len(stage) for stage in net.encoder] == [1, 3, 4, 6, 6, 6]
    for n, stage in enumerate(net.encoder):
        strides = [block.first[0].stride for block in stage]
        assert strides == [(2, 2, 2) if n else (1, 1, 1)] + [(1, 1, 1)] * (len(stage) - 1)
    # The shortcut of a stride is a mean, then a 1x1 where channels change: 320 to 320 needs none.
    pool = ["ReplicationPad3d", "AvgPool3d"]
    kinds = [
        ["Conv3d" if isinstance(m, nn.Conv3d) else type(m).__name__ for m in stage[0].shortcut] for stage in net.encoder
    ]
    assert kinds == [[]] + [[*pool, "Conv3d", "InstanceNorm"]] * 4 + [pool]
    assert [len([m for m in unit if isinstance(m, nn.Conv3d)]) for unit in net.decoder] == [1] * 5
    assert not [m for m in net.modules() if isinstance(m, nn.MaxPool3d)]


def test_auxiliary_logits_have_the_resolution_of_their_stage_in_training_only():
    net = ResidualUNet(3, 1, 3, channels=(2, 2, 2, 2), blocks=(1, 1, 1, 1), deep_supervision=True)
    assert [tuple(o.shape) for o in net(torch.randn(2, 1, 21, 32, 17))] == [(2, 3, 21, 32, 17), (2, 3, 11, 16, 9)]
    any_size_gives_finite_logits_and_gradients(net, 3, 1, heads=1)


def test_strides_per_axis_reach_the_lowest_stage():
    net = ResidualUNet(3, 1, 2, **SMALL, strides=((1, 1, 1), (2, 2, 1), (2, 2, 2))).eval()
    seen = []
    net.encoder[-1][-1].register_forward_hook(lambda _module, _inputs, out: seen.append(tuple(out.shape[2:])))
    with torch.no_grad():
        net(torch.zeros(1, 1, 16, 18, 5))
    assert seen == [(4, 5, 3)]


def test_an_identity_block_at_zero_passes_what_it_was_given():
    net = ResidualUNet(2, 1, 2, channels=(4,), blocks=(1,), norm="none")
    block = net.encoder[0][0]
    x = torch.rand(1, 4, 5, 5)
    # Without norms the last convolution of a block begins at zero: the sum is the shortcut.
    assert torch.equal(block(x), x)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"channels": ()}, "channels is empty"),
        ({"channels": (4, 8), "blocks": (1,)}, "blocks is .*expected 2"),
        ({"channels": (4, 8), "strides": ((1, 1),)}, "expected 2 stages"),
        ({"channels": (4, 8), "strides": ((1, 1), (4, 4))}, "1, 2 or 3"),
        ({"channels": (4, 8), "strides": ((2, 2), (2, 2))}, "all 1"),
        ({"channels": (4, 8), "deep_supervision": True}, "at least 3 stages"),
    ],
)
def test_options_that_do_not_fit_are_refused_in_one_line(options, words):
    with pytest.raises(ConfigError, match=words) as caught:
        ResidualUNet(**{"dims": 2, "in_channels": 1, "out_channels": 2, **options})
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("dims", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_it_overfits_one_real_case(one_data_folder, dims):
    torch.manual_seed(0)
    x, truth = real_case(one_data_folder, dims)
    net = ResidualUNet(dims, 1, 2, channels=(32, 64, 128), width=0.25)
    assert overfitted(net, x, truth, steps=60, learning_rate=1e-2) >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("dims", [2, 3])
def test_onnx_gives_the_same_logits_at_sizes_that_the_export_has_not_seen(dims, tmp_path):
    exported_equals(ResidualUNet(dims, 1, 2, **SMALL), dims, tmp_path)


@pytest.mark.slow
def test_compiled_it_gives_the_same_logits():
    compiled_equals(ResidualUNet(2, 1, 2, **SMALL, norm="batch"), (37, 50))
