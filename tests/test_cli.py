"""Wrong input at the command line: the exit code of the design, one readable line, nothing half-written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

CONFIG = """
data: {labels: {ball: 1}, modality: MR}
plan: {patch_size: [16, 16, 16]}
net: {channels: [4, 8]}
training: {max_iterations: 2, batch_size: 2}
"""


def _medseg(folder: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and what came on standard error, progress lines aside."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "medseg", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("medseg: ")]
    return done.returncode, "\n".join(lines) or done.stderr


def _save(array: np.ndarray, path: Path, spacing: float = 1.0) -> None:
    nib.save(nib.Nifti1Image(array, np.diag([spacing, 1, 1, 1])), path)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Four 16x18x16 volumes with a bright box; the config names it `ball`."""
    box = np.zeros((16, 18, 16), np.uint8)
    box[4:10, 5:12, 3:12] = 1
    for folder in ("images", "labels"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    for n in range(4):
        _save((box * 100).astype(np.float32) + n, tmp_path / "data" / "images" / f"c{n}.nii.gz")
        _save(box, tmp_path / "data" / "labels" / f"c{n}.nii.gz")
    (tmp_path / "c.yaml").write_text(CONFIG)
    return tmp_path


def _missing(data: Path) -> None:
    (data / "labels" / "c2.nii.gz").unlink()


def _other_grid(data: Path) -> None:
    _save(np.ones((16, 18, 16), np.uint8), data / "labels" / "c2.nii.gz", spacing=2.0)


def _other_value(data: Path) -> None:
    _save(np.full((16, 18, 16), 7, np.uint8), data / "labels" / "c2.nii.gz")


def _unreadable(data: Path) -> None:
    (data / "images" / "c2.nii.gz").write_bytes(b"not an image")


def _nan(data: Path) -> None:
    _save(np.full((16, 18, 16), np.nan, np.float32), data / "images" / "c2.nii.gz")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_missing, "labels/c2.nii.gz"),
        (_other_grid, "same grid"),
        (_other_value, "7"),
        (_unreadable, "c2.nii.gz"),
        (_nan, "NaN"),
    ],
)
def test_a_bad_data_set_ends_with_3_one_line_and_no_output(dataset: Path, spoil, words: str) -> None:
    spoil(dataset / "data")
    code, message = _medseg(dataset, "train", "c.yaml", "data.root=data", "output=run")
    assert code == 3
    assert message.count("\n") == 0
    assert "c2" in message
    assert words in message
    assert not (dataset / "run").exists()


def test_an_empty_folder_ends_with_3(dataset: Path) -> None:
    (dataset / "empty").mkdir()
    code, message = _medseg(dataset, "train", "c.yaml", "data.root=empty", "output=run")
    assert code == 3
    assert "empty" in message


def test_an_unknown_key_ends_with_2_and_names_the_nearest(dataset: Path) -> None:
    code, message = _medseg(dataset, "train", "c.yaml", "data.root=data", "training.max_iteration=3")
    assert code == 2
    assert "'training.max_iterations'" in message
    # The key was misspelt in an override; the file is not at fault.
    assert "override 'training.max_iteration'" in message and "c.yaml" not in message


def test_a_damaged_model_ends_with_5_and_a_bad_source_with_3(dataset: Path) -> None:
    assert _medseg(dataset, "train", "c.yaml", "data.root=data", "output=run")[0] == 0
    code, message = _medseg(dataset, "predict", "run/model", "nowhere", "-o", "masks")
    assert code == 3
    assert "nowhere" in message
    (dataset / "run" / "model" / "weights_fold0.safetensors").write_bytes(b"damaged")
    code, message = _medseg(dataset, "predict", "run/model", "data/images", "-o", "masks")
    assert code == 5
    assert "weights_fold0" in message
    assert not (dataset / "masks").exists()


def test_one_bad_case_among_good_ones_ends_with_4_and_the_rest_is_done(dataset: Path) -> None:
    assert _medseg(dataset, "train", "c.yaml", "data.root=data", "output=run")[0] == 0
    _nan(dataset / "data")
    code, _ = _medseg(dataset, "predict", "run/model", "data/images", "-o", "masks")
    assert code == 4
    masks = sorted(path.name for path in (dataset / "masks").glob("*.nii.gz"))
    assert masks == ["c0.nii.gz", "c1.nii.gz", "c3.nii.gz"]
    ledger = (dataset / "masks" / "ledger.jsonl").read_text()
    assert '"failed"' in ledger
    assert "NaN" in ledger


def test_a_full_disk_ends_with_6(dataset: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    code, message = _medseg(dataset, "evaluate", "data/labels", "data/labels", "-o", "/dev/full/report")
    assert code == 6, message


def test_prepare_says_what_it_found_and_what_it_plans(dataset: Path) -> None:
    command = [sys.executable, "-m", "medseg", "prepare", "c.yaml", "data.root=data", "output=run"]
    done = subprocess.run(command, cwd=dataset, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "4 cases, 3D, 1 channel(s)" in done.stdout
    assert "ball: in 4 cases, 1512 voxels" in done.stdout
    assert "plan.yaml" in done.stdout
