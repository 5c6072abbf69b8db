"""What a training shows of itself while it runs: its log, its line, its logger, and what an iteration costs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure

import medseg
from medseg.errors import MissingPartError
from medseg.training.cost import Stopwatch, peak_memory_gb
from medseg.training.journal import Journal
from medseg.training.tensorboard import TensorBoardLog

STEP = {"loss": 0.5, "learning_rate": 1e-3, "step_seconds": 0.9, "wait_seconds": 0.1, "wait_fraction": 0.1}
# As the last release wrote them.
OLD = (
    '{"iteration": 20, "seconds": 30.0, "loss": 1.5, "learning_rate": 0.002, "wait_fraction": 0.01}\n'
    '{"iteration": 30, "seconds": 45.0, "validation_dice": 0.4, "dice": {"a": 0.3, "b": 0.5, "c": null}}\n'
    '{"iteration": 40, "seconds": 60.0, "loss": 1.2, "learning_rate": 0.001, "wait_fraction": 0.01}\n'
    '{"iteration": 60, "seco'
)


class Writer:
    """Stands in for torch's SummaryWriter and keeps what it is given."""

    calls: list[tuple[Any, ...]] = []

    def __init__(self, folder: str, purge_step: int | None = None) -> None:
        self.calls.append(("open", Path(folder).name, purge_step))

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.calls.append((name, value, step))

    def add_image(self, name: str, pixels: Any, step: int, dataformats: str) -> None:
        self.calls.append((name, pixels.shape, step, dataformats))

    def flush(self) -> None:
        self.calls.append(("flush",))


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    module: Any = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr(Writer, "calls", [])
    return Writer.calls


def test_the_log_of_an_earlier_release_is_read_shown_and_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text(OLD)
    journal = Journal(tmp_path)
    journal.restore(40)
    assert [entry["iteration"] for entry in journal.entries] == [20, 30, 40]
    assert journal.status() == "iteration 40, loss 1.200, Dice 0.400; learning rate 0.001; a 0.300, b 0.500"
    journal.draw()
    journal.note(60, 90.0, **STEP, memory_gb=2.0)
    journal.save()
    journal.draw()
    again = Journal(tmp_path)
    again.restore(60)
    assert again.entries == journal.entries and (tmp_path / "progress.png").stat().st_size > 10_000


def test_entries_after_the_checkpoint_and_a_final_one_of_a_training_that_goes_on_are_dropped(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.note(20, 10.0, **STEP)
    journal.note(30, 15.0, validation_dice=0.5, dice={"a": 0.5}, final=True)
    journal.note(40, 20.0, **STEP)
    assert [entry["iteration"] for entry in journal.entries] == [20, 40]
    journal.save()
    journal.restore(39)
    assert [entry["iteration"] for entry in journal.entries] == [20]


def test_the_line_names_few_labels_all_and_of_many_the_lowest(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.note(20, 20.0, **STEP, memory_gb=None)
    assert journal.status() == "iteration 20, loss 0.500; learning rate 0.001, 1.00 s/step (10% waiting)"
    journal.note(20, 20.0, validation_dice=0.5, dice={f"label {n}": n / 10 for n in range(9)})
    assert journal.status().endswith("; lowest Dice: label 0 0.000, label 1 0.100, label 2 0.200, label 3 0.300")
    journal.note(40, 40.0, validation_dice=0.25, dice={"ball": 0.25})
    assert "ball" not in journal.status() and "Dice 0.250" in journal.status()


def test_seconds_are_split_into_parts_that_add_up_and_are_counted_by_iteration() -> None:
    watch = Stopwatch()
    started = time.monotonic()
    for _ in range(4):
        with watch.measuring("wait"):
            time.sleep(0.01)
        with watch.measuring("step"):
            time.sleep(0.03)
    every = time.monotonic() - started
    taken = watch.taken(4)
    assert set(taken) == {"wait_seconds", "step_seconds", "wait_fraction"}
    assert taken["wait_seconds"] >= 0.01 and taken["step_seconds"] >= 0.03
    assert 4 * (taken["wait_seconds"] + taken["step_seconds"]) == pytest.approx(every, rel=0.05)
    assert taken["wait_fraction"] == pytest.approx(
        taken["wait_seconds"] / (taken["wait_seconds"] + taken["step_seconds"]), abs=0.01
    )
    assert watch.taken() == {}


def test_memory_is_the_most_that_the_process_held() -> None:
    program = (
        "from medseg.machine import peak_memory\n"
        "before = peak_memory(); held = b'1' * 200_000_000; most = peak_memory(); del held\n"
        "print(before, most, peak_memory())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    before, most, after = (int(number) / 1e6 for number in done.stdout.split())
    # Linux counts pages in batches for each processor.
    assert most - before == pytest.approx(200, abs=10) and after == pytest.approx(most, abs=10)
    own = peak_memory_gb(torch.device("cpu"))
    assert own is not None and own > 0.05


def test_entries_and_pictures_reach_tensorboard(tmp_path: Path, written: list[tuple[Any, ...]]) -> None:
    log = TensorBoardLog(tmp_path / "tensorboard")
    assert not written
    log.add({"iteration": 20, "loss": 0.5, "memory_gb": None, "grid": "image", "final": True})
    log.add({"iteration": 30, "validation_dice": 0.4, "dice": {"a b": 0.4, "none": None}})
    log.flush()
    assert written == [
        ("open", "tensorboard", None),
        ("loss", 0.5, 20),
        ("validation_dice", 0.4, 30),
        ("dice/a b", 0.4, 30),
        ("flush",),
    ]


def test_a_resumed_training_hides_what_came_after_its_checkpoint(
    tmp_path: Path, written: list[tuple[Any, ...]]
) -> None:
    (tmp_path / "log.jsonl").write_text(OLD)
    journal = Journal(tmp_path, "tensorboard")
    journal.restore(30)
    journal.note(40, 60.0, loss=1.0)
    assert written[0] == ("open", "tensorboard", 31) and ("loss", 1.0, 40) in written


def test_a_logger_that_is_not_installed_ends_with_the_command_that_installs_it(
    tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingPartError, match=r"pip install -c constraints.txt '\.\[log\]'") as caught:
        medseg.train(tiny_dataset / "config.yaml", overrides={"training.logger": "tensorboard"})
    assert caught.value.exit_code == 6 and not (tiny_dataset / "run").exists()


def test_torchs_own_writer_leaves_events_that_tensorboard_reads(tmp_path: Path) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="TensorBoard is not installed (pip install '.[log]')",
    )
    journal = Journal(tmp_path, "tensorboard")
    for iteration in (20, 40, 60):
        journal.note(iteration, float(iteration), loss=1.0 / iteration)
    journal.save()
    resumed = Journal(tmp_path, "tensorboard")
    resumed.restore(40)
    resumed.note(60, 61.0, loss=7.0)
    resumed.save()
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, pytest.approx(e.value)) for e in events.Scalars("loss")] == [(20, 0.05), (40, 0.025), (60, 7.0)]


def test_a_training_writes_what_it_costs_and_a_picture_of_masks_at_each_validation(tiny_dataset: Path) -> None:
    run = medseg.train(
        tiny_dataset / "config.yaml",
        overrides={
            "training.max_iterations": 22,
            "training.validate_every": 8,
            "prediction.postprocess": "off",
        },
    )
    entries = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    (step,) = (entry for entry in entries if "loss" in entry)
    assert step["step_seconds"] > 0 <= step["wait_seconds"] and step["memory_gb"] > 0.05
    assert 20 * (step["step_seconds"] + step["wait_seconds"]) <= step["seconds"] + 0.01
    checks = [entry for entry in entries if "validation_dice" in entry]
    assert [entry["iteration"] for entry in checks] == [8, 16, 22] and all(e["validate_seconds"] > 0 for e in checks)
    assert sorted(path.name for path in (run.folder / "validation").iterdir()) == ["0000008.png", "0000016.png"]


@pytest.mark.parametrize("entries", [[], [json.loads(line) for line in OLD.splitlines()[:3]]], ids=["none", "old"])
def test_the_picture_says_what_was_not_recorded(
    entries: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts: list[str] = []
    save = Figure.savefig

    def noted(self: Figure, *args: Any, **kwargs: Any) -> None:
        texts.extend(text.get_text() for axes in self.axes for text in axes.texts)
        save(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", noted)
    journal = Journal(tmp_path)
    journal.entries = entries
    journal.draw()
    assert texts.count("not recorded") == (2 if entries else 0)
