"""The split of a run that has begun stays as it was, whatever rules for splits come later."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from medseg.config import MOST_LIST_BYTES, RunConfig, read_text
from medseg.datasets.cases import Dataset
from medseg.disk.atomic import write_text_atomic
from medseg.errors import ConfigError, DatasetError
from medseg.io.formats import is_there
from medseg.preparation.split import Split, split_cases

__all__ = ["check_other_folds", "fold_folder", "keep_split", "split_of_run"]

FORMAT_VERSION = 1


def fold_folder(output: Path, number: int) -> Path:
    """Where a fold's checkpoint and split lie: fold 0 at the top of the run folder, further folds below it."""
    return output if number == 0 else output / f"fold{number}"


def split_of_run(dataset: Dataset, config: RunConfig, number: int) -> Split:
    """The split of one fold of a run: the one its training began with, else by `split_cases`.

    A training of a release that did not write its split goes on with that release's rules: patients are those that the
    data set states, and of `splits_final.json` only the validation cases count.

    Args:
        dataset: the cases, sorted by name.
        config: of the run.
        number: of the fold.

    Raises:
        ConfigError, DatasetError: as `split_cases`; a case of the split is gone, or its file is damaged.
    """
    folder = fold_folder(config.output or Path(), number)
    if not is_there(folder / "last.pt"):
        return split_cases(dataset, config, number)
    path = _path(folder)
    if is_there(path):
        return _read(path, dataset)
    # What the data set states itself counts for both; nothing is found where it states any.
    cases = tuple(replace(case, group=case.name) for case in dataset.cases) if dataset.patients_found else dataset.cases
    return split_cases(replace(dataset, cases=cases, train_folds=(), patients_found=False), config, number)


def keep_split(split: Split, output: Path, number: int) -> None:
    """Write the split of a fold that begins to train, or goes on.

    Raises:
        WriteError: disk full, no permission.
    """
    content = {"format_version": FORMAT_VERSION, "train": split.train, "validation": split.validation}
    write_text_atomic(_path(fold_folder(output, number)), json.dumps(content, indent=1) + "\n")


def check_other_folds(dataset: Dataset, config: RunConfig, numbers: tuple[int, ...]) -> None:
    """Refuse folds beside ones of another split: the weights of one bundle are those of one cross-validation.

    Args:
        dataset: the cases.
        config: of the run; `output` says where its other folds lie.
        numbers: the folds that are to be trained.

    Raises:
        ConfigError: naming the fold whose split differs.
    """
    output = config.output or Path()
    others = [n for n in _trained(output) if n not in numbers]
    for number in others:
        kept = _read(_path(fold_folder(output, number)), dataset)
        try:
            same = kept == split_cases(dataset, config, number)
        except ConfigError:
            same = False
        if not same:
            raise ConfigError(
                f"fold {number} in {output} was trained on another split than the data and the configuration give now, "
                f"so fold {numbers[0]} would not belong to it; give the same data.split, training.folds and seed, or "
                "another output folder"
            )


def _trained(output: Path) -> list[int]:
    names = [p.name for p in output.glob("fold*")] if is_there(output) else []
    numbers = [0, *(int(name[4:]) for name in names if name[4:].isdecimal())]
    folders = {number: fold_folder(output, number) for number in sorted(set(numbers))}
    return [n for n, folder in folders.items() if is_there(folder / "last.pt") and is_there(_path(folder))]


def _path(folder: Path) -> Path:
    return folder / "split.json"


def _read(path: Path, dataset: Dataset) -> Split:
    try:
        content = json.loads(read_text(path, MOST_LIST_BYTES))
        split = Split(*(tuple(str(name) for name in content[side]) for side in ("train", "validation")))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DatasetError(
            f"{path} is damaged ({type(error).__name__}); restore it from a backup, or train into another output folder"
        ) from None
    gone = sorted({*split.train, *split.validation} - {case.name for case in dataset.cases if case.split != "test"})
    if gone:
        more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
        raise DatasetError(
            f"the training in {path.parent} began with case {gone[0]!r}{more}, which the data set no longer has for "
            "training; add it again, or train into another output folder"
        )
    return split
