"""One output folder holds masks of one label table, which lies beside them."""

from __future__ import annotations

import json

import numpy as np
import pytest

import medseg
from medseg.errors import ConfigError
from medseg.inference.bundle import load_bundle, save_bundle
from medseg.studies import PredictOptions, predict_studies
from medseg.volume import Volume


@pytest.fixture
def models(unet_bundle, tmp_path):
    """A model, and the same one with other labels."""
    bundle = load_bundle(unet_bundle)
    labels = {f"other_{name}": value for name, value in bundle.info.labels.items()}
    info = bundle.info.model_copy(update={"labels": labels})
    return unet_bundle, save_bundle(tmp_path / "other", info, bundle.weights)


def _cases(folder, names):
    folder.mkdir(exist_ok=True)
    for name in names:
        array = np.zeros((12, 11, 10), np.float32)
        array[3:6, 3:6, 3:6] = 1
        medseg.write(Volume(array, np.eye(4)), folder / f"{name}.nii.gz")
    return folder


def _names(out):
    return list(json.loads((out / "labels.json").read_text())["labels"])


def test_a_folder_where_masks_with_other_labels_would_stay_is_refused_and_the_table_stays(models, tmp_path):
    studies, out = _cases(tmp_path / "in", ["ann", "ben"]), tmp_path / "out"
    predict_studies(models[0], [studies], out)
    before = _names(out)
    for options in (PredictOptions(dry_run=True), PredictOptions(), PredictOptions(overwrite=True)):
        with pytest.raises(ConfigError, match="that would stay, such as ben"):
            predict_studies(models[1], [studies / "ann.nii.gz"], out, options)
    assert _names(out) == before
    # Its own masks go on.
    assert predict_studies(models[0], [studies], out).skipped == ("ann", "ben")


def test_a_model_with_other_labels_may_replace_every_mask_that_is_there(models, tmp_path):
    studies, out = _cases(tmp_path / "in", ["ann"]), tmp_path / "out"
    predict_studies(models[0], [studies], out)
    _cases(studies, ["ben"])
    assert len(predict_studies(models[1], [studies], out).rows) == 2
    assert all(name.startswith("other_") for name in _names(out))
