"""A data set small enough to train on within a test."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml


@pytest.fixture
def tiny_dataset(tmp_path: Path) -> Path:
    """Six 20x24x16 volumes with a bright ball (label 1), and `config.yaml` for two-stage nets on them."""
    rng = np.random.default_rng(7)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in (20, 24, 16)), indexing="ij"))
    for folder in ("images", "labels"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    for n in range(6):
        center = rng.uniform((7, 7, 6), (13, 17, 10))
        ball = np.linalg.norm(grid - center[:, None, None, None], axis=0) < 5
        image = (ball * 100 + rng.normal(0, 20, ball.shape)).astype(np.float32)
        nib.save(nib.Nifti1Image(image, np.eye(4)), tmp_path / "data" / "images" / f"case{n}.nii.gz")
        nib.save(nib.Nifti1Image(ball.astype(np.uint8), np.eye(4)), tmp_path / "data" / "labels" / f"case{n}.nii.gz")
    config = {
        "output": str(tmp_path / "run"),
        "data": {
            "root": str(tmp_path / "data"),
            "labels": {"ball": 1},
            "modality": "MR",
            "split": {"every": 3, "start": 2},
        },
        "plan": {"patch_size": [16, 16, 16]},
        "net": {"channels": [4, 8]},
        "training": {"max_iterations": 12, "batch_size": 2, "save_every": 2, "warmup_iterations": 2},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    return tmp_path
