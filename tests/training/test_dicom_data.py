"""From DICOM studies with objects to a model, and back to a study."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawn_studies import mask, write_drawn

import medseg
from medseg.cli import main
from medseg.errors import DatasetError
from medseg.preparation.store import open_case

TINY = {
    "plan.patch_size": [16, 16, 8],
    "net.channels": [4, 8],
    "training.max_iterations": 4,
    "training.batch_size": 2,
    "training.warmup_iterations": 1,
    "training.device": "cpu",
}


def studies(folder: Path, kind: str) -> Path:
    for n, names in enumerate([("Spleen", "Liver"), ("Liver", "Spleen"), ("Liver",)], start=1):
        write_drawn(folder / f"patient{n}", n, *names, kind=kind)
    return folder


@pytest.mark.parametrize("kind", ["seg", "rtstruct"])
def test_a_model_learns_from_studies_with_objects_and_masks_a_study_by_their_names(tmp_path: Path, kind: str) -> None:
    data = studies(tmp_path / "data", kind)
    run = medseg.train(data, overrides={**TINY, "output": str(tmp_path / "run")})
    assert run is not None
    model = medseg.load_model(tmp_path / "run")
    assert model.labels.mapping == {"Liver": 1, "Spleen": 2}
    found = model.predict(data / "patient1" / "ct")
    assert found.labels.array.shape == mask("Liver").shape


def test_prepare_and_init_find_the_studies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = studies(tmp_path / "data", "seg")
    assert main(["prepare", str(data), f"output={tmp_path / 'run'}"]) == 0
    told = capsys.readouterr()
    assert "labels_by_name" in told.out + told.err
    assert main(["init", str(data), "-o", str(tmp_path / "config.yaml")]) == 0
    text = (tmp_path / "config.yaml").read_text()
    assert "Liver: 1    # in 3 of 3 cases" in text and "Spleen: 2    # in 2 of 3 cases" in text
    assert "give them their real names" not in text
    assert main(["prepare", str(tmp_path / "config.yaml"), f"output={tmp_path / 'again'}"]) == 0
