"""Batches, and what a checkpoint is matched by, are those of the last release for every configuration it could read.

The stored numbers were made by the code of the last release. The state of the generator after a batch is compared
exactly, so that not one random number is drawn more, less or in another order; grey values to within what processors
round differently.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pytest
import torch

from medseg.config import RunConfig, load_config
from medseg.labels import LabelScheme
from medseg.preparation.normalize import Scale
from medseg.preparation.plan import ChannelPlan, Plan
from medseg.preparation.store import PreparedCase
from medseg.tasks.defaults import with_task_defaults
from medseg.training.data import Batch, BatchSource
from medseg.training.identity import identity_of_settings

SCHEME = LabelScheme.from_mapping({"one": 1, "two": 2})
KINDS = ("noise", "blur", "brightness", "contrast", "gamma", "low_resolution")
ALL = {f"augmentation.{kind}_probability": 1.0 for kind in KINDS}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "defaults": ("tumor3d", {"augmentation": {}}),
    "demo": ("demo", {}),
    "hippocampus": ("hippocampus", {}),
    "vessel": ("vessel2d", {}),
    "all": ("hippocampus", ALL),
    "ranges": ("hippocampus", {**ALL, "augmentation.noise_std": 0.4, "augmentation.gamma": [0.9, 1.1]}),
    "off": ("hippocampus", {"augmentation.enabled": False}),
    "own": ("hippocampus", {"augmentation.custom": "numpy.ma:count"}),
}
# (configuration, axes) -> start of the SHA-256 of the generator's state, [mean, deviation, weighted mean] of the grey
# values, sum of the labels, all after the batches of iterations 0 and 7.
STORED: dict[tuple[str, int], tuple[str, list[float], int]] = {
    ("defaults", 2): ("8fb1ded2ffc13af4", [0.294119, 1.062612, 0.160731], 993),
    ("demo", 2): ("117c38c8422738af", [0.387523, 1.120478, 0.181342], 1021),
    ("hippocampus", 2): ("5d2f9f69262b3fb5", [0.352375, 1.089168, 0.206052], 1030),
    ("vessel", 2): ("8fb1ded2ffc13af4", [0.294119, 1.062612, 0.160731], 993),
    ("all", 2): ("b686c61ac80fd63a", [0.309993, 0.695052, 0.187148], 956),
    ("ranges", 2): ("b686c61ac80fd63a", [0.305922, 0.700725, 0.185205], 956),
    ("off", 2): ("195c69ece1409834", [0.409914, 1.254572, 0.209098], 1070),
    ("own", 2): ("bf34641ffe0d0401", [0.361068, 1.194329, 0.185685], 997),
    ("defaults", 3): ("46460a8b333f6e53", [0.429106, 0.949628, 0.19535], 10785),
    ("demo", 3): ("0408f3ed3bb73375", [0.441839, 1.075471, 0.241878], 10613),
    ("hippocampus", 3): ("2417cda79bc81a6c", [0.457135, 1.066423, 0.219263], 10937),
    ("vessel", 3): ("9a4b54d2fb2accbb", [0.431981, 0.969697, 0.198099], 10785),
    ("all", 3): ("b16c480e58543657", [0.440926, 0.713503, 0.228065], 11268),
    ("ranges", 3): ("b16c480e58543657", [0.440125, 0.71603, 0.227557], 11268),
    ("off", 3): ("11a997354767ad4d", [0.441371, 1.237996, 0.240072], 10600),
    ("own", 3): ("f5990f65a1e64143", [0.675442, 1.574942, 0.320774], 11550),
}
IDENTITY: dict[str, str] = {
    "defaults": "3cfec9a20b9c9364",
    "demo": "4676612f2edd5589",
    "hippocampus": "3718cbcc06b30452",
    "vessel": "bbebc6584eff5e2b",
    "all": "1652e13e53db2a0e",
    "ranges": "f205d3d0c9b85ce4",
    "off": "dc849226d853a50b",
    "own": "cb700894e67ebed5",
}


class Own:
    """An augmentation of a user's own that draws and changes."""

    def draw(self, rng: np.random.Generator, shape: Any) -> float:
        return float(rng.uniform(0.5, 2, len(shape))[0])

    def apply(self, image: torch.Tensor, labels: torch.Tensor, params: float) -> tuple[torch.Tensor, torch.Tensor]:
        return image * params, labels


def source(name: str, dims: int) -> BatchSource:
    config = configured(name)
    rng = np.random.default_rng(3)
    shape = (26, 22, 12)[:dims]
    cases = []
    for n in range(3):
        labels = np.zeros(shape, np.uint8)
        labels[4 : 12 + n, 5:15], labels[14:20, 8:18] = 1, 2
        image = rng.integers(-900, 900, (2, *shape)).astype(np.int16) + 400 * labels.astype(np.int16)
        foreground = {v: np.argwhere(labels == v).astype(np.int32) for v in (1, 2)}
        scales = (Scale(-800.0, 1000.0, 30.0, 500.0), Scale(-np.inf, np.inf, 10.0, 450.0))
        counts = {v: int((labels == v).sum()) for v in range(3)}
        cases.append(PreparedCase(f"case{n}", "", image, labels, (1.0, 1.0, 2.0)[:dims], scales, foreground, counts))
    plan = Plan(
        dims=dims,
        orientation="RAS" if dims == 3 else None,
        spacing_mm=(1.0, 1.0, 2.0)[:dims],
        patch_size=(16, 18, 10)[:dims],
        batch_size=3,
        in_channels=2,
        normalization=(ChannelPlan(kind="zscore"),) * 2,
        channels=(4,),
        strides=((1,) * dims,),
    )
    return BatchSource(cases, plan, SCHEME, config, fold=1)


def configured(name: str) -> RunConfig:
    preset, overrides = CONFIGS[name]
    return with_task_defaults(load_config(preset, {"data.root": "x", "seed": 5, **overrides}))


def drawn(name: str, dims: int, patch: pytest.MonkeyPatch) -> tuple[str, list[Batch]]:
    generators: list[np.random.Generator] = []
    make = np.random.default_rng

    def kept(seed: Any) -> np.random.Generator:
        generators.append(make(seed))
        return generators[-1]

    if name == "own":
        patch.setattr("numpy.ma.count", Own)
    batches_of = source(name, dims)
    patch.setattr("numpy.random.default_rng", kept)
    batches = [batches_of.batch(iteration) for iteration in (0, 7)]
    states = json.dumps([generator.bit_generator.state for generator in generators], sort_keys=True)
    return hashlib.sha256(states.encode()).hexdigest()[:16], batches


def summary(batches: list[Batch]) -> tuple[list[float], int]:
    images = torch.stack([batch.images for batch in batches]).double()
    ramp = torch.linspace(0, 1, images.numel(), dtype=torch.float64).view(images.shape)
    grey = [images.mean(), images.std(), (images * ramp).mean()]
    return [round(float(value), 6) for value in grey], sum(int(batch.labels.sum()) for batch in batches)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", CONFIGS)
def test_batches_are_those_of_the_last_release(name: str, dims: int, monkeypatch: pytest.MonkeyPatch) -> None:
    state, batches = drawn(name, dims, monkeypatch)
    stored_state, grey, labels = STORED[name, dims]
    assert state == stored_state
    assert summary(batches)[0] == pytest.approx(grey, abs=1e-4)
    assert summary(batches)[1] == pytest.approx(labels, abs=5)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_checkpoint_of_the_last_release_is_recognised(name: str) -> None:
    content = identity_of_settings(configured(name))[:2]
    assert hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16] == IDENTITY[name]


def test_keys_that_came_later_are_part_of_the_identity_where_they_are_used() -> None:
    config = load_config("hippocampus", {"data.root": "x", "augmentation.extra": [{"name": "noise"}]})
    terms = load_config("hippocampus", {"data.root": "x", "loss.terms": [{"name": "dice"}]})
    plain = identity_of_settings(load_config("hippocampus", {"data.root": "x"}))
    assert identity_of_settings(config) != plain and identity_of_settings(terms) != plain
