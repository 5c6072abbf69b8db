from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from net_contract import any_size_gives_finite_logits_and_gradients, exported_equals, overfitted, real_case

from medseg.errors import ConfigError
from medseg.nets.monai_nets import (
    MonaiNet,
    monai_attentionunet,
    monai_dynunet,
    monai_segresnet,
    monai_swinunetr,
)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("build", "dims", "expected"), [(monai_dynunet, 3, 31_189_410), (monai_segresnet, 3, 4_700_914)]
)
def test_parameter_counts(build, dims, expected):
    with torch.device("meta"):
        net = build(dims, 1, 2)
    assert sum(p.numel() for p in net.parameters()) == expected


@pytest.mark.slow
def test_swinunetr_takes_any_volume():
    any_size_gives_finite_logits_and_gradients(monai_swinunetr(3, 1, 3, width=0.5), 3, 1)


def test_auxiliary_logits_of_dynunet_have_the_size_of_the_image():
    net = monai_dynunet(2, 1, 3, channels=(4, 4, 4, 4, 4), deep_supervision=True)
    assert [tuple(o.shape) for o in net(torch.randn(2, 1, 33, 47))] == [(2, 3, 33, 47)] * 3
    assert isinstance(net.eval()(torch.randn(2, 1, 33, 47)), torch.Tensor)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_size_that_divides_is_given_to_monai_as_it_is(dims):
    net = monai_dynunet(dims, 1, 2, channels=(4, 4, 4)).eval()
    image = torch.randn(1, 1, *(8, 12, 16)[:dims])
    with torch.no_grad():
        assert torch.equal(net(image), net.net(image))


def test_what_is_added_repeats_the_last_voxels():
    seen = []

    class Look(torch.nn.Module):
        def forward(self, x):
            seen.append(x)
            return x

    image = torch.arange(15.0).view(1, 1, 3, 5)
    assert torch.equal(MonaiNet(Look(), (2, 4))(image), image)
    rows = [[0, 1, 2, 3, 4, 4, 4, 4], [5, 6, 7, 8, 9, 9, 9, 9], [10, 11, 12, 13, 14, 14, 14, 14]]
    assert seen[0][0, 0].tolist() == [*rows, rows[2]]


def test_width_multiplies_the_features():
    narrow = monai_attentionunet(2, 1, 2, channels=(16, 32), width=0.5)
    same = monai_attentionunet(2, 1, 2, channels=(8, 16))
    assert [p.shape for p in narrow.parameters()] == [p.shape for p in same.parameters()]
    counts = [sum(p.numel() for p in monai_swinunetr(2, 1, 2, width=w).parameters()) for w in (0.1, 0.5, 1)]
    assert counts[0] == counts[1] < counts[2]


def test_attention_has_the_window_that_was_asked_for():
    tables = {w: monai_swinunetr(3, 1, 2, window=w, width=0.5).state_dict() for w in (4, 7)}
    name = "net.swinViT.layers1.0.blocks.0.attn.relative_position_bias_table"
    # One bias for every offset between two voxels of a window, and each of the three heads.
    assert {w: tuple(t[name].shape) for w, t in tables.items()} == {4: (7**3, 3), 7: (13**3, 3)}


@pytest.mark.parametrize(
    ("build", "options", "words"),
    [
        (monai_dynunet, {"norm": "none"}, "monai_dynunet has one of instance, batch, group"),
        (monai_dynunet, {"channels": (4, 8)}, "at least 3"),
        (monai_dynunet, {"channels": (4, 8, 8), "deep_supervision": True}, "at least 4 stages"),
        (monai_dynunet, {"channels": (4, 8, 8), "strides": ((1, 1),)}, "expected 3 stages"),
        (monai_dynunet, {"channels": (4, 8, 8), "strides": ((2, 2),) * 3}, "all 1"),
        (monai_segresnet, {"blocks": (1,)}, "at least 2"),
        (monai_attentionunet, {"channels": (4, 8), "strides": (2, 2)}, "of which there are 1"),
        (monai_swinunetr, {"window": 1}, "window is 1"),
    ],
)
def test_options_that_do_not_fit_are_refused_in_one_line(build, options, words):
    with pytest.raises(ConfigError, match=words) as caught:
        build(**{"dims": 2, "in_channels": 1, "out_channels": 2, **options})
    assert "\n" not in str(caught.value)


def test_monai_is_imported_only_when_one_of_its_networks_is_built():
    code = "import sys, medseg.nets.monai_nets; sys.exit('monai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "dims", "options", "steps"),
    [
        (monai_dynunet, 2, {"width": 0.25}, 40),
        (monai_segresnet, 2, {"width": 0.5}, 40),
        (monai_attentionunet, 2, {"width": 0.25}, 60),
        pytest.param(monai_segresnet, 3, {"width": 0.5}, 60, marks=pytest.mark.slow),
    ],
)
def test_it_overfits_one_real_case(one_data_folder, build, dims, options, steps):
    torch.manual_seed(0)
    x, truth = real_case(one_data_folder, dims)
    assert overfitted(build(dims, 1, 2, **options), x, truth, steps=steps, learning_rate=1e-2) >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("build", [monai_dynunet, monai_segresnet])
def test_onnx_gives_the_same_logits_at_sizes_that_the_export_has_not_seen(build, tmp_path):
    exported_equals(build(2, 1, 2, width=0.25), 2, tmp_path)
