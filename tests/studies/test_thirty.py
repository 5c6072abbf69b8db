"""A night's work as it comes: thirty studies through the real command; wrong ones are named, right ones pass."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from inference_bundles import make_info, make_plan, threshold_weights
from thirty_studies import ENHANCEMENT, LOUD, SELECT, SILENT, ball, chest, write_dataset, write_thirty

import medseg
from medseg.inference import save_bundle
from medseg.metrics import score_case
from medseg.preparation.case_features import measure_case
from medseg.preparation.plan import ChannelPlan
from medseg.preparation.training_range import learn_range
from medseg.volume import Volume

# The code under test, and the tests' own net, found as an installed plug-in would be.
CODE = os.pathsep.join(map(str, (Path(medseg.__file__).parents[1], Path(__file__).parents[1] / "helpers")))
CONFIG = """
data:
  split: {every: 5, start: 4}
  modality: CT
  select:
    - {name: CT native, modality: CT, description: native}
    - {name: CT venous, modality: CT, description: venous}
plan: {patch_size: [40, 40, 32]}
net: {dims: 3, channels: [8, 16, 32, 64]}
augmentation: {spatial_probability: 0.3, noise_probability: 0, blur_probability: 0, low_resolution_probability: 0}
training: {max_iterations: 250, learning_rate: 0.01, ema_decay: 0.97, foreground_fraction: 0.66, validate_every: 1000}
prediction: {mirror: false}
"""


def medseg_command(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": CODE}
    command = [sys.executable, "-m", "medseg", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def rows_of(out: Path) -> dict[str, list[dict]]:
    rows: dict[str, list[dict]] = {}
    for line in (out / "ledger.jsonl").read_text().splitlines():
        row = json.loads(line)
        rows.setdefault(row["case"], []).append(row)
    return rows


def check_thirty(model: Path, studies: Path, out: Path, right: dict[str, Volume], least_dice: float) -> None:
    """What the command has to make of the thirty studies."""
    first = medseg_command("predict", model, studies, "-o", out, "--no-preview")
    assert first.returncode == 4, first.stderr
    rows = rows_of(out)
    assert len(rows) == 30 and all(len(attempts) == 1 for attempts in rows.values())
    last = {case: attempts[-1] for case, attempts in rows.items()}

    wrong = {case: (last[case]["state"], last[case]["findings"]) for case in right if last[case]["state"] != "done"}
    assert not wrong, wrong
    for case, reference in right.items():
        mask = medseg.read(out / f"{case}.nii.gz")
        assert mask.same_geometry(reference), case
        dice = score_case(mask.array, reference.array, reference.spacing_mm, labels=(1,), metrics=("dice",))
        assert dice[1]["dice"] >= least_dice, case

    for case, reason in {
        "missing_slices": "missing",
        "truncated": "truncated",
        "two_patients": "patient",
        "wrong_modality": "MR",
    }.items():
        assert last[case]["state"] == "failed" and reason in last[case]["error"], last[case]["error"]
        assert case in first.stdout and not (out / f"{case}.nii.gz").exists()
    assert last["tilted"]["state"] == "needs_review" and "tilt" in " ".join(last["tilted"]["findings"])

    for case in SILENT:
        assert last[case]["state"] == "needs_review" and last[case]["findings"], case
        assert f"{case}: needs review" in first.stdout

    second = medseg_command("predict", model, studies, "-o", out, "--no-preview")
    assert second.returncode == 4
    attempts = {case: len(each) for case, each in rows_of(out).items()}
    assert {case for case, count in attempts.items() if count == 2} == set(LOUD) - {"tilted"}


def test_thirty_small_studies_and_a_threshold(tmp_path: Path) -> None:
    pairs = [ball(seed) for seed in range(12)]
    hu = ChannelPlan(kind="clip", low=-1000, high=1000, mean=100.0, std=1.0)
    info = make_info(
        make_plan(spacing_mm=None, in_channels=2, normalization=(hu, hu), select=SELECT),
        "inference_nets:build_threshold",
        {"organ": 1},
    )
    known = learn_range([measure_case(image, labels, info.scheme) for image, labels in pairs], ["CT"] * len(pairs))
    model = save_bundle(
        tmp_path / "model", info.model_copy(update={"reference_ranges": known}), {0: threshold_weights(2, 0.0)}
    )
    right = write_thirty(tmp_path / "studies", ball, 100)
    check_thirty(model, tmp_path / "studies", tmp_path / "out", right, least_dice=0.99)


@pytest.mark.slow
def test_thirty_synthetic_chests_and_a_trained_net(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", chest, range(1, 21))
    (tmp_path / "config.yaml").write_text(CONFIG)
    trained = medseg_command(
        "train", tmp_path / "config.yaml", f"data.root={tmp_path / 'data'}", f"output={tmp_path / 'run'}"
    )
    assert trained.returncode == 0, trained.stderr
    right = write_thirty(tmp_path / "studies", chest, 100)
    check_thirty(tmp_path / "run" / "model", tmp_path / "studies", tmp_path / "out", right, least_dice=0.9)


def test_the_phases_differ_in_the_enhancement_only() -> None:
    image, labels = ball(0)
    added = image.array[1].astype(float) - image.array[0]
    assert added[labels.array > 0].mean() == pytest.approx(ENHANCEMENT, abs=3)
    assert added[labels.array == 0].mean() == pytest.approx(0, abs=1)
