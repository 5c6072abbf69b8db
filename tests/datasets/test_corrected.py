"""The list of corrected label maps that `data.corrected` names."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medseg.commands.correction.run import _joined
from medseg.config import DataConfig, RunConfig
from medseg.datasets.cases import find_cases
from medseg.datasets.corrected import CorrectedCase, Corrections, write_corrections
from medseg.errors import DatasetError
from medseg.preparation.split import split_cases


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("data/images", "data/labels", "more", "back"):
        (tmp_path / folder).mkdir(parents=True)
    for n in range(5):
        for folder in ("images", "labels"):
            nib.save(nib.Nifti1Image(np.ones((3, 3, 3), np.uint8), np.eye(4)), tmp_path / "data" / folder / f"c{n}.nii")
    for name in ("more/new.nii", "back/new.nii", "back/c0.nii"):
        nib.save(nib.Nifti1Image(np.ones((3, 3, 3), np.uint8), np.eye(4)), tmp_path / name)
    return tmp_path


def written(root: Path, *cases: CorrectedCase) -> DataConfig:
    corrections = Corrections(cases, (("c0", "c1", *(case.name for case in cases if case.images)),), (("c2",),))
    write_corrections(corrections, root / "cases.json")
    return DataConfig(root=root / "data", labels={"a": 1}, corrected=root / "cases.json")


def test_corrected_labels_replace_those_of_the_data_set_and_new_cases_train(root: Path) -> None:
    new = CorrectedCase("new", root / "back/new.nii", (root / "more/new.nii",))
    data = written(root, CorrectedCase("c0", root / "back/c0.nii"), new)
    dataset = find_cases(data)
    assert {case.name: case.labels[0].path.parent.name for case in dataset.cases} == {
        **{f"c{n}": "labels" for n in range(1, 5)},
        "c0": "back",
        "new": "back",
    }
    split = split_cases(dataset, RunConfig(data=data), 0)
    # What neither trained nor validated before still takes no part.
    assert (split.train, split.validation) == (("c0", "c1", "new"), ("c2",))


@pytest.mark.parametrize("gone", ["back/new.nii", "more/new.nii", "cases.json", "damaged"])
def test_what_is_missing_is_named(root: Path, gone: str) -> None:
    data = written(root, CorrectedCase("new", root / "back/new.nii", (root / "more/new.nii",)))
    if gone == "damaged":
        (root / "cases.json").write_text('{"format_version": 1, "cases": 3}')
    else:
        (root / gone).unlink()
    with pytest.raises(DatasetError, match=r"cases\.json"):
        find_cases(data)


def test_a_case_that_an_earlier_correction_brought_keeps_its_images_when_it_is_corrected_again() -> None:
    first = CorrectedCase("new", Path("one.nii"), (Path("image.nii"),), group="p")
    assert _joined([first], {"new": CorrectedCase("new", Path("two.nii"))}) == {
        "new": CorrectedCase("new", Path("two.nii"), (Path("image.nii"),), group="p")
    }


def test_a_split_beside_the_one_of_the_corrections_is_refused() -> None:
    with pytest.raises(ValueError, match="corrected brings the split"):
        DataConfig(root="d", corrected="cases.json", split={"every": 2})
