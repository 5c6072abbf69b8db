"""What ends a training early, said so that the user can go on: too little memory, a loss that is not a number."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from medseg.config import RunConfig
from medseg.errors import MachineError, MedsegError
from medseg.preparation.patch import total_stride
from medseg.preparation.plan import Plan

__all__ = ["is_out_of_memory", "memory_explained", "no_number", "step_too_large", "validation_too_large"]

SHOWN = 16


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is exhausted: on a GPU a class of its own, on a CPU a plain RuntimeError."""
    text = str(error)
    return isinstance(error, MemoryError) or any(
        each in text for each in ("out of memory", "can't allocate memory", "tried to allocate", "ALLOC_FAILED")
    )


@contextmanager
def memory_explained(sentence: str) -> Iterator[None]:
    """A block in which exhausted memory becomes an error with this sentence.

    Raises:
        MachineError: memory is exhausted.
    """
    try:
        yield
    except MedsegError:
        raise
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise MachineError(sentence) from error


def step_too_large(config: RunConfig, plan: Plan, samples: int, ranks: int) -> str:
    """What to do where a training step needs too much memory.

    Args:
        config: of the run.
        plan: whose batch and patch were too large.
        samples: that a process computed at a time, at most.
        ranks: the number of processes.
    """
    folder = config.output or Path("runs") / "run"
    patch = " x ".join(map(str, plan.patch_size))
    found = f"out of memory in a training step, with {samples} sample(s) of {patch} at a time (batch_size "
    found += (
        f"{plan.batch_size} and patch_size of {folder / 'plan.yaml'}, training.accumulate {config.training.accumulate})"
    )
    command = ("medseg", "train", str(folder / "config.yaml"))
    # Parts of one sample at least, on every rank.
    accumulate = min(2 * config.training.accumulate, plan.batch_size // ranks)
    if accumulate > config.training.accumulate:
        resume = shlex.join([*command, f"training.accumulate={accumulate}", "--resume"])
        return f"{found}; go on with fewer at a time, from the last checkpoint: {resume}"
    smaller = _halved(plan)
    if smaller is None:
        return f"{found}; choose a smaller network (net.channels or net.width), or a device with more memory"
    values = (f"output={folder}_smaller", f"plan.patch_size={list(smaller)}".replace(" ", ""))
    return f"{found}; start anew with a smaller patch: {shlex.join([*command, *values])}"


def validation_too_large(config: RunConfig) -> str:
    """What to do where the validation of a case needs too much memory."""
    folder = config.output or Path("runs") / "run"
    resume = shlex.join(["medseg", "train", str(folder / "config.yaml"), "--resume"])
    return (
        "out of memory while a case was validated: images and probabilities of a whole case need more than a training "
        f"step; close other programs and go on from the last checkpoint: {resume}; or start anew with a coarser grid "
        "(plan.spacing_mm)"
    )


def no_number(loss: float, iteration: int, cases: Sequence[str], last: Path) -> str:
    """The loss of an iteration is NaN or infinite.

    Args:
        loss: as found.
        iteration: counted from 1.
        cases: that the batch's samples are from.
        last: the checkpoint.
    """
    names = sorted(set(cases))
    shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    state = f"the last good checkpoint is {last}" if last.exists() else "no checkpoint has been written yet"
    return (
        f"the loss is {loss} at iteration {iteration}, with samples of the cases {shown}; check their intensities, or "
        f"lower training.learning_rate; {state}"
    )


def _halved(plan: Plan) -> tuple[int, ...] | None:
    """The patch with its longest axis halved, as far as the strides of the net allow; None where it is the least."""
    least = total_stride(plan.strides)
    axis = max(range(plan.dims), key=lambda n: plan.patch_size[n] / least[n])
    steps = plan.patch_size[axis] // least[axis] // 2
    if steps == 0:
        return None
    return tuple(steps * least[n] if n == axis else size for n, size in enumerate(plan.patch_size))
