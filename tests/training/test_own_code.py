"""A configuration that the user passes is permission for the code it names; what a run folder says is none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import yaml

import medseg
from medseg.errors import CheckpointError, ConfigError
from medseg.inference import load_bundle
from medseg.training.checkpoint import load_checkpoint

OWN = """
from torch import nn
from torch.nn.functional import cross_entropy

class Net(nn.Sequential):
    def __init__(self, in_channels, out_channels):
        super().__init__(nn.Conv3d(in_channels, out_channels, 3, padding=1))

def build(dims, in_channels, out_channels):
    return Net(in_channels, out_channels)

class Loss(nn.Module):
    def forward(self, logits, labels):
        return cross_entropy(logits, labels[:, 0].long())

def loss(labels=None, **_):
    return Loss()

class Same:
    def draw(self, rng, shape):
        return None

    def apply(self, image, labels, params):
        return image, labels
"""


@pytest.fixture
def here(tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a user's own code beside the configuration."""
    (tiny_dataset / "own_code_here.py").write_text(OWN)
    monkeypatch.chdir(tiny_dataset)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "own_code_here", raising=False)
    return tiny_dataset


def _train(config: Path, resume: bool = False, **overrides: object) -> medseg.training.Run:
    values = {"training.max_iterations": 4, "augmentation.custom": "own_code_here:Same"}
    values |= {"net.name": "own_code_here:build", "net.channels": None, "loss.name": "own_code_here:loss"}
    return medseg.train(config, {**values, **overrides}, resume=resume)


def test_what_the_users_configuration_names_is_trained_and_its_bundle_needs_permission(here: Path) -> None:
    run = _train(here / "config.yaml", **{"prediction.quality": "calibrate", "prediction.crf": "fit"})
    with pytest.raises(CheckpointError, match="--allow-code own_code_here"):
        medseg.load_model(run.bundle, "cpu")
    model = medseg.load_model(run.bundle, "cpu", allow_code=("own_code_here",))
    assert type(model.nets[0]).__name__ == "Net"
    again = _train(here / "config.yaml", resume=True, **{"training.max_iterations": 6})
    assert load_checkpoint(again.folder / "last.pt").iteration == 6


def test_weights_of_a_bundle_start_a_training_without_its_code(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = _train(here / "config.yaml")
    sys.modules.pop("own_code_here")
    (here / "own_code_here.py").write_text("raise SystemExit('code of the bundle was run')")
    assert load_bundle(run.bundle).info.net.name == "own_code_here:build"
    overrides = {"output": "second", "training.max_iterations": 2, "training.init": str(run.bundle)}
    with pytest.raises(CheckpointError, match="no weight fits"):
        medseg.train(here / "config.yaml", overrides)
    assert "own_code_here" not in sys.modules


def test_nothing_that_lies_in_a_run_folder_is_imported_when_it_is_resumed(here: Path) -> None:
    run = medseg.train(here / "config.yaml", {"training.max_iterations": 4})
    stored = yaml.safe_load((run.folder / "config.yaml").read_text())
    for key, builder in (("net", "build"), ("loss", "loss")):
        stored[key]["name"] = f"own_code_here:{builder}"
    stored["augmentation"]["custom"] = "own_code_here:Same"
    (run.folder / "config.yaml").write_text(yaml.safe_dump(stored))
    (run.folder / "own_code_here.py").write_text("raise SystemExit('code of the run folder was run')")
    medseg.train(here / "config.yaml", {"training.max_iterations": 6}, resume=True)
    assert "own_code_here" not in sys.modules


@pytest.mark.parametrize("part", ["net", "iteration", "random_state", "log"])
def test_a_checkpoint_that_was_altered_is_refused_in_one_line(part: str, here: Path) -> None:
    run = medseg.train(here / "config.yaml", {"training.max_iterations": 4})
    if part == "log":
        (run.folder / "log.jsonl").write_text('{"a": 1}\n[]}\n')
    else:
        values = torch.load(run.folder / "last.pt", weights_only=True)
        values[part] = {"net": {"a": torch.zeros(1)}, "iteration": "many", "random_state": torch.zeros(1)}[part]
        torch.save(values, run.folder / "last.pt")
    with pytest.raises(CheckpointError, match="does not fit this training") as caught:
        medseg.train(here / "config.yaml", {"training.max_iterations": 6}, resume=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("net.channels", [10**6, 10**6]),
        ("net.width", 1e9),
        ("net.options", {"name": "os:system"}),
        ("net.options", {"dropout": [[[[0.1]]]]}),
        ("plan.patch_size", [10**6] * 3),
    ],
)
def test_a_configuration_is_held_to_the_bounds_of_a_bundle(key: str, value: object, here: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        medseg.train(here / "config.yaml", {key: value})
    assert "\n" not in str(caught.value)


def test_labels_that_no_bundle_may_have_are_refused_before_the_training(here: Path) -> None:
    with pytest.raises(ConfigError, match="must not be a path"):
        medseg.train(here / "config.yaml", {"data.labels": {"../ball": 1}})
