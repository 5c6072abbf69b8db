"""3D convolutions by oneDNN: the same numbers as torch's, wherever they run."""

from __future__ import annotations

import io

import pytest
import torch
from net_contract import compiled_equals, exported_equals
from torch import nn
from torch.nn import functional as F

from medseg.nets.blocks import conv
from medseg.nets.convolution3d import OneDnnConv3d

FORMS = [
    {"kernel": 3},
    {"kernel": 3, "stride": 2},
    {"kernel": 3, "stride": (1, 2, 2)},
    {"kernel": 3, "dilation": 2},
    {"kernel": 3, "dilation": (1, 4, 4), "bias": False},
    {"kernel": 3, "groups": 4},
    {"kernel": 3, "padding": 0},
    {"kernel": 2, "stride": 2, "padding": 0},
    {"kernel": 1},
    {"kernel": 1, "stride": 2, "bias": False},
]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def both(form, channels=4):
    """Ours, and torch's with the same weights."""
    torch.manual_seed(0)
    own = conv(3, channels, 8, form["kernel"], **{k: v for k, v in form.items() if k != "kernel"})
    assert type(own) is OneDnnConv3d
    given = own.stride, own.padding, own.dilation, own.groups, own.bias is not None
    plain = nn.Conv3d(channels, 8, own.kernel_size, *given)
    plain.load_state_dict(own.state_dict())
    return own, plain


def close(found, wanted, tolerance=1e-5):
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    assert (found - wanted).abs().max() <= tolerance * wanted.abs().max()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("size", [(1, 9, 8, 7), (2, 9, 8, 7), (1, 3, 12, 5), (1, 40, 72, 6)])
@pytest.mark.parametrize("form", FORMS)
def test_it_equals_torchs_convolution_on_both_sides_of_torchs_limit(form, size, layout):
    # 4 * 40 * 72 * 6 is above the 20480 of torch's rule (without the last axis, below), the others far below.
    own, plain = both(form)
    image = torch.randn(size[0], 4, *size[1:]).contiguous(memory_format=layout)
    with torch.no_grad():
        close(own(image), plain(image))


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("form", FORMS)
def test_gradients_are_torchs(form, batch):
    own, plain = both(form)
    first = torch.randn(batch, 4, 9, 8, 7, requires_grad=True)
    second = first.detach().clone().requires_grad_()
    weights = torch.randn_like(plain(second))
    (own(first) * weights).sum().backward()
    (plain(second) * weights).sum().backward()
    close(first.grad, second.grad)
    for mine, theirs in zip(own.parameters(), plain.parameters(), strict=True):
        close(mine.grad, theirs.grad)


def test_the_layout_in_memory_is_kept():
    own, _ = both({"kernel": 3})
    image = torch.randn(1, 4, 8, 8, 8).contiguous(memory_format=torch.channels_last_3d)
    with torch.inference_mode():
        assert own(image).is_contiguous(memory_format=torch.channels_last_3d)


def test_every_run_gives_the_same_bytes():
    own, _ = both({"kernel": 3})
    image = torch.randn(1, 4, 11, 12, 13)
    with torch.inference_mode():
        assert torch.equal(own(image), own(image.clone()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_number_types_are_left_to_torch(dtype):
    own, plain = both({"kernel": 3})
    image = torch.randn(1, 4, 8, 8, 8, dtype=dtype)
    with torch.no_grad():
        assert torch.equal(own.to(dtype)(image), plain.to(dtype)(image))


def test_under_autocast_the_result_has_autocasts_type():
    own, plain = both({"kernel": 3})
    image = torch.randn(1, 4, 8, 8, 8)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found, wanted = own(image), plain(image)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, wanted)


def test_whoever_turns_onednn_off_gets_torchs_own():
    own, plain = both({"kernel": 3})
    image = torch.randn(1, 4, 8, 8, 8)
    before = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = False
    try:
        with torch.no_grad():
            assert torch.equal(own(image), plain(image))
    finally:
        torch.backends.mkldnn.enabled = before


def test_a_single_image_without_batch_axis_is_torchs_case():
    own, plain = both({"kernel": 3})
    image = torch.randn(4, 8, 8, 8)
    with torch.no_grad():
        assert torch.equal(own(image), plain(image))


def test_wrong_channels_are_named():
    own, _ = both({"kernel": 3})
    with pytest.raises(RuntimeError, match="to have 4 channels, but got 3"):
        own(torch.randn(1, 3, 8, 8, 8))


def test_a_trace_and_an_exported_program_hold_the_plain_convolution():
    own, _ = both({"kernel": 3})
    image = torch.randn(1, 4, 8, 8, 8)
    program = torch.export.export(own.eval(), (image,))
    names = [str(node.target) for node in program.graph.nodes]
    assert any("conv3d" in name for name in names)
    assert not any("mkldnn" in name for name in names)
    stored = io.BytesIO()
    torch.export.save(program, stored)
    with torch.no_grad():
        close(program.module()(image), own(image))


@pytest.mark.slow
def test_onnx_and_the_compiler_give_its_logits(tmp_path):
    net = nn.Sequential(conv(3, 1, 4), nn.ReLU(), conv(3, 4, 2, 1))
    exported_equals(net, 3, tmp_path)
    compiled_equals(net, (8, 9, 10))


def test_the_rule_it_goes_around_is_still_there():
    # When this fails, torch chooses oneDNN itself and the class can go.
    x, weight = torch.randn(1, 4, 8, 8, 8), torch.randn(4, 4, 3, 3, 3)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen, torch.no_grad():
        F.conv3d(x, weight, padding=1)
    names = {event.key for event in seen.key_averages()}
    assert any("slow_conv3d" in name for name in names)
