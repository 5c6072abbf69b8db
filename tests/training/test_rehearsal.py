"""What would fail after the training fails before its first step."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import medseg
from medseg.config import load_config
from medseg.errors import ConfigError, WriteError
from medseg.evaluation import evaluate
from medseg.io.label_names import read_label_names
from medseg.labels import LabelScheme
from medseg.studies.run import predict_studies
from medseg.training import rehearsal, run

ORDERS: list[dict[str, list[int]]] = [
    {"whole": [1, 2], "pen": [1], "core": [2]},
    {"core": [2], "whole": [1, 2]},
    {"pen": [1], "core": [2], "whole": [1, 2]},
    {"left part": [1, 2], "right part": [2, 3]},
]


def with_regions(dataset: Path) -> None:
    """Two or three values instead of one in the label maps of the tiny data set."""
    for path in (dataset / "data" / "labels").iterdir():
        image = nib.load(path)
        array = np.asarray(image.dataobj).astype(np.uint8)
        array *= 1 + (np.arange(array.shape[0]) // 7).clip(0, 2).astype(np.uint8)[:, None, None]
        nib.save(nib.Nifti1Image(array, image.affine), path)


@pytest.mark.parametrize("labels", ORDERS, ids=lambda labels: "-".join(labels))
def test_regions_train_predict_and_are_scored_whatever_their_order_and_values(
    tiny_dataset: Path, labels: dict[str, list[int]]
) -> None:
    with_regions(tiny_dataset)
    highest = max(v for each in labels.values() for v in each)
    for path in (tiny_dataset / "data" / "labels").iterdir():
        image = nib.load(path)
        nib.save(nib.Nifti1Image(np.minimum(np.asarray(image.dataobj), highest), image.affine), path)
    trained = medseg.train(tiny_dataset / "config.yaml", overrides={"data.labels": labels})
    masks = tiny_dataset / "masks"
    predict_studies(trained.bundle, [tiny_dataset / "data" / "images"], masks)
    scheme = LabelScheme.from_mapping(labels)
    assert read_label_names(masks / "labels.json") == scheme.written
    model = medseg.load_model(trained.bundle, device="cpu")
    assert model.scheme == scheme.written
    for given in (None, labels):
        result = evaluate(masks, tiny_dataset / "data" / "labels", labels=given)
        assert list(result.summary.labels) == list(labels)
        assert not any(f.kind == "unknown_values" for f in result.findings)


def planted_in_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "labels_json", lambda scheme: '{"labels": {"ball": 2}}')


def planted_in_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise WriteError("cannot write the mask")

    monkeypatch.setattr(rehearsal, "write", fail)


def planted_in_values(monkeypatch: pytest.MonkeyPatch) -> None:
    true = rehearsal.write
    monkeypatch.setattr(rehearsal, "write", lambda v, p: true(v.with_array(np.zeros_like(v.array)), p))


def planted_in_the_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise WriteError("cannot write the bundle")

    monkeypatch.setattr(rehearsal, "save_bundle", fail)


def planted_in_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "score_case", lambda *_, **__: {"ball": {"dice": 0.5}})


@pytest.mark.parametrize(
    "plant",
    [planted_in_labels, planted_in_writing, planted_in_values, planted_in_the_bundle, planted_in_scores],
    ids=lambda plant: plant.__name__,
)
def test_a_failure_of_bundle_mask_table_or_score_shows_before_the_first_step(
    tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch, plant: Callable[[pytest.MonkeyPatch], None]
) -> None:
    plant(monkeypatch)
    steps: list[int] = []
    monkeypatch.setattr(run, "train_fold", lambda *_, **__: steps.append(1))
    with pytest.raises(WriteError):
        medseg.train(tiny_dataset / "config.yaml")
    assert steps == []


def test_the_rehearsal_takes_less_than_two_seconds_and_leaves_the_training_as_it_is(
    tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[float] = []
    true = rehearsal.rehearse

    def timed(*arguments: Any) -> None:
        # Processor time, since other programs may be running.
        started = time.process_time()
        true(*arguments)
        taken.append(time.process_time() - started)

    monkeypatch.setattr(run, "rehearse", timed)
    medseg.train(tiny_dataset / "config.yaml", overrides={"output": str(tiny_dataset / "with")})
    monkeypatch.setattr(run, "rehearse", lambda *_: None)
    medseg.train(tiny_dataset / "config.yaml", overrides={"output": str(tiny_dataset / "without")})
    first, second = (
        (tiny_dataset / n / "model" / "weights_fold0.safetensors").read_bytes() for n in ("with", "without")
    )
    assert first == second
    assert len(taken) == 1 and taken[0] < 2


def test_two_regions_with_the_same_values_are_refused_before_anything_is_trained(tiny_dataset: Path) -> None:
    with pytest.raises(ConfigError, match="have the same values"):
        medseg.train(tiny_dataset / "config.yaml", overrides={"data.labels": {"a": [1], "b": [1]}})


def test_regions_that_cross_in_too_many_ways_are_refused_with_the_configuration(tiny_dataset: Path) -> None:
    crossing = {f"r{n}": [n + 1, (n + 1) % 13 + 1] for n in range(13)}
    with pytest.raises(ConfigError, match="too many ways"):
        load_config(tiny_dataset / "config.yaml", {"data.labels": crossing})
