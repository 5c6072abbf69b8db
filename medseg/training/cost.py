"""What a training costs: the seconds of an iteration by what they were spent on, and memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from medseg.machine import peak_memory

__all__ = ["Stopwatch", "peak_memory_gb"]

Part = Literal["wait", "step", "validate"]


class Stopwatch:
    """Adds up seconds by what they were spent on: waiting for a batch, the step, validation."""

    def __init__(self) -> None:
        self._seconds: dict[Part, float] = {}

    @contextmanager
    def measuring(self, part: Part) -> Iterator[None]:
        """Count the time that the block takes, also where it raises."""
        started = time.monotonic()
        try:
            yield
        finally:
            self._seconds[part] = self._seconds.get(part, 0.0) + time.monotonic() - started

    def taken(self, times: int = 1) -> dict[str, float]:
        """The seconds of each part divided by `times`, and `wait_fraction`; the stopwatch starts again at zero.

        Example:
            >>> watch = Stopwatch()
            >>> with watch.measuring("validate"):
            ...     pass
            >>> list(watch.taken())
            ['validate_seconds']
        """
        seconds, self._seconds = self._seconds, {}
        found = {f"{part}_seconds": round(spent / max(1, times), 4) for part, spent in seconds.items()}
        if "wait" in seconds:
            found["wait_fraction"] = seconds["wait"] / max(seconds["wait"] + seconds.get("step", 0.0), 1e-9)
        return found


def peak_memory_gb(device: torch.device) -> float | None:
    """The most memory held so far, in GB: what torch allocated on a GPU, else this process; None where not known."""
    found = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory()
    return None if found is None else round(found / 1e9, 3)
