"""`medseg init`: a commented configuration for a folder of data, to read, edit and train with."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from medseg.config import RunConfig, config_from_values
from medseg.datasets.cases import Case, Dataset, find_cases
from medseg.disk.atomic import write_text_atomic
from medseg.errors import WriteError
from medseg.io.formats import is_there
from medseg.preparation.folder import config_for_folder, label_values
from medseg.preparation.split import split_cases

__all__ = ["write_config"]

_WIDTH = 120
_OF_PATIENTS = ("patients", "patients_in_doubt", "one_patient")


def write_config(folder: Path, path: Path, overrides: Mapping[str, Any], overwrite: bool) -> tuple[str, ...]:
    """Write the configuration for a folder of data as YAML with comments: cases, labels, split and time.

    The paths in it are absolute, so that it can be used from any folder.

    Args:
        folder: the data.
        path: the YAML file.
        overrides: dotted key -> value; they are written, too.
        overwrite: replace the file.

    Returns:
        What was concluded from the folder, in whole sentences.

    Raises:
        WriteError: the file exists, or cannot be written.
        ConfigError, DatasetError, ReadError: as `config_for_folder`, and a split that cannot be made.
    """
    if is_there(path) and not overwrite:
        raise WriteError(f"{path} exists; give another name with -o, or --overwrite to replace it")
    root = folder.resolve()
    found = config_for_folder(root, overrides)
    dataset = find_cases(found.config.data)
    settings = {"data.root": str(root), **overrides, **found.found}
    settings["data.labels"] = dataset.labels.mapping
    if dataset.labels.ignore is not None:
        several = list(dataset.labels.ignored)
        settings["data.ignore"] = several if len(several) > 1 else dataset.labels.ignore
    settings.setdefault("training.max_minutes", 60)
    values: dict[str, Any] = {}
    config = config_from_values(values, settings, str(path), path.stem)
    write_text_atomic(path, "\n".join(_lines(path, config, dataset, values)) + "\n")
    return found.said


def _lines(path: Path, config: RunConfig, dataset: Dataset, values: Mapping[str, Any]) -> Iterator[str]:
    cases = [case for case in dataset.cases if case.split != "test"]
    found = label_values(cases, config.data.label_threshold)
    yield f"# {len(cases)} cases{_patients(cases)}; medseg train takes this file."
    yield "# Every other key and its default: medseg config; what it means: medseg config --explain KEY"
    if "output" not in values:
        yield f"# output: {_flow(f'runs/{path.stem}')}    # the folder of the run"
    for part, inner in values.items():
        if not isinstance(inner, dict):
            yield f"{part}: {_flow(inner)}"
            continue
        yield f"{part}:"
        for key, value in inner.items():
            if (part, key) == ("data", "labels"):
                yield from _labels(dataset, found)
            else:
                yield f"  {key}: {_flow(value)}"
        if part == "data":
            yield from _hints(config, dataset, cases)


def _labels(dataset: Dataset, values: Mapping[str, Sequence[int]]) -> Iterator[str]:
    by_name = any(source.names for case in dataset.cases for source in case.labels)
    told = (
        "name in the DICOM objects: value" if by_name else "name: value in the label maps; give them their real names"
    )
    yield f"  labels:    # {told}"
    for name, value in dataset.labels.mapping.items():
        wanted = {value} if isinstance(value, int) else set(value)
        holders = sum(not wanted.isdisjoint(each) for each in values.values())
        yield f"    {_flow(name)}: {_flow(value)}    # in {holders} of {len(values)} cases"
    for value in sorted({each for case in values.values() for each in case} - dataset.labels.known_values):
        holders = sum(value in each for each in values.values())
        yield f"    # NAME: {value}    # in {holders} of {len(values)} cases, not named: give its name or data.ignore"


def _hints(config: RunConfig, dataset: Dataset, cases: Sequence[Case]) -> Iterator[str]:
    if config.data.modality is None and not dataset.channel_names:
        yield "  # modality: CT    # for CT only: it keeps Hounsfield units comparable"
    fold = config.training.fold if isinstance(config.training.fold, int) else 0
    split = split_cases(dataset, config, fold)
    numbers = f"{len(split.train)} cases train, {len(split.validation)} validate"
    yield f"  # {numbers}: {_origin(config, dataset, cases, fold)}."
    for finding in dataset.findings:
        yield from textwrap.wrap(
            f"{finding.kind}: {finding.message}", _WIDTH, initial_indent="  # ", subsequent_indent="  #   "
        )
    if config.data.group is None and any(finding.kind in _OF_PATIENTS for finding in dataset.findings):
        yield "  # group: none    # every case is a patient of its own; or a pattern such as 'patient\\d+'"
    if config.data.split is None:
        yield "  # split: {every: 5, start: 4}    # every fifth of the sorted cases validates instead"


def _origin(config: RunConfig, dataset: Dataset, cases: Sequence[Case], fold: int) -> str:
    if config.data.split is not None:
        return "by this split"
    if any(case.split for case in cases):
        return "by the column split of the CSV"
    if dataset.folds:
        return f"fold {fold} of splits_final.json"
    return f"fold {fold} of {config.training.folds}, drawn with the seed, each patient on one side"


def _patients(cases: Sequence[Case]) -> str:
    groups = {case.group for case in cases}
    return f" of {len(groups)} patients" if len(groups) < len(cases) else ""


def _flow(value: Any) -> str:
    """YAML of a value on one line."""
    if isinstance(value, str) and not value.isprintable():
        return json.dumps(value)
    text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), allow_unicode=True)
    return str(text).removesuffix("\n...\n").strip()
