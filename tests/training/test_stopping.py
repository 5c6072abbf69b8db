"""Ctrl-C and SIGTERM: a checkpoint within one step, also while validating, and nothing lost by it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import medseg
from medseg.training import loop
from medseg.training.checkpoint import load_checkpoint
from medseg.training.stop_signals import StopSignals

SHORT = {"training.max_iterations": 6, "training.save_every": 1000, "prediction.postprocess": "off"}


@pytest.fixture(autouse=True)
def as_in_a_terminal():
    """Ctrl-C has its handler, also where the tests run in the background, whose programs start without one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def _weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "weights_fold0.safetensors")


def _once(number: signal.Signals, wanted: int):
    """A function that sends the signal at its `wanted`-th call."""
    calls = []

    def send() -> None:
        calls.append(None)
        if len(calls) == wanted:
            os.kill(os.getpid(), number)
            time.sleep(0.01)

    return send


def test_a_signal_within_a_step_saves_after_that_step_and_resumes_to_the_same_weights(
    tiny_dataset: Path, monkeypatch
) -> None:
    config, overrides = tiny_dataset / "config.yaml", SHORT
    whole = medseg.train(config, overrides={"output": str(tiny_dataset / "whole"), **overrides})
    send, step = _once(signal.SIGTERM, 3), torch.optim.AdamW.step

    def half_done(self, *args, **kwargs):
        send()
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", half_done)
    with pytest.raises(KeyboardInterrupt) as stopped:
        medseg.train(config, overrides=overrides)
    assert stopped.value.args == (signal.SIGTERM,)
    assert load_checkpoint(tiny_dataset / "run" / "last.pt").iteration == 3
    resumed = medseg.train(config, overrides=overrides, resume=True)
    expected, got = _weights(whole.folder), _weights(resumed.folder)
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_a_signal_ends_a_validation_at_once_and_the_validation_is_made_up_for(tiny_dataset: Path, monkeypatch) -> None:
    config = tiny_dataset / "config.yaml"
    overrides = {"training.validate_every": 2, "training.checkpoint": "best", **SHORT}
    whole = medseg.train(config, overrides={"output": str(tiny_dataset / "whole"), **overrides})
    send, validate, cases = _once(signal.SIGTERM, 1), loop.validate, []

    def stopped_within(*args, **kwargs):
        send()
        cases.append("went on")
        return validate(*args, **kwargs)

    monkeypatch.setattr(loop, "validate", stopped_within)
    with pytest.raises(KeyboardInterrupt):
        medseg.train(config, overrides=overrides)
    assert cases == [] and load_checkpoint(tiny_dataset / "run" / "last.pt").iteration == 2
    resumed = medseg.train(config, overrides=overrides, resume=True)
    logs = [(run.folder / "log.jsonl").read_text().splitlines() for run in (whole, resumed)]
    scores = [[(e["iteration"], e["validation_dice"]) for e in map(json.loads, log) if "dice" in e] for log in logs]
    assert scores[0] == scores[1] and [at for at, _ in scores[0]] == [2, 4, 6]
    expected, got = _weights(whole.folder), _weights(resumed.folder)
    assert all(torch.equal(expected[name], got[name]) for name in expected)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_ends_with_the_signals_exit_code_and_can_be_resumed(tiny_dataset: Path, number) -> None:
    command = [sys.executable, "-m", "medseg", "train", str(tiny_dataset / "config.yaml")]
    command += ["training.max_iterations=100000", "training.save_every=2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    last, deadline = tiny_dataset / "run" / "last.pt", time.monotonic() + 60
    while not last.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    sent = time.monotonic()
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + number and time.monotonic() - sent < 10
    iteration = load_checkpoint(last).iteration
    assert f"stopped at iteration {iteration}; continue with --resume" in errors
    assert "Traceback" not in errors and errors.rstrip().endswith("medseg: stopped")


def test_a_second_signal_ends_even_a_step_that_hangs() -> None:
    signals, reached = StopSignals(), []
    with pytest.raises(KeyboardInterrupt), signals.listening(), signals.uninterrupted():
        os.kill(os.getpid(), signal.SIGTERM)
        reached.append("first")
        os.kill(os.getpid(), signal.SIGTERM)
        reached.append("second")
    assert reached == ["first"]


def test_of_several_processes_signals_are_noted_and_end_only_a_validation_at_once() -> None:
    signals, reached = StopSignals(several=True), []
    with signals.listening():
        assert signals.caught == 0
        with signals.uninterrupted():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)  # from the terminal, then from torchrun
        assert signals.caught == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt), signals.interruptible():
            reached.append("validation")
        assert signals.caught == 0
        with pytest.raises(KeyboardInterrupt), signals.interruptible():
            os.kill(os.getpid(), signal.SIGTERM)
            reached.append("validation")
        os.kill(os.getpid(), signal.SIGTERM)
    assert reached == [] and signals.caught == signal.SIGTERM


def test_signals_that_a_program_handles_itself_stay_its_own() -> None:
    mine = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: mine.append(number))
    try:
        with StopSignals().listening():
            os.kill(os.getpid(), signal.SIGTERM)
            assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)
    assert mine == [signal.SIGTERM] and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_training_in_a_thread_leaves_signals_alone() -> None:
    def train() -> None:
        with StopSignals().listening():
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
            done.append(True)

    done: list[bool] = []
    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert done == [True]
