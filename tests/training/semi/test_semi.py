"""Semi-supervised training: what it learns from, that it resumes, and what it refuses before the first step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import medseg
from medseg.config import load_config
from medseg.errors import CheckpointError, ConfigError, DatasetError
from medseg.preparation.unlabelled import prepare_unlabelled
from medseg.training.checkpoint import load_checkpoint
from medseg.training.run import prepare_run
from medseg.training.semi.ramp import ramp_up

METHODS = ("mean_teacher", "cross_pseudo")
SHORT = {"training.max_iterations": 4, "training.mixed_precision": False, "prediction.postprocess": "off"}


@pytest.fixture
def unlabelled(tiny_dataset: Path) -> Path:
    """Four images like those of the data set."""
    folder = tiny_dataset / "more"
    folder.mkdir()
    for n in range(4):
        source = nib.load(tiny_dataset / "data" / "images" / f"case{n}.nii.gz")
        nib.save(nib.Nifti1Image(source.get_fdata(dtype=np.float32) + n, source.affine), folder / f"more{n}.nii.gz")
    return folder


def train(dataset: Path, folder: Path, resume: bool = False, **overrides: Any) -> medseg.training.Run:
    settings = {**SHORT, "semi.unlabelled": str(folder), **overrides}
    return medseg.train(dataset / "config.yaml", settings, resume=resume)


def weights(run: medseg.training.Run) -> Mapping[str, torch.Tensor]:
    return load_file(run.bundle / "weights_fold0.safetensors")


def alike(one: medseg.training.Run, other: medseg.training.Run) -> bool:
    mine, theirs = weights(one), weights(other)
    return all(torch.equal(value, theirs[name]) for name, value in mine.items())


@pytest.mark.parametrize("method", [pytest.param("mean_teacher", marks=pytest.mark.slow), "cross_pseudo"])
def test_a_resumed_training_with_unlabelled_images_has_the_same_bits(
    tiny_dataset: Path, unlabelled: Path, method: str
) -> None:
    settings = {
        "semi.method": method,
        "training.accumulate": 2,
        "training.schedule": "constant",
        "semi.start": 0.0,
        "semi.ramp": 0.0,
    }
    whole = train(tiny_dataset, unlabelled, output=str(tiny_dataset / "whole"), **settings)
    part = {**settings, "output": str(tiny_dataset / "part")}
    train(tiny_dataset, unlabelled, **{**part, "training.max_iterations": 2})
    resumed = train(tiny_dataset, unlabelled, resume=True, **part)
    assert alike(whole, resumed)
    for change in ({"semi.weight": 0.5}, {"semi.confidence": 0.5}, {"semi.cutmix": 0.0}):
        with pytest.raises(CheckpointError, match="belongs to a training with another"):
            train(tiny_dataset, unlabelled, resume=True, **{**part, **change})


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_unlabelled_images_change_what_is_learned_and_weight_zero_does_not(
    tiny_dataset: Path, unlabelled: Path, method: str
) -> None:
    plain = medseg.train(tiny_dataset / "config.yaml", {**SHORT, "output": str(tiny_dataset / "plain")})
    settings = {"semi.method": method, "semi.start": 0.0, "semi.ramp": 0.0, "semi.confidence": 0.0}
    without = train(tiny_dataset, unlabelled, output=str(tiny_dataset / "zero"), **settings, **{"semi.weight": 0.0})
    taught = train(tiny_dataset, unlabelled, output=str(tiny_dataset / "taught"), **settings)
    assert alike(plain, without) and not alike(plain, taught)


def test_the_log_has_the_loss_on_unlabelled_images(tiny_dataset: Path, unlabelled: Path) -> None:
    run = train(tiny_dataset, unlabelled, **{"training.max_iterations": 20, "semi.start": 0.0, "semi.confidence": 0.0})
    entries = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    assert all(entry["consistency"] > 0 for entry in entries if "loss" in entry)


@pytest.mark.slow
def test_checkpoints_and_hashes_of_trainings_without_unlabelled_images_are_as_before(tiny_dataset: Path) -> None:
    run = medseg.train(tiny_dataset / "config.yaml", SHORT)
    assert "semi" not in torch.load(run.folder / "last.pt", weights_only=True)
    assert load_checkpoint(run.folder / "last.pt").semi == {}


@pytest.mark.slow
def test_slices_of_volumes_train_in_2d(tiny_dataset: Path, unlabelled: Path) -> None:
    settings = {"net.dims": 2, "semi.start": 0.0, "plan.patch_size": [16, 16], "semi.confidence": 0.0}
    run = train(tiny_dataset, unlabelled, **settings)
    assert run.scores[0].cases == 2


@pytest.mark.slow
def test_regions_train(tiny_dataset: Path, unlabelled: Path) -> None:
    labels = {"ball": None, "whole": [1, 2], "core": [2]}
    run = train(tiny_dataset, unlabelled, **{"data.labels": {k: v for k, v in labels.items() if v}})
    assert set(run.scores[0].dice) == {"whole", "core"}


def test_images_of_the_data_set_are_not_used_without_their_labels(tiny_dataset: Path) -> None:
    settings = {"semi.unlabelled": str(tiny_dataset / "data" / "images")}
    with pytest.raises(DatasetError, match=r"all 6 images of .* are cases of the data set already"):
        prepare_run(load_config(tiny_dataset / "config.yaml", settings))


def save(folder: Path, array: np.ndarray[Any, Any], spacing: float = 1.0) -> None:
    nib.save(nib.Nifti1Image(array.astype(np.float32), np.diag([spacing, spacing, spacing, 1.0])), folder / "x.nii.gz")


@pytest.mark.parametrize(
    ("shape", "spacing", "said"),
    [
        ((20, 24), 1.0, "has 2 spatial axes, but the labelled images have 3"),
        ((20, 24, 16, 2), 1.0, r"has 2 channel\(s\), but the labelled images have 1"),
        ((20, 24, 16), 5.0, "has voxels of 5 mm on average over its axes, the labelled images of 1 to 1 mm"),
    ],
)
def test_other_images_are_refused_before_training(
    tiny_dataset: Path, unlabelled: Path, shape: tuple[int, ...], spacing: float, said: str
) -> None:
    save(unlabelled, np.random.default_rng(0).normal(50, 20, shape), spacing)
    with pytest.raises(DatasetError, match=said):
        prepare_run(load_config(tiny_dataset / "config.yaml", {"semi.unlabelled": str(unlabelled)}))


def test_grey_levels_of_another_modality_are_reported_before_training(tiny_dataset: Path, unlabelled: Path) -> None:
    save(unlabelled, np.random.default_rng(0).normal(5000, 20, (20, 24, 16)))
    config = load_config(tiny_dataset / "config.yaml", {"semi.unlabelled": str(unlabelled)})
    found = {finding.kind: finding for finding in prepare_run(config).findings}
    assert found["unlabelled_levels"].files == ("x",) and "1 of 5 unlabelled" in found["unlabelled_levels"].message


def test_a_folder_without_images_and_settings_without_a_folder_are_refused(tiny_dataset: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for folder, said in ((empty, "contains no images"), (tmp_path / "absent", "is not a folder")):
        config = load_config(tiny_dataset / "config.yaml", {"semi.unlabelled": str(folder)})
        with pytest.raises((ConfigError, DatasetError), match=said):
            prepare_run(config)
    with pytest.raises(ConfigError, match=r"unlabelled is not given"):
        load_config(tiny_dataset / "config.yaml", {"semi.method": "mean_teacher"})


def test_unlabelled_cases_are_prepared_once(tiny_dataset: Path, unlabelled: Path) -> None:
    config = load_config(tiny_dataset / "config.yaml", {"semi.unlabelled": str(unlabelled)})
    preparation = prepare_run(config)
    first = prepare_unlabelled(config, preparation)
    times = {path: (path / "case.json").stat().st_mtime_ns for path in first.cases.values()}
    again = prepare_unlabelled(config, preparation)
    assert times == {path: (path / "case.json").stat().st_mtime_ns for path in again.cases.values()} and len(times) == 4


def test_the_weight_rises_to_one_and_stays() -> None:
    values = [ramp_up(progress, 0.4) for progress in np.linspace(0, 1, 11)]
    assert values == sorted(values) and values[4:] == [1.0] * 7 and ramp_up(0.0, 0.0) == 1.0
