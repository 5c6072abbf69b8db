"""Label maps as a data set that `medseg train` takes: a list of cases, the labels, and a configuration."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from medseg.config import RunConfig
from medseg.datasets.cases import Dataset
from medseg.disk.atomic import write_text_atomic
from medseg.labels import LabelScheme

__all__ = ["CASES", "CONFIG", "ignore_value", "write_dataset"]

CASES, CONFIG = "cases.csv", "train.yaml"


def ignore_value(scheme: LabelScheme) -> int:
    """The value of ignored voxels: that of the data set, else 255, or the next free one."""
    if scheme.ignore is not None:
        return scheme.ignore
    return next(value for value in range(255, 65536) if value not in scheme.painted)


def write_dataset(
    folder: Path, dataset: Dataset, files: Mapping[str, str], splits: Mapping[str, str], config: RunConfig
) -> None:
    """Write `cases.csv`, `dataset.json` and `train.yaml` beside the label maps.

    Args:
        folder: of the label maps.
        dataset: all cases.
        files: case -> name of its label map.
        splits: case -> train or validation.
        config: that the label maps were made with.

    Raises:
        WriteError: disk full, no permission.
    """
    cases = [case for case in dataset.cases if case.name in files]
    count = len(cases[0].images)
    names = dataset.channel_names if len(dataset.channel_names) == count else [f"{n:04d}" for n in range(count)]
    columns = ["image"] if count == 1 else [f"image_{name}" for name in names]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["case", *columns, "label", "group", "split"])
    for case in cases:
        images = [str(path.resolve()) for path in case.images]
        writer.writerow([case.name, *images, files[case.name], case.group, splits[case.name]])
    write_text_atomic(folder / CASES, text.getvalue())
    scheme = dataset.labels
    labels = {name: value for name, (value,) in zip(scheme.names, scheme.values, strict=True)}
    ignore = ignore_value(scheme)
    described = {"format_version": 1, "labels": {**labels, "ignore": ignore}}
    write_text_atomic(folder / "dataset.json", json.dumps(described, indent=1, ensure_ascii=False) + "\n")
    values = _training(config, folder, labels, ignore)
    first = f"# Trains on the label maps of medseg pseudo-label: medseg train {folder / CONFIG}\n"
    write_text_atomic(folder / CONFIG, first + yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def _training(config: RunConfig, folder: Path, labels: Mapping[str, int], ignore: int) -> dict[str, Any]:
    """The settings of the given configuration, with the new labels."""
    values: dict[str, Any] = config.model_dump(mode="json", exclude_defaults=True)
    kept = {"modality", "window", "normalization", "nan"}
    root = folder.resolve()
    data = {key: value for key, value in values.pop("data").items() if key in kept}
    place = {"root": str(root), "layout": "csv", "csv": str(root / CASES), "labels": dict(labels), "ignore": ignore}
    values.pop("weak", None)
    # The initial weights were the classifier's, and cases.csv says who validates.
    training = {key: value for key, value in values.pop("training", {}).items() if key not in ("init", "fold")}
    values = {**values, "data": {**place, **data}} | ({"training": training} if training else {})
    if config.output is not None:
        values["output"] = f"{config.output}_pseudo"
    return values
