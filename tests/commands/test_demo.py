"""`medseg demo --quick`: a mask, a picture, scores and what to do next, within half a minute on two slow cores."""

from __future__ import annotations

import csv
import json
import resource
from pathlib import Path

import pytest
from typer.testing import CliRunner

import medseg
from medseg.cli import app
from medseg.commands.demo import MODEL, run_quick_demo
from medseg.phantoms import samples_folder


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, float]:
    """The folder of a quick demo, what it said, and the processor seconds it took."""
    out = tmp_path_factory.mktemp("quick")
    said: list[str] = []
    before = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    run_quick_demo(out, said.append)
    return out, "\n".join(said), sum(resource.getrusage(resource.RUSAGE_SELF)[:2]) - before


def test_the_model_in_the_package_takes_less_than_a_megabyte() -> None:
    assert sum(file.stat().st_size for file in MODEL.iterdir()) < 1_000_000


def test_the_quick_demo_writes_a_good_mask_on_the_grid_of_the_study_and_a_picture(quick) -> None:
    out, said, _ = quick
    mask, study = medseg.read(out / "masks" / "study.nii.gz"), medseg.read(samples_folder() / "study")
    assert mask.same_geometry(study)
    assert (out / "masks" / "previews" / "study.png").stat().st_size > 1000
    assert (out / "report" / "report.html").is_file()
    rows = csv.DictReader((out / "report" / "cases.csv").read_text(encoding="utf-8").splitlines())
    dice = {row["label"]: float(row["value"]) for row in rows if row["metric"] == "dice"}
    assert dice["lung"] >= 0.95 and dice["tumour"] >= 0.85
    for path in ("masks/study.nii.gz", "masks/previews/study.png", "report/report.html"):
        assert str(out / path) in said


def test_the_quick_demo_takes_less_than_half_a_minute_of_two_cores(quick) -> None:
    assert quick[2] < 30


def test_the_quick_demo_ends_with_the_commands_for_ones_own_data(quick) -> None:
    lines = quick[1].splitlines()
    commands = [line.strip() for line in lines[-3:]]
    assert [" ".join(c.split()[:2]) for c in commands] == ["medseg train", "medseg predict", "medseg evaluate"]
    assert "medseg train FOLDER" in commands[0]
    assert commands[1].split()[2] == "runs/FOLDER/model"


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_dry_run_says_that_nothing_was_written_and_writes_nothing(tmp_path: Path, form: list[str]) -> None:
    study, out = samples_folder() / "study", tmp_path / "masks"
    result = CliRunner().invoke(app, ["predict", str(MODEL), str(study), "-o", str(out), "--dry-run", *form])
    assert result.exit_code == 0, result.output
    assert not out.exists()
    if form:
        content = json.loads(result.stdout)
        assert content["dry_run"] is True and content["planned"] == ["study"] and content["cases"] == []
    else:
        assert "nothing was written; masks and ledger.jsonl would go to" in result.stdout
        assert " are in " not in result.stdout
