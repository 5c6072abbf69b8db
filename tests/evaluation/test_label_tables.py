"""Tables of labels as people and other programs write them, and the spare values of predicted regions."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from medseg.cli import app
from medseg.errors import ConfigError
from medseg.evaluation import evaluate
from medseg.io.label_names import labels_json, read_label_names
from medseg.labels import LabelScheme
from medseg.metrics import score_case

ARRAY = np.zeros((8, 9, 5), np.uint8)
ARRAY[1:4, 2:7, 1:4] = 1
ARRAY[5:7, 2:7, 1:4] = 2


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.eye(4)), path)


def write(path: Path, table: object) -> Path:
    path.write_text(json.dumps(table))
    return path


@pytest.mark.parametrize(
    "table",
    [
        {"labels": {"background": 0, "a": 1, "ignore": 3}, "channel_names": {"0": "CT"}},
        {"labels": {"background": 0, "a": 1, "Ignore": [3]}},
        {"labels": {"a": 1}, "ignore": 3},
        {"data": {"labels": {"a": 1, "ignore": 3}}},
        {"data": {"labels": {"a": 1, "ignore": 3}, "ignore": 3}},
        {"a": 1, "ignore": 3},
    ],
)
def test_the_name_ignore_is_no_label_in_any_table(tmp_path: Path, table: object) -> None:
    pred = ARRAY.copy()
    pred[ARRAY == 2] = 1
    save(tmp_path / "ref" / "c.nii.gz", np.where(ARRAY == 2, 3, ARRAY).astype(np.uint8))
    save(tmp_path / "pred" / "c.nii.gz", pred)
    result = evaluate(tmp_path / "pred", tmp_path / "ref", labels=write(tmp_path / "dataset.json", table))
    assert list(result.summary.labels) == ["a"] and result.summary.labels["a"]["dice"].mean == 1.0


def test_the_name_ignore_is_no_label_of_a_mapping_either(tmp_path: Path) -> None:
    save(tmp_path / "ref" / "c.nii.gz", ARRAY)
    save(tmp_path / "pred" / "c.nii.gz", np.where(ARRAY == 2, 1, ARRAY).astype(np.uint8))
    result = evaluate(tmp_path / "pred", tmp_path / "ref", labels={"a": 1, "ignore": 2})
    assert list(result.summary.labels) == ["a"] and result.summary.labels["a"]["dice"].mean == 1.0


@pytest.mark.parametrize(
    "labels",
    [
        {"labels": {"a": 1}, "ignore": [3, 4]},
        {"labels": {"a": 1, "ignore": [4, 3, 4]}},
        {"data": {"labels": {"a": 1}, "ignore": [3, 4]}},
        {"a": 1, "ignore": [3, 4]},
        LabelScheme.from_mapping({"a": 1}, ignore=(3, 4)),
        {"labels": {"a": [1]}, "ignore": [3, 4]},
    ],
)
def test_voxels_of_each_of_several_values_to_ignore_take_no_part(tmp_path: Path, labels: object) -> None:
    ref = np.where(ARRAY == 2, 3, ARRAY).astype(np.uint8)
    ref[5, 2:7, 1:4] = 4
    save(tmp_path / "ref" / "c.nii.gz", ref)
    save(tmp_path / "pred" / "c.nii.gz", np.where(ARRAY == 2, 1, ARRAY).astype(np.uint8))
    given = labels if isinstance(labels, LabelScheme) else write(tmp_path / "given.json", labels)
    result = evaluate(tmp_path / "pred", tmp_path / "ref", labels=given, out=tmp_path / "out")
    assert list(result.summary.labels) == ["a"] and result.summary.labels["a"]["dice"].mean == 1.0
    assert "unknown_values" not in {finding.kind for finding in result.findings}


@pytest.mark.parametrize("labels", [{"a": 1, "ignore": [2, 3]}, LabelScheme.from_mapping({"a": 1}, ignore=(2, 3))])
def test_score_case_leaves_out_each_of_several_values_to_ignore(labels: LabelScheme) -> None:
    ref = np.zeros((6, 6, 6), np.uint8)
    ref[1:4, 1:4, 1:4], ref[4], ref[5] = 1, 2, 3
    pred = (ref > 0).astype(np.uint8)
    assert score_case(pred, ref, labels=labels, metrics=("dice", "hd95")) == {"a": {"dice": 1.0, "hd95": 0.0}}


def test_values_to_ignore_by_a_key_and_by_a_label_must_agree(tmp_path: Path) -> None:
    table = {"labels": {"a": 1, "ignore": 2}, "ignore": 3}
    with pytest.raises(ConfigError, match=r"dataset.json.*ignore.*by a label called"):
        read_label_names(write(tmp_path / "dataset.json", table))


def test_a_table_of_the_decathlon_names_the_same_labels(tmp_path: Path) -> None:
    table = write(tmp_path / "dataset.json", {"labels": {"0": "background", "2": "b", "1": "a"}})
    assert read_label_names(table).mapping == {"b": 2, "a": 1}


def test_labels_json_reads_back_as_the_scheme_it_was_written_from(tmp_path: Path) -> None:
    for labels in ({"a": 1, "b": 7}, {"whole": [1, 2], "pen": [1], "core": [2]}, {"a": [1, 2], "b": [2, 3]}):
        for ignore in (9, (9, 8)):
            scheme = LabelScheme.from_mapping(labels, ignore).written
            path = tmp_path / "labels.json"
            path.write_text(labels_json(scheme))
            assert read_label_names(path) == scheme


def test_spare_values_of_predicted_regions_count_whether_or_not_labels_are_given(tmp_path: Path) -> None:
    labels = {"whole": [1, 2], "pen": [1], "core": [2]}
    save(tmp_path / "ref" / "c.nii.gz", ARRAY)
    save(tmp_path / "pred" / "c.nii.gz", np.where(ARRAY == 2, 3, ARRAY).astype(np.uint8))
    (tmp_path / "pred" / "labels.json").write_text(labels_json(LabelScheme.from_mapping(labels).written))
    for given in (None, labels, write(tmp_path / "given.json", {"data": {"labels": labels}})):
        result = evaluate(tmp_path / "pred", tmp_path / "ref", labels=given)
        dice = {name: result.summary.labels[name]["dice"].mean for name in labels}
        assert dice == {"whole": 1.0, "pen": 1.0, "core": 0.0}
        assert "unknown_values" not in {f.kind for f in result.findings}


def test_references_that_hold_a_spare_value_are_told(tmp_path: Path) -> None:
    scheme = LabelScheme.from_mapping({"whole": [1, 2], "pen": [1], "core": [2]}).written
    save(tmp_path / "ref" / "c.nii.gz", np.where(ARRAY == 2, 3, ARRAY).astype(np.uint8))
    save(tmp_path / "pred" / "c.nii.gz", ARRAY)
    result = evaluate(tmp_path / "pred", tmp_path / "ref", labels=scheme)
    assert "spare_values" in {f.kind for f in result.findings}


def test_the_conventions_of_boundary_and_lesions_are_flags_of_the_command(tmp_path: Path) -> None:
    save(tmp_path / "ref" / "c.nii.gz", ARRAY)
    save(tmp_path / "pred" / "c.nii.gz", ARRAY)
    flags = ["--boundary", "1.5", "--lesion-iou", "0.3", "--brats-dilation", "1", "--brats-min-mm3", "2"]
    places = [str(tmp_path / name) for name in ("pred", "ref")]
    done = CliRunner().invoke(app, ["evaluate", *places, "-o", str(tmp_path / "out"), *flags])
    assert done.exit_code == 0, done.output
    conventions = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert all(text in json.dumps(conventions) for text in ('"boundary": 1.5', '"lesion_iou": 0.3'))
