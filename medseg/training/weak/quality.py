"""How good pseudo-labels are: a row for each case and label, and a summary."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.disk.atomic import write_text_atomic

__all__ = ["Counts", "Row", "dice_of_steps", "write_quality"]

COLUMNS = ("case", "split", "label", "images", "probability", "voxels", "ignored", "agreement")


@dataclass(slots=True)
class Counts:
    """What is counted of one label in one case, over its slices.

    Args:
        images: images or slices of the case that show the label.
        probability: sum over these of the classifier's probability.
        voxels: of the label in the label map.
        overlap, sizes: name of the step -> voxels common to step and mask, and voxels of both; without masks, only
            those of the first step and the label map are known.
        kept: the same of the first step and the last one.
    """

    images: int = 0
    probability: float = 0.0
    voxels: int = 0
    overlap: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    kept: list[int] = field(default_factory=lambda: [0, 0])

    def add_steps(self, steps: Mapping[str, NDArray[np.bool_]], truth: NDArray[np.bool_] | None) -> None:
        """Count an image: what each step takes for the label, and where it really is."""
        for name, mask in steps.items() if truth is not None else ():
            assert truth is not None
            self.overlap[name] = self.overlap.get(name, 0) + int((mask & truth).sum())
            self.sizes[name] = self.sizes.get(name, 0) + int(mask.sum() + truth.sum())
        first, *_, last = [*steps.values(), *steps.values()]
        self.kept[0] += int((first & last).sum())
        self.kept[1] += int(first.sum() + last.sum())


@dataclass(frozen=True, slots=True)
class Row:
    """One label in one case; `ignored` is the share of its voxels that are ignored."""

    case: str
    split: str
    label: str
    counts: Counts
    ignored: float


def dice_of_steps(rows: Sequence[Row], label: str) -> dict[str, float]:
    """Mean Dice over the cases that show a label, of each step; {} where no masks are known."""
    names = dict.fromkeys(name for row in rows if row.label == label for name in row.counts.sizes)
    found = {}
    for name in names:
        each = [
            _dice(r.counts.overlap[name], r.counts.sizes[name]) for r in rows if r.label == label and r.counts.images
        ]
        known = [value for value in each if value is not None]
        if known:
            found[name] = round(float(np.mean(known)), 4)
    return found


def write_quality(folder: Path, rows: Sequence[Row], facts: Mapping[str, Any]) -> None:
    """Write `quality.csv`, a row for each case and label, and `quality.json`, their summary.

    The columns: images or slices that show the label, the classifier's mean probability for these, voxels of the label,
    share of the case that is ignored, agreement (Dice) of the first step with the last, and, where masks are known, the
    Dice of each step.

    Raises:
        WriteError: disk full, no permission.
    """
    steps = list(dict.fromkeys(name for row in rows for name in row.counts.sizes))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *(f"dice_{name}" for name in steps)])
    for row in rows:
        counts = row.counts
        probability = _number(counts.probability / counts.images if counts.images and counts.probability else None)
        cells = [row.case, row.split, row.label, counts.images, probability, counts.voxels, _number(row.ignored)]
        dice = [_dice(counts.overlap.get(name, 0), counts.sizes.get(name, 0)) for name in steps]
        writer.writerow([*cells, *map(_number, [_dice(*counts.kept), *dice])])
    write_text_atomic(folder / "quality.csv", text.getvalue())
    labels = {}
    for label in dict.fromkeys(row.label for row in rows):
        mine = [row for row in rows if row.label == label]
        labels[label] = {
            "cases": sum(bool(row.counts.images) for row in mine),
            "cases_without_a_voxel": [row.case for row in mine if row.counts.images and not row.counts.voxels],
            "voxels": sum(row.counts.voxels for row in mine),
            "dice": dice_of_steps(rows, label),
        }
    summary = {"format_version": 1, **facts, "labels": labels}
    write_text_atomic(folder / "quality.json", json.dumps(summary, indent=1, ensure_ascii=False) + "\n")


def _dice(overlap: int, sizes: int) -> float | None:
    return 2 * overlap / sizes if sizes else None


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
