"""Where no network is torch's, prediction needs no torch: the same masks from NIfTI and DICOM by `predict_studies`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import without_torch
from inference_bundles import make_info, make_plan

import medseg
from medseg.inference import load_model, save_bundle
from medseg.inference.exporting.model import export_model
from medseg.nets.crf import CrfOptions
from medseg.output_formats import MASK_FORMATS
from medseg.phantoms import samples_folder
from medseg.studies import PredictOptions, predict_studies

# HU: soft tissue above -300, air below -700.
WEIGHTS = {"slope": np.array([0.0, 1, -1], np.float32), "bias": np.array([0.0, -300, 700], np.float32)}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """The network's weights twice as two folds, for torch and for numpy."""
    plan = make_plan(spacing_mm=(7.0, 7.0, 8.0), patch_size=(24, 24, 24))
    info = make_info(plan, "inference_nets:build_threshold", {"tissue": 3, "air": 5})
    prediction = info.prediction.model_copy(update={"crf": CrfOptions(), "mirror_axes": (1,)})
    weights = {key: torch.from_numpy(value) for key, value in WEIGHTS.items()}
    np.savez(tmp_path / "weights.npz", **WEIGHTS)
    return save_bundle(tmp_path / "model", info.model_copy(update={"prediction": prediction}), {0: weights, 1: weights})


@pytest.mark.parametrize("kind", ["nifti", "dicom-seg"])
def test_a_model_without_torch_writes_the_masks_of_the_model_with_it(bundle, tmp_path, kind):
    study = samples_folder() / "study"
    sources = [study]
    if kind == "nifti":
        medseg.write(medseg.read(study), tmp_path / "image.nii.gz")
        sources.append(tmp_path / "image.nii.gz")
    done = subprocess.run(
        [sys.executable, without_torch.__file__, bundle, tmp_path / "free", kind, *sources],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    options = PredictOptions(format=kind, save_probabilities=True, device="cpu")
    result = predict_studies(load_model(bundle, "cpu"), sources, tmp_path / "torch", options)
    result.raise_for_failures()
    assert len(result.done) == len(sources)
    for case in (row.case for row in result.done):
        expected, found = (
            medseg.read(tmp_path / way / f"{case}{MASK_FORMATS[kind].suffix}") for way in ("torch", "free")
        )
        assert set(np.unique(expected.array)) == {0, 3, 5} or kind != "nifti"
        assert np.array_equal(found.array, expected.array) and np.array_equal(found.affine, expected.affine)
        with np.load(tmp_path / "torch" / f"{case}.npz") as one, np.load(tmp_path / "free" / f"{case}.npz") as other:
            # Half precision at most one step apart, as sums are rounded once more.
            np.testing.assert_allclose(one["probabilities"], other["probabilities"], atol=1e-3)
    assert (tmp_path / "free" / "previews").is_dir() and (tmp_path / "free" / "measurements.csv").is_file()
    refusals = done.stdout.splitlines()
    assert [line[:2] for line in refusals] == ["6:"] * 7 + ["2:"]
    for line, words in zip(refusals, ("--crf", "--estimate-quality", "--register", "a CRF", "'cuda'"), strict=False):
        assert words in line and ("pip install -c constraints.txt" in line)
    assert "cpu" in refusals[-1]


def test_an_exported_bundle_predicts_a_study_where_torch_cannot_be_imported(tmp_path):
    trained = Path(medseg.__file__).parent / "commands" / "demo_model"
    exported = export_model(trained, tmp_path / "exported", "onnx").folder
    arguments = ["medseg", "predict", str(exported), str(samples_folder() / "study"), "-o", str(tmp_path / "free")]
    code = (
        f"import sys\nfor name in {without_torch.BLOCKED!r}: sys.modules[name] = None\n"
        f"sys.argv = {arguments!r}\nfrom medseg.cli import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    expected = load_model(trained, "cpu").predict(medseg.read(samples_folder() / "study"))
    found = medseg.read(tmp_path / "free" / "study.nii.gz")
    assert (found.array != expected.array).mean() < 1e-3 and expected.array.any()
