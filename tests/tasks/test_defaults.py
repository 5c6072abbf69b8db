"""A configuration says more than its task: defaults of a task fill what is left out, and only that."""

from __future__ import annotations

import pytest

from medseg.config import RunConfig, load_config, packaged_configs
from medseg.errors import ConfigError
from medseg.labels import LabelScheme
from medseg.nets import build_net
from medseg.tasks import TASKS
from medseg.tasks.defaults import with_task_defaults
from medseg.training import train


def config(**values):
    return RunConfig.model_validate({"data": {"root": "x"}, **values})


def test_a_task_fills_what_the_configuration_leaves_out() -> None:
    assert with_task_defaults(config(task="tumor")).training.foreground_fraction == 0.5
    said = with_task_defaults(config(task="tumor", training={"foreground_fraction": 0.2, "max_minutes": 3}))
    assert (said.training.foreground_fraction, said.training.max_minutes) == (0.2, 3)
    plain = config()
    assert with_task_defaults(plain) is plain


def test_a_window_in_hounsfield_units_is_for_ct_alone() -> None:
    assert with_task_defaults(config(task="lung", data={"root": "x", "modality": "CT"})).data.window == "lung"
    assert with_task_defaults(config(task="lung")).data.window is None
    off = config(task="lung", data={"root": "x", "modality": "CT", "window": None})
    assert with_task_defaults(off).data.window is None


def test_filling_twice_changes_nothing() -> None:
    once = with_task_defaults(config(task="vessel"))
    assert with_task_defaults(once) == once


@pytest.mark.parametrize("name", sorted(TASKS))
def test_every_default_of_a_task_is_a_key_of_the_configuration(name) -> None:
    filled = with_task_defaults(config(task=name, data={"root": "x", "modality": "CT"}))
    for key, value in TASKS[name].defaults.items():
        part = filled
        for step in key.split("."):
            part = getattr(part, step)
        assert part == value
    assert RunConfig.model_validate(filled.model_dump()) == filled


def test_an_unknown_task_stops_a_training_before_any_data_is_read() -> None:
    with pytest.raises(ConfigError, match="no task 'kidney'; tasks are: vessel, lung, tumor"):
        train(config(task="kidney"))


@pytest.mark.parametrize("name", sorted(packaged_configs()))
def test_every_preset_loads_with_its_task_and_builds_its_net(name) -> None:
    preset = with_task_defaults(load_config(name, {"data.root": "x"}))
    # The preset for fine-tuning takes the labels of the data.
    scheme = preset.label_scheme() or LabelScheme.from_mapping({"label": 1})
    net = preset.net
    extra = {"channels": net.channels} if net.name == "unet" and net.channels else {}
    if net.backbone:
        extra["backbone"] = net.backbone
    width = {} if net.name == "unet" else {"width": 0.125}
    built = build_net(
        net.name, dims=net.dims, in_channels=1, out_channels=scheme.out_channels, **extra, **width, **net.options
    )
    assert sum(p.numel() for p in built.parameters()) > 0


def test_there_is_a_preset_for_vessels_lungs_and_tumours_in_two_and_three_dimensions_by_u_net_and_deeplab() -> None:
    found = {(c.task, c.net.dims, c.net.name) for c in (load_config(n, {"data.root": "x"}) for n in packaged_configs())}
    wanted = {(t, d, n) for t in ("vessel", "lung", "tumor") for d in (2, 3) for n in ("unet", "deeplabv3plus")}
    assert wanted <= found
