"""What a training states about its network is measured where its masks will lie: on the images' own grids."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import medseg
from medseg.config import load_config
from medseg.labels import LabelScheme
from medseg.metrics import score_case
from medseg.preparation import open_case, prepare
from medseg.training.checkpoint import load_checkpoint, save_checkpoint
from medseg.training.postprocess_choice import PostprocessChoice
from medseg.training.validation import validate

SCHEME = LabelScheme.from_mapping({"ball": 1})


class Threshold(torch.nn.Module):
    """Takes the bright half of an image for the ball."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([-x, x], 1)


@pytest.mark.parametrize("spacing", [[2.0, 2.0, 2.0], [0.8, 1.0, 1.5]])
def test_scores_and_post_processing_are_measured_on_the_images_own_grid(tiny_dataset: Path, spacing) -> None:
    config = load_config(tiny_dataset / "config.yaml", {"plan.spacing_mm": spacing, "plan.patch_size": [8, 8, 8]})
    preparation = prepare(config, memory_gb=4, on_gpu=False, workers=1)
    cases = [open_case(folder) for folder in preparation.cases.values()]
    seen = []
    choice = PostprocessChoice(SCHEME)

    def keep(predicted, reference, spacing_mm, annotated) -> None:
        seen.append((predicted, reference, spacing_mm))
        choice.add(predicted, reference, spacing_mm)

    scores = validate(Threshold(), cases, preparation.plan, SCHEME, torch.device("cpu"), keep)
    dice = []
    for case, (predicted, reference, spacing_mm) in zip(cases, seen, strict=True):
        source = nib.load(tiny_dataset / "data" / "labels" / f"{case.name}.nii.gz")
        np.testing.assert_array_equal(reference, np.asarray(source.dataobj))
        assert predicted.shape == reference.shape and spacing_mm == (1.0, 1.0, 1.0)
        dice.append(score_case(predicted, reference, spacing_mm, labels=SCHEME, metrics=("dice",))["ball"]["dice"])
    assert scores.mean_dice == pytest.approx(np.mean(dice)) and scores.cases == 6


def test_a_bundle_states_the_dice_that_predict_reaches(tiny_dataset: Path) -> None:
    changes = {
        "plan.spacing_mm": [2.0, 2.0, 2.0],
        "plan.patch_size": [8, 8, 8],
        "training.max_iterations": 60,
        "training.learning_rate": 0.02,
        "training.checkpoint": "best",
        "prediction.postprocess": "off",
        "prediction.mirror": False,
    }
    run = medseg.train(tiny_dataset / "config.yaml", overrides=changes)
    model = medseg.load_model(run.bundle)
    dice = []
    for name in ("case2", "case5"):
        image, label = (medseg.read(tiny_dataset / "data" / kind / f"{name}.nii.gz") for kind in ("images", "labels"))
        found = model.predict(image).array
        dice.append(score_case(found, label.array, label.spacing_mm, labels=SCHEME, metrics=("dice",))["ball"]["dice"])
    stated = json.loads((run.bundle / "model.json").read_text())["scores"]["fold0"]["mean_dice"]
    assert stated == pytest.approx(np.mean(dice), abs=2e-3) and stated > 0.5
    log = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    best = max(entry["validation_dice"] for entry in log if "validation_dice" in entry)
    assert best == pytest.approx(stated, abs=2e-3)


def test_a_best_score_of_the_networks_grid_is_no_measure_for_a_resumed_training(tiny_dataset: Path) -> None:
    changes = {
        "plan.spacing_mm": [2.0, 2.0, 2.0],
        "plan.patch_size": [8, 8, 8],
        "training.checkpoint": "best",
        "training.validate_every": 2,
        "training.max_iterations": 3,
    }
    config = tiny_dataset / "config.yaml"
    folder = medseg.train(config, overrides=changes).folder
    save_checkpoint(replace(load_checkpoint(folder / "last.pt"), best_score=2.0), folder / "last.pt")
    (folder / "best.pt").unlink()
    medseg.train(config, overrides={**changes, "training.max_iterations": 5}, resume=True)
    assert not (folder / "best.pt").exists()
    save_checkpoint(replace(load_checkpoint(folder / "last.pt"), best_score=2.0), folder / "last.pt")
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    old = [{key: value for key, value in line.items() if key != "grid"} for line in lines]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in old))
    medseg.train(config, overrides={**changes, "training.max_iterations": 7}, resume=True)
    assert (folder / "best.pt").exists()


@pytest.mark.slow
def test_labels_and_images_stay_together_in_a_2d_training_on_a_coarser_grid(tmp_path: Path) -> None:
    """Slices of 0.5 mm, a network at 1 mm, nothing mirrored: a shift of labels by half a voxel would cost 0.06 Dice."""
    rng = np.random.default_rng(0)
    for folder in ("images", "labels"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    affine = np.diag([0.5, 0.5, 5.0, 1.0])
    grid = np.stack(np.meshgrid(np.arange(64), np.arange(64), indexing="ij"))
    for n in range(8):
        label = np.zeros((64, 64, 6), np.uint8)
        for k in range(6):
            for _ in range(4):
                centre, radius = rng.uniform(8, 56, 2), rng.uniform(3, 7)
                label[np.linalg.norm(grid - centre[:, None, None], axis=0) <= radius, k] = 1
        image = (label * 100 + rng.normal(0, 15, label.shape)).astype(np.float32)
        nib.save(nib.Nifti1Image(image, affine), tmp_path / "data" / "images" / f"c{n}.nii.gz")
        nib.save(nib.Nifti1Image(label, affine), tmp_path / "data" / "labels" / f"c{n}.nii.gz")
    config = {
        "output": str(tmp_path / "run"),
        "data": {
            "root": str(tmp_path / "data"),
            "labels": {"disc": 1},
            "modality": "MR",
            "split": {"every": 4, "start": 3},
        },
        "net": {"dims": 2, "channels": [8, 16, 32]},
        "plan": {"spacing_mm": [1.0, 1.0], "patch_size": [32, 32]},
        "training": {"max_iterations": 400, "batch_size": 8, "warmup_iterations": 10, "learning_rate": 0.02},
        "augmentation": {"mirror": False},
        "prediction": {"postprocess": "off"},
    }
    run = medseg.train(load_config_of(tmp_path, config))
    assert run.scores[0].mean_dice >= 0.95


def load_config_of(folder: Path, content: dict) -> Path:
    (folder / "config.json").write_text(json.dumps(content))
    return (folder / "config.json").rename(folder / "config.yaml")
