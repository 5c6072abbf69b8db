"""One contender in a process of its own: reads a job from standard input, prints what it measured as its last line."""

from __future__ import annotations

import json
import logging
import pickle
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.datasets.records import Case
from medseg.errors import DatasetError, MedsegError
from medseg.geometry import check_same_geometry
from medseg.io.images import read_image
from medseg.io.label_maps import read_label_map
from medseg.labels import LabelScheme
from medseg.machine import peak_memory
from medseg.metrics import score_case
from medseg.volume import Volume

__all__ = ["Job", "main", "measure"]

# A first case that is faster than this is taken twice before anything counts: graphs are optimised at the second pass.
SECONDS_OF_A_SECOND_WARMUP = 5.0
MOST_NOTES = 4


@dataclass(frozen=True, slots=True)
class Job:
    """What a process is to do.

    Args:
        model: bundle.
        engine: as of `load_model`.
        device: where.
        threads: of the processor.
        cases: images and references.
        label_threshold: of references such as 0/255, see `read_label_map`.
        masks: folder of the masks that others are compared with, where there are no references; None: nothing is
            compared.
        keeps_masks: whether this contender writes them.
    """

    model: Path
    engine: str | None
    device: str
    threads: int
    cases: tuple[Case, ...]
    label_threshold: float | None = None
    masks: Path | None = None
    keeps_masks: bool = False


def measure(job: Job) -> dict[str, Any]:
    """Seconds of each case, from the image in memory to its mask; memory; Dice of each case and label; remarks.

    Raises:
        MedsegError: as reading, loading and predicting.
    """
    import torch

    from medseg.inference import load_model

    notes = _Notes()
    torch.set_num_threads(job.threads)
    model = (
        load_model(job.model, job.device, job.engine, fast=True) if job.engine else load_model(job.model, job.device)
    )
    _warm_up(model, job.cases[0])
    seconds, cpu_seconds, voxels, dice = [], [], [], []
    for number, case in enumerate(job.cases):
        image = read_image(case.images, series=case.series or None)
        started, cpu_started = time.perf_counter(), time.process_time()
        mask = model.predict(image)
        seconds.append(time.perf_counter() - started)
        cpu_seconds.append(time.process_time() - cpu_started)
        voxels.append(int(mask.array.size))
        dice.append(_dice(job, case, number, mask, model.scheme))
    on_device = torch.cuda.max_memory_allocated(str(model.device)) if model.device.type == "cuda" else None
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "voxels": voxels,
        "dice": dice,
        "peak_memory_bytes": peak_memory(),
        "device_memory_bytes": on_device,
        "notes": notes.taken(),
    }


class _Notes(logging.Handler):
    """What engines say of themselves: that another one runs in their place, or that batches are left to the network."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._said: dict[str, None] = {}
        self._logger = logging.getLogger("medseg.inference")
        self._level = self._logger.level
        self._logger.setLevel(logging.INFO)
        self._logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith("medseg.inference.engine"):
            self._said[record.getMessage()] = None

    def taken(self) -> list[str]:
        self._logger.removeHandler(self)
        self._logger.setLevel(self._level)
        return list(self._said)[:MOST_NOTES]


def _warm_up(model: Any, case: Case) -> None:
    image = read_image(case.images, series=case.series or None)
    started = time.perf_counter()
    model.predict(image)
    if time.perf_counter() - started < SECONDS_OF_A_SECOND_WARMUP:
        model.predict(image)


def _dice(job: Job, case: Case, number: int, mask: Volume, scheme: LabelScheme) -> dict[str, float | None]:
    """Dice of each label with the reference, or where there is none with the first contender's mask."""
    if case.labels:
        reference = read_label_map(case.labels, job.label_threshold)
        check_same_geometry(mask, reference, str(case.images[0]), str(case.labels[0].path))
        expected: NDArray[Any] = reference.array
        unknown = sorted(set(np.unique(expected).tolist()) - {0} - scheme.known_values)
        if unknown:
            raise DatasetError(
                f"{case.labels[0].path} holds the values {str(unknown[:5])[1:-1]}, which the model's labels do not "
                "have; for masks of 0 and 255 give --label-threshold 127"
            )
    elif job.masks is None:
        return {}
    elif job.keeps_masks:
        np.save(job.masks / f"{number}.npy", mask.array)
        expected = mask.array
    else:
        expected = np.load(job.masks / f"{number}.npy")
    scores = score_case(mask.array, expected, labels=scheme, metrics=("dice",))
    return {str(label): _finite(values["dice"]) for label, values in scores.items()}


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def main() -> None:
    """Answer one job; what the user's input causes is an answer, too."""
    job: Job = pickle.load(sys.stdin.buffer)
    try:
        answer: dict[str, Any] = measure(job)
    except MedsegError as error:
        answer = {"error": str(error)}
    sys.stdout.write("\n" + json.dumps(answer) + "\n")
