"""Label values of atlases, up to 2**32 - 1: nothing is merged or rounded, and no table of that many entries is made."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from medseg.cli import app
from medseg.errors import DatasetError
from medseg.evaluation import evaluate
from medseg.io.label_maps import LabelSource, read_label_map
from medseg.label_grouping import grouping
from medseg.metrics import score_case

# Neighbours that single precision cannot tell apart, an identifier of the Allen mouse brain atlas, and the largest.
VALUES = (1, 70000, 2**24, 2**24 + 1, 614454277, 2**32 - 1)


def atlas() -> np.ndarray:
    array = np.zeros((len(VALUES) + 1, 6, 7), np.int64)
    array[:-1] = np.array(VALUES)[:, None, None]
    return array


def save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.eye(4), dtype=array.dtype), path)
    return path


@pytest.mark.parametrize("dtype", ["uint32", "int64", "uint64", "float64"])
def test_a_label_map_keeps_values_up_to_32_bits_apart(tmp_path: Path, dtype: str) -> None:
    found = read_label_map([LabelSource(save(tmp_path / "atlas.nii.gz", atlas().astype(dtype)))])
    np.testing.assert_array_equal(found.array, atlas())


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_convert_keeps_values_up_to_32_bits_apart(tmp_path: Path, suffix: str) -> None:
    source = save(tmp_path / "atlas.nii.gz", atlas().astype(np.uint32))
    done = CliRunner().invoke(app, ["convert", str(source), str(tmp_path / f"out{suffix}")])
    assert done.exit_code == 0, done.output
    found = read_label_map([LabelSource(tmp_path / f"out{suffix}")])
    np.testing.assert_array_equal(found.array, atlas())


@pytest.mark.parametrize("value", [2**24, 2**24 + 1, 614454277])
def test_values_that_single_precision_may_have_rounded_are_refused_by_name(tmp_path: Path, value: int) -> None:
    array = np.zeros((4, 4, 4), np.float32)
    array[1] = value
    path = save(tmp_path / "atlas.nii.gz", array)
    with pytest.raises(DatasetError, match=rf"{path}.* value {int(np.float32(value))} .*single precision.*integers"):
        read_label_map([LabelSource(path)])


def test_scores_of_neighbouring_large_values_are_their_own() -> None:
    pred = atlas()
    pred[2, :3] = 2**24 + 1
    tracemalloc.start()
    scores = score_case(pred, atlas(), metrics=("dice",))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    dice = {value: found["dice"] for value, found in scores.items()}
    assert list(dice) == list(VALUES)
    assert dice[2**24] == pytest.approx(2 / 3) and dice[2**24 + 1] == pytest.approx(0.8)
    assert {dice[v] for v in (1, 70000, 614454277, 2**32 - 1)} == {1.0}
    assert peak < 2**24


def test_an_evaluation_with_pictures_takes_large_values(tmp_path: Path) -> None:
    save(tmp_path / "pred" / "c.nii.gz", atlas().astype(np.uint32))
    save(tmp_path / "ref" / "c.nii.gz", atlas().astype(np.uint32))
    labels = {"a": 70000, "b": 2**24 + 1, "ignore": [614454277, 2**32 - 1]}
    tracemalloc.start()
    result = evaluate(tmp_path / "pred", tmp_path / "ref", out=tmp_path / "out", labels=labels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert {name: result.summary.labels[name]["dice"].mean for name in ("a", "b")} == {"a": 1.0, "b": 1.0}
    assert (tmp_path / "out" / "report.html").is_file() and peak < 2**28


def test_groups_are_the_same_by_table_and_by_search() -> None:
    rng = np.random.default_rng(0)
    array = rng.integers(0, 40, 500)
    for values in ((), (1, 2, 3), (7, 0, 3), (39, 12)):
        tabled, searched = (grouping(values, largest, np.uint8)(array) for largest in (39, 2**32 - 1))
        np.testing.assert_array_equal(tabled, searched)
        assert [int(n) for n in grouping(values, 39, np.uint8)(np.array(values, int))] == [*range(1, len(values) + 1)]
