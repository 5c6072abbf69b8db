"""Bundles and output folders of the last release go on; `tests/fixtures/make_last_release.py` made them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from last_release_data import DATA, input_of

from medseg.errors import CheckpointError
from medseg.inference import load_bundle, load_model, save_bundle
from medseg.preparation.plan_upgrade import hashed_content
from medseg.studies import PredictOptions, predict_studies

LAST_RELEASE = Path(__file__).parents[1] / "fixtures" / "last_release"


@pytest.mark.parametrize("name", DATA)
def test_a_bundle_of_the_last_release_predicts_the_same_mask(name):
    model = load_model(LAST_RELEASE / name / "model", "cpu")
    image = input_of(DATA[name])
    with np.load(LAST_RELEASE / name / "mask.npz") as stored:
        expected = stored["mask"]
    native = []

    def keep(shape):
        native.append(np.zeros(shape, np.float16))
        return native[0]

    found = model.predict(image, probabilities=keep).array
    # Where two labels are equally likely, a machine of another kind may round the other way.
    chances = native[0].astype(np.float32)
    if not model.scheme.is_regions:
        chances = np.concatenate([1 - chances.sum(axis=0, keepdims=True), chances])
        ranked = np.sort(chances, axis=0)
        undecided = ranked[-1] - ranked[-2] < 2e-3
    else:
        undecided = (np.abs(chances - 0.5) < 2e-3).any(axis=0)
    assert not ((found != expected) & ~undecided).any()
    assert undecided.sum() < 0.06 * (expected > 0).sum()


@pytest.mark.parametrize("name", DATA)
def test_the_hash_of_a_bundle_and_of_its_plan_stay_what_they_were(name):
    bundle = load_bundle(LAST_RELEASE / name / "model")
    assert bundle.model_hash == json.loads((LAST_RELEASE / name / "facts.json").read_text())["model_hash"]
    written = json.loads((LAST_RELEASE / name / "model" / "model.json").read_text())
    assert hashed_content(bundle.info.plan) == written["plan"]
    assert bundle.info.overlap == written["prediction"]["overlap"]
    assert (
        bundle.info.reference_ranges is not None and bundle.info.format_version == bundle.info.plan.format_version == 2
    )


def test_a_second_predict_finds_what_the_last_release_has_done(tmp_path):
    shutil.copytree(LAST_RELEASE / "predicted", tmp_path / "predicted")
    before = (tmp_path / "predicted" / "out" / "ledger.jsonl").read_bytes()
    model = load_model(LAST_RELEASE / "pictures" / "model", "cpu")
    result = predict_studies(model, [tmp_path / "predicted" / "in"], tmp_path / "predicted" / "out", PredictOptions())
    assert (tmp_path / "predicted" / "out" / "ledger.jsonl").read_bytes() == before
    assert result.skipped == ("case",)


def test_a_new_fold_joins_those_of_the_last_release(tmp_path):
    shutil.copytree(LAST_RELEASE / "zscore" / "model", tmp_path / "model")
    old = load_bundle(tmp_path / "model")
    save_bundle(tmp_path / "model", old.info.model_copy(update={"scores": {"fold1": {}}}), {1: old.weights[0]})
    joined = load_bundle(tmp_path / "model")
    assert joined.weights.keys() == {0, 1} and joined.info.folds == (0, 1)
    assert joined.info.scores.keys() == {"fold0", "fold1"}
    written = json.loads((tmp_path / "model" / "model.json").read_text())
    assert written["format_version"] == 2 and "reference_ranges" in written and "fingerprint" not in written


@pytest.mark.parametrize(
    ("key", "value"), [("kind", "single"), ("reference_ranges", None), ("plan.crop", "none"), ("plan.padding", "zero")]
)
def test_keys_of_version_2_are_unknown_to_version_1(tmp_path, key, value):
    shutil.copytree(LAST_RELEASE / "pictures" / "model", tmp_path / "model")
    written = json.loads((tmp_path / "model" / "model.json").read_text())
    (written["plan"] if key.startswith("plan.") else written)[key.removeprefix("plan.")] = value
    (tmp_path / "model" / "model.json").write_text(json.dumps(written))
    with pytest.raises(CheckpointError, match=f"{key.removeprefix('plan.')} is a key of .*format_version 2"):
        load_bundle(tmp_path / "model")
