"""Studies with a bright and a dark ball, and a run trained on some of them, for all tests of the correction loop."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

import medseg

SHAPE = (20, 24, 16)
LABELS = {"bright": 1, "dark": 2}


def drawn(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A bright ball and a dark one, and their label map."""
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"))
    labels = np.zeros(SHAPE, np.uint8)
    for value, low, high in ((1, (6, 6, 6), (8, 8, 9)), (2, (12, 15, 6), (14, 18, 9))):
        center = rng.uniform(low, high)
        labels[np.linalg.norm(grid - center[:, None, None, None], axis=0) < 4.5] = value
    image = np.choose(labels, (0, 120, -120)) + rng.normal(0, 20, SHAPE)
    return image.astype(np.float32), labels


def save(array: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([1.0, 1.0, 2.0, 1.0])), path)


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`data/` with six cases, `run/` trained on four of them, and `new/` with three further images and masks."""
    root = tmp_path_factory.mktemp("correct")
    rng = np.random.default_rng(3)
    for n in range(9):
        image, labels = drawn(rng)
        folder, name = (root / "data", f"case{n}.nii.gz") if n < 6 else (root / "new", f"study{n}.nii.gz")
        save(image, folder / "images" / name)
        save(labels, folder / "labels" / name)
    config = {
        "output": str(root / "run"),
        "device": "cpu",
        "data": {
            "root": str(root / "data"),
            "labels": LABELS,
            "modality": "MR",
            "split": {"every": 3, "start": 2},
        },
        "plan": {"patch_size": [16, 16, 8]},
        "net": {"channels": [8, 16]},
        "augmentation": {"enabled": False},
        "training": {
            "max_iterations": 20,
            "validation_cases": 1,
            "batch_size": 2,
            "learning_rate": 0.01,
            "warmup_iterations": 2,
        },
    }
    (root / "config.yaml").write_text(yaml.safe_dump(config))
    medseg.train(root / "config.yaml")
    return root
