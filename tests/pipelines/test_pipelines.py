"""Every recipe runs on the sample data, so none can rot."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PIPELINES = Path(__file__).resolve().parents[2] / "pipelines"


@pytest.mark.parametrize("name", sorted(path.stem for path in PIPELINES.glob("*.py")))
def test_the_recipe_runs_on_the_samples_and_ends_with_scores_and_a_report(name: str, tmp_path: Path) -> None:
    command = [sys.executable, str(PIPELINES / f"{name}.py"), "--out", str(tmp_path), "--minutes", "0.05"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    assert "Dice" in done.stdout
    assert (tmp_path / "report" / "report.html").is_file()
