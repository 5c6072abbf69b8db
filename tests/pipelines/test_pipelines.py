"""Every recipe runs on the sample data, so none can rot."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

PIPELINES = Path(__file__).resolve().parents[2] / "pipelines"
SAMPLES = PIPELINES.parent / "data_samples"
# The program that trains the model of the quick demo is not a recipe for a task.
RECIPES = sorted(path.stem for path in PIPELINES.glob("*.py") if path.stem != "demo_model")


def run(name: str, out: Path, *more: str) -> str:
    """The output of a recipe that ended well."""
    command = [sys.executable, str(PIPELINES / f"{name}.py"), "--out", str(out), "--minutes", "0.02", *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def small(preset: str, folder: Path) -> str:
    """A preset with a small network, which takes a few seconds on the samples."""
    content = yaml.safe_load((PIPELINES.parent / "configs" / f"{preset}.yaml").read_text())
    content["net"]["channels"] = [8, 16, 32]
    (folder / f"{preset}.yaml").write_text(yaml.safe_dump(content))
    return str(folder / f"{preset}.yaml")


@pytest.fixture
def chests(tmp_path: Path) -> Path:
    """Four of the sample chests."""
    for kind in ("images", "labels"):
        (tmp_path / "chests" / kind).mkdir(parents=True)
        for n in range(1, 5):
            file = Path(kind) / f"phantom_{n:02d}.nii.gz"
            shutil.copy(SAMPLES / "chest" / file, tmp_path / "chests" / file)
    return tmp_path / "chests"


def check(name: str, text: str, out: Path) -> dict[str, Any]:
    """The summary of a run that held patients out."""
    assert "Dice" in text and "DEMONSTRATION" not in text
    assert (out / "report" / "report.html").is_file()
    summary: dict[str, Any] = json.loads((out / "report" / "summary.json").read_text())
    assert summary["demonstration"] is None and summary["complete"] and summary["task"] == name
    return summary


def test_vessels_of_the_sample_retinas_run_to_a_report(tmp_path: Path) -> None:
    summary = check("vessel", run("vessel", tmp_path, "--config", small("vessel2d", tmp_path)), tmp_path)
    assert summary["n_patients"] == 6 and "auc" in summary["labels"]["vessel"]


def test_lungs_with_a_tumour_in_them_run_to_a_report_beside_the_threshold(tmp_path: Path, chests: Path) -> None:
    text = run("lung", tmp_path / "out", "--data", str(chests), "--values", "1,2", "--config", small("lung", tmp_path))
    assert check("lung", text, tmp_path / "out")["others"]["baseline"]["labels"]["lung"]["dice"]["mean"] > 0.9


def test_tumours_run_to_a_list_of_lesions_and_a_report(tmp_path: Path, chests: Path) -> None:
    text = run("tumor", tmp_path / "out", "--data", str(chests), "--config", small("demo", tmp_path))
    assert set(check("tumor", text, tmp_path / "out")["labels"]) == {"lung", "tumour"}
    assert "tumour: 4 in the references" in text


@pytest.mark.slow
def test_a_single_image_is_cut_into_slabs_and_marked_as_a_demonstration(tmp_path: Path) -> None:
    data = tmp_path / "delivered"
    data.mkdir()
    shutil.copy(SAMPLES / "retina" / "images" / "phantom_01.png", data / "photo.png")
    shutil.copy(SAMPLES / "retina" / "labels" / "phantom_01.png", data / "photo_vessels.png")
    assert run("vessel", tmp_path / "out", "--data", str(data)).count("DEMONSTRATION") == 1
    summary = json.loads((tmp_path / "out" / "report" / "summary.json").read_text())
    assert summary["n_cases"] == 1 and "cut into 4 slabs" in summary["demonstration"]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_stays_short_enough_to_be_read(name: str) -> None:
    lines = (PIPELINES / f"{name}.py").read_text(encoding="utf-8").splitlines()
    assert 60 <= len(lines) <= 100
