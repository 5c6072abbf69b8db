"""Which cases train and which validate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from medseg.config import RunConfig
from medseg.datasets.cases import Case, Dataset
from medseg.datasets.patients import find_patients
from medseg.errors import ConfigError, DatasetError
from medseg.labels import LabelScheme
from medseg.preparation import split_cases
from medseg.preparation.kept_split import check_other_folds, fold_folder, keep_split, split_of_run
from medseg.preparation.split import Split, fold_numbers

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


def named(*names: str) -> Dataset:
    found = find_patients([Case(name, (Path("x"),), ()) for name in sorted(names)], None)
    return Dataset(found.cases, SCHEME, (), patients_found=found.found)


def frames(patients: int, each: int = 2) -> Dataset:
    return named(*(f"patient{n:02}_frame{m}" for n in range(patients) for m in range(each)))


@pytest.mark.parametrize("rule", [None, {"every": 5, "start": 4}, {"every": 2}])
def test_patients_found_in_names_lie_on_one_side_of_every_drawn_split(rule: dict | None) -> None:
    data = frames(10, each=3)
    split = split_cases(data, config(rule), 0)
    sides = [{name.split("_")[0] for name in side} for side in (split.train, split.validation)]
    assert not sides[0] & sides[1] and len(split.train) + len(split.validation) == 30
    share = 2 if rule is None else 10 // rule["every"]
    assert len(sides[1]) == share


def test_every_counts_cases_where_each_is_its_own_patient() -> None:
    data = named(*(f"hippocampus_{n:03}" for n in range(60)))
    validation = split_cases(data, config({"every": 5, "start": 4}), 0).validation
    assert validation == tuple(f"hippocampus_{n:03}" for n in range(4, 60, 5))


def test_a_list_that_separates_a_patient_found_in_names_is_refused_with_the_way_to_keep_it() -> None:
    with pytest.raises(DatasetError, match=r"patient \(group\) 'patient00' on both sides.*data\.group=none"):
        split_cases(frames(3), config({"validation": ["patient00_frame0"]}), 0)


def test_only_the_training_list_of_a_fold_trains() -> None:
    data = dataset([""] * 6, folds=(("c02",), ("c00",)))
    data = replace(data, train_folds=(("c00", "c01"), ("c01", "c02")))
    assert split_cases(data, config(), 0) == Split(("c00", "c01"), ("c02",))
    assert split_cases(data, config(), 1) == Split(("c01", "c02"), ("c00",))


def test_a_patient_may_lie_on_one_side_and_in_no_list() -> None:
    data = replace(dataset(["a", "b", "b"], folds=(("c01",),)), train_folds=(("c00",),))
    assert split_cases(data, config(), 0) == Split(("c00",), ("c01",))


@pytest.mark.parametrize("rule", [{"every": 2}, {"validation": ["c00"]}, None])
def test_a_fold_number_of_a_split_that_has_one_only_is_refused(rule: dict | None) -> None:
    data = dataset([""] * 4, None if rule else ["train", "train", "validation", "train"])
    assert fold_numbers(data, config(rule)) == (0,)
    with pytest.raises(ConfigError, match=r"training\.fold is 3, but .* one split only"):
        fold_numbers(data, config(rule, fold=3))


def begun(output: Path, fold: int = 0) -> Path:
    folder = fold_folder(output, fold)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "last.pt").touch()
    return folder


def test_a_run_that_has_begun_keeps_its_split(tmp_path: Path) -> None:
    asked = config().model_copy(update={"output": tmp_path})
    before = split_cases(named("a", "b", "c", "d"), asked, 0)
    begun(tmp_path)
    keep_split(before, tmp_path, 0)
    assert split_of_run(named("a", "b", "c", "d", "e", "f"), asked, 0) == before
    with pytest.raises(DatasetError, match=r"began with case 'a'.* no longer has"):
        split_of_run(named("b", "c", "d", "e"), asked, 0)
    (tmp_path / "split.json").write_text("{}")
    with pytest.raises(DatasetError, match=r"split\.json is damaged"):
        split_of_run(named("a", "b", "c", "d"), asked, 0)


def test_a_run_of_a_release_that_knew_no_patients_and_no_training_lists_goes_on_as_it_began(tmp_path: Path) -> None:
    asked = config({"every": 2}).model_copy(update={"output": tmp_path})
    data = frames(4)
    names = [case.name for case in data.cases]
    begun(tmp_path)
    assert split_of_run(data, asked, 0).validation == tuple(names[::2])
    listed = replace(dataset([""] * 4, folds=(("c02",),)), train_folds=(("c00",),))
    drawn = config().model_copy(update={"output": tmp_path})
    assert split_of_run(listed, drawn, 0) == Split(("c00", "c01", "c03"), ("c02",))
    assert split_of_run(listed, drawn.model_copy(update={"output": tmp_path / "new"}), 0).train == ("c00",)


def test_a_fold_beside_folds_of_another_split_is_refused(tmp_path: Path) -> None:
    data = dataset([""] * 10)
    asked = config().model_copy(update={"output": tmp_path})
    begun(tmp_path)
    keep_split(split_cases(data, asked, 0), tmp_path, 0)
    check_other_folds(data, asked, (1,))
    for other in (config({"every": 2}), config(folds=2), RunConfig(data={"root": "x"}, seed=7)):
        with pytest.raises(ConfigError, match=r"fold 0 in .* was trained on another split"):
            check_other_folds(data, other.model_copy(update={"output": tmp_path}), (1,))
