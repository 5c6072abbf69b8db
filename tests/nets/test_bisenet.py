from __future__ import annotations

import pytest
import torch
from net_contract import (
    allowed,
    any_size_gives_finite_logits_and_gradients,
    compiled_equals,
    exported_equals,
    overfitted,
    real_case,
)
from torch import nn

from medseg.errors import ConfigError
from medseg.nets.bisenet_v1 import BiSeNetV1, pooled_norm
from medseg.nets.bisenet_v2 import BiSeNetV2

BOTH = pytest.mark.parametrize(("kind", "heads"), [(BiSeNetV1, 2), (BiSeNetV2, 4)])


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(
    ("kind", "predicting", "training"), [(BiSeNetV1, 13_275_539, 13_425_721), (BiSeNetV2, 3_358_627, 5_231_487)]
)
def test_parameter_counts_are_the_published_ones(kind, predicting, training):
    with torch.device("meta"):
        assert count(kind(2, 3, 19, norm="batch", auxiliary=False)) == predicting
        assert count(kind(2, 3, 19, norm="batch")) == training


@pytest.mark.parametrize(("kind", "keys", "training"), [(BiSeNetV1, 206, 222), (BiSeNetV2, 327, 383)])
def test_state_dicts_have_as_many_entries_as_the_published_ones(kind, keys, training):
    with torch.device("meta"):
        assert len(kind(2, 3, 19, norm="batch", auxiliary=False).state_dict()) == keys
        assert len(kind(2, 3, 19, norm="batch").state_dict()) == training


def shapes(net: nn.Module, *names: str, size: tuple[int, ...] = (64, 96)) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}

    def note(name: str, out: torch.Tensor) -> None:
        found[name] = tuple(out.shape[1:])

    for name in names:
        net.get_submodule(name).register_forward_hook(lambda _module, _inputs, out, name=name: note(name, out))
    with torch.no_grad():
        net.eval()(torch.zeros(1, 1, *size))
    return found


def test_v1_joins_both_paths_at_stride_eight():
    net = BiSeNetV1(2, 1, 2)
    assert shapes(net, "spatial", "head16", "head32", "refine16", "refine32", "average", "fusion", "head") == {
        "spatial": (128, 8, 12),
        "head16": (128, 8, 12),
        "head32": (128, 4, 6),
        "refine16": (128, 4, 6),
        "refine32": (128, 2, 3),
        "average": (128, 1, 1),
        "fusion": (256, 8, 12),
        "head": (2, 8, 12),
    }
    path = [(c.kernel_size, c.stride) for c in net.spatial.modules() if isinstance(c, nn.Conv2d)]
    assert path == [((7, 7), (2, 2)), ((3, 3), (2, 2)), ((3, 3), (2, 2)), ((1, 1), (1, 1))]


def test_v1_keeps_thick_slices():
    net = BiSeNetV1(3, 1, 2, axis_strides=(32, 32, 4), width=0.125)
    assert shapes(net, "spatial", "refine32", size=(32, 64, 5)) == {"spatial": (16, 4, 8, 5), "refine32": (16, 1, 2, 2)}


def test_v2_has_its_branches_at_strides_eight_and_thirty_two():
    net = BiSeNetV2(2, 1, 2)
    names = ("detail", "stem", "stages.0.1", "stages.1.1", "stages.2.3", "context", "aggregate")
    assert list(shapes(net, *names).values()) == [
        (128, 8, 12),
        (16, 16, 24),
        (32, 8, 12),
        (64, 4, 6),
        (128, 2, 3),
        (128, 2, 3),
        (128, 8, 12),
    ]
    assert [len(stage) for stage in net.stages] == [2, 2, 4]
    depthwise = [c for c in net.stages[0].modules() if isinstance(c, nn.Conv2d) and c.groups > 1]
    # With stride: to six times the channels, again, and the shortcut's; without: to six times the channels.
    assert [(c.in_channels, c.out_channels, c.stride[0]) for c in depthwise] == [
        (16, 96, 2),
        (96, 96, 1),
        (16, 16, 2),
        (32, 192, 1),
    ]


@BOTH
def test_auxiliary_logits_have_the_size_of_the_image(kind, heads):
    outputs = kind(2, 1, 3, width=0.125)(torch.randn(2, 1, 33, 47))
    assert [tuple(o.shape) for o in outputs] == [(2, 3, 33, 47)] * (1 + heads)
    any_size_gives_finite_logits_and_gradients(kind(2, 1, 3, width=0.125, auxiliary=False), 2, 1)


def test_means_of_a_map_still_say_something_after_an_instance_norm():
    norm = pooled_norm("instance", 2, 16)
    one, other = torch.randn(1, 16, 1, 1), torch.randn(1, 16, 1, 1)
    assert (norm(one) - norm(other)).abs().max() > 0.1
    assert isinstance(pooled_norm("batch", 2, 16), nn.BatchNorm2d)


def test_v1_names_the_backbones_it_knows():
    with pytest.raises(ConfigError, match=r"net.backbone is 'resnet19'.*did you mean 'resnet1"):
        BiSeNetV1(2, 1, 2, backbone="resnet19")


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize(("dims", "width", "steps"), [(2, 0.25, 120), (3, 0.125, 40)])
def test_it_overfits_one_real_case(one_data_folder, kind, heads, dims, width, steps):
    torch.manual_seed(0)
    x, truth = real_case(one_data_folder, dims)
    net = kind(dims, 1, 2, width=width)
    assert overfitted(net, x, truth, steps=steps, learning_rate=1e-2) >= 0.95 * allowed(truth, 8)


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("dims", [2, 3])
def test_onnx_gives_the_same_logits_at_sizes_that_the_export_has_not_seen(kind, heads, dims, tmp_path):
    exported_equals(kind(dims, 1, 2, norm="batch", width=0.125), dims, tmp_path)


@pytest.mark.slow
@BOTH
def test_compiled_it_gives_the_same_logits(kind, heads):
    compiled_equals(kind(2, 1, 2, norm="batch", width=0.125), (37, 50))
