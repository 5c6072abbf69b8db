"""Cases of one patient are found, and patients are not taken for one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from medseg.config import DataConfig
from medseg.datasets.cases import Dataset, find_cases
from medseg.datasets.patients import find_patients
from medseg.datasets.records import Case
from medseg.errors import ConfigError


def groups(names: list[str], rule: str | None = None) -> list[str]:
    cases = [Case(name, (), ()) for name in sorted(names)]
    return [case.group for case in find_patients(cases, rule).cases]


def findings(names: list[str], rule: str | None = None) -> dict[str, str]:
    cases = [Case(name, (), ()) for name in sorted(names)]
    return {finding.kind: finding.message for finding in find_patients(cases, rule).findings}


@pytest.mark.parametrize(
    ("first", "other"),
    [
        (["patient001_frame01", "patient001_frame12"], "patient002_frame01"),
        (["patient0001_2CH_ED", "patient0001_4CH_ES"], "patient0002_2CH_ED"),
        (["Image_01L", "Image_01R"], "Image_02L"),
        (["case_003_0", "case_003_1"], "case_004_0"),
        (["case_003", "case_003_followup"], "case_004"),
        (["case-10-left", "case-10-right"], "case-11-left"),
        (["left_case_01", "right_case_01"], "left_case_02"),
        (["ab12_slice12", "ab12_slice_013"], "ab13_slice12"),
        (["003_t1", "003_t1ce", "003_flair"], "004_t1"),
        (["OAS1_0001_MR1", "OAS1_0001_MR2"], "OAS1_0002_MR1"),
        (["sub-01_ses-1_T1w", "sub-01_ses-2_T1w"], "sub-02_ses-1_T1w"),
        (["BraTS-GLI-00005-000", "BraTS-GLI-00005-001"], "BraTS-GLI-00006-000"),
        (["Pat7.visit1", "Pat7.visit2"], "Pat8.visit1"),
        (["IMG_007_OD", "IMG_007_OS"], "IMG_008_OD"),
        (["smith_left", "smith_right"], "jones_left"),
        (["P01_s1", "P01_s2"], "P02_s1"),
    ],
)
def test_names_of_one_patient_are_one_group_and_another_patient_is_another(first: list[str], other: str) -> None:
    found = groups([*first, other])
    assert len(set(found)) == 2
    of = dict(zip(sorted([*first, other]), found, strict=True))
    assert len({of[name] for name in first}) == 1
    assert of[other] == other, "a patient's only case keeps its name"


@pytest.mark.parametrize(
    "names",
    [
        [f"hippocampus_{n:03}" for n in range(5)],
        [f"case_{n:03}" for n in range(5)],
        [f"patient{n}" for n in range(5)],
        ["09_dr", "09_g", "09_h", "10_dr", "10_g"],
        ["site1_scan1", "site1_scan2", "site2_scan1"],
        ["center_1_001", "center_1_002", "center_2_001"],
        ["case_2020_001", "case_2020_002", "case_2021_001"],
        ["patient1_hospitalA", "patient1_hospitalB", "patient2_hospitalA"],
        ["train_1", "train_2", "test_1"],
        ["ct_1", "ct_2", "mr_1", "mr_2"],
        ["12j", "12k", "12l", "12r"],
        ["s0011", "s0012", "s0110"],
        ["t1", "t2", "t3"],
        ["BraTS20_Training_001", "BraTS20_Training_002"],
        ["LIDC-IDRI-0001", "LIDC-IDRI-0002"],
    ],
)
def test_names_that_may_be_of_several_patients_are_not_brought_together(names: list[str]) -> None:
    assert groups(names) == sorted(names)


def test_what_was_taken_for_a_patient_is_said_and_so_is_doubt() -> None:
    said = findings([f"patient{n}_frame{m}" for n in range(3) for m in range(2)])
    assert list(said) == ["patients"]
    assert (
        "6 cases are of 3 patients by their names, e.g. 'patient0': patient0_frame0, patient0_frame1"
        in said["patients"]
    )
    assert "data.group" in said["patients"]
    doubt = findings(["img_12_1", "img_12_2", "img_13_1", "img_13_2"])
    assert list(doubt) == ["patients_in_doubt"]
    assert "img_12_1, img_12_2" in doubt["patients_in_doubt"] and "data.group=none" in doubt["patients_in_doubt"]
    assert list(findings(["slice_1", "slice_2", "slice_3"])) == ["patients_in_doubt"]
    assert findings([f"hippocampus_{n:03}" for n in range(5)]) == {}
    assert findings(["img_12_1", "img_12_2", "img_13_1"], "none") == {}


def test_cases_that_all_look_like_one_patient_are_still_split_and_that_is_said() -> None:
    names = [f"patient1_slice{n}" for n in range(4)]
    assert groups(names) == names
    assert "one patient" in findings(names)["one_patient"]


def test_data_group_sets_the_patients() -> None:
    names = ["a1x", "a1y", "b2x", "c"]
    assert groups(names, r"[ab]\d") == ["a1", "a1", "b2", "c"]
    assert groups(names, r"[ab](\d)") == ["1", "1", "2", "c"]
    assert "c" in findings(names, r"[ab]\d")["patients_in_doubt"]
    assert groups(["patient1_0", "patient1_1", "patient2_0"], "none") == ["patient1_0", "patient1_1", "patient2_0"]
    with pytest.raises(ConfigError, match=r"data\.group is 'zz'.*matches no name"):
        groups(names, "zz")


def test_a_pattern_of_several_groups_is_refused_with_the_way_to_write_it() -> None:
    with pytest.raises(ValidationError, match="several groups"):
        DataConfig(root=Path("x"), group="(a)(b)")
    assert DataConfig(root=Path("x"), group="(?:a)(b)").group == "(?:a)(b)"


def dataset(root: Path, **settings: object) -> Dataset:
    return find_cases(DataConfig.model_validate({"root": root, "labels": {"lung": 1}, **settings}))


def test_dicom_studies_with_one_patient_id_are_one_group_and_the_id_is_kept_nowhere(
    small_series: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "labels").mkdir()
    for name, identifier in (("x", "SECRET77"), ("y", "SECRET77"), ("z", "SECRET78"), ("v", "ANON"), ("w", "ANON")):
        small_series(f"images/{name}", PatientID=identifier)
        (tmp_path / "labels" / f"{name}.nii.gz").touch()
    found = dataset(tmp_path)
    assert [case.group for case in found.cases] == ["v", "w", "x", "x", "z"]
    assert "PatientID" in found.findings[0].message
    assert "SECRET" not in repr(found)


def test_groups_that_a_csv_states_count_and_none_keeps_them(tmp_path: Path) -> None:
    names = ["patient1_0", "patient1_1", "patient2_0"]
    for name in names:
        (tmp_path / f"{name}.png").touch()
    rows = [f"{name},{name}.png,{name}.png,{group}" for name, group in zip(names, ("a", "b", "b"), strict=True)]
    (tmp_path / "cases.csv").write_text("\n".join(["case,image,label,group", *rows]))
    for rule in (None, "none"):
        assert [case.group for case in dataset(tmp_path, group=rule).cases] == ["a", "b", "b"]
    assert [case.group for case in dataset(tmp_path, group=r"patient\d").cases] == ["patient1", "patient1", "patient2"]
