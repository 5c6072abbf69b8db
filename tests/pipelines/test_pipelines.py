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
    assert "Dice" in done.stdout and "demonstration" not in done.stdout
    assert (tmp_path / "report" / "report.html").is_file()


@pytest.mark.parametrize("name", sorted(path.stem for path in PIPELINES.glob("*.py")))
def test_a_recipe_stays_short_enough_to_be_read(name: str) -> None:
    lines = (PIPELINES / f"{name}.py").read_text(encoding="utf-8").splitlines()
    assert 60 <= len(lines) <= 120


def test_masks_of_public_data_sets_become_zero_and_one(tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    import medseg

    data = tmp_path / "chase"
    data.mkdir()
    grey = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
    mask = np.zeros((16, 16), np.uint8)
    mask[4:9, 4:9], mask[4, 4] = 255, 90
    Image.fromarray(grey).save(data / "Image_01L.jpg")
    Image.fromarray(mask).save(data / "Image_01L_1stHO.png")
    command = [sys.executable, str(PIPELINES / "layouts" / "arrange.py"), "chase", str(data), str(tmp_path / "out")]
    subprocess.run(command, check=True, timeout=60)
    labels = medseg.read(tmp_path / "out" / "labels" / "Image_01__L.png")
    assert np.unique(labels.array).tolist() == [0, 1] and labels.array.sum() == 24
    assert medseg.read(tmp_path / "out" / "images" / "Image_01__L.png").channels == 3
