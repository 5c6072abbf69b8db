"""`data.annotated` and the column `annotated`: which labels each case has, and what is refused before training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from medseg.config import RunConfig, validate_model
from medseg.datasets.cases import find_cases
from medseg.errors import ConfigError, DatasetError

LABELS = {"liver": 1, "spleen": 2, "kidney": 3}
CASES = ("clinic_1", "clinic_2", "home_1", "home_2")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
        for case in CASES:
            nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)), tmp_path / kind / f"{case}.nii.gz")
    return tmp_path


def found(root: Path, **data: Any) -> dict[str, tuple[str, ...] | None]:
    config = validate_model(RunConfig, {"data": {"root": str(root), "labels": LABELS, **data}}, "run.yaml")
    return {case.name: case.annotated for case in find_cases(config.data).cases}


def table(root: Path, cells: dict[str, str]) -> None:
    lines = [f"{case},images/{case}.nii.gz,labels/{case}.nii.gz,{cells.get(case, '')}" for case in CASES]
    (root / "cases.csv").write_text("\n".join(["case,image,label,annotated", *lines]))


def test_names_go_before_patterns_and_the_rest_has_all_labels(root: Path) -> None:
    assert found(root, annotated={"clinic_*": ["kidney", "liver"], "clinic_2": ["spleen"]}) == {
        "clinic_1": ("liver", "kidney"),
        "clinic_2": ("spleen",),
        "home_1": None,
        "home_2": None,
    }


def test_a_case_with_all_labels_named_is_like_one_that_is_not_named(root: Path) -> None:
    assert set(found(root, annotated={"*": list(LABELS)}).values()) == {None}


def test_a_column_of_the_list_says_the_same(root: Path) -> None:
    table(root, {"clinic_1": "liver; kidney"})
    assert found(root, layout="csv") == {**dict.fromkeys(CASES), "clinic_1": ("liver", "kidney")}


@pytest.mark.parametrize(
    ("annotated", "error", "message"),
    [
        ({"clinc_1": ["liver"]}, ConfigError, "'clinc_1' is not a case and matches none of the 4 cases; .*'clinic_1'"),
        ({"ward_*": ["liver"]}, ConfigError, r"'ward_\*' is not a case and matches none of the 4 cases"),
        ({"home_1": ["livre"]}, ConfigError, "'home_1' names the label 'livre'; there are liver, spleen, kidney; did"),
        ({"home_1": ["liver", "liver"]}, ConfigError, "names the label 'liver' twice"),
        ({"*_1": ["liver"], "home*": ["spleen"]}, ConfigError, r"'\*_1' and 'home\*' name different labels .*'home_1'"),
        ({"*": ["liver", "spleen"]}, DatasetError, "label 'kidney' is annotated in none of the 4 cases"),
        ({"home_1": []}, ConfigError, "'home_1' names no label"),
    ],
)
def test_what_does_not_fit_cases_and_labels_is_refused(
    root: Path, annotated: dict[str, list[str]], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        found(root, annotated=annotated)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"home_1": "livre"}, "column annotated of case 'home_1' names the label 'livre'; .* did you mean 'liver'"),
        ({"home_1": ";"}, "line 4: case 'home_1', column annotated: ';' names no label"),
        (dict.fromkeys(CASES, "liver;spleen"), "label 'kidney' is annotated in none of the 4 cases"),
    ],
)
def test_a_wrong_column_is_refused(root: Path, cells: dict[str, str], message: str) -> None:
    table(root, cells)
    with pytest.raises(DatasetError, match=message):
        found(root, layout="csv")


def test_one_of_table_and_configuration_decides(root: Path) -> None:
    table(root, {"home_1": "liver"})
    with pytest.raises(ConfigError, match=r"data\.annotated is given, and the list of cases has a column"):
        found(root, layout="csv", annotated={"home_2": ["liver"]})


def test_cases_that_only_test_do_not_make_a_label_known(root: Path) -> None:
    table(root, dict.fromkeys(CASES[1:], "liver;spleen"))
    text = (root / "cases.csv").read_text().splitlines()
    splits = [f"{line},{split}" for line, split in zip(text, ["split", "test", "", "", ""], strict=True)]
    (root / "cases.csv").write_text("\n".join(splits))
    with pytest.raises(DatasetError, match="label 'kidney' is annotated in none of the 3 cases"):
        found(root, layout="csv")
