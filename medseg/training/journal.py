"""The journal of a training: its entries in `log.jsonl`, `progress.png` and the logger, and its state in one line."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

from medseg.disk.atomic import atomic_path, write_text_atomic
from medseg.training.curve import write_curve
from medseg.training.tensorboard import TensorBoardLog

__all__ = ["Journal"]

_SECONDS_BETWEEN_PICTURES = 60.0
# As many labels as a line holds.
_MOST_NAMED = 4


class Journal:
    """What happened in a training so far.

    Entries with `loss` are means since the entry before: `learning_rate`, `wait_seconds` and `step_seconds` of an
    iteration, `wait_fraction`, `memory_gb`, and `consistency`, the loss on unlabelled images,
    where there are any. Entries with `validation_dice` have `dice` by label and
    `validate_seconds`. All have `iteration` and `seconds`. Logs of earlier releases lack some of these.

    Args:
        folder: of the fold; holds `log.jsonl` and `progress.png`.
        logger: where entries go besides, as `training.logger`.

    Raises:
        MissingPartError: a logger that is not installed.
    """

    def __init__(self, folder: Path, logger: str | None = None) -> None:
        self.path, self._picture = folder / "log.jsonl", folder / "progress.png"
        self.entries: list[dict[str, Any]] = []
        self._logger = TensorBoardLog(folder / "tensorboard") if logger == "tensorboard" else None
        self._drawn = time.monotonic()

    def restore(self, iteration: int) -> None:
        """Read the entries up to an iteration back, where there is a log.

        Raises:
            ValueError, KeyError, TypeError: an altered log.
        """
        if self._logger is not None:
            self._logger.forget_after(iteration)
        if self.path.is_file():
            lines = [json.loads(line) for line in self.path.read_text().splitlines() if line.endswith("}")]
            self.entries = [entry for entry in lines if entry["iteration"] <= iteration]

    def note(self, iteration: int, seconds: float, **values: Any) -> None:
        """Add an entry, in place of the final one of a training that goes on.

        Args:
            iteration: steps done.
            seconds: since the start of the training.
            values: numbers, text or None, and `dice` by label.
        """
        if self.entries and self.entries[-1].get("final"):
            self.entries.pop()
        self.entries.append({"iteration": iteration, "seconds": round(seconds, 2), **values})
        if self._logger is not None:
            self._logger.add(self.entries[-1])

    def keep_picture(self, iteration: int, picture: bytes | None) -> None:
        """Write a picture of masks (PNG) into `validation/`, named by the iteration; None writes nothing.

        Raises:
            WriteError: disk full or no permission.
        """
        if picture is None:
            return
        with atomic_path(self.path.parent / "validation" / f"{iteration:07d}.png") as temporary:
            temporary.write_bytes(picture)
        if self._logger is not None:
            self._logger.add_picture(iteration, picture)

    def save(self) -> None:
        """Write the log, and about once a minute the picture.

        Raises:
            WriteError: disk full or no permission.
        """
        write_text_atomic(self.path, "".join(json.dumps(entry) + "\n" for entry in self.entries))
        if self._logger is not None:
            self._logger.flush()
        if time.monotonic() - self._drawn >= _SECONDS_BETWEEN_PICTURES:
            self.draw()

    def draw(self) -> None:
        """Write the picture.

        Raises:
            WriteError: disk full or no permission.
        """
        write_curve(self.entries, self._picture)
        self._drawn = time.monotonic()

    def status(self) -> str:
        """The latest figures in one line; semicolons part what a panel shows below each other."""
        parts = [f"iteration {self.entries[-1]['iteration']}"] if self.entries else []
        if (loss := self._latest("loss")) is not None:
            parts.append(f"loss {loss:.3f}")
        if (consistency := self._latest("consistency")) is not None:
            parts.append(f"consistency {consistency:.3f}")
        if (dice := self._latest("validation_dice")) is not None:
            parts.append(f"Dice {dice:.3f}")
        rows = [", ".join(parts), ", ".join(self._speed()), _by_label(self._latest("dice") or {})]
        return "; ".join(row for row in rows if row)

    def _speed(self) -> list[str]:
        found = []
        if (rate := self._latest("learning_rate")) is not None:
            found.append(f"learning rate {rate:.2g}")
        step, wait = self._latest("step_seconds"), self._latest("wait_seconds")
        if step is not None and wait is not None:
            found.append(f"{step + wait:.2f} s/step ({self._latest('wait_fraction') or 0.0:.0%} waiting)")
        if (memory := self._latest("memory_gb")) is not None:
            found.append(f"{memory:.1f} GB")
        return found

    def _latest(self, key: str) -> Any:
        return next((entry[key] for entry in reversed(self.entries) if key in entry), None)


def _by_label(dice: dict[str, float | None]) -> str:
    """Dice of each label; of many those with the lowest. Nothing of one alone, whose Dice is the mean."""
    known = {label: value for label, value in dice.items() if value is not None and math.isfinite(value)}
    if len(known) < 2:
        return ""
    shown = list(known) if len(known) <= _MOST_NAMED else sorted(known, key=lambda label: known[label])[:_MOST_NAMED]
    return ("lowest Dice: " if len(shown) < len(known) else "") + ", ".join(
        f"{name} {known[name]:.3f}" for name in shown
    )
