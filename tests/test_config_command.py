"""`medseg config` tells of every key what the models hold: default, what it takes, meaning."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from medseg.cli import app
from medseg.commands.config import explain_all, explain_key
from medseg.config import RunConfig, all_keys
from medseg.errors import ConfigError


def test_without_a_key_every_key_is_listed_with_its_default() -> None:
    lines = dict(line.split(maxsplit=1) for line in explain_all().splitlines())
    assert lines.keys() == all_keys().keys()
    assert lines["training.momentum"] == "0.99" and lines["net.name"] == "unet"
    assert lines["augmentation.scale"] == "not set" and lines["net.options"] == "{}"
    assert lines["data.root"] == "none: it must be given" and lines["training.max_minutes"] == "not set"


def test_the_defaults_told_are_those_of_the_models() -> None:
    config = RunConfig.model_validate({"data": {"root": "x"}}).model_dump(mode="json")
    for name, key in all_keys().items():
        value = config
        for part in name.split("."):
            if not isinstance(value, dict):
                break  # within a part that is not set
            value = value[part]
        else:
            if not key.is_required and "default" in key.schema:
                assert key.schema["default"] == value, name


@pytest.mark.parametrize(
    ("key", "lines"),
    [
        (
            "training.max_minutes",
            ["default: not set", "takes:   number > 0", "meaning: `max_minutes`, `max_iterations`: the"],
        ),
        (
            "training.checkpoint",
            ["default: last", "takes:   last or best", "used by: train", "meaning: `checkpoint`: which weights"],
        ),
        ("training.fold", ["default: 0", "takes:   whole number >= 0 or all"]),
        (
            "data.labels",
            ["takes:   {name: whole number or [whole number, ...]}", "meaning: `labels` gives each name its integer"],
        ),
        ("data.root", ["default: none: it must be given", "takes:   file or folder"]),
        ("augmentation.gamma", ["takes:   [number > 0, number > 0]", "meaning: `gamma`: range of that exponent"]),
        ("prediction.crf", ["takes:   off or fit", "meaning: `crf` is 'off', or 'fit', which tries a dense CRF"]),
        ("data.window.function", ["default: LINEAR", "takes:   LINEAR or LINEAR_EXACT"]),
    ],
)
def test_a_key_is_explained(key: str, lines: list[str]) -> None:
    told = explain_key(key).splitlines()
    assert told[0] == key
    for line in lines:
        assert any(each.strip().startswith(line) for each in told), told


def test_a_part_explains_every_key_in_it_and_a_name_of_ones_own_the_key_it_belongs_to() -> None:
    told = explain_key("loss")
    assert "loss.name\n" in told and "loss.options\n" in told
    assert explain_key("data.labels.lung") == explain_key("data.labels")


@pytest.mark.parametrize(
    "name", ["training.init", "training.save_every", "data.split", "net.name", "plan.patch_size", "prediction.mirror"]
)
def test_the_keys_most_used_have_a_meaning_of_their_own(name: str) -> None:
    assert f"meaning: `{name.rpartition('.')[2]}`" in explain_key(name)


@pytest.mark.parametrize(("name", "meant"), [("lr", "training.learning_rate"), ("data-root", "data.root")])
def test_a_wrong_key_ends_with_the_one_that_was_meant(name: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown key '{name}'; did you mean '{meant}'"):
        explain_key(name)


def test_the_command_prints_them() -> None:
    listed = CliRunner().invoke(app, ["config", "--explain"])
    assert listed.exit_code == 0 and listed.stdout.strip() == explain_all()
    told = CliRunner().invoke(app, ["config", "--explain", "seed"])
    assert told.exit_code == 0 and told.stdout.strip() == explain_key("seed")
