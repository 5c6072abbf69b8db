"""References without some labels: a column `annotated` says which labels of a case are scored."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from scenes import box, save

from medseg.errors import DatasetError
from medseg.evaluation import evaluate
from medseg.evaluation.stored_evaluation import read_models

LABELS = {"liver": 1, "spleen": 2}


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """Two cases; the reference of b has no spleen, but the prediction has."""
    both = box(6) + np.roll(box(6, 2), 8, axis=2 - 1)
    for case, ref in (("a", both), ("b", box(8))):
        save(tmp_path / "pred" / f"{case}.nii.gz", both)
        save(tmp_path / "ref" / f"{case}.nii.gz", ref)
    (tmp_path / "cases.csv").write_text("case,annotated\na,\nb,liver\n")
    return tmp_path


def scored(scene: Path, **keywords: object):
    return evaluate(scene / "pred", scene / "ref", labels=LABELS, cases=scene / "cases.csv", **keywords)


def test_only_annotated_labels_of_a_case_are_scored(scene: Path) -> None:
    result = scored(scene, out=scene / "out")
    with (scene / "out" / "cases.csv").open() as file:
        rows = {(row["case"], row["label"]) for row in csv.DictReader(file)}
    assert {("a", "liver"), ("a", "spleen"), ("b", "liver")} <= rows
    assert ("b", "spleen") not in rows
    assert result.summary.absent == {}  # without the column, the spleen of b is a false positive
    assert result.summary.labels["spleen"]["dice"].n == 1
    assert result.summary.labels["liver"]["dice"].mean == pytest.approx((1 + 12 / 14) / 2)
    summary = json.loads((scene / "out" / "summary.json").read_text())
    assert summary["scored_labels"] == {"b": ["liver"]}
    assert [f["message"] for f in summary["findings"] if f["kind"] == "partial_labels"] == [
        "1 case (b) scored by the labels only that are annotated there (column annotated), as b by liver"
    ]
    plain = evaluate(scene / "pred", scene / "ref", labels=LABELS)
    assert plain.summary.absent["spleen"].n == 1
    assert "scored_labels" not in plain.summary.record


def test_a_case_without_all_labels_may_come_first(scene: Path) -> None:
    (scene / "cases.csv").write_text("case,annotated\na,liver\nb,liver\n")
    with pytest.raises(DatasetError, match="'spleen'"):
        scored(scene)
    save(scene / "ref" / "a.nii.gz", box(8))
    result = scored(scene, out=scene / "out")
    assert list(result.summary.labels) == ["liver"]


def test_pooled_scores_and_confusion_leave_out_what_is_not_annotated(scene: Path) -> None:
    summary = scored(scene).summary
    assert summary.miou == pytest.approx((1 + (2 * 6) / (6 + 8)) / 2)
    assert sum(map(sum, summary.confusion.voxels)) == 14 * 16 * 8  # of case a alone


def test_labels_named_by_their_number_may_be_named_too(scene: Path) -> None:
    (scene / "cases.csv").write_text("case;annotated\nb;1\na;\n")
    summary = evaluate(scene / "pred", scene / "ref", cases=scene / "cases.csv").summary
    assert summary.labels["2"]["dice"].n == 1
    assert summary.absent == {}


def test_a_task_and_a_second_reference_leave_it_out_too(scene: Path) -> None:
    result = scored(scene, task="tumor", second_reference=scene / "pred", out=scene / "task")
    assert {row.label for row in result.cases if row.case == "b"} == {"", "liver"}
    assert result.summary.others["second reference"].labels["spleen"]["dice"].n == 1


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("livre", "'livre' annotated in case 'b'; the labels are liver, spleen; did you mean 'liver'"),
        (
            "spleen",
            "the reference of case 'b' holds the label 'liver', which the list of cases does not call",
        ),
        (";", "case 'b': ';' names no label"),
    ],
)
def test_a_list_that_does_not_fit_is_refused(scene: Path, cell: str, message: str) -> None:
    (scene / "cases.csv").write_text(f'case,annotated\na,\nb,"{cell}"\n')
    with pytest.raises(DatasetError, match=message):
        scored(scene)


def test_evaluations_with_partial_labels_can_be_compared(scene: Path) -> None:
    for name in ("one", "two"):
        scored(scene, out=scene / name)
    model, _ = read_models([scene / "one", scene / "two"])
    first = model.seeds[0]
    assert first.holds("a", "spleen")
    assert not first.holds("b", "spleen")
