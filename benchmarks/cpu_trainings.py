"""Trainings whose minutes are CPU minutes, each in a process of its own on one core, and the scores of held-out cases.

A machine that does other work besides gives a process fewer CPU seconds per minute, but each of them does nearly the
same work. So the training loop's clock is replaced by the CPU seconds of the process, its threads and its children.

    python benchmarks/cpu_trainings.py train SETTINGS.json       (what `train` below starts)
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from medseg.datasets.cases import Case


def cpu_seconds() -> float:
    """User and system seconds of this process, and of its children that have ended."""
    return sum(os.times()[:4])


def count_cpu_seconds() -> None:
    """From here on `training.max_minutes` of this process are CPU minutes."""
    from medseg.training import loop

    clock = SimpleNamespace(**{name: value for name, value in vars(loop.time).items() if not name.startswith("_")})
    clock.monotonic = cpu_seconds
    loop.time = clock  # type: ignore[attr-defined]


def start(
    command: Sequence[str], log: Path, core: int | None = None, environment: Mapping[str, str] | None = None
) -> None:
    """Run a command with one thread, on one core if one is given; what it says goes to `log`.

    Raises:
        SystemExit: with the end of the log, where the command fails.
    """
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as file:
        done = subprocess.run(
            command,
            env={**os.environ, **threads, **(environment or {})},
            stdout=file,
            stderr=subprocess.STDOUT,
            preexec_fn=None if core is None else lambda: os.sched_setaffinity(0, {core}),
        )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed, see {log}:\n{log.read_text()[-3000:]}")


def any_core() -> int:
    """The last core that this process may use."""
    return max(os.sched_getaffinity(0))


def train(config: str, overrides: Mapping[str, Any], out: Path, core: int) -> dict[str, Any]:
    """Train in `out`, or continue there, and say how it went; a finished training is not repeated.

    Args:
        config: preset, file, or folder of data.
        overrides: dotted key -> value; `training.max_minutes` are CPU minutes.
        out: the run's folder.
        core: that it runs on.

    Returns:
        `iterations`, `seconds` of CPU time from start to end of the process, preparation included, and `memory_gb`,
        its peak.
    """
    result = out / "result.json"
    if not result.exists():
        out.mkdir(parents=True, exist_ok=True)
        settings = {"config": config, "overrides": {**overrides, "output": str(out)}, "result": str(result)}
        (out / "settings.json").write_text(json.dumps(settings))
        start([sys.executable, __file__, "train", str(out / "settings.json")], out / "output.log", core)
    return json.loads(result.read_text())


def predict(run: Path, images: Path, out: Path, core: int) -> Path:
    """Masks of all images of a folder by the model of a run."""
    start([sys.executable, __file__, "predict", str(run), str(images), str(out)], run / "prediction.log", core)
    return out


def dice_of_cases(
    masks: Path, references: Path, cases: Sequence[Case], labels: Mapping[str, Any], threshold: float | None
) -> dict[str, dict[str, float]]:
    """case -> label -> Dice as `medseg.evaluate` gives it; a label that both masks lack has none."""
    import medseg

    rows = medseg.evaluate(masks, references, labels=labels, label_threshold=threshold, metrics=("dice",)).cases
    found: dict[str, dict[str, float]] = {case.name: {} for case in cases}
    for row in rows:
        if row.metric == "dice" and row.label and np.isfinite(row.value):
            found[row.case][row.label] = row.value
    return found


def _train(settings: dict[str, Any]) -> None:
    import medseg
    from medseg.inference import load_bundle
    from medseg.machine import peak_memory

    count_cpu_seconds()
    run = medseg.train(settings["config"], settings["overrides"], resume=True)
    result = {
        "iterations": load_bundle(run.bundle).info.provenance.iterations,
        "seconds": cpu_seconds(),
        "memory_gb": (peak_memory() or 0) / 1e9,
    }
    Path(settings["result"]).write_text(json.dumps(result))


def _predict(run: Path, images: Path, out: Path) -> None:
    import medseg

    out.mkdir(parents=True, exist_ok=True)
    model = medseg.load_model(run / "model", "cpu")
    started = time.process_time()
    for path in sorted(images.iterdir()):
        mask = model.predict(medseg.read(path))
        ending = ".nii.gz" if path.name.endswith((".nii", ".nii.gz", ".nrrd", ".mha")) else ".png"
        medseg.write(mask, out / f"{path.name.split('.')[0]}{ending}")
    print(f"{time.process_time() - started:.1f} CPU s")


if __name__ == "__main__":
    if sys.argv[1] == "train":
        _train(json.loads(Path(sys.argv[2]).read_text()))
    else:
        _predict(*map(Path, sys.argv[2:5]))
