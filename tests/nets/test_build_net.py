from __future__ import annotations

import pytest
import torch
from torch import nn

from medseg.errors import ConfigError
from medseg.nets import build_net

FIXED = {"dims": 2, "in_channels": 1, "out_channels": 2}


def tiny(*, dims, in_channels, out_channels, kernel=1):
    kind = nn.Conv2d if dims == 2 else nn.Conv3d
    return kind(in_channels, out_channels, kernel, padding=kernel // 2)


def not_a_net(**_):
    return "a string"


def test_unknown_name_lists_the_nets_and_the_nearest():
    with pytest.raises(ConfigError, match=r"'unett'.*known nets are .*unet.*did you mean 'unet'"):
        build_net("unett", **FIXED)


def test_unknown_option_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match=r"no option 'chanels'.*did you mean 'channels'"):
        build_net("unet", **FIXED, chanels=(4, 8))


def test_backbone_is_refused_where_there_is_no_choice():
    with pytest.raises(ConfigError, match=r"backbone is 'resnet50'.*leave it out"):
        build_net("unet", **FIXED, backbone="resnet50")


@pytest.mark.parametrize("backbone", [["resnet50"], {"name": "resnet50"}, 50, "resnet" * 1000])
def test_a_backbone_that_is_no_name_is_refused_in_one_short_line(backbone):
    with pytest.raises(ConfigError, match="backbone") as caught:
        build_net("fcn", **FIXED, backbone=backbone)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_width_must_be_positive_and_multiplies_the_features():
    with pytest.raises(ConfigError, match="width"):
        build_net("unet", **FIXED, width=0)
    narrow = build_net("unet", **FIXED, channels=(16, 32), width=0.5)
    same = build_net("unet", **FIXED, channels=(8, 16))
    assert [p.shape for p in narrow.parameters()] == [p.shape for p in same.parameters()]


def test_own_builder_is_called_with_sizes_and_options():
    net = build_net(f"{__name__}:tiny", **FIXED, kernel=3)
    assert net(torch.zeros(1, 1, 5, 5)).shape == (1, 2, 5, 5)


def test_own_builder_that_gives_no_module_is_refused():
    with pytest.raises(ConfigError, match=r"not_a_net gave a str; expected a torch\.nn\.Module"):
        build_net(f"{__name__}:not_a_net", **FIXED)


def test_own_builder_called_with_an_option_it_lacks_is_refused():
    with pytest.raises(ConfigError, match=r"tiny cannot be called.*kernels"):
        build_net(f"{__name__}:tiny", **FIXED, kernels=3)
    with pytest.raises(ConfigError, match="backbone"):
        build_net(f"{__name__}:tiny", **FIXED, backbone="resnet18")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"activation": "gelu"}, "activation is 'gelu'"),
        ({"padding": "reflect"}, "padding is 'reflect'"),
        ({"channels": ()}, "channels is empty"),
        ({"channels": (4, 8), "strides": ((1, 1),)}, "expected 2 stages"),
        ({"channels": (4, 8), "strides": ((1, 1), (2, 2, 2))}, "strides"),
        ({"channels": (4, 8), "strides": ((2, 2), (2, 2))}, "all 1"),
        ({"dropout": 1.5}, "dropout is 1.5"),
        ({"channels": (4, 8), "deep_supervision": True}, "at least 3 stages"),
        ({"padding": "valid", "deep_supervision": True}, "padding: same"),
    ],
)
def test_options_that_do_not_fit_are_refused_in_one_line(options, words):
    with pytest.raises(ConfigError, match=words) as caught:
        build_net("unet", **FIXED, **options)
    assert "\n" not in str(caught.value)
