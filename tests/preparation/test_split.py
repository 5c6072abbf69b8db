"""Which cases train and which validate."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg.config import RunConfig
from medseg.datasets.cases import Case, Dataset
from medseg.errors import ConfigError, DatasetError
from medseg.labels import LabelScheme
from medseg.preparation import split_cases
from medseg.preparation.split import fold_numbers

SCHEME = LabelScheme.from_mapping({"thing": 1})


def dataset(groups: list[str], splits: list[str] | None = None, folds: tuple[tuple[str, ...], ...] = ()) -> Dataset:
    splits = splits or [""] * len(groups)
    cases = tuple(
        Case(f"c{n:02}", (Path("x"),), (), group, split)
        for n, (group, split) in enumerate(zip(groups, splits, strict=True))
    )
    return Dataset(cases, SCHEME, (), folds)


def config(split: dict | None = None, **training) -> RunConfig:
    return RunConfig(data={"root": "x", "split": split}, training=training)


def test_every_fifth_case_from_the_fifth_on() -> None:
    split = split_cases(dataset([""] * 12), config({"every": 5, "start": 4}), 0)
    assert split.validation == ("c04", "c09")
    assert len(split.train) == 10


def test_named_cases_validate_and_a_typo_is_answered_with_the_nearest_name() -> None:
    data = dataset([""] * 4)
    assert split_cases(data, config({"validation": ["c02"]}), 0).validation == ("c02",)
    with pytest.raises(ConfigError, match=r"unknown case 'c20'.*nearest: c"):
        split_cases(data, config({"validation": ["c20"]}), 0)


def test_the_split_column_decides_and_test_cases_stay_out() -> None:
    data = dataset([""] * 4, ["train", "validation", "test", "train"])
    split = split_cases(data, config(), 0)
    assert (split.train, split.validation) == (("c00", "c03"), ("c01",))


def test_folds_that_come_with_the_data_are_used_by_number() -> None:
    data = dataset([""] * 4, folds=(("c00", "c01"), ("c02", "c03")))
    assert split_cases(data, config(), 1).validation == ("c02", "c03")
    with pytest.raises(ConfigError, match=r"fold 2 does not exist.*folds 0 to 1"):
        split_cases(data, config(), 2)


def test_folds_keep_a_patient_on_one_side_and_validate_every_case_once() -> None:
    groups = [f"p{n // 3}" for n in range(30)]
    data = dataset(groups)
    seen: list[str] = []
    for fold in range(5):
        split = split_cases(data, config(), fold)
        held_out = {groups[int(n[1:])] for n in split.validation}
        assert not held_out & {groups[int(n[1:])] for n in split.train}
        assert len(held_out) == 2
        seen += split.validation
    assert sorted(seen) == [c.name for c in data.cases]
    assert split_cases(data, config(), 0) == split_cases(data, config(), 0)


def test_fewer_patients_than_folds_leave_one_out() -> None:
    data = dataset(["a", "a", "b"])
    assert fold_numbers(data, config(fold="all")) == (0, 1)
    assert {split_cases(data, config(), f).validation for f in (0, 1)} == {("c00", "c01"), ("c02",)}
    with pytest.raises(ConfigError, match=r"training.fold is 2, but there are folds 0 to 1"):
        split_cases(data, config(), 2)


def test_a_single_case_trains_without_validation() -> None:
    split = split_cases(dataset([""]), config(), 0)
    assert (split.train, split.validation) == (("c00",), ())


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (dataset(["a", "b", "b", "c"]), {"every": 2, "start": 1}),
        (dataset(["a", "b", "b", "c"]), {"validation": ["c01"]}),
        (dataset(["a", "b", "b", "c"], ["train", "validation", "train", "train"]), None),
        (dataset(["a", "b", "b", "c"], folds=(("c01",),)), None),
    ],
)
def test_a_patient_on_both_sides_is_refused_by_name(data: Dataset, rule: dict | None) -> None:
    with pytest.raises(DatasetError, match=r"patient \(group\) 'b' on both sides"):
        split_cases(data, config(rule), 0)


def test_no_case_left_to_train_on_is_refused() -> None:
    with pytest.raises(DatasetError, match="leaves no case to train on"):
        split_cases(dataset(["", ""]), config({"validation": ["c00", "c01"]}), 0)


def test_folds_that_all_asks_for() -> None:
    many = dataset([""] * 10)
    assert fold_numbers(many, config(fold="all")) == (0, 1, 2, 3, 4)
    assert fold_numbers(many, config(fold=3)) == (3,)
    assert fold_numbers(many, config({"every": 2}, fold="all")) == (0,)
    assert fold_numbers(dataset([""] * 4, folds=(("c00",),) * 3), config(fold="all")) == (0, 1, 2)
