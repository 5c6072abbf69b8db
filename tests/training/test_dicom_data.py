"""From DICOM studies with objects to a model, and back to a study."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import pytest
from drawn_studies import SHAPE, write_drawn
from typer.testing import CliRunner

import medseg
from medseg.cli import app

TINY = {
    "plan.patch_size": [16, 16, 8],
    "net.channels": [4, 8],
    "training.max_iterations": 4,
    "training.batch_size": 2,
    "training.warmup_iterations": 1,
}


def studies(folder: Path, kind: str) -> Path:
    for n, names in enumerate([("Spleen", "Liver"), ("Liver", "Spleen"), ("Liver",)], start=1):
        write_drawn(folder / f"patient{n}", n, *names, kind=kind)
    return folder


@pytest.mark.parametrize("kind", ["seg", "rtstruct"])
def test_a_model_learns_from_studies_with_objects_and_masks_a_study_by_their_names(tmp_path: Path, kind: str) -> None:
    data, out = studies(tmp_path / "data", kind), tmp_path / "out"
    run = medseg.train(data, overrides={**TINY, "output": str(tmp_path / "run")})
    arguments = ["predict", str(run.bundle), str(data / "patient1"), "-o", str(out), "--device", "cpu"]
    result = CliRunner().invoke(app, [*arguments, "--format", "nifti"])
    assert result.exit_code == 0, result.output
    (mask,) = out.rglob("*.nii.gz")
    assert nib.load(mask).shape == SHAPE
    (labels,) = out.rglob("labels.json")
    assert json.loads(labels.read_text())["labels"] == {"Liver": 1, "Spleen": 2}


def test_prepare_and_init_find_the_studies(tmp_path: Path) -> None:
    data, config = studies(tmp_path / "data", "seg"), tmp_path / "config.yaml"
    result = CliRunner().invoke(app, ["prepare", str(data), f"output={tmp_path / 'run'}"])
    assert result.exit_code == 0 and "labels_by_name" in result.output, result.output
    result = CliRunner().invoke(app, ["init", str(data), "-o", str(config)])
    assert result.exit_code == 0, result.output
    text = config.read_text()
    assert "Liver: 1    # in 3 of 3 cases" in text and "Spleen: 2    # in 2 of 3 cases" in text
    assert "name in the DICOM objects: value" in text and "real names" not in text
    result = CliRunner().invoke(app, ["prepare", str(config), f"output={tmp_path / 'again'}"])
    assert result.exit_code == 0, result.output


def test_a_rtstruct_roi_that_cannot_be_read_is_told_by_prepare(tmp_path: Path) -> None:
    import pydicom

    data = studies(tmp_path / "data", "rtstruct")
    path = data / "patient2" / "drawn.dcm"
    content = pydicom.dcmread(path)
    content.ROIContourSequence[1].ContourSequence[0].ContourData[2] = 4000.0
    content.save_as(path)
    result = CliRunner().invoke(app, ["prepare", str(data), f"output={tmp_path / 'run'}"])
    assert result.exit_code == 0 and "roi_left_out: patient2: 'Spleen' was left out" in result.output, result.output
