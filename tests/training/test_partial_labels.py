"""Training, validation and the choice of post-processing on cases that lack labels."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml

import medseg
from medseg.config import load_config
from medseg.errors import CheckpointError, DatasetError
from medseg.labels import LabelScheme
from medseg.preparation.prepare import Preparation
from medseg.training.data import BatchSource
from medseg.training.identity import identity_of_annotation
from medseg.training.postprocess_choice import PostprocessChoice
from medseg.training.run import prepare_run
from medseg.training.validation import dice_of_held

SCHEME = LabelScheme.from_mapping({"ball": 1, "cube": 2})


@pytest.fixture
def two_labels(tiny_dataset: Path) -> Path:
    """The balls of `tiny_dataset`, and in its odd cases a cube, label 2, in a corner."""
    for n in range(6):
        path = tiny_dataset / "data" / "labels" / f"case{n}.nii.gz"
        labels = np.asarray(nib.load(path).dataobj).copy()
        if n % 2:
            labels[1:4, 1:4, 1:4] = 2
        nib.save(nib.Nifti1Image(labels, np.eye(4)), path)
    values = yaml.safe_load((tiny_dataset / "config.yaml").read_text())
    values["data"]["labels"] = {"ball": 1, "cube": 2}
    values["data"]["annotated"] = {"case[024]": ["ball"]}
    (tiny_dataset / "config.yaml").write_text(yaml.safe_dump(values))
    return tiny_dataset


def prepared(folder: Path) -> Preparation:
    return prepare_run(load_config(folder / "config.yaml"))


def test_samples_say_which_labels_their_case_has(two_labels: Path) -> None:
    config = load_config(two_labels / "config.yaml")
    preparation = prepared(two_labels)
    for name, plain in (("case1", {0, 1, 2}), ("case0", {0})):
        source = BatchSource([preparation.open(name)], preparation.plan, preparation.dataset.labels, config, 0)
        values = set(torch.unique(torch.stack([source.batch(n).labels for n in range(4)])).tolist())
        coded = set(preparation.sample_labels.marking(("ball",))[[0, 1]].tolist())  # type: ignore[attr-defined]
        assert values <= (plain if name == "case1" else coded)
        assert len(values) > 1


def test_a_net_is_trained_resumed_and_scored_on_what_is_annotated(two_labels: Path) -> None:
    run = medseg.train(two_labels / "config.yaml", overrides={"training.max_iterations": 2})
    # case2 and case5 validate; only the second has a cube, as only there it is annotated.
    assert set(run.scores[0].dice) == {"ball", "cube"}
    again = medseg.train(run.folder / "config.yaml", overrides={"training.max_iterations": 3}, resume=True)
    assert medseg.load_model(again.bundle, device="cpu").info.provenance.iterations == 3
    with pytest.raises(CheckpointError, match="belongs to a training with another"):
        medseg.train(
            run.folder / "config.yaml",
            overrides={"training.max_iterations": 4, "data.annotated": {"case[24]": ["ball"]}},
            resume=True,
        )


@pytest.mark.parametrize("loss", ["dice_ce", "cross_entropy"])
def test_weights_by_inverse_frequency_and_regions_train_on_partial_labels(two_labels: Path, loss: str) -> None:
    overrides = {
        "training.max_iterations": 2,
        "data.labels": {"any": [1, 2], "cube": [2]},
        "data.annotated": {"case[024]": ["any"]},
        "loss.name": loss,
        "loss.options": {"weights": "inverse_frequency"},
    }
    run = medseg.train(two_labels / "config.yaml", overrides=overrides)
    assert run.scores[0].dice["any"] is not None


def test_a_label_map_that_contradicts_the_annotation_is_refused_before_training(two_labels: Path) -> None:
    with pytest.raises(DatasetError, match="label 'cube' occurs in case case1"):
        medseg.train(two_labels / "config.yaml", overrides={"data.annotated": {"case1": ["ball"]}})


def test_only_annotated_labels_that_the_reference_holds_have_a_dice() -> None:
    reference = np.array([[0, 1, 2]])
    assert dice_of_held(reference, reference, SCHEME, ("ball",)) == {"ball": 1.0}
    assert dice_of_held(reference, reference, SCHEME, SCHEME.names) == {"ball": 1.0, "cube": 1.0}


def test_post_processing_is_chosen_by_annotated_labels() -> None:
    reference = np.zeros((12, 12), np.uint8)
    reference[1:5, 1:5], reference[7:11, 7:11] = 1, 2
    predicted = reference.copy()
    predicted[1, 8], predicted[8, 1] = 1, 2
    choice = PostprocessChoice(SCHEME)
    for _ in range(3):
        choice.add(predicted, reference, None, ("ball",))
    rules, _ = choice.chosen()
    assert rules.keep_components == {"ball": 1}


def test_a_training_without_partial_labels_keeps_its_identity(two_labels: Path) -> None:
    preparation = prepared(two_labels)
    assert identity_of_annotation([preparation.open("case1"), preparation.open("case3")]) == []
    assert identity_of_annotation([preparation.open("case1"), preparation.open("case0")]) == [{"case0": ["ball"]}]
