"""What a report shows beside scores and cases."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scenes import SHAPE, box, folders, save

from medseg.evaluation import evaluate
from medseg.evaluation.compare import compare
from medseg.evaluation.confusion import case_confusion, confusion_summary
from medseg.evaluation.summary import Confusion, FrocCurve
from medseg.evaluation.tables import NOTHING, report_tables
from medseg.labels import LabelScheme
from medseg.metrics.label_maps import LabelMaps


def test_confusion_counts_which_value_was_taken_for_which() -> None:
    ref, pred = np.zeros((4, 5), np.uint8), np.zeros((4, 5), np.uint8)
    ref[1, 1:4], pred[1, 1:3], pred[1, 3], pred[2, 2] = 1, 1, 2, 2
    found = case_confusion(LabelMaps.of(pred, ref, (1.0, 1.0), (1, 2)))
    # Of 20 pixels: two 1 kept, one 1 taken for 2, one 2 where nothing is, 16 background.
    assert found == {(1, 1): 2, (1, 2): 1, (0, 2): 1, (0, 0): 16}
    summary = confusion_summary([found, found], LabelScheme.from_mapping({"lung": 1, "tumour": 2}))
    assert summary.names == ("background", "lung", "tumour")
    assert summary.voxels == ((32, 0, 2), (0, 4, 2), (0, 0, 0))


def test_ignored_voxels_are_in_no_confusion() -> None:
    ref, pred = np.array([[9, 1, 1, 0]], np.uint8), np.array([[1, 1, 0, 0]], np.uint8)
    found = case_confusion(LabelMaps.of(pred, ref, (1.0, 1.0), (1,), ignore=9))
    assert found == {(1, 1): 1, (1, 0): 1, (0, 0): 1}


def test_values_of_regions_are_named_by_their_regions() -> None:
    scheme = LabelScheme.from_mapping({"WT": [1, 2], "TC": [1]})
    assert confusion_summary([{(1, 2): 3}], scheme).names == ("background", "1 (WT, TC)", "2 (WT)")


def test_the_table_of_confusion_gives_shares_of_the_reference(tmp_path: Path) -> None:
    confusion = Confusion((0, 1, 2), ("background", "a", "b"), ((9, 1, 0), (1, 2, 1), (0, 0, 0)))
    summary = replace(evaluate(*folders(tmp_path, {"a": 8, "b": 9})).summary, confusion=confusion)
    (table,) = report_tables([], summary, [])["Confusion between labels"]
    assert table.head == ("Reference", "background", "a", "b", "Voxels")
    assert [cell.text for cell in table.rows[1]] == ["a", "25.00%", "50.00%", "25.00%", "4"]
    assert [cell.text for cell in table.rows[2]] == ["b", *[NOTHING] * 3, "0"]


def test_of_many_labels_the_largest_confusions_are_listed(tmp_path: Path) -> None:
    voxels = np.diag(np.full(14, 100))
    voxels[3, 5], voxels[7, 0] = 20, 50
    names = ("background", *(f"label {n}" for n in range(1, 14)))
    confusion = Confusion(tuple(range(14)), names, tuple(map(tuple, voxels.tolist())))
    summary = replace(evaluate(*folders(tmp_path, {"a": 8, "b": 9})).summary, confusion=confusion)
    (table,) = report_tables([], summary, [])["Confusion between labels"]
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["label 7", "background", "33.33%", "50"],
        ["label 3", "label 5", "16.67%", "20"],
    ]


def test_the_froc_table_reads_the_curve_at_the_usual_rates(tmp_path: Path) -> None:
    curve = FrocCurve(0.857, (0.0, 0.0, 0.5, 0.5), (0.0, 0.5, 0.5, 1.0))
    summary = replace(evaluate(*folders(tmp_path, {"a": 8, "b": 9})).summary, froc={"tumour": curve})
    (table,) = report_tables([], summary, [])["FROC"]
    assert [cell.text for cell in table.rows[0]] == ["tumour", "0.500", "0.500", *["1.000"] * 5, "0.857"]


def test_subgroups_and_the_worst_cases_stand_in_the_report(tmp_path: Path) -> None:
    lengths = {f"case{n}": 10 - (n == 3) * 8 for n in range(8)}
    pred, ref = folders(tmp_path, lengths)
    (tmp_path / "cases.csv").write_text(
        "case,scanner\n" + "".join(f"{c},{'AB'[n % 2]}\n" for n, c in enumerate(lengths))
    )
    result = evaluate(pred, ref, out=tmp_path / "out", cases=tmp_path / "cases.csv", labels={"lung": 1})
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert result.report and "By scanner" in text and "Outliers: far from the other cases" in text
    # Twice 2 x 4 x 4 voxels in common, of 2 x 4 x 4 and 10 x 4 x 4.
    assert '<th scope="row" data-sort="">case3</th>' in text and "0.333" in text


def test_a_demonstration_says_so_first_in_text_summary_and_report(tmp_path: Path) -> None:
    pred, ref = folders(tmp_path, {"one": 9})
    result = evaluate(pred, ref, out=tmp_path / "out", demonstration="one image only")
    assert result.text().startswith("DEMONSTRATION, no held-out patient: one image only")
    assert result.summary["demonstration"] == "one image only"
    assert '<section class="warning" role="alert">Demonstration, no held-out patient: one image only.' in (
        tmp_path / "out" / "report.html"
    ).read_text(encoding="utf-8")


def test_a_comparison_names_the_demonstrations_in_it(tmp_path: Path) -> None:
    pred, ref = folders(tmp_path, {"one": 9, "two": 8})
    evaluate(pred, ref, out=tmp_path / "first", demonstration="one image only")
    evaluate(pred, ref, out=tmp_path / "second")
    notes = compare([tmp_path / "first", tmp_path / "second"], tmp_path / "both").notes
    assert [note for note in notes if "demonstration" in note] == [
        "first: a demonstration, no patient was held out: one image only"
    ]


def test_a_partial_evaluation_carries_the_same_warning(tmp_path: Path) -> None:
    pred, ref = folders(tmp_path, {"one": 9, "two": 8})
    (pred / "two.nii.gz").unlink()
    result = evaluate(pred, ref, out=tmp_path / "out", missing="empty")
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert not result.summary["complete"] and 'role="alert">Not complete:' in text
    assert 'role="alert"' not in complete_report(tmp_path)


def test_many_metrics_of_one_label_stand_one_below_the_other(tmp_path: Path) -> None:
    text = complete_report(tmp_path)
    assert '<th scope="col">Label</th>' in text
    pred, ref = folders(tmp_path / "wide", {"one": 9})
    evaluate(pred, ref, "vessel", tmp_path / "wide" / "out")
    assert '<th scope="col">Metric</th>' in (tmp_path / "wide" / "out" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("task", ["vessel", "lung", "tumor"])
def test_what_a_task_lists_stands_in_the_report(tmp_path: Path, task: str) -> None:
    name = {"vessel": "Centreline", "lung": "Measures of the task", "tumor": "Lesions"}[task]
    pred, ref = folders(tmp_path, {"one": 9})
    save(tmp_path / "images" / "one.nii.gz", np.full(SHAPE, 40, np.int16) - 800 * box(10).astype(np.int16))
    evaluate(pred, ref, task, tmp_path / "out", {"it": 1}, tmp_path / "images")
    assert f"<h2>{name}</h2>" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def complete_report(folder: Path) -> str:
    """Of one case."""
    pred, ref = folders(folder / "complete", {"one": 9})
    evaluate(pred, ref, out=folder / "complete" / "out", labels={"lung": 1})
    return (folder / "complete" / "out" / "report.html").read_text(encoding="utf-8")
