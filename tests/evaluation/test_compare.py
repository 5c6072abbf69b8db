"""Several models on the same cases."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from scenes import box, folders, save

from medseg.errors import ConfigError, DatasetError
from medseg.evaluation import compare, evaluate

CASES = [f"c{n}" for n in range(10)]


def evaluation(root: Path, name: str, lengths: dict[str, int], ref_length: int = 10, **options: object) -> Path:
    """Evaluate boxes of these lengths; returns the folder."""
    pred, ref = folders(root / f"data_{name}", lengths, ref_length)
    evaluate(pred, ref, out=root / name, labels={"lung": 1}, **options)  # type: ignore[arg-type]
    return root / name


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """`good` finds 9 of 10 slices, `poor` 5 to 7."""
    good = evaluation(tmp_path, "good", dict.fromkeys(CASES, 9))
    poor = evaluation(tmp_path, "poor", {c: 5 + n % 3 for n, c in enumerate(CASES)})
    return good, poor


def test_the_better_model_is_named_with_effect_test_and_rank(two: tuple[Path, Path]) -> None:
    result = compare(two, metrics=["dice", "hd95"])
    dice, hd95 = result.rows
    assert (dice.first, dice.second, dice.better, hd95.better) == ("good", "poor", "good", "good")
    expected = [18 / 19 - 2 * n / (n + 10) for n in (5 + i % 3 for i in range(10))]
    assert dice.difference == pytest.approx(sum(expected) / 10)
    assert dice.ci_low is not None and dice.ci_low > 0
    assert dice.p_permutation == dice.p_permutation_holm == 2 / 1024
    assert result.ranking[0].by == "all" and result.ranking[0].first == ("good",)
    assert result.ranking[0].ranking.first_share == (1.0, 0.0)
    assert result.complete and not result.notes


def test_p_values_are_corrected_over_the_pairs_of_a_metric(two: tuple[Path, Path], tmp_path: Path) -> None:
    third = evaluation(tmp_path, "third", dict.fromkeys(CASES, 8))
    rows = compare([*two, third], metrics=["dice", "iou"]).rows
    assert len(rows) == 6
    assert all(r.p_permutation_holm == pytest.approx(3 * 2 / 1024) for r in rows)


def test_files_and_text(two: tuple[Path, Path], tmp_path: Path) -> None:
    result = compare(two, out=tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        *("compare.csv", "methods.txt", "report.html", "summary.json", "table.tex"),
    ]
    with (tmp_path / "out" / "compare.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(result.rows) and float(rows[0]["difference"]) == result.rows[0].difference
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["format_version"] == 1 and summary["n_cases"] == 10 and summary == result.summary
    page = (tmp_path / "out" / "report.html").read_text()
    assert "good" in page and "Holm" in page and "data:image/png" in page
    assert "1. good" in result.text() and "report: " in result.text()
    first = (tmp_path / "out" / "report.html").read_bytes()
    compare(two, out=tmp_path / "out")
    assert (tmp_path / "out" / "report.html").read_bytes() == first


def test_other_references_are_refused(two: tuple[Path, Path], tmp_path: Path) -> None:
    other = evaluation(tmp_path, "other", dict.fromkeys(CASES, 9), ref_length=11)
    with pytest.raises(DatasetError, match=r"references of 10 cases .* differ"):
        compare([two[0], other])


def test_the_shared_cases_are_compared_and_the_rest_is_named(two: tuple[Path, Path], tmp_path: Path) -> None:
    fewer = evaluation(tmp_path, "fewer", dict.fromkeys(CASES[:5], 7))
    result = compare([two[0], fewer])
    assert result.cases == tuple(CASES[:5]) and not result.complete
    assert any("c5, c6, c7, c8, c9" in note for note in result.notes) and any("too few" in n for n in result.notes)
    assert result.text().startswith("NOT COMPLETE") and result.rows[0].p_permutation is None
    other = evaluation(tmp_path, "strange", {"x": 7})
    with pytest.raises(DatasetError, match="no case in common"):
        compare([two[0], other])


def test_other_conventions_patients_and_labels_are_refused(two: tuple[Path, Path], tmp_path: Path) -> None:
    lengths = dict.fromkeys(CASES, 9)
    with pytest.raises(DatasetError, match="tolerance_mm"):
        compare([two[0], evaluation(tmp_path, "wide", lengths, tolerance_mm=5.0)])
    table = tmp_path / "cases.csv"
    table.write_text("case,group\n" + "".join(f"{c},p\n" for c in CASES))
    with pytest.raises(DatasetError, match="other patients"):
        compare([two[0], evaluation(tmp_path, "grouped", lengths, cases=table)])
    pred, ref = folders(tmp_path / "data_renamed", lengths)
    evaluate(pred, ref, out=tmp_path / "renamed", labels={"liver": 1})
    with pytest.raises(DatasetError, match="labels mean other values"):
        compare([two[0], tmp_path / "renamed"])


def test_a_missed_mask_counts_as_the_image_diagonal(two: tuple[Path, Path], tmp_path: Path) -> None:
    pred, ref = folders(tmp_path / "data_miss", dict.fromkeys(CASES, 9))
    save(pred / "c0.nii.gz", box(3, value=2))
    evaluate(pred, ref, out=tmp_path / "miss", labels={"lung": 1})
    row = compare([two[0], tmp_path / "miss"], metrics=["hd95"]).rows[0]
    assert row.better == "good" and row.mean_second == pytest.approx((9 * 1.0 + (14**2 + 16**2 + 16**2) ** 0.5) / 10)


def test_what_is_no_evaluation_is_named(two: tuple[Path, Path], tmp_path: Path) -> None:
    good, poor = two
    with pytest.raises(ConfigError, match="two models or more"):
        compare([good])
    with pytest.raises(ConfigError, match="given twice"):
        compare([good, good])
    with pytest.raises(ConfigError, match="one of the evaluations"):
        compare(two, out=good)
    with pytest.raises(ConfigError, match=r"\['magic'\] cannot be compared; all evaluations have dice"):
        compare(two, metrics=["magic"])
    run = tmp_path / "run"
    (run / "model").mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"run without an evaluation.*medseg predict"):
        compare([good, run])
    shutil.copytree(poor, run / "evaluation")
    assert compare([good, run]).models == ("good", "run")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="contains no evaluation"):
        compare([good, tmp_path / "empty"])
    (poor / "cases.csv").write_text("case,label,metric,value\n")
    with pytest.raises(DatasetError, match="evaluate again"):
        compare(two)
    (poor / "summary.json").write_text("{}")
    with pytest.raises(DatasetError, match="another version"):
        compare(two)


@pytest.mark.parametrize("content", ["[]", '"text"', "[" * 100_000, '{"format_version": 1, "reference_hashes": 3}'])
def test_a_summary_that_evaluate_never_wrote_is_refused(content: str, two: tuple[Path, Path]) -> None:
    (two[0] / "summary.json").write_text(content)
    with pytest.raises(DatasetError, match="evaluate again"):
        compare(two)
