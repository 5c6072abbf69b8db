"""nnU-Net's networks: its names of parameters, its logits, and a forward pass by hand after the specification.

The fixtures were written by nnU-Net's own package, see `tests/fixtures/make_nnunet.py`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from medseg.errors import ConfigError
from medseg.inference.engine import NetworkEngine
from medseg.nets import build_net
from medseg.nets.profile import build_on_meta
from medseg.nets.winograd import WinogradConv3d, with_winograd

FIXTURES = Path(__file__).parents[1] / "fixtures" / "nnunet"
BY_NNUNET = [json.loads(line) for line in (FIXTURES / "logits.json").read_text().splitlines()]
SIZES = {2: (16, 12), 3: (4, 16, 8)}
THICK = {"channels": (4, 6, 8), "strides": ((1, 1, 1), (1, 2, 2), (2, 2, 2)), "kernels": ((1, 3, 3), *((3, 3, 3),) * 2)}
FORMS = [
    ("nnunet_plain", 2, {"channels": (4, 6, 8)}),
    ("nnunet_plain", 3, THICK | {"convs": (1, 2, 3), "decoder_convs": (1, 3)}),
    ("nnunet_plain", 3, THICK | {"norm": "batch", "conv_bias": False}),
    ("nnunet_resenc", 2, {"channels": (4, 6, 6)}),
    ("nnunet_resenc", 3, THICK | {"norm": "batch", "blocks": (2, 1, 3)}),
    ("nnunet_resenc", 3, THICK | {"bottleneck": (2, 3, 4), "stem_channels": 5}),
]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("file", ["plain", "resenc"])
def test_names_and_shapes_of_parameters_are_those_of_nnunets_own_package(file):
    first, *lines = (FIXTURES / f"{file}.txt").read_text().splitlines()
    built = json.loads(first)
    net = build_on_meta(built["name"], dims=built["dims"], out_channels=3, **built["options"])
    found = [f"{key} {'x'.join(map(str, value.shape))}" for key, value in net.state_dict().items()]
    assert found == lines


def values(count: int, number: int) -> Tensor:
    """As in `make_nnunet.py`."""
    return torch.from_numpy(0.3 * np.cos(np.arange(count) * 1.7 + number * 0.9)).float()


def test_logits_are_those_of_nnunets_own_package():
    for case in BY_NNUNET:
        net = build_net(case["name"], dims=case["dims"], in_channels=2, out_channels=2, **case["options"]).eval()
        for number, (key, value) in enumerate(net.state_dict().items()):
            if not key.endswith("num_batches_tracked"):
                positive = key.endswith(("norm.weight", "running_var"))
                value.copy_((values(value.numel(), number) + positive).reshape(value.shape))
        size = SIZES[case["dims"]]
        image = 3 * values(2 * int(np.prod(size)), 0).reshape(1, 2, *size)
        wanted = torch.tensor(case["logits"], dtype=torch.float64)
        with torch.no_grad():
            found = net(image).flatten()[:: case["every"]]
            exact = net.double()(image.double()).flatten()[:: case["every"]]
        assert wanted.std() > 0.01
        assert (exact - wanted).abs().max() < 1e-6, case
        assert (found - wanted).abs().max() < 1e-5, case


def unit(state: dict[str, Tensor], name: str, x: Tensor, stride: tuple[int, ...] = (), act: bool = True) -> Tensor:
    weight = state[f"{name}.conv.weight"]
    padding = [(k - 1) // 2 for k in weight.shape[2:]]
    convolve = F.conv2d if x.dim() == 4 else F.conv3d
    x = convolve(x, weight, state.get(f"{name}.conv.bias"), stride or 1, padding)
    scale, shift = state[f"{name}.norm.weight"], state[f"{name}.norm.bias"]
    if f"{name}.norm.running_mean" in state:
        x = F.batch_norm(x, state[f"{name}.norm.running_mean"], state[f"{name}.norm.running_var"], scale, shift)
    else:
        x = F.instance_norm(x, weight=scale, bias=shift)
    return F.leaky_relu(x, 0.01) if act else x


def count(state: dict[str, Tensor], pattern: str) -> int:
    return len({found[1] for key in state if (found := re.match(pattern, key))})


def convs(state: dict[str, Tensor], name: str, x: Tensor, stride: tuple[int, ...] = ()) -> Tensor:
    for n in range(count(state, rf"{re.escape(name)}\.convs\.(\d+)\.")):
        x = unit(state, f"{name}.convs.{n}", x, () if n else stride)
    return x


def block(state: dict[str, Tensor], name: str, x: Tensor, stride: tuple[int, ...]) -> Tensor:
    bottleneck = f"{name}.conv3.conv.weight" in state
    inner = unit(state, f"{name}.conv1", x, () if bottleneck else stride)
    inner = unit(state, f"{name}.conv2", inner, stride if bottleneck else (), act=bottleneck)
    if bottleneck:
        inner = unit(state, f"{name}.conv3", inner, act=False)
    strided = any(s > 1 for s in stride)
    if strided:
        x = (F.avg_pool2d if x.dim() == 4 else F.avg_pool3d)(x, stride, stride)
    skip = f"{name}.skip.{1 if strided else 0}"
    if f"{skip}.conv.weight" in state:
        assert f"{skip}.conv.bias" not in state
        x = unit(state, skip, x, act=False)
    return F.leaky_relu(inner + x, 0.01)


def by_hand(state: dict[str, Tensor], x: Tensor, strides: list[tuple[int, ...]]) -> list[Tensor]:
    """Logits of every decoder stage, the lowest first, by nothing but names of parameters and strides."""
    maps = []
    if "encoder.stem.convs.0.conv.weight" in state:
        x = convs(state, "encoder.stem", x)
    for s, stride in enumerate(strides):
        if any(key.startswith(f"encoder.stages.{s}.blocks.") for key in state):
            for b in range(count(state, rf"encoder\.stages\.{s}\.blocks\.(\d+)\.")):
                x = block(state, f"encoder.stages.{s}.blocks.{b}", x, tuple(1 for _ in stride) if b else stride)
        else:
            x = convs(state, f"encoder.stages.{s}.0", x, stride)
        maps.append(x)
    up, convolve = (F.conv_transpose2d, F.conv2d) if x.dim() == 4 else (F.conv_transpose3d, F.conv3d)
    logits = []
    for s in range(len(strides) - 1):
        stride = strides[-(s + 1)]
        x = up(x, state[f"decoder.transpconvs.{s}.weight"], state.get(f"decoder.transpconvs.{s}.bias"), stride)
        x = convs(state, f"decoder.stages.{s}", torch.cat((x, maps[-(s + 2)]), 1))
        head = state[f"decoder.seg_layers.{s}.weight"], state[f"decoder.seg_layers.{s}.bias"]
        logits.append(convolve(x, *head))
    return logits


def trained(name, dims, options, **more):
    """A network whose every value, statistics included, is away from where it begins."""
    torch.manual_seed(0)
    net = build_net(name, dims=dims, in_channels=2, out_channels=3, **options, **more).double()
    for key, value in net.state_dict().items():
        if value.is_floating_point():
            value.add_(0.3 * torch.rand_like(value) + key.endswith("norm.weight"))
    return net


@pytest.mark.parametrize(("name", "dims", "options"), FORMS)
def test_logits_are_those_of_a_forward_pass_by_hand(name, dims, options):
    net = trained(name, dims, options).eval()
    image = torch.randn(2, 2, *((8, 16, 8) if dims == 3 else (16, 24)), dtype=torch.float64)
    with torch.no_grad():
        found, wanted = net(image), by_hand(net.state_dict(), image, net.strides)[-1]
    assert wanted.std() > 0.01
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["nnunet_plain", "nnunet_resenc"])
def test_auxiliary_logits_are_those_of_nnunets_heads_but_for_the_lowest_which_counts_nothing_there(name):
    options = {"channels": (2, 3, 4, 5, 6)}
    net = trained(name, 2, options, deep_supervision=True).train()
    image = torch.randn(1, 2, 32, 48, dtype=torch.float64)
    found, wanted = net(image), by_hand(net.state_dict(), image, net.strides)
    assert [tuple(each.shape[2:]) for each in found] == [(32, 48), (16, 24), (8, 12)]
    for each, same in zip(found, reversed(wanted), strict=False):
        torch.testing.assert_close(each, same, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["nnunet_plain", "nnunet_resenc"])
def test_heads_are_in_the_state_dict_also_where_nothing_is_computed_with_them(name):
    options = {"channels": (2, 3, 4, 5)}
    without, deep = (
        build_net(name, dims=2, in_channels=1, out_channels=2, deep_supervision=d, **options) for d in (0, 1)
    )
    assert list(without.state_dict()) == list(deep.state_dict())
    assert {f"decoder.seg_layers.{s}.weight" for s in range(3)} <= set(without.state_dict())
    # They are not learned, so that every parameter gets a gradient.
    learned = dict(without.named_parameters())
    assert [s for s in range(3) if f"decoder.seg_layers.{s}.weight" in learned] == [2]
    with torch.no_grad():
        for value in deep.state_dict().values():
            value.add_(1)
    without.load_state_dict(deep.state_dict())
    for s in range(3):
        head = f"decoder.seg_layers.{s}.bias"
        assert torch.equal(without.state_dict()[head], deep.state_dict()[head])


def test_a_residual_block_begins_as_its_shortcut():
    image = torch.rand(1, 4, 6, 6)
    for options in ({}, {"norm": "batch"}, {"norm": "none"}, {"bottleneck": (2, 2)}):
        net = build_net("nnunet_resenc", dims=2, in_channels=1, out_channels=2, channels=(4, 4), **options).eval()
        first = net.encoder.stages[0].blocks[0]
        assert torch.equal(first(image), image), options


@pytest.mark.parametrize("name", ["nnunet_plain", "nnunet_resenc"])
def test_winograds_convolutions_apply_and_change_nothing(name):
    torch.manual_seed(0)
    net = build_net(name, dims=3, in_channels=1, out_channels=2, channels=(8, 16, 16)).eval()
    fast = with_winograd(net)
    assert sum(isinstance(m, WinogradConv3d) for m in fast.modules()) >= 6
    image = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(fast(image), net(image), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("name", ["nnunet_plain", "nnunet_resenc"])
def test_the_engines_of_a_cpu_give_the_same_logits(name, norm):
    net = trained(name, 3, {"channels": (8, 8, 8), "norm": norm}).float().eval()
    image = torch.randn(1, 2, 16, 16, 16)
    with torch.inference_mode():
        wanted = net(image)
        for engine in ("winograd", "frozen"):
            (fast,) = NetworkEngine(torch.device("cpu"), engine).networks([net], lambda: iter([image]), 10)
            assert fast is not net
            torch.testing.assert_close(fast(image), wanted, rtol=0, atol=1e-4 * float(wanted.abs().max()))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("nnunet_plain", {"channels": (4,)}, "channels has 1 stages; nnunet_plain needs at least 2"),
        ("nnunet_plain", {"channels": (4, 8), "deep_supervision": True}, "at least 3 stages"),
        ("nnunet_plain", {"channels": (4, 8), "strides": ((1, 1),)}, "strides is .*expected 2 stages"),
        ("nnunet_plain", {"channels": (4, 8), "strides": ((2, 2), (2, 2))}, "all 1"),
        ("nnunet_plain", {"channels": (4, 8), "strides": ((1, 1), (0, 2))}, "out of 1, 2, 3, 4"),
        ("nnunet_resenc", {"channels": (4, 8), "kernels": ((3, 3), (2, 3))}, "kernels is .*out of 1, 3, 5, 7"),
        ("nnunet_resenc", {"channels": (4, 8), "kernels": ((3, 3, 3), (3, 3, 3))}, "of 2 numbers"),
        ("nnunet_plain", {"channels": (4, 8), "convs": (2, 0)}, "convs is .*expected 2 positive"),
        ("nnunet_plain", {"channels": (4, 8), "decoder_convs": (2, 2)}, "decoder_convs is .*expected 1 positive"),
        ("nnunet_resenc", {"channels": (4, 8), "blocks": (1,)}, "blocks is .*expected 2"),
        ("nnunet_resenc", {"channels": (4, 8), "bottleneck": (2,)}, "bottleneck is .*expected 2"),
        ("nnunet_resenc", {"channels": (4, 8), "stem_channels": 0}, "stem_channels is 0"),
        ("nnunet_plain", {"channels": (4, 8), "kernels": 5}, "kernels is 5; expected 2 stages"),
        ("nnunet_plain", {"channels": (4, 8), "strides": (1, 2)}, "strides is .*expected 2 stages"),
        ("nnunet_plain", {"channels": (4, 8), "strides": "ab"}, "strides is ab; expected 2 stages"),
        ("nnunet_resenc", {"channels": (4, 8), "blocks": 3}, "blocks is 3; expected 2"),
        ("nnunet_resenc", {"channels": (4, 8), "blocks": (1, 1.5)}, "blocks is .*expected 2"),
        ("nnunet_resenc", {"channels": (4, 8), "bottleneck": 3}, "bottleneck is 3; expected 2"),
        ("nnunet_plain", {"activation": "gelu"}, "activation is 'gelu'"),
    ],
)
def test_options_that_do_not_fit_are_refused_in_one_line(name, options, words):
    with pytest.raises(ConfigError, match=words) as caught:
        build_net(name, dims=2, in_channels=1, out_channels=2, **options)
    assert "\n" not in str(caught.value)
