"""Evaluating many large cases: cases per minute, peak memory, and whether both stay in proportion.

    python benchmarks/evaluation.py [--size 256] [--cases 25 50 100] [--memory-gb 2] [--no-report]

Cases are volumes of size^3 (NIfTI, gzip) with three labels (two ellipsoids and scattered spots) and a displaced
prediction; four different ones, under as many names as asked for. Each number of cases runs in a process of its own
with one thread per case and as many cases side by side as there are processors; wall and CPU seconds, and the peak of
the resident set less what was resident before, report and pictures included unless left out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy import ndimage

DISTINCT = 4


def make_cases(folder: Path, size: int, count: int) -> None:
    """`pred/` and `ref/` with `count` cases each, links to four pairs of files."""
    from medseg.io import write
    from medseg.volume import Volume

    affine = np.diag([0.8, 0.8, 1.5, 1.0])
    for n in range(min(DISTINCT, count)):
        rng = np.random.default_rng(n)
        ref = label_map(size, rng)
        pred = np.roll(ref, (1, 2, 1), axis=(0, 1, 2))
        pred[ndimage.binary_dilation(rng.random(pred.shape) > 0.99999, iterations=3)] = 3
        for side, array in (("ref", ref), ("pred", pred)):
            (folder / side).mkdir(parents=True, exist_ok=True)
            write(Volume(array, affine), folder / "made" / f"{side}{n}.nii.gz")
    for side in ("ref", "pred"):
        for n in range(count):
            os.link(folder / "made" / f"{side}{n % DISTINCT}.nii.gz", folder / side / f"case{n:04d}.nii.gz")


def label_map(size: int, rng: np.random.Generator) -> np.ndarray:
    """Two large organs (1, 2) and 20 spots (3)."""
    grid = np.indices((size,) * 3, dtype=np.float32) / size
    result = np.zeros((size,) * 3, np.uint8)
    places = [(0.3, 1, 0.2, 0.32), (0.7, 2, 0.2, 0.32)] + [(None, 3, 0.01, 0.04)] * 20
    for x, value, low, high in places:
        center = rng.uniform(0.25, 0.75, 3)
        center[0] = center[0] if x is None else x
        radii = rng.uniform(low, high, 3) * (1.0 if x is None else 0.75)
        result[sum(((g - c) / r) ** 2 for g, c, r in zip(grid, center, radii, strict=True)) < 1] = value
    return result


def peak_mb() -> float:
    """Of the resident set of this process alone: `ru_maxrss` is inherited from the one that started it."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def measure(folder: Path, memory_gb: float | None, with_report: bool) -> dict[str, float]:
    """Evaluate everything in `folder`, in this process."""
    from medseg.evaluation import evaluate

    before = peak_mb()
    wall, cpu = time.perf_counter(), time.process_time()
    result = evaluate(
        folder / "pred",
        folder / "ref",
        labels={"left": 1, "right": 2, "spots": 3},
        out=folder / "out" if with_report else None,
        memory_gb=memory_gb,
    )
    peak = peak_mb()
    return {
        "cases": result.summary["n_cases"],
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "extra_mb": peak - before,
        "peak_mb": peak,
        "report_mb": (folder / "out" / "report.html").stat().st_size / 1e6 if with_report else 0.0,
    }


def main() -> None:
    """Print a line per number of cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--cases", type=int, nargs="+", default=[25, 50, 100])
    parser.add_argument("--memory-gb", type=float)
    parser.add_argument("--no-report", action="store_true")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure is not None:
        print(json.dumps(measure(given.measure, given.memory_gb, not given.no_report)))
        return
    options = [] if given.memory_gb is None else ["--memory-gb", str(given.memory_gb)]
    options += ["--no-report"] if given.no_report else []
    print(f"{given.size}^3, 3 labels, {len(os.sched_getaffinity(0))} processors", flush=True)
    for count in given.cases:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            make_cases(folder, given.size, count)
            command = [sys.executable, __file__, "--measure", str(folder), *options]
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout)
        print(
            f"{found['cases']:4.0f} cases: {found['wall']:6.1f} s wall, {found['cpu']:6.1f} s CPU, "
            f"{60 * found['cases'] / found['wall']:5.0f} cases a minute, {found['cpu'] / found['cases']:.2f} s CPU a "
            f"case, peak {found['peak_mb']:.0f} MB ({found['extra_mb']:.0f} beyond start), report "
            f"{found['report_mb']:.1f} MB",
            flush=True,
        )


if __name__ == "__main__":
    main()
