"""`training.logger: tensorboard`: a training's entries as TensorBoard's event files."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medseg.errors import MissingPartError

__all__ = ["TensorBoardLog", "require_tensorboard"]


def require_tensorboard() -> Any:
    """torch's writer of event files.

    Raises:
        MissingPartError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MissingPartError(
            "training.logger: tensorboard needs TensorBoard: in the folder of medseg, "
            "pip install -c constraints.txt '.[log]', or leave training.logger out"
        ) from None
    return SummaryWriter


class TensorBoardLog:
    """Writes entries as they come; look at them with `tensorboard --logdir FOLDER`.

    Args:
        folder: for the event files; made with the first entry.

    Raises:
        MissingPartError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        self._make = require_tensorboard()
        self._folder = folder
        self._purge: int | None = None
        self._writer: Any = None

    def forget_after(self, iteration: int) -> None:
        """Hide what an earlier part of the training wrote after this iteration, before anything is added."""
        self._purge = iteration + 1

    def add(self, entry: Mapping[str, Any]) -> None:
        """Write the numbers of an entry of the journal; `dice` gives a curve for each label."""
        step = entry["iteration"]
        values = {name: value for name, value in entry.items() if name not in ("iteration", "dice", "final")}
        values |= {f"dice/{label}": value for label, value in entry.get("dice", {}).items()}
        for name, value in values.items():
            if isinstance(value, int | float) and math.isfinite(value):
                self._open().add_scalar(name, value, step)

    def add_picture(self, iteration: int, picture: bytes) -> None:
        """Write a picture, a PNG."""
        from PIL import Image

        with Image.open(io.BytesIO(picture)) as opened:
            pixels = np.asarray(opened.convert("RGB"))
        self._open().add_image("validation masks", pixels, iteration, dataformats="HWC")

    def flush(self) -> None:
        """Bring what was added to the disk."""
        if self._writer is not None:
            self._writer.flush()

    def _open(self) -> Any:
        if self._writer is None:
            self._writer = self._make(str(self._folder), purge_step=self._purge)
        return self._writer
