"""Evaluations read back from their folders."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.config import MOST_LIST_BYTES, read_text
from medseg.errors import ConfigError, DatasetError
from medseg.evaluation.summary import FORMAT_VERSION
from medseg.io.formats import is_there

__all__ = ["StoredEvaluation", "read_evaluations"]

_DEPTH = 2


@dataclass(frozen=True, slots=True)
class StoredEvaluation:
    """One model's evaluation.

    Args:
        name: how it is called in a comparison, from the folder.
        folder: where `cases.csv` and `summary.json` lie.
        values: (case, label) -> column -> value, infinite and missing ones as stored.
        diagonals: case -> length of the image diagonal, in mm or pixels.
        summary: the content of `summary.json`.
    """

    name: str
    folder: Path
    values: Mapping[tuple[str, str], Mapping[str, float]]
    diagonals: Mapping[str, float]
    summary: Mapping[str, Any]

    @property
    def hashes(self) -> Mapping[str, str]:
        """Case -> hash of its reference's content."""
        found: Mapping[str, str] = self.summary["reference_hashes"]
        return found

    def holds(self, case: str, label: str) -> bool:
        """Whether the reference of the case holds the label."""
        found = self.values.get((case, label), {})
        return found.get("reference_ml", found.get("reference_px", 0.0)) > 0


def read_evaluations(folders: Sequence[Path]) -> tuple[StoredEvaluation, ...]:
    """The evaluations in the folders, under names that differ.

    Args:
        folders: each written by `medseg evaluate -o`, or a run folder that holds one such folder.

    Raises:
        ConfigError: fewer than two folders, or one that is given twice.
        DatasetError: a folder without an evaluation, or with several, or one that cannot be read.
    """
    if len(folders) < 2:
        raise ConfigError("a comparison needs two evaluations or more: medseg compare report_a/ report_b/ -o out/")
    found = [_evaluation_in(folder) for folder in folders]
    if len({f.resolve() for f in found}) < len(found):
        raise ConfigError("the same evaluation is given twice: " + ", ".join(map(str, folders)))
    names = _names([f.resolve() for f in folders])
    return tuple(_read(name, folder) for name, folder in zip(names, found, strict=True))


def _evaluation_in(folder: Path) -> Path:
    if not (is_there(folder) and folder.is_dir()):
        raise DatasetError(f"{folder}: no such folder; give what medseg evaluate -o wrote")
    if (folder / "summary.json").is_file():
        return folder
    below = [p.parent for depth in range(1, _DEPTH + 1) for p in sorted(folder.glob("*/" * depth + "summary.json"))]
    held = [p for p in below if (p / "cases.csv").is_file()]
    if len(held) > 1:
        raise DatasetError(f"{folder} holds {len(held)} evaluations ({', '.join(map(str, held))}); name one of them")
    if held:
        return held[0]
    if (folder / "model").is_dir() or (folder / "config.yaml").is_file():
        raise DatasetError(
            f"{folder} is a run without an evaluation: its model stores mean validation scores only, none per case; "
            f"medseg predict {folder / 'model'} IMAGES -o MASKS, then medseg evaluate MASKS REFERENCES -o "
            f"{folder / 'evaluation'}"
        )
    raise DatasetError(
        f"{folder} contains no evaluation (summary.json, cases.csv); run medseg evaluate ... -o {folder}"
    )


def _names(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that differ."""
    for parts in range(1, 1 + max(len(f.parts) for f in folders)):
        names = ["/".join(f.parts[-parts:]) for f in folders]
        if len(set(names)) == len(names):
            return names
    return [str(f) for f in folders]


def _read(name: str, folder: Path) -> StoredEvaluation:
    try:
        summary = json.loads(read_text(folder / "summary.json", MOST_LIST_BYTES))
        file = io.StringIO(read_text(folder / "cases.csv", MOST_LIST_BYTES), newline="")
        rows = [(r["case"], r["label"], r["metric"], float(r["value"])) for r in csv.DictReader(file)]
    except (OSError, ValueError, KeyError, TypeError, RecursionError, csv.Error) as error:
        raise DatasetError(
            f"{folder}: its cases.csv and summary.json cannot be read ({error}); evaluate again"
        ) from None
    if not isinstance(summary, dict) or not isinstance(summary.get("reference_hashes", {}), dict):
        raise DatasetError(f"{folder / 'summary.json'} is not what medseg evaluate writes; evaluate again")
    missing = [k for k in ("labels", "groups", "reference_hashes", "options") if k not in summary]
    if summary.get("format_version") != FORMAT_VERSION or missing:
        raise DatasetError(f"{folder / 'summary.json'} is of another version of medseg evaluate; evaluate again")
    values: dict[tuple[str, str], dict[str, float]] = {}
    diagonals: dict[str, float] = {}
    for case, label, metric, value in rows:
        if metric.startswith("diagonal_"):
            diagonals[case] = value
        values.setdefault((case, label), {})[metric] = value
    if set(summary["reference_hashes"]) != set(diagonals) or any(map(math.isnan, diagonals.values())):
        raise DatasetError(f"{folder}: cases.csv and summary.json hold other cases; evaluate again")
    return StoredEvaluation(name, folder, values, diagonals, summary)
