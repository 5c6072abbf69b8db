"""Input that cannot be scored as it is: named, with what to do; what is not whole never looks whole."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scenes import SHAPE, box, folders, save

from medseg.errors import ConfigError, DatasetError, GeometryError, PartialFailure, ReadError
from medseg.evaluation import evaluate


def test_swapped_folders_are_known_by_the_ledger(tmp_path: Path) -> None:
    pred, ref = folders(tmp_path, {"a": 8})
    (pred / "ledger.jsonl").write_text(json.dumps({"case": "a", "state": "done"}) + "\n")
    evaluate(pred, ref)
    with pytest.raises(DatasetError, match=r"ledger\.jsonl.*look swapped"):
        evaluate(ref, pred)


def test_the_same_folder_twice_is_a_note(tmp_path: Path) -> None:
    _, ref = folders(tmp_path, {"a": 8})
    result = evaluate(ref, ref)
    assert [f.kind for f in result.findings] == ["same_files"]


def test_no_name_in_common_shows_both_sides(tmp_path: Path) -> None:
    pred, ref = folders(tmp_path, {"a": 8, "b": 8})
    for path in list(pred.iterdir()):
        path.rename(pred / f"other_{path.name}")
    with pytest.raises(DatasetError, match=r"no name in common.*other_a, other_b.*2 cases \(a, b\)"):
        evaluate(pred, ref)


def test_probabilities_in_place_of_masks_are_named(tmp_path: Path) -> None:
    pred, ref = folders(tmp_path, {"a": 8})
    (pred / "a.nii.gz").unlink()
    np.savez(pred / "a.npz", probabilities=np.zeros((1, *SHAPE), np.float16))
    with pytest.raises(DatasetError, match=r"probabilities.*--probabilities"):
        evaluate(pred, ref)
    save(pred / "a.nii.gz", np.full(SHAPE, 0.3, np.float32))
    with pytest.raises(DatasetError, match=r"a\.nii\.gz"):
        evaluate(pred, ref)


def test_missing_predictions_count_as_empty_on_request_and_never_look_complete(tmp_path: Path) -> None:
    pred, ref = folders(tmp_path, {"a": 10, "b": 10})
    (pred / "b.nii.gz").unlink()
    (pred / "ledger.jsonl").write_text('{"case": "b", "state": "failed"}\nnot json\n')
    with pytest.raises(DatasetError, match=r"1 reference \(b\) \(1 of them failed.*--missing empty"):
        evaluate(pred, ref)
    result = evaluate(pred, ref, missing="empty", out=tmp_path / "out")
    assert result.summary["labels"]["1"]["dice"]["mean"] == 0.5
    assert result.summary["complete"] is False and result.summary["missing_predictions"] == ["b"]
    assert result.text().startswith("NOT COMPLETE")
    assert "counted as empty masks" in (tmp_path / "out" / "report.html").read_text()
    with pytest.raises(PartialFailure, match="counted as empty") as raised:
        result.raise_for_missing()
    assert raised.value.exit_code == 4
    with pytest.raises(ConfigError, match="'refuse' or 'empty'"):
        evaluate(pred, ref, missing="skip")  # type: ignore[arg-type]


def test_a_subset_by_csv_is_allowed_and_says_so(tmp_path: Path) -> None:
    pred, ref = folders(tmp_path, {"a": 10, "b": 10})
    table = tmp_path / "cases.csv"
    table.write_text("case\na\n")
    result = evaluate(pred, ref, cases=table)
    assert result.summary["complete"] is False and result.text().startswith("NOT COMPLETE")
    result.raise_for_missing()
    table.write_text("case\na\na\n")
    with pytest.raises(DatasetError, match="more than once"):
        evaluate(pred, ref, cases=table)


def test_one_bad_case_leaves_no_files(tmp_path: Path) -> None:
    pred, ref = folders(tmp_path, {"a": 10, "b": 10})
    save(pred / "b.nii.gz", box(4), np.diag([3.0, 1.0, 2.0, 1.0]))
    with pytest.raises(GeometryError, match=r"'b'.*spacing \(3, 1, 2\) mm.*against.*spacing \(1, 1, 2\) mm"):
        evaluate(pred, ref, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_files_beside_the_masks_must_fit(tmp_path: Path) -> None:
    pred, ref = folders(tmp_path, {"a": 10})
    labels = {"lung": 1}
    second = save(tmp_path / "second" / "a.nii.gz", box(9), np.diag([2.0, 1.0, 2.0, 1.0])).parent
    with pytest.raises(GeometryError, match="second reference"):
        evaluate(pred, ref, labels=labels, second_reference=second)
    with pytest.raises(DatasetError, match="no such folder"):
        evaluate(pred, ref, labels=labels, fov=tmp_path / "nowhere")
    np.savez(tmp_path / "a.npz", probabilities=np.full((1, *SHAPE), 7.0))
    with pytest.raises(ReadError, match="logits"):
        evaluate(pred, ref, task="lung", probabilities=tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", probabilities=np.zeros((1, 2, 2, 2)))
    with pytest.raises(GeometryError, match=r"shape \(1, 2, 2, 2\)"):
        evaluate(pred, ref, task="lung", probabilities=tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", other=np.zeros(3))
    with pytest.raises(ReadError, match="'probabilities'"):
        evaluate(pred, ref, task="lung", probabilities=tmp_path / "a.npz")
    (tmp_path / "one").mkdir()
    result = evaluate(pred, ref, labels=labels, second_reference=tmp_path / "one")
    assert [f.kind for f in result.findings] == ["no_second_reference"]


def test_a_task_that_does_not_guess_labels_asks_for_them(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--labels"):
        evaluate(*folders(tmp_path, {"a": 10}), task="tumor")
