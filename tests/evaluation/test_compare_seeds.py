"""Models that were trained with several seeds, margins of non-inferiority, and the table for a paper."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from scenes import folders

from medseg.errors import ConfigError
from medseg.evaluation import compare, evaluate
from medseg.evaluation.stored_evaluation import by_model

CASES = [f"c{n}" for n in range(10)]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One evaluation, whose scores the tests put in place of others."""
    root = tmp_path_factory.mktemp("template")
    pred, ref = folders(root / "data", dict.fromkeys(CASES, 9))
    evaluate(pred, ref, out=root / "report", labels={"lung": 1}, metrics=("dice", "iou", "hd95", "assd"))
    return root / "report"


def evaluation(template: Path, folder: Path, cases: int = 10, **scores: list[float]) -> Path:
    """An evaluation with these scores by metric, repeated over the cases."""
    folder.mkdir(parents=True)
    with (template / "cases.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["case"] in CASES[:cases]]
    for row in rows:
        if row["metric"] in scores:
            each = scores[row["metric"]]
            row["value"] = repr(each[CASES.index(row["case"]) % len(each)])
    with (folder / "cases.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    summary = json.loads((template / "summary.json").read_text())
    for key in ("groups", "reference_hashes"):
        summary[key] = {case: summary[key][case] for case in CASES[:cases]}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def seeds(template: Path, root: Path, *means: float) -> list[Path]:
    """A training for each mean Dice, the same in all cases."""
    return [evaluation(template, root / f"seed{n}", dice=[mean]) for n, mean in enumerate(means)]


@pytest.fixture
def two(template: Path, tmp_path: Path) -> tuple[Path, Path]:
    good = evaluation(template, tmp_path / "good", dice=[0.9], iou=[0.8], hd95=[1.0], assd=[0.5])
    poor = evaluation(template, tmp_path / "poor", dice=[0.7, 0.6], iou=[0.5, 0.4], hd95=[3.0, 4.0], assd=[1.0, 2.0])
    return good, poor


def test_seeds_of_a_model_count_as_their_mean(template: Path, tmp_path: Path) -> None:
    models = {
        "unet": seeds(template, tmp_path / "u", 0.9, 0.8),
        "deeplab": seeds(template, tmp_path / "d", 0.7, 0.6, 0.5),
    }
    result = compare(models, out=tmp_path / "out", metrics=["dice"])
    (row,) = result.rows
    assert result.models == ("unet", "deeplab") and (row.n_seeds_first, row.n_seeds_second) == (2, 3)
    assert (row.mean_first, row.mean_second, row.difference) == pytest.approx((0.85, 0.6, 0.25)) and row.n_cases == 10
    assert result.complete and any("p values and the ranking are of these trainings" in note for note in result.notes)
    assert result.values["lung", "dice"] == {"unet": pytest.approx([0.85] * 10), "deeplab": pytest.approx([0.6] * 10)}
    assert result.seed_means["lung", "dice"] == {
        "unet": pytest.approx((0.9, 0.8)),
        "deeplab": pytest.approx((0.7, 0.6, 0.5)),
    }
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [len(each) for each in summary["seeds"].values()] == [2, 3]
    assert "2 models" in summary["method"] and "unet with 2, deeplab with 3" in summary["method"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "deeplab, 3 seed(s)" in page and "Annals of Applied Statistics" in page and "SD 0.0707" in page


def test_seeds_that_differ_widen_the_interval_although_all_patients_agree(template: Path, tmp_path: Path) -> None:
    same = {"a": seeds(template, tmp_path / "a", 0.8, 0.8), "b": seeds(template, tmp_path / "b", 0.7, 0.7)}
    apart = {"c": seeds(template, tmp_path / "c", 0.9, 0.7), "d": seeds(template, tmp_path / "d", 0.8, 0.6)}
    (certain,), (varied,) = (compare(each, metrics=["dice"]).rows for each in (same, apart))
    assert certain.ci_low == pytest.approx(0.1) and certain.ci_high == pytest.approx(0.1)
    # Drawn seeds give 0.7 - 0.8 = -0.1 to 0.9 - 0.6 = 0.3, each in one of 16 resamples: within the outer 2.5%.
    assert (varied.ci_low, varied.ci_high) == pytest.approx((-0.1, 0.3))


def test_one_seed_each_is_compared_as_before_whether_it_is_named_or_not(two: tuple[Path, Path]) -> None:
    plain, named = compare(two), compare({"good": [two[0]], "poor": [two[1]]})
    assert plain.rows == named.rows and plain.ranking == named.ranking and plain.values == named.values


def test_the_command_takes_seeds_as_name_and_folders(two: tuple[Path, Path], tmp_path: Path) -> None:
    odd = tmp_path / "lr=0.1"
    shutil.copytree(two[0], odd)
    assert by_model([str(odd), str(two[1])]) == [str(odd), str(two[1])]
    assert by_model([f"unet={two[0]}, {odd}", str(two[1])]) == {"unet": [str(two[0]), str(odd)], "poor": [str(two[1])]}
    for wrong in (["=a", "b=c"], ["a=b", "a=c"]):
        with pytest.raises(ConfigError, match="names that differ"):
            by_model(wrong)
    with pytest.raises(ConfigError, match="unet has no folder"):
        compare(by_model(["unet=", str(two[1])]))
    with pytest.raises(ConfigError, match="given twice"):
        compare({"a": [two[0], two[1]], "b": [two[0]]})
    with pytest.raises(ConfigError, match="two models or more"):
        compare({"a": list(two)})


def test_a_margin_is_judged_by_the_worse_end_of_the_interval_in_words(template: Path, tmp_path: Path) -> None:
    # The good model is better by 0 or 0.06 by turns, by 0.03 on average.
    good = evaluation(template, tmp_path / "good", dice=[0.9])
    near = evaluation(template, tmp_path / "near", dice=[0.84, 0.9])
    result = compare([good, near], out=tmp_path / "out", metrics=["dice"], margin=0.04)
    (row,) = result.rows
    assert row.difference == pytest.approx(0.03) and row.ci_low > 0 and 0.04 < row.ci_high < 0.06
    assert (row.margin, row.first_non_inferior, row.second_non_inferior) == (0.04, True, False)
    text = result.text()
    assert f"good is non-inferior to near: better by more than {row.ci_low:.3g} (margin 0.04)" in text
    assert f"near is not shown to be non-inferior to good: it may be worse by up to {row.ci_high:.3g}" in text
    (wide,) = compare([good, near], metrics=["dice"], margin=0.06).rows
    assert wide.first_non_inferior and wide.second_non_inferior
    assert "Non-inferiority" in (tmp_path / "out" / "report.html").read_text()
    assert "ICH E9" in (tmp_path / "out" / "methods.txt").read_text()
    assert result.summary["non_inferiority"][0].startswith("lung Dice: good is non-inferior to near")
    with (tmp_path / "out" / "compare.csv").open(newline="") as file:
        (line,) = csv.DictReader(file)
    assert (line["margin"], line["first_non_inferior"], line["second_non_inferior"]) == ("0.04", "True", "False")


def test_a_margin_of_a_distance_is_judged_the_other_way_round(two: tuple[Path, Path]) -> None:
    good, poor = two
    (row,) = compare([good, poor], metrics=["hd95"], margin=1.0).rows
    assert row.difference == -2.5 and row.first_non_inferior and not row.second_non_inferior
    first, second = row.verdicts()
    assert first.bound == row.ci_high and second.bound == -row.ci_low


def test_a_margin_applies_to_metrics_of_its_unit_only(two: tuple[Path, Path]) -> None:
    rows = {row.metric: row for row in compare(two, metrics=["dice", "iou", "hd95"], margin=0.01).rows}
    assert rows["dice"].margin == rows["iou"].margin == 0.01 and rows["hd95"].margin is None
    assert rows["hd95"].first_non_inferior is None
    with pytest.raises(ConfigError, match="choose one metric"):
        compare(two, metrics=["hd95", "assd"], margin=0.01)
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="positive number"):
            compare(two, metrics=["dice"], margin=wrong)


def test_with_too_few_patients_nothing_is_said_about_a_margin(template: Path, tmp_path: Path) -> None:
    pair = [evaluation(template, tmp_path / name, cases=3, dice=[n]) for name, n in (("a", 0.9), ("b", 0.8))]
    result = compare(pair, metrics=["dice"], margin=0.01)
    assert result.rows[0].first_non_inferior is None and "non-inferior to" not in result.text()


def test_the_latex_table_has_what_the_comparison_found(template: Path, tmp_path: Path) -> None:
    models = {"u_net & co": seeds(template, tmp_path / "u", 0.9, 0.8), "50%": seeds(template, tmp_path / "x", 0.7)}
    result = compare(models, out=tmp_path / "out", metrics=["dice"])
    assert any(note.startswith("50%: one training") for note in result.notes)
    lines = (tmp_path / "out" / "table.tex").read_text().splitlines()
    assert r"Label & Metric & u\_net \& co & 50\% \\" in lines
    assert r"lung & Dice & \textbf{0.850} $\pm$ 0.071 & 0.700 \\" in lines
    # Ten equal differences: 2 of 1024 sign patterns are as extreme. Seeds drawn: 0.8 - 0.7 to 0.9 - 0.7.
    assert r"lung & Dice & u\_net \& co $-$ 50\% & $+0.150$ $[+0.100, +0.200]$ & 0.002 \\" in lines
    assert sum(r"\begin{tabular}" in line for line in lines) == sum(r"\end{tabular}" in line for line in lines) == 2
