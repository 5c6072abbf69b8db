"""What ends a training before its limit is said so that the user can go on."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import torch

import medseg
from medseg.config import TrainingConfig, load_config, parse_overrides
from medseg.errors import ConfigError, MachineError, MedsegError
from medseg.labels import LabelScheme
from medseg.preparation.prepare import prepare
from medseg.preparation.store import open_case
from medseg.training import loop
from medseg.training.checkpoint import load_checkpoint
from medseg.training.data import BatchSource
from medseg.training.distributed import Ranks
from medseg.training.failures import is_out_of_memory, no_number, step_too_large
from medseg.training.schedule import has_no_gain, with_epochs

QUIET = {"prediction.postprocess": "off", "training.max_iterations": 4, "training.save_every": 2}


def advised(message: str) -> tuple[Path, dict[str, object], bool]:
    """Configuration, settings and --resume of the command that a message ends with."""
    words = shlex.split(message[message.index("medseg train") :])
    settings = [word for word in words[3:] if word != "--resume"]
    return Path(words[2]), parse_overrides(settings), "--resume" in words


def exhausted_once(patch: pytest.MonkeyPatch, at: int, error: BaseException) -> None:
    """The `at`-th forward and backward pass finds no memory."""
    calls, gradients = [], loop._Trainer._gradients

    def failing(self: loop._Trainer, *arguments: object) -> torch.Tensor:
        calls.append(None)
        if len(calls) == at:
            raise error
        return gradients(self, *arguments)

    patch.setattr(loop._Trainer, "_gradients", failing)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
    ],
)
def test_a_step_without_memory_names_the_plan_and_a_command_that_goes_on(
    tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    config = tiny_dataset / "config.yaml"
    with monkeypatch.context() as patch:
        exhausted_once(patch, 4, error)
        with pytest.raises(MachineError) as caught:
            medseg.train(config, QUIET)
    message = str(caught.value)
    assert caught.value.exit_code == 6 and "\n" not in message
    assert "batch_size 2" in message and "16 x 16 x 16" in message and "plan.yaml" in message
    path, settings, resume = advised(message)
    assert resume and settings == {"training.accumulate": 2}
    assert load_checkpoint(tiny_dataset / "run" / "last.pt").iteration == 2
    medseg.train(path, settings, resume=resume)
    assert load_checkpoint(tiny_dataset / "run" / "last.pt").iteration == 4


def test_where_one_sample_is_too_much_a_smaller_patch_is_advised(
    tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = {**QUIET, "training.batch_size": 1, "training.max_iterations": 1, "plan.patch_size": [16, 32, 16]}
    with monkeypatch.context() as patch:
        exhausted_once(patch, 1, MemoryError())
        with pytest.raises(MachineError, match="smaller patch") as caught:
            medseg.train(tiny_dataset / "config.yaml", overrides)
    path, settings, resume = advised(str(caught.value))
    assert settings["plan.patch_size"] == [16, 16, 16] and not resume
    assert medseg.train(path, settings).folder == tiny_dataset / "run_smaller"


@pytest.mark.parametrize(
    ("batch", "accumulate", "ranks", "more"), [(4, 1, 1, 2), (3, 2, 1, 3), (8, 2, 2, 4), (6, 2, 2, 3)]
)
def test_the_advised_parts_are_more_and_hold_a_sample_for_each_process(
    tiny_dataset: Path, batch: int, accumulate: int, ranks: int, more: int
) -> None:
    settings = {"training.batch_size": batch, "training.accumulate": accumulate}
    config = load_config(tiny_dataset / "config.yaml", settings)
    _, advice, resume = advised(step_too_large(config, prepare(config, memory_gb=4, on_gpu=False).plan, 2, ranks))
    assert advice == {"training.accumulate": more} and resume
    assert Ranks(0, ranks).parts(batch, more)


def test_the_least_patch_is_not_halved(tiny_dataset: Path) -> None:
    config = load_config(tiny_dataset / "config.yaml", {"training.batch_size": 1})
    plan = prepare(config, memory_gb=4, on_gpu=False).plan.model_copy(update={"patch_size": (2, 2, 2)})
    assert "smaller network" in step_too_large(config, plan, 1, 1)


def test_memory_that_torch_cannot_get_is_told_from_other_errors() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"))


def test_a_validation_without_memory_says_so(tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr(loop, "validate", failing)
    with pytest.raises(MachineError, match=r"while a case was validated.*config\.yaml --resume"):
        medseg.train(tiny_dataset / "config.yaml", {**QUIET, "training.validate_every": 2})


def test_a_loss_that_is_no_number_names_its_cases_and_no_checkpoint_holds_it(tiny_dataset: Path) -> None:
    config = tiny_dataset / "config.yaml"
    overrides = {**QUIET, "training.max_iterations": 30, "training.save_every": 1, "training.warmup_iterations": 0}
    with pytest.raises(MedsegError, match=r"the loss is (nan|inf) at iteration \d+") as caught:
        medseg.train(config, {**overrides, "training.learning_rate": 1e30, "training.mixed_precision": False})
    message = str(caught.value)
    iteration = int(message.split("at iteration ")[1].split(",")[0])
    loaded = load_config(config)
    preparation = prepare(loaded, memory_gb=4, on_gpu=False)
    cases = [open_case(preparation.cases[name]) for name in ("case0", "case1", "case3", "case4")]
    source = BatchSource(cases, preparation.plan, LabelScheme.from_mapping({"ball": 1}), loaded, 0)
    names = ", ".join(sorted(set(source.batch(iteration - 1).cases)))
    assert f"the cases {names};" in message and message.endswith(f"last good checkpoint is {tiny_dataset}/run/last.pt")
    state = load_checkpoint(tiny_dataset / "run" / "last.pt")
    assert state.iteration == iteration - 1
    assert all(value.isfinite().all() for value in state.net.values())


def test_many_cases_of_a_batch_are_cut_and_an_absent_checkpoint_is_not_named(tmp_path: Path) -> None:
    text = no_number(float("nan"), 3, [f"case{n:02}" for n in range(20)] * 2, tmp_path / "last.pt")
    assert "case15 and 4 more;" in text and text.endswith("no checkpoint has been written yet")


def test_patience_counts_the_validations_since_the_best() -> None:
    two = TrainingConfig(patience=2)
    assert not has_no_gain([], two) and not has_no_gain([0.5], two) and not has_no_gain([0.5, 0.4], two)
    assert has_no_gain([0.5, 0.4, 0.3], two) and has_no_gain([0.5, 0.5, 0.5], two)
    assert not has_no_gain([0.5, 0.4, 0.6], two) and not has_no_gain([0.5, 0.4, 0.3], TrainingConfig())


def test_a_training_without_gain_ends_ships_and_stays_ended(
    tiny_dataset: Path, caplog: pytest.LogCaptureFixture
) -> None:
    still = {"training.learning_rate": 1e-12, "training.weight_decay": 0.0, "training.validate_every": 1}
    overrides = {**QUIET, **still, "training.patience": 2, "training.max_iterations": 50}
    caplog.set_level("INFO", logger="medseg")
    run = medseg.train(tiny_dataset / "config.yaml", overrides)
    assert "stopped at iteration 3, as training.patience validations gave no better score" in caplog.text
    assert load_checkpoint(run.folder / "last.pt").iteration == 3 and (run.bundle / "model.json").exists()
    medseg.train(tiny_dataset / "config.yaml", overrides, resume=True)
    assert load_checkpoint(run.folder / "last.pt").iteration == 3
    longer = {**overrides, "training.patience": None, "training.max_iterations": 4}
    medseg.train(tiny_dataset / "config.yaml", longer, resume=True)
    assert load_checkpoint(run.folder / "last.pt").iteration == 4


def test_patience_without_validation_cases_is_refused(tiny_dataset: Path) -> None:
    with pytest.raises(ConfigError, match=r"training\.patience"):
        medseg.train(tiny_dataset / "config.yaml", {**QUIET, "training.patience": 2, "data.split": None}, fold="full")


def test_epochs_end_a_training(tiny_dataset: Path) -> None:
    # Four cases train; a batch of 3 needs two iterations to see as many.
    overrides = {**QUIET, "training.max_iterations": None, "training.max_epochs": 2, "training.batch_size": 3}
    run = medseg.train(tiny_dataset / "config.yaml", overrides)
    assert load_checkpoint(run.folder / "last.pt").iteration == 4
    assert with_epochs(TrainingConfig(max_epochs=2), 4, 3).max_iterations == 4
