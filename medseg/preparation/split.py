"""Which cases train and which validate; one patient (`group`) stays on one side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from medseg.config import RunConfig
from medseg.datasets.cases import Case, Dataset
from medseg.errors import ConfigError, DatasetError
from medseg.io.naming import composed
from medseg.lookup import nearest

__all__ = ["Split", "fold_numbers", "split_cases"]


@dataclass(frozen=True, slots=True)
class Split:
    """Case names per side, sorted. A case on neither side takes no part."""

    train: tuple[str, ...]
    validation: tuple[str, ...]


def split_cases(dataset: Dataset, config: RunConfig, fold: int) -> Split:
    """Training and validation cases of one fold.

    First that applies: `data.split`; the split column of a CSV; the folds that come with the data set
    (`splits_final.json`), where a case in neither list takes no part; else `training.folds` folds over groups, drawn
    with `seed`. The first two know one split only, which is fold 0. Cases marked 'test' take part in none. With
    `training.fold: full` all others train.

    `every` counts the sorted cases; where patients were found in names or headers, it counts patients in the order of
    their first cases, so that all cases of one are on one side.

    Args:
        dataset: the cases, sorted by name.
        config: `data.split`, `training.folds` and `seed` are used.
        fold: from 0.

    Returns:
        Both sides, sorted; validation may be empty.

    Raises:
        ConfigError: for an unknown validation case or a fold that does not exist.
        DatasetError: if a group lies on both sides, or no case is left to train on.

    Example:
        >>> from medseg.datasets.cases import find_cases
        >>> labels = {"lung": 1, "tumour": 2}
        >>> config = RunConfig(data={"root": "chest", "labels": labels, "split": {"every": 5, "start": 4}})
        >>> split_cases(find_cases(config.data), config, fold=0).validation
        ('phantom_05', 'phantom_10')
    """
    cases = [c for c in dataset.cases if c.split != "test"]
    names = [c.name for c in cases]
    if config.training.fold == "full":
        return Split(tuple(names), ())
    rule = config.data.split
    if rule is not None and rule.validation is not None:
        chosen = _known(rule.validation, names, "data.split.validation")
        origin = "data.split"
    elif rule is not None and rule.every is not None:
        chosen = _every(cases, rule.every, rule.start, by_patient=dataset.patients_found)
        origin = f"data.split (every {rule.every}, start {rule.start})"
    elif any(c.split for c in cases):
        chosen = {c.name for c in cases if c.split == "validation"}
        origin = "the split column"
    elif dataset.folds:
        if not 0 <= fold < len(dataset.folds):
            raise ConfigError(
                f"fold {fold} does not exist: splits_final.json holds folds 0 to {len(dataset.folds) - 1}"
            )
        chosen = _known(dataset.folds[fold], names, f"fold {fold} of splits_final.json")
        origin = f"fold {fold} of splits_final.json"
    else:
        chosen = _fold_by_group(cases, config.training.folds, config.seed, fold)
        origin = f"fold {fold}"
    listed = dataset.train_folds[fold] if origin.endswith("splits_final.json") and dataset.train_folds else None
    wanted = set(names) - chosen if listed is None else set(_known(listed, names, origin))
    _refuse_straddling([c for c in cases if c.name in chosen | wanted], chosen, origin, dataset.patients_found)
    train = tuple(n for n in names if n in wanted)
    if not train:
        raise DatasetError(
            f"{origin} leaves no case to train on: {len(names)} case(s), {len(chosen)} of them validation"
        )
    return Split(train, tuple(n for n in names if n in chosen))


def fold_numbers(dataset: Dataset, config: RunConfig) -> tuple[int, ...]:
    """The folds that `training.fold` asks for: one, or with 'all' every fold there is (a fixed split counts as one).

    'full' trains on all cases what is stored as fold 0.

    Raises:
        ConfigError: for a fold other than 0 of a split that has one only.
    """
    if config.training.fold == "full":
        return (0,)
    cases = [c for c in dataset.cases if c.split != "test"]
    fixed = "data.split" if config.data.split is not None else "the split column" if any(c.split for c in cases) else ""
    fold = config.training.fold
    if fold != "all":
        if fixed and fold:
            raise ConfigError(
                f"training.fold is {fold}, but {fixed} gives one split only, which is fold 0; leave out the fold, or "
                "leave out the split to train folds of a cross-validation"
            )
        return (fold,)
    if fixed:
        return (0,)
    if dataset.folds:
        return tuple(range(len(dataset.folds)))
    return tuple(range(max(1, min(config.training.folds, len({_group(c) for c in cases})))))


def _known(wanted: Iterable[str], names: Sequence[str], origin: str) -> set[str]:
    there = {composed(name): name for name in names}
    chosen = {there.get(composed(name), name) for name in wanted}
    unknown = sorted(chosen - set(names))
    if unknown:
        near = nearest(unknown[0], names, most=3) or names[:3]
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise ConfigError(f"{origin} names unknown case {unknown[0]!r}{more}; nearest: {', '.join(near)}")
    return chosen


def _every(cases: Sequence[Case], every: int, start: int, by_patient: bool) -> set[str]:
    if not by_patient:
        return {case.name for case in cases[start::every]}
    patients = list(dict.fromkeys(_group(case) for case in cases))
    chosen = set(patients[start::every])
    return {case.name for case in cases if _group(case) in chosen}


def _fold_by_group(cases: Sequence[Case], folds: int, seed: int, fold: int) -> set[str]:
    groups = sorted({_group(c) for c in cases})
    if len(groups) < 2 and fold == 0:
        # One patient cannot be on both sides: train on all of it, validate on nothing.
        return set()
    folds = min(folds, len(groups))
    if not 0 <= fold < folds:
        raise ConfigError(f"training.fold is {fold}, but there are folds 0 to {folds - 1} ({len(groups)} groups)")
    order = np.random.default_rng(seed).permutation(len(groups))
    mine = {groups[i] for i in order[fold::folds]}
    return {c.name for c in cases if _group(c) in mine}


def _refuse_straddling(cases: Sequence[Case], validation: set[str], origin: str, found: bool) -> None:
    sides: dict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for case in cases:
        sides[_group(case)][case.name in validation].append(case.name)
    both = sorted(g for g, (train, held_out) in sides.items() if train and held_out)
    if both:
        train, held_out = sides[both[0]]
        more = f"; {len(both) - 1} more such patient(s): {', '.join(both[1:5])}" if len(both) > 1 else ""
        raise DatasetError(
            f"{origin} puts patient (group) {both[0]!r} on both sides: {train[0]} trains and {held_out[0]} "
            f"validates{more}; put all cases of a patient on one side"
            + (", or give data.group=none if they are different patients" if found else "")
        )


def _group(case: Case) -> str:
    return case.group or case.name
