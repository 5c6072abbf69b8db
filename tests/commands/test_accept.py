"""`medseg accept` and `medseg drift` as a user types them, on made cases with planted differences."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from bundle_fixtures import as_for_tests, one_thread  # noqa: F401
from inference_bundles import make_info, make_plan, threshold_weights
from typer.testing import CliRunner, Result

from medseg.cli import app
from medseg.errors import PartialFailure
from medseg.inference import save_bundle
from medseg.inference.quality.check import OUTSIDE
from medseg.studies.ledger import Ledger, LedgerRow

MODEL_HASH = "m" * 64


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "model"
    info = make_info(make_plan(spacing_mm=(1.0, 1.0, 2.0)), "inference_nets:build_threshold", {"spot": 1})
    return save_bundle(path, info, {0: threshold_weights(2, 0.0)})


def local_cases(folder: Path, count: int) -> Path:
    """Bright cubes on dark ground; in odd cases the reference is twice as high as what is bright."""
    rng = np.random.default_rng(0)
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for n in range(count):
        image = rng.normal(-500, 5, (16, 16, 16)).astype(np.float32)
        label = np.zeros(image.shape, np.uint8)
        image[4:8, 4:8, 4:8] = 500
        label[4:8, 4:8, 4 : (12 if n % 2 else 8)] = 1
        for kind, array in (("images", image), ("labels", label)):
            nib.save(nib.Nifti1Image(array, np.diag([1.0, 1.0, 2.0, 1.0])), folder / kind / f"case_{n:02}.nii.gz")
    return folder


def ledger(path: Path, values: list[float], started: str = "2026-11-{:02}T00:00:00+00:00") -> Path:
    """One run a study."""
    made = Ledger(path / "ledger.jsonl")
    rows = [
        LedgerRow(
            f"case_{n:03}",
            "done",
            model_hash=MODEL_HASH,
            figures={"noise": value, OUTSIDE: 0.0},
            run_started=started.format(1 + n % 28) if n < 28 else f"2026-12-{1 + (n - 28) // 24:02}T{(n - 28) % 24:02}",
        )
        for n, value in enumerate(values)
    ]
    path.mkdir(parents=True, exist_ok=True)
    made.path.write_text("".join(json.dumps(row.record()) + "\n" for row in rows))
    return path


def accepted(path: Path, values: list[float]) -> Path:
    record = {"format_version": 1, "model_hash": MODEL_HASH, "figures": [{"noise": value} for value in values]}
    path.write_text(json.dumps(record))
    return path


def test_the_page_names_the_scanner_on_which_the_model_is_worse(model: Path, tmp_path: Path) -> None:
    local = local_cases(tmp_path / "local", 12)
    table = tmp_path / "cases.csv"
    table.write_text("case,scanner\n" + "".join(f"case_{n:02},{'<b>New</b>' if n % 2 else 'Old'}\n" for n in range(12)))
    done = run("accept", model, local, "-o", tmp_path / "out", "--cases", table, "--least-dice", "0.95")
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "out" / "acceptance.json").read_text())
    (label,) = found["labels"]
    assert found["cases"] == found["patients"] == len(found["figures"]) == 12
    assert found["labels"][label]["dice"]["mean"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["labels"][label]["size"]["bias"]["mean"] == pytest.approx(-0.064)
    worse = [group for group in found["groups"] if group["differs"] and group["dice"] < group["others"]]
    assert [group["value"] for group in worse] == ["<b>New</b>"]
    page = (tmp_path / "out" / "acceptance.html").read_text()
    assert "&lt;b&gt;New" in page and "<b>New" not in page
    assert "http:" not in page and "<script" not in page and "not shown" in page
    assert len((tmp_path / "out" / "cases.csv").read_text().splitlines()) == 13


def test_few_cases_get_no_interval_and_a_failed_case_is_named(model: Path, tmp_path: Path) -> None:
    local = local_cases(tmp_path / "local", 4)
    flat = nib.Nifti1Image(np.full((16, 16, 16), 7, np.uint8), np.diag([1.0, 1.0, 2.0, 1.0]))
    nib.save(flat, local / "labels" / "case_03.nii.gz")
    done = run("accept", model, local, "-o", tmp_path / "out")
    assert isinstance(done.exception, PartialFailure)
    found = json.loads((tmp_path / "out" / "acceptance.json").read_text())
    assert list(found["failed"]) == ["case_03"] and "7" in found["failed"]["case_03"]
    assert all(label["dice"]["ci_low"] is None for label in found["labels"].values())
    assert "too few" in (tmp_path / "out" / "acceptance.html").read_text()


def test_a_planted_shift_alarms_with_exit_code_4_and_few_studies_are_no_all_clear(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    reference = accepted(tmp_path / "acceptance.json", list(rng.normal(10, 1, 40)))
    steady = run("drift", ledger(tmp_path / "a", list(rng.normal(10, 1, 120))), "--accepted", reference, "--json")
    assert steady.exit_code == 0 and json.loads(steady.stdout)["state"] == "steady"
    both = [*rng.normal(10, 1, 60), *rng.normal(13, 1, 20)]
    alarm = run("drift", ledger(tmp_path / "b", both), "--accepted", reference, "--json")
    found = json.loads(alarm.stdout)
    assert isinstance(alarm.exception, PartialFailure) and found["state"] == "alarm"
    assert found["figures"][0]["name"] == "noise" and 60 < found["figures"][0]["alarm_after"] <= 80
    few = run("drift", ledger(tmp_path / "c", [10.0, 11.0]), "--accepted", reference, "--json")
    assert isinstance(few.exception, PartialFailure) and json.loads(few.stdout)["state"] == "too_few"


def test_the_order_within_one_run_is_no_drift(tmp_path: Path) -> None:
    values = sorted(np.random.default_rng(2).normal(10, 1, 200), reverse=True)
    path = ledger(tmp_path / "a", [])
    rows = [
        LedgerRow(f"c{n:03}", "done", model_hash=MODEL_HASH, figures={"noise": v}, run_started="2026-11-30T08:00:00")
        for n, v in enumerate(values)
    ]
    (path / "ledger.jsonl").write_text("".join(json.dumps(row.record()) + "\n" for row in rows))
    done = run("drift", path, "--json")
    assert json.loads(done.stdout)["state"] == "steady"
    assert any("of one run" in note for note in json.loads(done.stdout)["notes"])


def test_predict_writes_the_figures_that_drift_reads(model: Path, tmp_path: Path) -> None:
    local = local_cases(tmp_path / "local", 2)
    assert run("predict", model, local / "images", "-o", tmp_path / "out").exit_code in (0, 4)
    rows = Ledger(tmp_path / "out" / "ledger.jsonl").by_time
    assert len(rows) == 2 and len({row.run_started for row in rows}) == 1 and rows[0].run_started.endswith("+00:00")


@pytest.mark.parametrize("wrong", ["nothing.jsonl", "other"])
def test_what_is_not_a_ledger_or_of_another_model_is_refused(tmp_path: Path, wrong: str) -> None:
    path = tmp_path / wrong
    reference = accepted(tmp_path / "acceptance.json", [1.0])
    if wrong == "other":
        ledger(path, [1.0])
        reference.write_text(reference.read_text().replace(MODEL_HASH, "n" * 64))
    done = run("drift", path, "--accepted", reference)
    assert done.exception is not None and wrong in str(done.exception)
