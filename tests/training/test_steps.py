"""Steps in parts, in another memory layout and compiled are the same steps."""

from __future__ import annotations

import functools
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import medseg
from medseg.training import faster, loop
from medseg.training.checkpoint import load_checkpoint
from medseg.training.data import Batch

# float32, so that only the order of additions differs.
SAME = {"prediction.postprocess": "off", "training.mixed_precision": False, "training.max_iterations": 3}


def trained(dataset: Path, name: str, **settings: object) -> dict[str, torch.Tensor]:
    values = {f"training.{key}": value for key, value in settings.items()}
    run = medseg.train(dataset / "config.yaml", {**SAME, **values, "output": str(dataset / name)})
    return load_file(run.bundle / "weights_fold0.safetensors")


def assert_close(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_a_batch_in_parts_gives_the_step_of_the_whole_batch(tiny_dataset: Path) -> None:
    config = tiny_dataset / "config.yaml"
    config.write_text(config.read_text() + "loss: {name: cross_entropy}\n")
    whole = trained(tiny_dataset, "whole", batch_size=4)
    for parts in (2, 3):  # three parts of four samples: one, one and two
        assert_close(trained(tiny_dataset, f"in{parts}", batch_size=4, accumulate=parts), whole)
    assert any(not torch.equal(value, trained(tiny_dataset, "two")[name]) for name, value in whole.items())


def test_a_signal_between_the_parts_of_a_step_loses_and_repeats_nothing(
    tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"accumulate": 2, "save_every": 100, "mixed_precision": True}
    whole = trained(tiny_dataset, "whole", **settings)
    calls, gradients = [], loop._Trainer._gradients

    def interrupted(self: loop._Trainer, *arguments: object) -> torch.Tensor:
        calls.append(None)
        if len(calls) == 3:  # after the first part of the second step
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
        return gradients(self, *arguments)

    values = {**SAME, **{f"training.{key}": value for key, value in settings.items()}}
    with monkeypatch.context() as patch:
        patch.setattr(loop._Trainer, "_gradients", interrupted)
        with pytest.raises(KeyboardInterrupt):
            medseg.train(tiny_dataset / "config.yaml", values)
    assert len(calls) == 4 and load_checkpoint(tiny_dataset / "run" / "last.pt").iteration == 2
    resumed = medseg.train(tiny_dataset / "config.yaml", values, resume=True)
    found = load_file(resumed.bundle / "weights_fold0.safetensors")
    assert all(torch.equal(found[name], value) for name, value in whole.items())


def test_channels_last_is_the_same_training(tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layouts = []
    gradients = loop._Trainer._gradients

    def noting(self: loop._Trainer, batch: Batch, share: float) -> torch.Tensor:
        layouts.append(self._on_device(batch.images).is_contiguous(memory_format=torch.channels_last_3d))
        layouts.extend(
            p.is_contiguous(memory_format=torch.channels_last_3d) for p in self.net.parameters() if p.ndim == 5
        )
        return gradients(self, batch, share)

    monkeypatch.setattr(loop._Trainer, "_gradients", noting)
    last = trained(tiny_dataset, "last", channels_last=True)
    assert layouts and all(layouts)
    assert_close(last, trained(tiny_dataset, "first"))


def test_a_compiled_net_trains_to_the_same_weights(tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # This backend captures the graph as the others do, and needs no compiler.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    assert_close(trained(tiny_dataset, "compiled", compile=True), trained(tiny_dataset, "plain"))


@pytest.mark.slow
def test_a_net_compiled_for_the_processor_trains_to_the_same_weights(tiny_dataset: Path) -> None:
    assert_close(trained(tiny_dataset, "compiled", compile=True), trained(tiny_dataset, "plain"))


@pytest.mark.parametrize("late", [False, True], ids=["at once", "while compiling"])
def test_where_compiling_fails_the_plain_net_trains(
    tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, late: bool
) -> None:
    def no_compiler(*arguments: object) -> None:
        raise RuntimeError("no C++ compiler found\nand more lines")

    def compile_later(net: torch.nn.Module) -> object:
        return no_compiler if late else no_compiler()

    monkeypatch.setattr(torch, "compile", compile_later)
    caplog.set_level("INFO", logger="medseg")
    found = trained(tiny_dataset, "compiled", compile=True)
    assert "torch.compile fails here (no C++ compiler found); the network is not compiled" in caplog.text
    plain = trained(tiny_dataset, "plain")
    assert all(torch.equal(found[name], value) for name, value in plain.items())


def test_the_trial_of_a_compiled_net_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda net: net)
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.Dropout(0.5)).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}, torch.get_rng_state()
    faster.compiled(net, torch.ones(2, 1, 8, 8), None)
    assert all(torch.equal(value, before[0][name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), before[1]) and all(p.grad is None for p in net.parameters())
