"""A report of one case shows its scores, and nothing that needs several cases."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from scenes import box, folders

from medseg.evaluation import EvaluateOptions, compare, evaluate

SEVERAL = (
    "too few", "95% interval by patient", "median", "Outliers", "worst cases", "Bland-Altman", "quartiles", "FROC",
    "p (permutation)", "mIoU, mean of cases", "Mean over",
)  # fmt: skip


def report(tmp_path: Path, lengths: dict[str, int]) -> str:
    pred, ref = folders(tmp_path, lengths)
    for case, length in lengths.items():
        np.savez(pred / f"{case}.npz", probabilities=0.9 * box(length)[None].astype(np.float16))
    options = EvaluateOptions(task="tumor", labels={"tumor": 1}, probabilities=pred, second_reference=ref)
    evaluate(pred, ref, out=tmp_path / "out", options=options)
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    # The text for the methods section and the definitions are about the evaluation, not this table or that.
    return re.sub(r'src="data:[^"]*"', "", text.split('id="method"')[0])


def test_a_report_of_one_case_leaves_out_what_needs_several(tmp_path: Path) -> None:
    text = report(tmp_path, {"a": 8})
    assert [words for words in SEVERAL if words in text] == []
    assert "Scores of the case" in text and "0.889" in text and "<h2>Lesions</h2>" in text


def test_a_report_of_several_cases_shows_them(tmp_path: Path) -> None:
    text = report(tmp_path, {"a": 8, "b": 9, "c": 7})
    assert [words for words in SEVERAL if words not in text] == ["Outliers"]


def test_a_distance_of_one_case_to_a_missed_label_is_infinite(tmp_path: Path) -> None:
    pred, ref = folders(tmp_path, {"a": 0})
    evaluate(pred, ref, out=tmp_path / "out", metrics=("hd95",))
    assert "∞" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_a_comparison_on_one_case_has_scores_but_no_ranking_and_no_tests(tmp_path: Path) -> None:
    pred, ref = folders(tmp_path, {"a": 8})
    evaluate(pred, ref, out=tmp_path / "first")
    evaluate(ref, ref, out=tmp_path / "second")
    compare([tmp_path / "first", tmp_path / "second"], tmp_path / "both")
    text = (tmp_path / "both" / "report.html").read_text(encoding="utf-8").split('id="method"')[0]
    assert "0.889" in text and "Ranking by" not in text and "Holm" not in text and "too few" not in text
