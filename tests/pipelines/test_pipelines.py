"""Every recipe runs on the sample data, so none can rot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PIPELINES = Path(__file__).resolve().parents[2] / "pipelines"
RECIPES = sorted(path.stem for path in PIPELINES.glob("*.py"))


def run(name: str, out: Path, *more: str) -> str:
    """The output of a recipe that ended well."""
    command = [sys.executable, str(PIPELINES / f"{name}.py"), "--out", str(out), "--minutes", "0.02", *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipe_runs_on_the_samples_and_ends_with_scores_and_a_report(name: str, tmp_path: Path) -> None:
    text = run(name, tmp_path)
    assert "Dice" in text and "DEMONSTRATION" not in text
    assert (tmp_path / "report" / "report.html").is_file()
    summary = json.loads((tmp_path / "report" / "summary.json").read_text())
    assert summary["demonstration"] is None and summary["complete"] and summary["task"] == name


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_stays_short_enough_to_be_read(name: str) -> None:
    lines = (PIPELINES / f"{name}.py").read_text(encoding="utf-8").splitlines()
    assert 60 <= len(lines) <= 100
