"""A training that the last release began goes on; `tests/fixtures/make_last_release.py` interrupted it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from last_release_data import write_dataset
from safetensors.torch import load_file

import medseg
from medseg.config import load_config
from medseg.errors import CheckpointError
from medseg.preparation import load_plan, prepare
from medseg.preparation.sources import stamp_of, state_of

RUN = Path(__file__).parents[1] / "fixtures" / "last_release" / "run"


@pytest.fixture
def interrupted(tmp_path: Path) -> Path:
    """The run folder with its data, where the last release would have left it on this machine."""
    write_dataset("volumes", tmp_path / "data")
    (tmp_path / "run").mkdir()
    for name in ("plan.yaml", "log.jsonl", "last.pt"):
        shutil.copy(RUN / name, tmp_path / "run" / name)
    (tmp_path / "run" / "config.yaml").write_text(
        (RUN / "config.yaml").read_text().replace("WORK", str(tmp_path)), encoding="utf-8"
    )
    return tmp_path / "run"


def test_an_interrupted_run_of_the_last_release_resumes_to_the_same_weights(interrupted: Path) -> None:
    before = (interrupted / "plan.yaml").read_bytes()
    resumed = medseg.train(interrupted / "config.yaml", resume=True)
    mine = load_file(resumed.bundle / "weights_fold0.safetensors")
    theirs = load_file(RUN / "resumed.safetensors")
    assert mine.keys() == theirs.keys()
    for name, value in theirs.items():
        # Twenty steps on another processor round differently.
        torch.testing.assert_close(mine[name], value, rtol=1e-3, atol=1e-4)
    assert (interrupted / "plan.yaml").read_bytes() == before
    lines = [json.loads(line) for line in (interrupted / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["iteration"] == 40 and lines[-1]["final"]


def test_plans_of_both_versions_train_to_the_same_bits(interrupted: Path, tmp_path: Path) -> None:
    (interrupted / "last.pt").unlink()
    (interrupted / "log.jsonl").unlink()
    first = medseg.train(interrupted / "config.yaml", {"training.max_iterations": 10})
    second_folder = tmp_path / "second"
    second_folder.mkdir()
    medseg.preparation.save_plan(load_plan(interrupted / "plan.yaml"), second_folder / "plan.yaml")
    changes = {"training.max_iterations": 10, "output": str(second_folder)}
    second = medseg.train(interrupted / "config.yaml", changes)
    weights = [load_file(run.bundle / "weights_fold0.safetensors") for run in (first, second)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_an_edit_of_the_plan_is_honoured_and_no_longer_the_same_training(interrupted: Path) -> None:
    plan = yaml.safe_load((interrupted / "plan.yaml").read_text())
    (interrupted / "plan.yaml").write_text(yaml.safe_dump({**plan, "spacing_mm": [1.25, 1.25, 3.0]}))
    config = load_config(interrupted / "config.yaml", {"plan.spacing_mm": None})
    assert prepare(config, workers=1).plan.spacing_mm == (1.25, 1.25, 3.0)
    with pytest.raises(CheckpointError, match="another plan"):
        medseg.train(config, resume=True)


def test_a_case_that_the_last_release_prepared_is_taken_as_it_is(interrupted: Path) -> None:
    config = load_config(interrupted / "config.yaml")
    preparation = prepare(config, workers=1)
    case = preparation.dataset.cases[0]
    plan = yaml.safe_load((RUN / "plan.yaml").read_text())
    parts = {key: plan[key] for key in ("dims", "orientation", "spacing_mm", "normalization")}
    settings = (config.data.label_threshold, None, "uint8", parts)
    stamp = stamp_of("store", 2, state_of(case), case.name, case.group, settings)
    stored = json.loads((preparation.cases[case.name] / "case.json").read_text())
    assert stored["stamp"] == stamp
    before = json.loads((RUN / "case0.json").read_text())
    assert {**stored, "stamp": "", "sizes": {}} == {**before, "stamp": "", "sizes": {}}
    assert stored["sizes"]["image.npy"] == before["sizes"]["image.npy"]
