"""The first hour at the command line: from a folder of data to a model, without a file of settings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

SMALL = ("plan.patch_size=[16, 16, 16]", "net.channels=[4, 8]", "training.batch_size=2", "training.max_iterations=2")


def medseg(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "medseg", *arguments],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder with a data set `boxes` in it: four 16x18x16 volumes with two boxes."""
    box = np.zeros((16, 18, 16), np.uint8)
    box[4:8, 5:12, 3:12] = 1
    box[10:13, 5:12, 3:12] = 2
    for name in ("images", "labels"):
        (tmp_path / "boxes" / name).mkdir(parents=True)
    for n in range(4):
        image = nib.Nifti1Image((box * 100).astype(np.float32) + n, np.eye(4))
        nib.save(image, tmp_path / "boxes" / "images" / f"c{n}.nii.gz")
        nib.save(nib.Nifti1Image(box, np.eye(4)), tmp_path / "boxes" / "labels" / f"c{n}.nii.gz")
    return tmp_path


def test_a_folder_becomes_a_model_that_predicts(desk: Path) -> None:
    done = medseg(desk, "train", "boxes", *SMALL)
    assert done.returncode == 0, done.stderr
    assert "label_1, label_2" in done.stderr and "data.labels=" in done.stderr
    assert "model: runs/boxes/model" in done.stdout
    done = medseg(desk, "predict", "runs/boxes/model", "boxes/images", "-o", "masks")
    assert done.returncode == 0, done.stderr
    assert len(list((desk / "masks").glob("c*.nii.gz"))) == 4


def test_a_folder_can_be_prepared(desk: Path) -> None:
    done = medseg(desk, "prepare", "boxes/", "data.labels={front: 1, back: 2}")
    assert done.returncode == 0, done.stderr
    assert "front: in 4 cases" in done.stdout
    assert (desk / "runs" / "boxes" / "plan.yaml").is_file()


def test_a_fault_of_the_folder_ends_with_3_and_one_line(desk: Path) -> None:
    (desk / "boxes" / "images").rename(desk / "boxes" / "Images")
    done = medseg(desk, "train", "boxes", *SMALL)
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert "rename Images/ to images/" in line
    assert not (desk / "runs").exists()
