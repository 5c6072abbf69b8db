"""A wrong key ends with the one that was meant, however it was miswritten."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg.config import RunConfig, all_keys, is_known, load_config, parse_overrides, validate_model
from medseg.config.keys import keys_meant
from medseg.errors import ConfigError


def complaint(override: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config("hippocampus", {"data.root": "x", **parse_overrides([override])})
    return str(caught.value)


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("data_root=/x", "'data.root'"),
        ("data-root=/x", "'data.root'"),
        ("dataroot=/x", "'data.root'"),
        ("Data.Root=/x", "'data.root'"),
        ("root=/x", "'data.root'"),
        ("training.max_minute=3", "'training.max_minutes'"),
        ("max_minutes=3", "'training.max_minutes'"),
        ("trainig.max_minutes=3", "'training.max_minutes'"),
        ("training/max_minutes=3", "'training.max_minutes'"),
        ("lr=0.001", "'training.learning_rate'"),
        ("training.lr=0.001", "'training.learning_rate'"),
        ("learning_rat=0.001", "'training.learning_rate'"),
        ("batch_size=2", "'training.batch_size'"),
        ("epochs=10", "'training.max_epochs'"),
        ("iters=10", "'training.max_iterations'"),
        ("early_stopping=3", "'training.patience'"),
        ("split.every=5", "'data.split.every'"),
        ("training.freeze=1", "'training.frozen'"),
        ("backbone_lr=0.1", "'training.layer_rates'"),
        ("freeze_bn=true", "'training.batch_statistics'"),
        ("optimizer.weight_decay=0", "'training.weight_decay'"),
        ("DEVICE=cpu", "'device'"),
        ("nets.width=1", "'net.width'"),
        ("name=unet", "'net.name' or 'loss.name'"),
        ("data.window.centre=1", "'data.window.center'"),
    ],
)
def test_a_wrong_key_ends_with_the_one_that_was_meant(override: str, meant: str) -> None:
    key = override.partition("=")[0]
    assert complaint(override).endswith(f"unknown key {key!r}; did you mean {meant}?")


def test_a_key_like_no_other_leads_to_the_list_of_keys() -> None:
    assert complaint("qqq=1").endswith("unknown key 'qqq'; medseg config --explain lists all keys")


@pytest.mark.parametrize(
    ("values", "meant"),
    [
        ({"lr": 0.1}, "'training.learning_rate'"),
        ({"learning_rate": 0.1}, "'training.learning_rate'"),
        ({"training": {"lr": 0.1}}, "'training.learning_rate'"),
        ({"training": {"spacing_mm": [1, 1]}}, "'plan.spacing_mm'"),
    ],
)
def test_a_wrong_key_of_a_file_is_told_in_the_same_way(values: dict[str, object], meant: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean {meant}"):
        validate_model(RunConfig, {"data": {"root": "x"}, **values}, "run.yaml")


@pytest.mark.parametrize(
    "name",
    [
        *("seed", "data", "data.labels", "data.labels.lung", "data.window.center", "net.options.x", "data.split.every"),
        *("prediction.postprocess.fill_holes", "prediction.postprocess.inside.tumour"),
    ],
)
def test_keys_parts_and_names_of_ones_own_are_known(name: str) -> None:
    assert is_known(name)


@pytest.mark.parametrize("name", ["", "Seed", "data.", "training.max_minutes.x", "data.label", ".seed"])
def test_other_names_are_not(name: str) -> None:
    assert not is_known(name)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("lr", "training.learning_rate"),
        ("epochs", "training.max_epochs"),
        ("hours", "training.max_minutes"),
        ("bs", "training.batch_size"),
        ("amp", "training.mixed_precision"),
        ("weights", "loss.weights"),
        ("Architecture", "net.name"),
        ("net.encoder", "net.backbone"),
        ("criterion", "loss.name"),
        ("data_dir", "data.root"),
        ("spacing", "plan.spacing_mm"),
        ("tta", "prediction.mirror"),
        ("gpu", "device"),
        ("out-dir", "output"),
    ],
)
def test_names_that_other_programs_use_lead_to_keys(name: str, meant: str) -> None:
    assert keys_meant(name) == [meant]
    assert meant in all_keys()


def test_no_such_name_hides_a_key_whose_last_part_it_is() -> None:
    assert [key for key in all_keys() if key not in keys_meant(key.rpartition(".")[2])] == []


def test_keys_are_those_of_the_models() -> None:
    config = load_config("hippocampus", {"data.root": Path("x")}).model_dump()
    assert {f"training.{name}" for name in config["training"]} <= all_keys().keys()
    assert all_keys()["data.root"].is_required and not all_keys()["seed"].is_required
