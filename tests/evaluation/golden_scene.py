"""The data set behind `golden/`: nine small volumes with two labels, a second observer, subgroups and probabilities.

`golden/cases.csv` and `golden/summary.json` are what medseg wrote of it before summaries were typed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scenes import SHAPE, save

METRICS = (
    "dice",
    "iou",
    "hd95",
    "assd",
    "nsd",
    "specificity",
    "volume_difference_ml",
    "lesion_f1",
    "betti_error_0",
    "auc",
)


def write_scene(root: Path) -> dict[str, Any]:
    """Write the files below `root`; what to call `evaluate` with."""
    rng = np.random.default_rng(7)
    rows = ["case,group,scanner,age"]
    for n in range(9):
        ref = np.zeros(SHAPE, np.uint8)
        ref[2:9, 3:9, 1:6] = 1
        # Two references lack the second label, one prediction misses it.
        if n not in (3, 4):
            ref[10:13, 10 : 11 + n % 4, 2:5] = 2
        pred = np.roll(ref, n % 3, axis=n % 2)
        pred[rng.random(SHAPE) < 0.002] = 2
        if n == 5:
            pred[pred == 2] = 0
        second = np.roll(ref, 1, axis=2)
        for folder, array in (("ref", ref), ("pred", pred), ("second", second)):
            save(root / folder / f"c{n}.nii.gz", array)
        given = np.stack([pred == 0, pred == 1, pred == 2]) * 0.5 + rng.integers(0, 8, (3, *SHAPE)) / 16
        (root / "probabilities").mkdir(exist_ok=True)
        np.savez(root / "probabilities" / f"c{n}.npz", probabilities=given.astype(np.float16))
        rows.append(f"c{n},p{n},{'AB'[n % 2]},{50 + n}")
    (root / "cases.csv").write_text("\n".join(rows) + "\n")
    return {
        "pred": root / "pred",
        "ref": root / "ref",
        "labels": {"lung": 1, "tumour": 2},
        "cases": root / "cases.csv",
        "second_reference": root / "second",
        "probabilities": root / "probabilities",
        "metrics": METRICS,
        "seed": 3,
    }
