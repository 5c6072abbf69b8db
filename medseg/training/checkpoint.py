"""Checkpoints: everything a training needs to go on as if it had never stopped."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from medseg.disk.atomic import atomic_path
from medseg.errors import CheckpointError
from medseg.nets.weights_file import first_line, load_torch_file

__all__ = ["Checkpoint", "load_checkpoint", "restored", "save_checkpoint"]

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """State after `iteration` steps.

    Args:
        identity: hash of what must not change between the parts of one training (net, plan, labels, cases, seed).
        iteration: steps done.
        elapsed_seconds: time spent training so far.
        net, average, optimizer, scaler: state dicts.
        random_state: torch's generator state (dropout and plug-in nets may draw from it).
        best_score: best validation score so far.
        semi: of the second network of a semi-supervised training; empty without one.
    """

    identity: str
    iteration: int
    elapsed_seconds: float
    net: dict[str, Any]
    average: dict[str, Any]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    random_state: torch.Tensor
    best_score: float
    semi: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint so that a kill at any moment leaves the old or the new one, never half of one.

    Raises:
        WriteError: disk full or no permission; the previous checkpoint stays.
    """
    # Serialised in memory first: torch's zip writer turns a full disk into an error that hides the reason.
    buffer = io.BytesIO()
    # What is empty is left out, as in the checkpoints of releases that did not know it.
    content = {k: getattr(checkpoint, k) for k in _FIELDS if k != "semi" or checkpoint.semi}
    torch.save({"format_version": FORMAT_VERSION} | content, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; no code in the file is run.

    Raises:
        CheckpointError: damaged, incomplete or written by a newer medseg.
    """
    mend = "delete it to train from the start, or restore it from a backup"
    values = load_torch_file(path, mend)
    if (
        not isinstance(values, dict)
        or values.pop("format_version", None) != FORMAT_VERSION
        or set(values) | {"semi"} != set(_FIELDS)
    ):
        raise CheckpointError(f"{path}: not a checkpoint of this medseg version; {mend}")
    return Checkpoint(**values)


def restored(path: Path, take: Callable[[], Any]) -> None:
    """Take over what a file of a training holds.

    Args:
        path: of the file, for the message.
        take: loads what was read into the training.

    Raises:
        CheckpointError: whatever `take` raises.
    """
    try:
        take()
    except (
        Exception
    ) as error:  # An altered file may contain anything, and every state dict fails with errors of its own.
        raise CheckpointError(
            f"{path}: does not fit this training ({first_line(error)}); delete it to train from the start, or restore "
            "it from a backup"
        ) from None


_FIELDS = tuple(Checkpoint.__dataclass_fields__)
