"""`prediction.quality=calibrate`: what a training leaves for `predict --estimate-quality`."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path

import pytest
from typer.testing import CliRunner

import medseg
from medseg.cli import app

OVERRIDES = {
    "training.max_iterations": 40,
    "augmentation.enabled": False,
    "prediction.mirror": False,
    "data.split": {"every": 2, "start": 1},
}


def description(bundle: Path) -> dict:
    return json.loads((bundle / "model.json").read_text())


def test_a_finished_training_is_calibrated_by_resuming_it(tiny_dataset: Path) -> None:
    config = tiny_dataset / "config.yaml"
    run = medseg.train(config, overrides=OVERRIDES)
    assert description(run.bundle)["calibration"] is None
    weights = (run.bundle / "weights_fold0.safetensors").read_bytes()

    medseg.train(config, overrides=OVERRIDES | {"prediction.quality": "calibrate"}, resume=True)
    assert (run.bundle / "weights_fold0.safetensors").read_bytes() == weights
    calibration = description(run.bundle)["calibration"]
    # Three cases, each as it is and with nine damages; a mask that is empty has no row.
    assert calibration["cases"] == 3 and 20 <= calibration["rows"] <= 30
    assert 0 < calibration["error"] < 0.5 and len(calibration["weights"]) == 8

    image, out = tiny_dataset / "data" / "images" / "case1.nii.gz", tiny_dataset / "out"
    arguments = ["predict", str(run.bundle), str(image), "-o", str(out), "--device", "cpu", "--estimate-quality"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    (row,) = csv.DictReader((out / "measurements.csv").read_text().splitlines())
    assert 0 < float(row["predicted_dice"]) <= 1
    assert (out / "uncertainty" / "case1.nii.gz").exists()


def test_two_validation_cases_are_too_few(tiny_dataset: Path, caplog: pytest.LogCaptureFixture) -> None:
    overrides = {"training.max_iterations": 2, "prediction.quality": "calibrate", "prediction.mirror": False}
    with caplog.at_level(logging.WARNING, logger="medseg"):
        run = medseg.train(tiny_dataset / "config.yaml", overrides=overrides)
    assert description(run.bundle)["calibration"] is None
    assert "2 validation cases are too few to calibrate the estimate of quality" in caplog.text


def test_resuming_learns_the_training_range_anew_where_a_run_of_an_older_version_measured_it(
    tiny_dataset: Path,
) -> None:
    """Of a z-scored MR the range holds normalised grey levels, none as stored."""
    config = tiny_dataset / "config.yaml"
    overrides = {"training.max_iterations": 2, "prediction.mirror": False}
    run = medseg.train(config, overrides=overrides)
    range_of_today = description(run.bundle)["reference_ranges"]
    levels = {span["what"] for span in range_of_today["spans"] if span["kind"] in {"level", "label_level"}}
    assert len(levels) == 6 and all(what.startswith("normalised ") for what in levels)

    # As it was written before: without what z-score makes of a channel.
    cache = run.folder / "prepared" / "fingerprint.json"
    content = json.loads(cache.read_text())
    for case in content["cases"]:
        del case["features"]["levels"]
    cache.write_text(json.dumps(content | {"format_version": 3}))
    again = medseg.train(config, overrides=overrides, resume=True)
    assert description(again.bundle)["reference_ranges"] == range_of_today
