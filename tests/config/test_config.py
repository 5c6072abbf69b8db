"""A wrong configuration stops before any data is read, and the message names key, file and mend."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from medseg.config import (
    RunConfig,
    load_config,
    packaged,
    packaged_configs,
    packaged_presets,
    parse_overrides,
    validate_model,
)
from medseg.errors import ConfigError


def write(folder: Path, text: str, name: str = "run.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def complaint(values: object) -> str:
    with pytest.raises(ConfigError) as caught:
        validate_model(RunConfig, values, "run.yaml")
    message = str(caught.value)
    assert message.startswith("run.yaml: ") and "\n" not in message
    return message.removeprefix("run.yaml: ")


def test_all_but_the_data_folder_has_a_default(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "data: {root: cases}"))
    assert config.data.root == Path("cases")
    assert config.data.layout == "auto" and config.net.name == "unet" and config.seed == 0
    assert config.output == Path("runs/run")


def test_overrides_come_on_top_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "data: {root: a, split: {every: 5, start: 4}}\ntraining: {max_minutes: 3, optimizer: sgd}")
    overrides = parse_overrides(["training.max_minutes=10", "data.root=b", "net.channels=[8, 16]", "output=out"])
    config = load_config(path, overrides)
    assert config.training.max_minutes == 10 and config.training.optimizer == "sgd"
    assert config.data.root == Path("b") and config.net.channels == (8, 16) and config.output == Path("out")
    assert config.data.split is not None and config.data.split.start == 4


def test_the_resolved_config_reads_back_as_the_same(tmp_path: Path) -> None:
    config = load_config("demo", {"data.root": "x", "data.window": {"center": 40, "width": 400}})
    text = yaml.safe_dump(config.model_dump(mode="json"))
    assert load_config(write(tmp_path, text)) == config


def test_a_config_cannot_be_changed() -> None:
    config = load_config("demo", {"data.root": "x"})
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 3  # type: ignore[misc]


@pytest.mark.parametrize("name", ["demo", "hippocampus", "vessel2d", "lung"])
def test_every_preset_loads_once_the_data_folder_is_given(name: str) -> None:
    assert name in packaged_configs()
    assert load_config(name, {"data.root": "x"}).label_scheme() is not None
    assert load_config(packaged_configs()[name], {"data.root": "x"}) == load_config(name, {"data.root": "x"})
    if name != "demo":
        with pytest.raises(ConfigError, match=r"data\.root is missing; give it in the file or as data\.root=VALUE"):
            load_config(name)


def test_every_packaged_preset_is_valid() -> None:
    for name in packaged_configs():
        load_config(name, {"data.root": "x"})


def test_every_packaged_preset_says_in_a_whole_line_what_it_is_for() -> None:
    lines = packaged_presets()
    assert lines.keys() == packaged_configs().keys()
    assert all(line[:1].isupper() and line.endswith(".") for line in lines.values()), lines


def test_hippocampus_validates_on_every_fifth_case() -> None:
    config = load_config("hippocampus", {"data.root": "x"})
    assert config.data.split is not None and (config.data.split.every, config.data.split.start) == (5, 4)


def test_a_folder_that_did_not_come_is_none() -> None:
    assert packaged("no_such_folder") is None


def test_a_typo_in_a_preset_gets_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"no config file hipocampus; did you mean 'hippocampus'\? presets are: demo"):
        load_config("hipocampus")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"trainig": {}}, "unknown key 'trainig'; did you mean 'training'?"),
        ({"training": {"max_minuts": 1}}, "unknown key 'training.max_minuts'; did you mean 'max_minutes'?"),
        ({"data": {"root": "x", "zzz": 1}}, "unknown key 'data.zzz'; valid here: annotated, corrected, csv, group"),
        ({"data": {"root": "x", "window": {"center": 1, "widht": 2}}}, "unknown key 'data.window.widht'; did you mean"),
        ({"data": {"root": "x", "window": {"center": 1}}}, "data.window.width is missing"),
        ({"data": {"root": "x", "window": "lnug"}}, "data: window 'lnug' is not a preset; there are: lung"),
        ({"data": {"root": "x", "window": {"center": 1, "width": 0.5}}}, "data.window: a LINEAR window is at least 1"),
        ({"data": {}}, "data.root is missing"),
        ({"data": {"root": "x", "labels": {"a": "b"}}}, "data.labels.a: Input should be a valid integer"),
        ({"data": {"root": "x", "labels": {"a": [1, "b"]}}}, "data.labels.a.1: Input should be a valid integer"),
        ({"data": {"root": "x", "labels": {1: 2}}}, "data.labels.1: Input should be a valid string"),
        ({"data": {"root": "x", "labels": {}}}, "data: data.labels names no label"),
        ({"data": {"root": "x", "labels": {"a": 1, "b": 1}}}, "data: two labels share a value"),
        ({"data": {"root": "x", "split": {}}}, "data.split: give either validation: [case names] or every: n"),
        ({"data": {"root": "x", "split": {"every": 5, "start": 5}}}, "data.split: start must be smaller than every"),
        ({"net": {"dims": 4}}, "net.dims: Input should be 2 or 3, found 4"),
        ({"net": None}, "net: Input should be a valid dictionary"),
        ({"training": {"max_minutes": -1}}, "training.max_minutes: Input should be greater than 0, found -1"),
        ({"training": {"max_minutes": float("nan")}}, "training.max_minutes: Input should be a finite number"),
        ({"training": {"fold": "al"}}, "training.fold: Input should be a valid integer"),
        ({"augmentation": {"scale": [1.3, 0.7]}}, "augmentation.scale: the first value must not be above the second"),
        ({"seed": -1}, "seed: Input should be greater than or equal to 0, found -1"),
        ({"format_version": 2}, "format_version: Input should be 1, found 2"),
    ],
)
def test_a_wrong_value_is_named_by_its_key(values: dict[str, object], message: str) -> None:
    assert complaint({"data": {"root": "x"}, **values}).startswith(message)


def test_every_branch_of_a_choice_is_told_once() -> None:
    told = complaint({"data": {"root": "x"}, "training": {"fold": "al"}})
    assert told.endswith("or Input should be 'all' or 'full', found 'al'")


def test_a_config_that_is_no_mapping_is_refused() -> None:
    assert complaint([1, 2]) == "expected keys and values, found list"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"data: [", "not valid YAML"),
        (b"- 1", "expected keys and values, found list"),
        (b"", "data.root is missing"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"data:\n  root: x\n training: 1", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_config_is_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("override", ["training", "=3", "a.b=[1", ""])
def test_an_override_that_cannot_be_read_is_refused(override: str) -> None:
    with pytest.raises(ConfigError, match=r"override|not valid YAML"):
        parse_overrides([override])


def test_a_value_may_hold_an_equals_sign() -> None:
    assert parse_overrides(["data.root=/a=b/c", "data.ignore=null"]) == {"data.root": "/a=b/c", "data.ignore": None}


def test_scientific_notation_is_a_number(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "data: {root: x}"), parse_overrides(["training.learning_rate=1e-3"]))
    assert config.training.learning_rate == 0.001
