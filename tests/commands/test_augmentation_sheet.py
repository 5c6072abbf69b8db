"""`medseg prepare --show-augmentation`: a picture of cases and of samples, upright, with the contours of the labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner, Result

from medseg.cli import app
from medseg.errors import ConfigError
from medseg.reports.figures import label_colours

CONTOUR = np.array(to_rgb(label_colours(["ball"])["ball"][0])) * 255


def dataset(folder: Path, pictures: bool = False) -> Path:
    """Four cases with a bright block (label 1) at the patient's right and front, or at the upper left of a picture."""
    rng = np.random.default_rng(0)
    for name in ("images", "labels"):
        (folder / "data" / name).mkdir(parents=True)
    for n in range(4):
        labels = np.zeros((24, 24) if pictures else (24, 24, 12), np.uint8)
        if pictures:
            labels[3:10, 3:10] = 1
            levels = (labels[..., None] * 150 + rng.integers(0, 20, (24, 24, 3))).astype(np.uint8)
            Image.fromarray(levels).save(folder / "data" / "images" / f"case{n}.png")
            Image.fromarray(labels).save(folder / "data" / "labels" / f"case{n}.png")
            continue
        labels[14:21, 14:21, 3:9] = 1
        image = (labels * 150 + rng.normal(0, 5, labels.shape)).astype(np.float32)
        nib.save(nib.Nifti1Image(image, np.eye(4)), folder / "data" / "images" / f"case{n}.nii.gz")
        nib.save(nib.Nifti1Image(labels, np.eye(4)), folder / "data" / "labels" / f"case{n}.nii.gz")
    return folder


def prepared(folder: Path, *settings: str, name: str = "sheet.png") -> Result:
    arguments = ["prepare", str(folder / "data"), f"output={folder / 'run'}", "data.labels={ball: 1}", *settings]
    return CliRunner().invoke(app, [*arguments, "--show-augmentation", str(folder / name)])


def rows_of(path: Path) -> NDArray[Any]:
    """The picture (rows, columns, 3) in three bands, one a case."""
    picture = np.asarray(Image.open(path).convert("RGB")).astype(float)
    height = picture.shape[0] // 3
    return np.stack([picture[n * height : (n + 1) * height] for n in range(3)])


def contoured(picture: NDArray[Any]) -> NDArray[np.bool_]:
    return np.abs(picture - CONTOUR).max(axis=-1) < 40


@pytest.mark.parametrize("pictures", [False, True], ids=["volumes", "pictures"])
def test_the_sheet_shows_cases_upright_and_samples_with_contours(tmp_path: Path, pictures: bool) -> None:
    still = ["augmentation.enabled=false"] if pictures else []
    done = prepared(dataset(tmp_path, pictures), "plan.patch_size=[24,24]" if pictures else "seed=1", *still)
    assert done.exit_code == 0, done.output
    assert f"samples as training sees them: {tmp_path / 'sheet.png'}" in done.output
    for band in rows_of(tmp_path / "sheet.png"):
        sixth = band.shape[1] // 6
        # The first column is the case; its block lies in the upper left quarter, in front at the patient's right.
        height, width = np.nonzero(contoured(band[:, :sixth]))
        assert len(height) > 20
        case = band[:, :sixth]
        assert height.mean() < case.shape[0] / 2 and width.mean() < sixth / 2 + 10
        assert all(contoured(band[:, n * sixth : (n + 1) * sixth]).any() for n in range(1, 6))


def test_what_is_mixed_in_training_is_mixed_in_the_sheet(tmp_path: Path) -> None:
    dataset(tmp_path, pictures=True)
    still = ("augmentation.enabled=true", "plan.patch_size=[24,24]", "training.batch_size=2")
    assert prepared(tmp_path, *still).exit_code == 0
    mixed = (*still, "augmentation.cutmix_probability=1", "augmentation.mixup_probability=1")
    assert prepared(tmp_path, *mixed, name="mixed.png").exit_code == 0
    first, second = rows_of(tmp_path / "sheet.png"), rows_of(tmp_path / "mixed.png")
    sixth = first.shape[2] // 6
    assert np.array_equal(first[:, :, :sixth], second[:, :, :sixth])
    assert not np.array_equal(first[:, :, sixth:], second[:, :, sixth:])


def test_another_kind_of_file_is_refused_before_the_data_are_prepared(tmp_path: Path) -> None:
    error = prepared(dataset(tmp_path), name="sheet.jpg").exception
    assert isinstance(error, ConfigError) and "sheet.jpg: the picture is a PNG" in str(error)
    assert not (tmp_path / "run").exists()
