"""Which cases train: all of them, a fold, and never the folds of two splits or two data sets in one run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from inference_bundles import make_info, make_plan, unet_weights
from typer.testing import CliRunner

import medseg
from medseg.cli import app
from medseg.errors import CheckpointError, ConfigError
from medseg.inference import load_model, save_bundle
from medseg.studies import PredictOptions, predict_studies
from medseg.volume import Volume

SHORT = {"training.max_iterations": 1, "prediction.postprocess": "off"}
FOLDS = {**SHORT, "data.split": None, "training.folds": 3}


def test_full_trains_one_network_on_all_cases_without_scores_and_says_so(tiny_dataset: Path) -> None:
    config = tiny_dataset / "config.yaml"
    result = CliRunner().invoke(
        app, ["train", str(config), "--fold", "full", *(f"{key}={value}" for key, value in SHORT.items())]
    )
    assert result.exit_code == 0, result.output
    assert "no scores" in result.output and "Dice" not in result.output
    bundle = tiny_dataset / "run" / "model"
    info = load_model(bundle).info
    assert info.folds == "all" and info.scores == {}
    assert info.provenance.dataset["training_cases"] == 6 and info.provenance.dataset["validation_cases"] == 0
    assert "all cases trained" in (bundle / "README.md").read_text()
    log = [json.loads(line) for line in (tiny_dataset / "run" / "log.jsonl").read_text().splitlines()]
    assert not any("validation_dice" in entry for entry in log)
    with pytest.raises(ConfigError, match="no folds to choose"):
        load_model(bundle, folds=(0,))
    # Neither does a fold replace it, nor the other way round.
    with pytest.raises(ConfigError, match="trained on all cases"):
        medseg.train(config, overrides=FOLDS, fold=1)
    resumed = medseg.train(config, overrides={**SHORT, "training.max_iterations": 2}, fold="full", resume=True)
    assert resumed.scores == {}


def test_a_network_on_all_cases_does_not_replace_folds_and_a_fold_of_another_split_is_refused(
    tiny_dataset: Path,
) -> None:
    config = tiny_dataset / "config.yaml"
    medseg.train(config, overrides=FOLDS, fold=1)
    with pytest.raises(ConfigError, match="already holds folds"):
        medseg.train(config, overrides=FOLDS, fold="full")
    for changed in ({"training.folds": 2}, {"seed": 3}, {"data.split": {"every": 2}}):
        with pytest.raises(ConfigError, match="would train another"):
            medseg.train(config, overrides={**FOLDS, **changed}, fold=0, resume=True)
    with pytest.raises((CheckpointError, ConfigError)):
        medseg.train(config, overrides={**FOLDS, "training.folds": 2}, fold=1, resume=True)
    # What was refused leaves no trace: the third fold of three still joins the second.
    assert medseg.train(config, overrides=FOLDS, fold=0).scores.keys() == {0}
    assert load_model(tiny_dataset / "run").info.folds == (0, 1)


@pytest.mark.parametrize(
    ("changed", "said"),
    [({"data.split": None}, "folds 0 to 4"), ({}, "gives one split only")],
    ids=["five folds", "a split of its own"],
)
def test_a_fold_that_the_split_does_not_have_is_refused(tiny_dataset: Path, changed, said) -> None:
    with pytest.raises(ConfigError, match=said):
        medseg.train(tiny_dataset / "config.yaml", overrides={**SHORT, **changed}, fold=7)
    assert not (tiny_dataset / "run" / "prepared").exists()


def test_two_data_sets_of_one_name_do_not_share_a_run_folder(tiny_dataset: Path, monkeypatch) -> None:
    monkeypatch.chdir(tiny_dataset)
    short = {**SHORT, "net.channels": [4, 8], "plan.patch_size": [16, 16, 16], "training.batch_size": 2}
    other = tiny_dataset / "elsewhere" / "data"
    shutil.copytree("data", other)
    medseg.train("data", overrides=short)
    for resume in (False, True):
        with pytest.raises(ConfigError, match="belongs to the data set"):
            medseg.train(other, overrides={**short, "training.fold": 1}, resume=resume)
    with pytest.raises(ConfigError, match="belongs to the data set"):
        medseg.training.prepare_run(medseg.preparation.folder.config_of(other))
    # A data set that was moved is the same one.
    (tiny_dataset / "data").rename(tiny_dataset / "moved")
    assert medseg.train(other, overrides={**short, "training.max_iterations": 2}, resume=True).scores


def test_a_prepared_folder_belongs_to_its_data_set_too(tiny_dataset: Path, monkeypatch) -> None:
    monkeypatch.chdir(tiny_dataset)
    shutil.copytree("data", "elsewhere/data")
    medseg.training.prepare_run(medseg.preparation.folder.config_of("data"))
    with pytest.raises(ConfigError, match="belongs to the data set"):
        medseg.training.prepare_run(medseg.preparation.folder.config_of("elsewhere/data"))


@pytest.fixture
def three_folds(tmp_path: Path) -> Path:
    info = make_info(make_plan())
    return save_bundle(tmp_path / "model", info, {n: unet_weights(info, n) for n in range(3)})


def test_chosen_folds_predict_as_a_bundle_of_these_folds_does(three_folds: Path, tmp_path: Path) -> None:
    info = make_info(make_plan())
    two = save_bundle(tmp_path / "two", info, {n: unet_weights(info, n) for n in (0, 2)})
    image = Volume(np.random.default_rng(0).normal(size=(12, 11, 10)).astype(np.float32), np.eye(4))
    chosen = load_model(three_folds, "cpu", folds=(2, 0, 2))
    assert chosen.folds == (0, 2) and len(chosen.nets) == 2
    assert np.array_equal(chosen.predict(image).array, load_model(two, "cpu").predict(image).array)
    assert load_model(three_folds, "cpu", folds=(0, 1, 2)).folds is None


@pytest.mark.parametrize("folds", ["3", "0,7", "", "a", "-1", "0.5"])
def test_folds_that_the_model_does_not_hold_are_refused(three_folds: Path, tmp_path: Path, folds) -> None:
    result = CliRunner().invoke(app, ["predict", str(three_folds), str(tmp_path), "-o", "out", "--folds", folds])
    assert isinstance(result.exception, ConfigError) and "folds" in str(result.exception)


def test_masks_of_other_folds_are_made_again(three_folds: Path, tmp_path: Path) -> None:
    image = np.random.default_rng(0).normal(size=(12, 11, 10)).astype(np.float32)
    medseg.write(Volume(image, np.eye(4)), tmp_path / "in" / "case.nii.gz")
    source, out = tmp_path / "in", tmp_path / "out"
    for folds, again in ((None, 1), ((0, 2), 1), ((2, 0), 0), ((1,), 1), (None, 1), ((0, 1, 2), 0)):
        result = predict_studies(three_folds, [source], out, PredictOptions(device="cpu", folds=folds))
        assert len(result.rows) == again, folds
    rows = [json.loads(line) for line in (out / "ledger.jsonl").read_text().splitlines()]
    assert [row["options"].get("folds") for row in rows] == [None, [0, 2], [1], None]
