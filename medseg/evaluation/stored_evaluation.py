"""Evaluations read back from their folders."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.config import MOST_LIST_BYTES, read_text
from medseg.errors import ConfigError, DatasetError
from medseg.evaluation.summary import FORMAT_VERSION
from medseg.io.formats import is_there

__all__ = ["Model", "StoredEvaluation", "by_model", "read_models"]

_DEPTH = 2


@dataclass(frozen=True, slots=True)
class StoredEvaluation:
    """One model's evaluation.

    Args:
        name: how it is called in a comparison: the model's name, with the folder where that has several seeds.
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


@dataclass(frozen=True, slots=True)
class Model:
    """A model of a comparison: the evaluations of its trainings, one for each seed."""

    name: str
    seeds: tuple[StoredEvaluation, ...]


def by_model(arguments: Sequence[str]) -> list[str] | dict[str, list[str]]:
    """What the command line names: folders, or `NAME=FOLDER,FOLDER,...` for the seeds of a model, or both.

    An argument that is a folder is one, whatever characters its name has.

    Raises:
        ConfigError: a model that is named twice, or without a name.

    Example:
        >>> by_model(["unet=a,b", "deeplab=c"])
        {'unet': ['a', 'b'], 'deeplab': ['c']}
    """
    grouped = [text.partition("=") for text in arguments if "=" in text and not is_there(Path(text))]
    if not grouped:
        return list(arguments)
    alone = [text for text in arguments if "=" not in text or is_there(Path(text))]
    found = [(name.strip(), [part.strip() for part in parts.split(",") if part.strip()]) for name, _, parts in grouped]
    found += [(name, [text]) for name, text in zip(_names([_absolute(t) for t in alone]), alone, strict=True)]
    names = [name for name, _ in found]
    if "" in names or len(set(names)) < len(names):
        raise ConfigError(
            f"models need names that differ, found {', '.join(map(repr, names))}; give NAME=FOLDER,FOLDER"
        )
    return dict(found)


def read_models(asked: Sequence[str | Path] | Mapping[str, Sequence[str | Path]]) -> tuple[Model, ...]:
    """The models of a comparison, under names that differ.

    Args:
        asked: folders, each written by `medseg evaluate -o`, or a run folder that holds one such folder. In a mapping
            the folders of a name are trainings of one model with different seeds.

    Raises:
        ConfigError: fewer than two models, a model without a folder, or an evaluation that is given twice.
        DatasetError: a folder without an evaluation, or with several, or one that cannot be read.
    """
    if len(asked) < 2:
        raise ConfigError("a comparison needs two models or more: medseg compare report_a/ report_b/ -o out/")
    if isinstance(asked, Mapping):
        groups = {name: [Path(folder) for folder in folders] for name, folders in asked.items()}
    else:
        paths = [Path(folder) for folder in asked]
        names = _names([_absolute(path) for path in paths])
        groups = {name: [path] for name, path in zip(names, paths, strict=True)}
        if len(groups) < len(paths):
            raise ConfigError("the same evaluation is given twice: " + ", ".join(map(str, paths)))
    empty = [name for name, folders in groups.items() if not folders]
    if empty:
        raise ConfigError(f"{empty[0]} has no folder; give NAME=FOLDER,FOLDER,..., one for each seed")
    folders = [folder for each in groups.values() for folder in each]
    found = {folder: _evaluation_in(folder) for folder in folders}
    if len({f.resolve() for f in found.values()}) < len(folders):
        raise ConfigError("the same evaluation is given twice: " + ", ".join(map(str, folders)))
    models = []
    for name, each in groups.items():
        titles = [name] if len(each) == 1 else [f"{name} ({end})" for end in _names([f.resolve() for f in each])]
        seeds = tuple(_read(title, found[folder]) for title, folder in zip(titles, each, strict=True))
        models.append(Model(name, seeds))
    return tuple(models)


def _absolute(path: str | Path) -> Path:
    # Unlike `resolve`, takes a name that no disk can hold, which is refused with a sentence later.
    return Path(os.path.abspath(path))  # noqa: PTH100


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
    for parts in range(1, 1 + max((len(f.parts) for f in folders), default=0)):
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
