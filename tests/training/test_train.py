"""Training as a user runs it: bundle, resume, bad checkpoints."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import medseg
from medseg.config import load_config
from medseg.errors import CheckpointError, ConfigError, WriteError
from medseg.labels import LabelScheme
from medseg.preparation.prepare import prepare
from medseg.preparation.store import open_case
from medseg.training.data import BatchSource


def _weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "weights_fold0.safetensors")


def _same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_training_leaves_the_run_folder_of_the_design_and_a_model_that_predicts(tiny_dataset: Path) -> None:
    run = medseg.train(tiny_dataset / "config.yaml", overrides={"training.max_iterations": 60})
    names = {path.name for path in run.folder.iterdir()}
    assert {"config.yaml", "plan.yaml", "log.jsonl", "progress.png", "last.pt", "model"} <= names
    entries = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    assert any("loss" in entry and "wait_fraction" in entry for entry in entries)
    assert entries[-1]["final"] and entries[-1]["iteration"] == 60
    image = medseg.read(tiny_dataset / "data" / "images" / "case2.nii.gz")
    labels = medseg.load_model(run.bundle, device="cpu").predict(image)
    assert labels.same_geometry(image)
    assert set(labels.array.ravel().tolist()) <= {0, 1}
    assert run.scores[0].cases == 2


def test_a_killed_training_resumes_to_bitwise_the_same_weights(tiny_dataset: Path) -> None:
    config = tiny_dataset / "config.yaml"
    whole = medseg.train(config, overrides={"output": str(tiny_dataset / "whole"), "training.max_iterations": 40})
    folder = tiny_dataset / "killed"
    command = [sys.executable, "-m", "medseg", "train", str(config), f"output={folder}", "training.max_iterations=40"]
    # The same number of threads as here: sums are split, and so rounded, by thread.
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (folder / "last.pt").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (folder / "last.pt").exists()
    resumed = medseg.train(config, overrides={"output": str(folder), "training.max_iterations": 40}, resume=True)
    assert _same(_weights(whole.folder), _weights(resumed.folder))


def test_resume_at_a_step_between_checkpoints_repeats_the_same_batches(tiny_dataset: Path) -> None:
    config = load_config(tiny_dataset / "config.yaml")
    preparation = prepare(config, memory_gb=4, on_gpu=False)
    cases = [open_case(folder) for folder in preparation.cases.values()]
    scheme = LabelScheme.from_mapping({"ball": 1})
    first = BatchSource(cases, preparation.plan, scheme, config, 0)
    again = BatchSource(cases, preparation.plan, scheme, config, 0)
    first.batch(0)
    assert torch.equal(first.batch(5).images, again.batch(5).images)
    assert torch.equal(first.batch(5).labels, again.batch(5).labels)
    assert not torch.equal(first.batch(5).images, first.batch(6).images)


def test_a_batch_has_the_planned_shape_and_foreground(tiny_dataset: Path) -> None:
    config = load_config(tiny_dataset / "config.yaml", {"training.foreground_fraction": 1.0})
    preparation = prepare(config, memory_gb=4, on_gpu=False)
    cases = [open_case(folder) for folder in preparation.cases.values()]
    batch = BatchSource(cases, preparation.plan, LabelScheme.from_mapping({"ball": 1}), config, 0).batch(3)
    assert batch.images.shape == (2, 1, 16, 16, 16)
    assert batch.labels.shape == (2, 1, 16, 16, 16)
    assert all(sample.any() for sample in batch.labels)


def test_a_run_folder_with_a_training_is_not_overwritten(tiny_dataset: Path) -> None:
    medseg.train(tiny_dataset / "config.yaml", overrides={"training.max_iterations": 2})
    with pytest.raises(ConfigError, match="--resume"):
        medseg.train(tiny_dataset / "config.yaml", overrides={"training.max_iterations": 2})


def test_resume_refuses_a_damaged_checkpoint_and_one_of_another_seed(tiny_dataset: Path) -> None:
    config = tiny_dataset / "config.yaml"
    run = medseg.train(config, overrides={"training.max_iterations": 2})
    with pytest.raises(CheckpointError, match="another plan"):
        medseg.train(config, overrides={"training.max_iterations": 4, "seed": 1}, resume=True)
    (run.folder / "last.pt").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="damaged"):
        medseg.train(config, overrides={"training.max_iterations": 4}, resume=True)


def test_training_starts_from_the_weights_of_a_bundle(tiny_dataset: Path) -> None:
    config = tiny_dataset / "config.yaml"
    first = medseg.train(config, overrides={"training.max_iterations": 4})
    still = {
        "output": str(tiny_dataset / "second"),
        "training.init": str(first.bundle),
        "training.max_iterations": 1,
        "training.learning_rate": 1e-12,
        "training.weight_decay": 0.0,
    }
    second = medseg.train(config, overrides=still)
    for name, value in _weights(first.folder).items():
        assert torch.allclose(value, _weights(second.folder)[name], atol=1e-6)


def test_a_wrong_net_or_loss_is_refused_before_any_data_is_read(tiny_dataset: Path) -> None:
    nowhere = {"data.root": "does/not/exist"}
    with pytest.raises(ConfigError, match="unet"):
        medseg.train(tiny_dataset / "config.yaml", overrides=nowhere | {"net.name": "unett"})
    with pytest.raises(ConfigError, match="dice"):
        medseg.train(tiny_dataset / "config.yaml", overrides=nowhere | {"loss.name": "dise"})


def test_all_folds_end_in_one_bundle(tiny_dataset: Path) -> None:
    overrides = {"training.max_iterations": 2, "training.folds": 2, "data.split": None}
    run = medseg.train(tiny_dataset / "config.yaml", overrides=overrides, fold="all")
    assert sorted(run.scores) == [0, 1]
    assert len(medseg.load_model(run.bundle, device="cpu").nets) == 2


def test_a_full_disk_leaves_the_last_good_checkpoint(tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = medseg.train(tiny_dataset / "config.yaml", overrides={"training.max_iterations": 4})
    before = (run.folder / "last.pt").read_bytes()

    def no_space(self: Path, data: object) -> int:
        raise OSError(28, "No space left on device", str(self))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", no_space)
        with pytest.raises(WriteError):
            medseg.train(tiny_dataset / "config.yaml", overrides={"training.max_iterations": 8}, resume=True)
    assert (run.folder / "last.pt").read_bytes() == before
    assert not [path for path in run.folder.iterdir() if path.name.startswith(".")]
