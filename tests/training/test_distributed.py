"""Several processes that share every batch train as one process does."""

from __future__ import annotations

import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from inference_bundles import make_info, make_plan, unet_weights
from safetensors.torch import load_file

import medseg
from medseg.config import load_config
from medseg.errors import ConfigError
from medseg.inference import save_bundle
from medseg.labels import LabelScheme
from medseg.preparation.prepare import prepare
from medseg.preparation.store import open_case
from medseg.training import distributed
from medseg.training.checkpoint import load_checkpoint
from medseg.training.data import BatchSource
from medseg.training.distributed import ONE, Ranks, ranks_of_torchrun
from medseg.training.synced_batch_norm import with_synced_batch_norm

HELPERS = Path(__file__).parents[1] / "helpers"
# float32: in bfloat16, which some processors compute in, one sample rounds differently than two.
SHORT = ["training.mixed_precision=false", "training.batch_size=4", "prediction.postprocess=off", "device=cpu"]


def torchrun(size: int, *arguments: str, cwd: Path | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*command, *arguments], env=environment, text=True, cwd=cwd, **pipes)


def finished(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    out, errors = process.communicate(timeout=300)
    assert process.returncode == code, errors
    return out, errors


def recorded(size: int, dataset: Path, name: str, *settings: str) -> list[float]:
    """The losses of a training in the folder `name`; every rank must have the same."""
    output, losses = dataset / name, dataset / f"{name}.losses"
    arguments = [str(HELPERS / "train_recording.py"), str(dataset / "config.yaml"), str(losses), f"output={output}"]
    finished(torchrun(size, *arguments, *SHORT, *settings))
    found = [json.loads(losses.with_suffix(f".{rank}").read_text()) for rank in range(size)]
    assert all(each == found[0] for each in found)
    return found[0]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "weights_fold0.safetensors")


def assert_close(mine: Path, theirs: Path, bound: float) -> None:
    found, wanted = weights(mine), weights(theirs)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=bound, atol=bound, msg=name)


@pytest.mark.parametrize(
    ("batch", "accumulate", "size", "expected"),
    [
        (4, 1, 1, [[[0, 1, 2, 3]]]),
        (4, 1, 2, [[[0, 1]], [[2, 3]]]),
        (5, 1, 2, [[[0, 1]], [[2, 3, 4]]]),
        (6, 3, 1, [[[0, 1], [2, 3], [4, 5]]]),
        (8, 2, 2, [[[0, 1], [4, 5]], [[2, 3], [6, 7]]]),
    ],
)
def test_each_part_of_a_batch_is_divided_among_all_ranks(
    batch: int, accumulate: int, size: int, expected: list[list[list[int]]]
) -> None:
    parts = [Ranks(rank, size).parts(batch, accumulate) for rank in range(size)]
    assert [[list(part.numbers) for part in each] for each in parts] == expected
    assert all(sum(part.share for part in each) == pytest.approx(1) for each in parts)


@pytest.mark.parametrize(("batch", "accumulate", "size", "least"), [(3, 1, 4, 4), (2, 3, 1, 3), (7, 2, 4, 8)])
def test_a_batch_with_less_than_a_sample_for_each_rank_and_part_is_refused(
    batch: int, accumulate: int, size: int, least: int
) -> None:
    with pytest.raises(ConfigError, match=f"a batch of {batch} .* batch_size {least} or more"):
        Ranks(0, size).parts(batch, accumulate)


def test_one_process_needs_no_messages() -> None:
    value, net = torch.ones(3, requires_grad=True), torch.nn.Linear(2, 2)
    assert ONE.all_sum(value) is value and ONE.agreed(3.5, 0) == (3.5, 0) and ONE.from_first(lambda: 7) == 7
    ONE.sum_gradients(net)
    ONE.same_weights(net)
    with ranks_of_torchrun("cpu") as (ranks, device):
        assert ranks == ONE and device.type == "cpu" and not torch.distributed.is_initialized()


def test_each_process_of_a_machine_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(distributed, "resolve_device", torch.device)
    for local in (0, 1):
        monkeypatch.setenv("LOCAL_RANK", str(local))
        for name in ("auto", "cuda"):
            assert distributed._device_of_rank(name, 2) == torch.device("cuda", local)
        assert distributed._device_of_rank("cpu", 2).type == "cpu"
    assert taken == [0, 0, 1, 1]
    with pytest.raises(ConfigError, match="takes auto, cpu or cuda"):
        distributed._device_of_rank("cuda:1", 2)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ConfigError, match="process 3 of this machine has no GPU, as there are 2"):
        distributed._device_of_rank("auto", 3)


def test_on_a_gpu_batch_norm_is_torchs_own_with_the_same_names() -> None:
    net = torch.nn.Sequential(torch.nn.Conv3d(1, 2, 3), torch.nn.BatchNorm3d(2))
    before = {name: value.data_ptr() for name, value in net.state_dict().items()}
    synced = with_synced_batch_norm(net, torch.device("cuda"))
    assert isinstance(synced[1], torch.nn.SyncBatchNorm)
    assert {name: value.data_ptr() for name, value in synced.state_dict().items()} == before


def test_a_number_that_torchrun_never_sets_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(ConfigError, match="WORLD_SIZE is 'two'"), ranks_of_torchrun("cpu"):
        pass


def test_a_sample_is_the_same_whichever_rank_makes_it(tiny_dataset: Path) -> None:
    config = load_config(tiny_dataset / "config.yaml", {"training.batch_size": 4})
    preparation = prepare(config, memory_gb=4, on_gpu=False)
    cases = [open_case(folder) for folder in preparation.cases.values()]
    assert preparation.plan.seeding == "sample"
    for seeding in ("sample", "batch"):
        plan = preparation.plan.model_copy(update={"seeding": seeding})
        source = (cases, plan, LabelScheme.from_mapping({"ball": 1}), config, 0)
        whole = BatchSource(*source).batch(3)
        for numbers in ([0, 1], [2, 3], [1], range(3)):
            part = BatchSource(*source, numbers=numbers).batch(3)
            assert torch.equal(part.images, whole.images[list(numbers)])
            assert torch.equal(part.labels, whole.labels[list(numbers)])
            assert part.cases == tuple(whole.cases[n] for n in numbers)


def test_norms_gradients_and_messages_of_two_processes_are_those_of_one() -> None:
    finished(torchrun(2, str(HELPERS / "synced_norm_step.py")))


def test_two_processes_train_to_the_weights_of_one(tiny_dataset: Path) -> None:
    settings = ["training.max_iterations=3", "net.norm=batch", "training.accumulate=2"]
    losses = recorded(2, tiny_dataset, "two", *settings)
    overrides = dict(each.split("=") for each in [*SHORT, *settings])
    values = {
        key: json.loads(value) if value[0].isdigit() or value == "false" else value for key, value in overrides.items()
    }
    medseg.train(tiny_dataset / "config.yaml", {**values, "output": str(tiny_dataset / "one")})
    assert len(losses) == 3
    assert_close(tiny_dataset / "two", tiny_dataset / "one", 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "bound"),
    [
        ([], 1e-4),
        (["training.accumulate=2", "training.batch_size=8", "net.deep_supervision=true", "net.channels=[4,8,8]"], 1e-4),
        (["loss.terms=[{name: cross_entropy}, {name: focal}]", "training.batch_size=5"], 1e-4),
        (["net.norm=batch"], 1e-3),
    ],
    ids=["dice_ce", "accumulate", "uneven", "batch_norm"],
)
def test_the_losses_of_two_and_four_processes_are_those_of_one(
    tiny_dataset: Path, settings: list[str], bound: float
) -> None:
    settings = ["training.max_iterations=20", *settings]
    one = recorded(1, tiny_dataset, "one", *settings)
    assert len(one) == 20 and one[-1] < one[0]
    for size, name in ((2, "two"), (4, "four")):
        several = recorded(size, tiny_dataset, name, *settings)
        difference = max(abs(a - b) for a, b in zip(one, several, strict=True))
        logging.getLogger(__name__).info("%d processes: losses differ by %.1e at most", size, difference)
        assert difference < bound
        assert_close(tiny_dataset / name, tiny_dataset / "one", 10 * bound)


@pytest.mark.slow
def test_the_losses_of_a_taught_training_in_two_processes_are_those_of_one(tiny_dataset: Path) -> None:
    info = make_info(make_plan(patch_size=(16, 16, 16)), labels={"ball": 1})
    path = save_bundle(tiny_dataset / "teacher", info, {0: unet_weights(info)})
    settings = ["training.max_iterations=8", f"distill.teacher={path}", "training.accumulate=2"]
    settings += ["distill.temperature=2", "augmentation.mixup_probability=0.5"]
    one, two = (recorded(size, tiny_dataset, f"of{size}", *settings) for size in (1, 2))
    assert len(one) == 8 and max(abs(a - b) for a, b in zip(one, two, strict=True)) < 1e-4


@pytest.mark.slow
def test_a_training_goes_on_with_fewer_processes(tiny_dataset: Path) -> None:
    settings = ["net.norm=batch", "training.schedule=constant"]
    whole = recorded(1, tiny_dataset, "whole", *settings, "training.max_iterations=12")
    losses: list[float] = []
    for size, end in ((4, 4), (2, 8), (1, 12)):
        resume = ["--resume"] if losses else []
        losses += recorded(size, tiny_dataset, "parts", *settings, f"training.max_iterations={end}", *resume)
    assert losses == pytest.approx(whole, abs=1e-3)
    assert_close(tiny_dataset / "parts", tiny_dataset / "whole", 1e-2)


def _train(dataset: Path, size: int, *settings: str) -> subprocess.Popen[str]:
    return torchrun(size, "-m", "medseg", "train", str(dataset / "config.yaml"), *SHORT, *settings)


def _workers(process: subprocess.Popen[str]) -> list[int]:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(each) for each in children]


def _after_some_steps(process: subprocess.Popen[str], dataset: Path) -> None:
    deadline = time.monotonic() + 240
    while not (dataset / "run" / "last.pt").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.poll() is None, process.communicate()[1]


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_all_with_one_sentence_and_the_rest_can_be_resumed(
    tiny_dataset: Path, victim: int
) -> None:
    process = _train(tiny_dataset, 2, "training.max_iterations=100000")
    _after_some_steps(process, tiny_dataset)
    workers = _workers(process)
    assert len(workers) == 2
    os.kill(workers[victim], signal.SIGKILL)
    killed = time.monotonic()
    _, errors = finished(process, code=1)
    assert time.monotonic() - killed < 60
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    assert errors.count("one of the 2 processes of this training has ended") == 1
    resumed = _train(tiny_dataset, 1, "training.max_iterations=4", "--resume")
    finished(resumed)


@pytest.mark.slow
def test_all_processes_stop_after_the_same_step_and_go_on_to_the_same_weights(tiny_dataset: Path) -> None:
    process = _train(tiny_dataset, 2, "training.max_iterations=100000", "training.schedule=constant")
    _after_some_steps(process, tiny_dataset)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0 and "continue with --resume" in errors
    done = load_checkpoint(tiny_dataset / "run" / "last.pt").iteration
    assert f"stopped at iteration {done}" in errors
    settings = ["training.schedule=constant", f"training.max_iterations={done + 2}"]
    finished(_train(tiny_dataset, 2, *settings, "--resume"))
    finished(_train(tiny_dataset, 2, *settings, f"output={tiny_dataset / 'whole'}"))
    found, wanted = weights(tiny_dataset / "run"), weights(tiny_dataset / "whole")
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


@pytest.mark.slow
def test_a_batch_smaller_than_the_ranks_is_refused_by_one_line_and_exit_code_2(tiny_dataset: Path) -> None:
    process = _train(tiny_dataset, 3, "training.batch_size=2")
    _, errors = finished(process, code=1)
    assert errors.count("medseg: a batch of 2 cannot be divided among 3 processes") == 1
    assert errors.count("exitcode  : 2") >= 1
    assert "Traceback (most recent call last)" not in errors.split("medseg: a batch")[0]


@pytest.mark.slow
def test_the_commands_of_the_guide_run_as_written(tiny_dataset: Path) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "several_devices.md").read_text(encoding="utf-8")
    (tiny_dataset / "config.yaml").rename(tiny_dataset / "chest.yaml")
    lines = [line for line in guide.splitlines() if line.startswith("torchrun --standalone")]
    assert len(lines) == 2
    for line in lines:
        _, _, _, size, *rest = shlex.split(line)
        finished(torchrun(int(size), *rest, cwd=tiny_dataset))
    assert (tiny_dataset / "run" / "model" / "model.json").exists()
