"""Small data sets on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from medseg.config import RunConfig
from medseg.preparation import Preparation, prepare


def save(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)


@dataclass
class Data:
    """A data set of `images/` and `labels/` with a left (1) and a right (2) box per case, and how to prepare it."""

    root: Path
    output: Path

    def add(
        self, name: str, spacing: tuple[float, ...] = (1.0, 1.0, 1.0), shape: tuple[int, ...] = (20, 18, 16)
    ) -> None:
        rng = np.random.default_rng(sum(name.encode()))
        image = rng.normal(100, 20, shape).astype(np.float32)
        labels = np.zeros(shape, np.uint8)
        # RAS: a small i is the patient's left.
        labels[2:6, 4:10, 4:10] = 1
        labels[12:17, 4:10, 4:10] = 2
        image[labels > 0] += 60
        affine = np.diag([*spacing, 1.0])
        self.write(name, image, labels, affine)

    def write(self, name: str, image: np.ndarray, labels: np.ndarray | None, affine: np.ndarray) -> None:
        save(self.image(name), image, affine)
        if labels is not None:
            save(self.label(name), labels, affine)

    def image(self, name: str) -> Path:
        return self.root / "images" / f"{name}.nii.gz"

    def label(self, name: str) -> Path:
        return self.root / "labels" / f"{name}.nii.gz"

    def config(self, **parts: Any) -> RunConfig:
        data = {"root": self.root, "labels": {"left_box": 1, "right_box": 2}, **parts.pop("data", {})}
        return RunConfig(output=self.output, data=data, **parts)

    def prepare(self, progress: Callable[[int, int, str], None] | None = None, **parts: Any) -> Preparation:
        return prepare(self.config(**parts), progress, memory_gb=4.0, workers=1)


@pytest.fixture
def data(tmp_path: Path) -> Data:
    """Five cases of 20 x 18 x 16 voxels at 1 mm."""
    made = Data(tmp_path / "data", tmp_path / "run")
    for n in range(5):
        made.add(f"case_{n}")
    return made
