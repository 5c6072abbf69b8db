"""Scores of one large case: ours, DeepMind's surface-distance and MONAI side by side.

    pip install -c constraints.txt -e ".[bench]"
    python benchmarks/metrics.py [--size 512 512 300] [--rounds 3] [--only ours_area surface_distance]

Five labels (two lungs, liver, heart, tumour) with a smoothly displaced prediction; Dice, IoU, HD95, ASSD and NSD at
2 mm. Every contender runs in a process of its own with one thread, all of them in turn, round after round. CPU seconds
are the best of the rounds; memory is the peak of the resident set beyond what it was with the two label maps read and
everything imported. At the end: how far the scores differ. Where a machine has several cores, `taskset -c 1` before the
command keeps everything on one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

Scores = dict[str, dict[str, float]]
LABELS = (1, 2, 3, 4, 5)
SPACING = (0.75, 0.75, 1.25)
TOLERANCE = 2.0
METRICS = ("dice", "iou", "hd95", "assd", "nsd")
# Centre and half axes as shares of the volume.
ORGANS = {
    1: ((0.30, 0.45, 0.60), (0.14, 0.20, 0.32)),
    2: ((0.70, 0.45, 0.60), (0.14, 0.20, 0.32)),
    3: ((0.38, 0.50, 0.16), (0.20, 0.17, 0.13)),
    4: ((0.52, 0.38, 0.50), (0.07, 0.09, 0.15)),
    5: ((0.28, 0.50, 0.70), (0.03, 0.03, 0.04)),
}


def case(shape: tuple[int, ...], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Prediction and reference, uint8."""
    rng = np.random.default_rng(seed)
    ref, pred = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    for label, (centre, half) in ORGANS.items():
        low = [max(0, int((c - 1.5 * h) * n)) for c, h, n in zip(centre, half, shape, strict=True)]
        high = [min(n, int((c + 1.5 * h) * n)) for c, h, n in zip(centre, half, shape, strict=True)]
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        axes = np.ogrid[box]
        radius = sum(((x / n - c) / h) ** 2 for x, n, c, h in zip(axes, shape, centre, half, strict=True)) ** 0.5
        for volume, strength in ((ref, 0.0), (pred, 0.05)):
            bumps = _smooth(np.random.default_rng([seed, label]), radius.shape, 0.12)
            extra = _smooth(rng, radius.shape, strength)
            volume[box][radius + bumps + extra < 1.0] = label
    return pred, ref


def _smooth(rng: np.random.Generator, shape: tuple[int, ...], strength: float) -> np.ndarray:
    coarse = rng.uniform(-1, 1, tuple(max(4, n // 24) for n in shape)).astype(np.float32)
    fine = ndimage.zoom(coarse, [n / m for n, m in zip(shape, coarse.shape, strict=True)], order=1)
    return strength * fine


def ours(pred: np.ndarray, ref: np.ndarray, surface: str) -> Scores:
    from medseg.metrics import score_case

    assd = "mean" if surface == "area" else "pooled"
    found = score_case(pred, ref, SPACING, LABELS, METRICS, tolerance_mm=TOLERANCE, surface=surface, assd=assd)
    return {str(label): scores for label, scores in found.items()}


def ours_area(pred: np.ndarray, ref: np.ndarray) -> Scores:
    """Ours, surface="area", ASSD as the mean of the two directed averages that surface-distance gives."""
    return ours(pred, ref, "area")


def ours_voxel(pred: np.ndarray, ref: np.ndarray) -> Scores:
    """Ours, surface="voxel"."""
    return ours(pred, ref, "voxel")


def surface_distance(pred: np.ndarray, ref: np.ndarray) -> Scores:
    """DeepMind's package; IoU from its Dice."""
    for name, value in (("Inf", np.inf), ("NaN", np.nan)):
        setattr(np, name, value)  # numpy 2 dropped these names, which the package uses where a label is missing
    import surface_distance.metrics as sd  # pyrefly: ignore

    found = {}
    for label in LABELS:
        p, r = pred == label, ref == label
        distances = sd.compute_surface_distances(r, p, SPACING)
        dice = sd.compute_dice_coefficient(r, p)
        found[str(label)] = {
            "dice": dice,
            "iou": dice / (2 - dice),
            "hd95": sd.compute_robust_hausdorff(distances, 95),
            "assd": float(np.mean(sd.compute_average_surface_distance(distances))),
            "nsd": sd.compute_surface_dice_at_tolerance(distances, TOLERANCE),
        }
    return found


def monai(pred: np.ndarray, ref: np.ndarray) -> Scores:
    """MONAI's five functions on one-hot masks."""
    import monai.metrics as mm
    import torch

    torch.set_num_threads(1)
    p, r = (torch.from_numpy(np.stack([a == v for v in LABELS]))[None] for a in (pred, ref))
    kept: dict[str, Any] = {"include_background": True}
    rows = {
        "dice": mm.compute_dice(p, r, **kept),
        "iou": mm.compute_iou(p, r, **kept),
        "hd95": mm.compute_hausdorff_distance(p, r, percentile=95, spacing=SPACING, **kept),
        "assd": mm.compute_average_surface_distance(p, r, symmetric=True, spacing=SPACING, **kept),
        "nsd": mm.compute_surface_dice(p, r, class_thresholds=[TOLERANCE] * len(LABELS), spacing=SPACING, **kept),
    }
    return {str(v): {m: float(row[0, n]) for m, row in rows.items()} for n, v in enumerate(LABELS)}


CONTENDERS: dict[str, Callable[[np.ndarray, np.ndarray], Scores]] = {
    f.__name__: f for f in (ours_area, surface_distance, ours_voxel, monai)
}
TINY = np.zeros((8, 8, 8), np.uint8)
TINY[2:5, 2:5, 2:5] = 1


def resident_mb(which: str) -> float:
    """`VmRSS` or `VmHWM` (its peak) of this process alone; `ru_maxrss` is inherited from the one that started it."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{which}:"))


def contender(name: str, folder: Path) -> None:
    """Measure one contender once, print JSON."""
    warnings.simplefilter("ignore")
    pred, ref = (np.load(folder / f"{n}.npy") for n in ("pred", "ref"))
    score = CONTENDERS[name]
    score(TINY, TINY)  # what is imported is not counted
    before = resident_mb("VmRSS")
    start = time.process_time()
    scores = score(pred, ref)
    seconds = time.process_time() - start
    print(json.dumps({"seconds": seconds, "mb": resident_mb("VmHWM") - before, "scores": scores}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=3, default=(512, 512, 300))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        contender(options.contender, options.folder)
        return
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, array in zip(("pred", "ref"), case(tuple(options.size)), strict=True):
            np.save(Path(folder) / f"{name}.npy", array)
        for name in options.only * options.rounds:
            command = [sys.executable, __file__, "--contender", name, "--folder", folder]
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | threads)
            if done.returncode:
                print(f"{name}: {done.stderr.strip().splitlines()[-1]}")
                continue
            once = json.loads(done.stdout.splitlines()[-1])
            best = found.setdefault(name, once)
            best["seconds"] = min(best["seconds"], once["seconds"])
            best["mb"] = max(best["mb"], once["mb"])
    for name, best in found.items():
        print(f"{name:18} {best['seconds']:8.2f} s CPU  {best['mb']:7.0f} MB")
    for own, other in (("ours_area", "surface_distance"), ("ours_voxel", "monai")):
        if own in found and other in found:
            time_ratio, memory_ratio = (found[other][what] / max(found[own][what], 0.1) for what in ("seconds", "mb"))
            print(
                f"{own} takes 1/{time_ratio:.1f} of the time and 1/{memory_ratio:.0f} of the memory of {other}; scores "
                f"differ by at most {_apart(found, own, other):.1e}"
            )


def _apart(found: dict[str, Any], own: str, other: str) -> float:
    scores, theirs = found[own]["scores"], found[other]["scores"]
    return max(abs(scores[label][m] - theirs[label][m]) for label in scores for m in METRICS)


if __name__ == "__main__":
    main()
