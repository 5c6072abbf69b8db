"""The catalogue of networks is complete, agrees with what it describes, and can be read without torch."""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

import medseg.nets
from medseg import net_catalogue
from medseg.config import RunConfig
from medseg.errors import ConfigError
from medseg.net_catalogue import BACKBONE_MEMORY, entry_of
from medseg.nets import BACKBONES, NETS, build_net
from medseg.nets.profile import build_on_meta, training_bytes
from medseg.preparation import prepare
from medseg.preparation.net_needs import RESIDUAL_STAGES
from medseg.preparation.patch import default_channels

# What every builder of a network has, and no part of one.
SIGNATURE = {"dims", "in_channels", "out_channels", "width"}
FIXED = {"in_channels": 1, "out_channels": 2}
SIZES = {2: (256, 256), 3: (64, 64, 64)}
every_entry = pytest.mark.parametrize("name", sorted(net_catalogue.NETS))


def test_it_is_read_without_torch_and_so_are_the_needs_of_a_configured_network() -> None:
    code = (
        "import sys\nfrom medseg.config import NetConfig\nfrom medseg.errors import ConfigError\n"
        "from medseg.preparation.net_needs import default_width, needs_of\n"
        "assert needs_of(NetConfig(name='deeplabv3')).stride == 8\n"
        "assert default_width(NetConfig(name='fcn8s'), 3, on_gpu=True) == 0.25\n"
        "try:\n    needs_of(NetConfig(name='deeplabv3pluss'))\n"
        "except ConfigError as error:\n    assert \"did you mean 'deeplabv3plus'\" in str(error), error\n"
        "assert not {'torch', 'monai'} & {m.partition('.')[0] for m in sys.modules}\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_no_network_of_the_package_is_missing() -> None:
    listed = set(NETS.values())
    listed |= {builder.func for builder in listed if hasattr(builder, "func")}
    for module in pkgutil.iter_modules(medseg.nets.__path__, "medseg.nets."):
        public = importlib.import_module(module.name)
        for name in getattr(public, "__all__", ()):
            found = getattr(public, name)
            if callable(found) and set(inspect.signature(found).parameters) >= SIGNATURE:
                assert found in listed, f"{module.name}.{name} has no entry in medseg/net_catalogue.py"


@pytest.mark.parametrize("dims", [2, 3])
@every_entry
def test_every_entry_builds_a_network_without_memory_for_its_weights(name: str, dims: int) -> None:
    net = build_on_meta(name, dims=dims)
    assert isinstance(net, nn.Module)
    assert all(value.is_meta for value in net.state_dict().values())


@every_entry
def test_what_an_entry_says_of_options_is_what_the_builder_takes(name: str) -> None:
    entry = net_catalogue.NETS[name]
    takes = inspect.signature(NETS[name]).parameters
    assert set(takes) >= SIGNATURE
    assert entry.backbone == (takes["backbone"].default if "backbone" in takes else "")
    assert set(entry.backbones) <= set(BACKBONE_MEMORY)
    if entry.needs is None:
        assert {"channels", "strides"} <= set(takes)
        assert entry.kernels == ("kernels" in takes)
    else:
        assert entry.needs.per_axis == ("axis_strides" in takes)
        assert entry.needs.stride in (1, 2, 4, 8, 16, 32)
        assert all(k > 0 for k in entry.needs.kilobytes)
    assert all(0 < w <= 1 for w in entry.width_3d)


def test_every_backbone_is_listed() -> None:
    assert list(BACKBONE_MEMORY) == list(BACKBONES)


def test_a_backbone_that_a_network_cannot_have_is_refused_with_those_that_it_can() -> None:
    with pytest.raises(
        ConfigError, match=r"net.backbone is 'vgg16'; known backbones of icnet are resnet18, .*resnet152"
    ):
        entry_of("icnet", "vgg16")
    with pytest.raises(ConfigError, match=r"net.backbone is 'vgg16'; known backbones of icnet"):
        build_net("icnet", dims=2, **FIXED, backbone="vgg16")


@pytest.mark.parametrize(
    ("net", "words"),
    [
        ({"name": "unett"}, r"net.name is 'unett'.*did you mean 'unet'\?"),
        ({"name": "fcn", "backbone": "resnet5"}, r"net.backbone is 'resnet5'.*did you mean 'resnet50'\?"),
        ({"name": "enet", "backbone": "resnet50"}, r"enet has no choice of backbone; leave it out"),
    ],
)
def test_preparing_refuses_a_network_that_does_not_exist_before_it_reads_data(
    net: dict[str, str], words: str, tmp_path: Path
) -> None:
    config = RunConfig(data={"root": tmp_path / "does_not_exist"}, output=tmp_path / "run", net=net)
    with pytest.raises(ConfigError, match=words):
        prepare(config)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ("enet", "bisenetv2", "fcn8s") else pytest.mark.slow)
        for name, entry in net_catalogue.NETS.items()
        if entry.needs is not None
    ],
)
def test_planned_memory_is_what_a_training_step_keeps(name: str, dims: int) -> None:
    needs = net_catalogue.NETS[name].needs
    assert needs is not None
    kept = training_bytes(build_on_meta(name, dims=dims), (1, 1, *SIZES[dims])) / math.prod(SIZES[dims]) / 1024
    assert needs.kilobytes[dims - 2] == pytest.approx(kept, rel=0.04)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ("unet", "unet_residual") else pytest.mark.slow)
        for name in ("unet with residual", *(name for name, entry in net_catalogue.NETS.items() if entry.needs is None))
    ],
)
def test_planned_memory_of_a_stage_is_what_a_training_step_keeps(name: str, dims: int) -> None:
    channels, (name, _, residual) = default_channels(dims, on_gpu=False), name.partition(" with ")
    planned = RESIDUAL_STAGES if residual else dict(zip((2, 3), net_catalogue.NETS[name].tensors, strict=True))
    strides = [[1] * dims] + [[2] * dims] * (len(channels) - 1)
    net = build_on_meta(name, dims=dims, channels=channels, strides=strides, **({"residual": True} if residual else {}))
    one_of_each = sum(features / 2 ** (dims * stage) for stage, features in enumerate(channels))
    kept = training_bytes(net, (1, 1, *SIZES[dims])) / math.prod(SIZES[dims]) / 4 / one_of_each
    # monai_dynunet is planned as a U-Net, with a little more than it keeps.
    assert planned[dims] == pytest.approx(kept, rel=0.07 if name == "monai_dynunet" else 0.02)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "resnet18" else pytest.mark.slow) for name in BACKBONE_MEMORY]
)
def test_planned_memory_follows_the_backbone(name: str, dims: int) -> None:
    kept = [
        training_bytes(build_on_meta("deeplabv3", dims=dims, backbone=each), (1, 1, *SIZES[dims]))
        for each in (name, "resnet50")
    ]
    assert BACKBONE_MEMORY[name][dims - 2] == pytest.approx(kept[0] / kept[1], rel=0.04)


def test_memory_kept_is_counted_once_per_tensor_and_without_weights() -> None:
    image, features = 4 * 16 * 16, 4 * 5 * 16 * 16
    conv = nn.Conv2d(1, 5, 3, padding=1)
    # The convolution keeps the image; a ReLU in place and the next convolution keep one and the same tensor.
    net = nn.Sequential(conv, nn.ReLU(inplace=True), nn.Conv2d(5, 2, 1)).to("meta")
    assert training_bytes(net, (1, 1, 16, 16)) == image + features
    assert training_bytes(nn.Sequential(conv).to("meta"), (3, 1, 16, 16)) == 3 * image
