"""Evaluation of folders: matching, labels, empty policy, files and report."""

from __future__ import annotations

import base64
import csv
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from medseg.errors import ConfigError, DatasetError, GeometryError
from medseg.evaluation import Evaluation, evaluate
from medseg.io import write
from medseg.volume import Volume

AFFINE = np.diag([-1.0, 1.0, 2.0, 1.0])
BOX = np.s_[3:9, 4:10, 2:6]


def save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE, known: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write(Volume(array, affine, spacing_known=known), path)


def label_map(*boxes: tuple[tuple[slice, ...], int], shape: tuple[int, ...] = (14, 16, 8)) -> np.ndarray:
    array = np.zeros(shape, np.uint8)
    for box, value in boxes:
        array[box] = value
    return array


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Three cases: perfect, half, and one whose reference holds no tumour."""
    pred, ref = tmp_path / "pred", tmp_path / "ref"
    tumour = np.s_[10:12, 10:12, 2:4]
    save(ref / "a.nii.gz", label_map((BOX, 1), (tumour, 2)))
    save(pred / "a.nii.gz", label_map((BOX, 1), (tumour, 2)))
    save(ref / "b.nii.gz", label_map((BOX, 1), (tumour, 2)))
    save(pred / "b.nii.gz", label_map((np.s_[3:6, 4:10, 2:6], 1)))
    save(ref / "c.nii.gz", label_map((BOX, 1)))
    save(pred / "c.nii.gz", label_map((BOX, 1), (np.s_[0:2, 0:2, 0:2], 2), (np.s_[12:13, 0:1, 7:8], 2)))
    return pred, ref


def values(result: Evaluation, case: str, label: str) -> dict[str, float]:
    return {r.metric: r.value for r in result.cases if (r.case, r.label) == (case, label)}


def test_means_run_over_the_cases_whose_reference_holds_the_label(folders: tuple[Path, Path]) -> None:
    result = evaluate(*folders, labels={"lung": 1, "tumour": 2})
    tumour = result.summary["labels"]["tumour"]
    assert (tumour["dice"]["n"], tumour["dice"]["mean"]) == (2, 0.5)
    diagonal = math.hypot(14, 16, 16)
    assert tumour["hd95"]["n_infinite"] == 1
    assert tumour["hd95"]["mean"] == pytest.approx(diagonal / 2)
    assert values(result, "b", "tumour")["hd95"] == math.inf
    assert values(result, "b", "")["diagonal_mm"] == pytest.approx(diagonal)
    assert result.summary["labels"]["lung"]["dice"]["mean"] == pytest.approx((1 + 2 / 3 + 1) / 3)
    assert result.summary["mean_dice"] == pytest.approx((0.5 + (1 + 2 / 3 + 1) / 3) / 2)
    assert tumour["dice"]["ci_low"] is None and "too few" in result.summary["interval"]["note"]


def test_cases_without_the_label_are_scored_apart(folders: tuple[Path, Path]) -> None:
    result = evaluate(*folders, labels={"lung": 1, "tumour": 2})
    assert list(result.summary["absent"]) == ["tumour"]
    absent = result.summary["absent"]["tumour"]
    assert (absent["n"], absent["n_clean"], absent["false_positive_count"]) == (1, 0, 2)
    assert absent["false_positive_ml"] == pytest.approx(9 * 2 / 1000)
    assert absent["specificity"] == pytest.approx(1 - 9 / (14 * 16 * 8))
    assert values(result, "c", "tumour")["dice"] == 0.0
    assert "specificity" not in values(result, "a", "tumour")


def test_miou_is_pooled_over_the_data_set_without_background(folders: tuple[Path, Path]) -> None:
    summary = evaluate(*folders, labels={"lung": 1, "tumour": 2}).summary
    lung, tumour = (144 + 72 + 144) / (3 * 144), 8 / (16 + 9)
    assert summary["miou"] == pytest.approx((lung + tumour) / 2)
    assert summary["miou_case_mean"] == pytest.approx((1 + 0.25 + 1) / 3)


def test_labels_come_from_the_references_where_none_are_given(folders: tuple[Path, Path]) -> None:
    result = evaluate(*folders)
    assert list(result.summary["labels"]) == ["1", "2"]
    assert math.isnan(
        values(evaluate(folders[0] / "a.nii.gz", folders[1] / "a.nii.gz", labels={"x": 7, "l": 1}), "a", "x")["dice"]
    )


def test_labels_come_from_the_file_beside_the_predictions(folders: tuple[Path, Path], tmp_path: Path) -> None:
    beside = folders[0] / "labels.json"
    beside.write_text(json.dumps({"format_version": 1, "labels": {"whole": [1, 2], "core": [2]}, "ignore": None}))
    assert list(evaluate(*folders).summary["labels"]) == ["whole", "core"]
    config = tmp_path / "run.yaml"
    config.write_text("data: {root: somewhere, labels: {lung: 1}, ignore: 2}\n")
    summary = evaluate(*folders, labels=config).summary
    assert list(summary["labels"]) == ["lung"]
    plain = tmp_path / "labels.yaml"
    plain.write_text("tumour: 2\n")
    assert list(evaluate(*folders, labels=plain).summary["labels"]) == ["tumour"]


def test_a_label_file_of_another_kind_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    for text in ("- 1\n- 2\n", "lung: one\n", "{", ""):
        wrong.write_text(text)
        with pytest.raises(ConfigError, match=r"wrong\.yaml"):
            evaluate(*folders, labels=wrong)
    with pytest.raises(ConfigError, match="cannot be read"):
        evaluate(*folders, labels=tmp_path / "absent.yaml")


def test_missing_predictions_are_named_and_extra_ones_noted(folders: tuple[Path, Path]) -> None:
    pred, ref = folders
    (pred / "ledger.jsonl").write_text("{}\n")
    save(pred / "z.nii.gz", label_map())
    result = evaluate(pred, ref)
    assert [f.kind for f in result.findings] == ["extra_predictions"]
    assert "z" in result.findings[0].message
    (pred / "b.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"no prediction .*1 reference \(b\)") as raised:
        evaluate(pred, ref)
    assert raised.value.exit_code == 3


def test_two_files_of_one_case_and_empty_folders_are_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    pred, ref = folders
    save(pred / "a.nrrd", label_map())
    with pytest.raises(DatasetError, match=r"both are the prediction of case 'a'"):
        evaluate(pred, ref)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="contains no reference masks"):
        evaluate(ref, tmp_path / "empty")
    with pytest.raises(DatasetError, match="no such file or folder"):
        evaluate(tmp_path / "nowhere", ref)


def test_cases_of_one_patient_are_grouped_by_a_csv(folders: tuple[Path, Path], tmp_path: Path) -> None:
    table = tmp_path / "cases.csv"
    table.write_text("case,group\na,p1\nb,p1\n")
    result = evaluate(*folders, cases=table)
    assert (result.summary["n_cases"], result.summary["n_patients"]) == (2, 1)
    assert [f.kind for f in result.findings] == ["cases_left_out"]
    table.write_text("case\na\nq\n")
    with pytest.raises(DatasetError, match="q"):
        evaluate(*folders, cases=table)
    table.write_text("name\na\n")
    with pytest.raises(DatasetError, match="column 'case'"):
        evaluate(*folders, cases=table)


def test_other_grids_are_refused_with_both_geometries_or_resampled_on_request(folders: tuple[Path, Path]) -> None:
    pred, ref = folders
    array = label_map((BOX, 1), (np.s_[10:12, 10:12, 2:4], 2))
    # Mirrored axes alone make no other grid; one slice less does.
    flipped = AFFINE @ np.array([[-1, 0, 0, 12], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    save(pred / "a.nii.gz", np.ascontiguousarray(array[::-1][1:]), flipped)
    with pytest.raises(GeometryError, match=r"orientation RAS.*against.*orientation LAS.*--resample-prediction"):
        evaluate(pred, ref)
    result = evaluate(pred, ref, resample_prediction=True)
    assert values(result, "a", "1")["dice"] == 1.0 and values(result, "a", "2")["hd95"] == 0.0


def test_masks_of_0_and_255_need_a_threshold_and_the_message_says_so(tmp_path: Path) -> None:
    ref, pred = tmp_path / "ref", tmp_path / "pred"
    square = label_map((np.s_[4:10, 4:10], 1), shape=(16, 20))
    soft = np.where(square, 250, 0).astype(np.uint8)
    soft[3, 4:10] = 60
    save(ref / "s.png", soft, np.eye(4), known=False)
    save(pred / "s.png", square, np.eye(4), known=False)
    with pytest.raises(DatasetError, match="the labels are value 1"):
        evaluate(pred, ref, labels={"lung": 1})
    save(ref / "s.png", np.where(square, 255, 0).astype(np.uint8), np.eye(4), known=False)
    with pytest.raises(DatasetError, match="label_threshold=127"):
        evaluate(pred, ref)
    save(ref / "s.png", soft, np.eye(4), known=False)
    result = evaluate(pred, ref, labels={"lung": 1}, label_threshold=127)
    assert values(result, "s", "lung")["dice"] == 1.0


def test_without_known_spacing_distances_are_in_pixels_and_nsd_is_left_out(tmp_path: Path) -> None:
    save(tmp_path / "ref" / "s.png", label_map((np.s_[4:10, 4:10], 1), shape=(16, 20)), np.eye(4), known=False)
    save(tmp_path / "pred" / "s.png", label_map((np.s_[5:11, 4:10], 1), shape=(16, 20)), np.eye(4), known=False)
    result = evaluate(tmp_path / "pred", tmp_path / "ref", out=tmp_path / "out")
    found = values(result, "s", "1")
    assert found["hd95_px"] == 1.0 and found["reference_px"] == 36.0
    assert not {"nsd", "hd95", "reference_ml"} & set(found)
    assert "spacing_unknown" in [f.kind for f in result.findings]
    assert "HD95 (pixels)" in (tmp_path / "out" / "report.html").read_text()


def test_unknown_values_count_as_background_and_are_named(folders: tuple[Path, Path]) -> None:
    result = evaluate(*folders, labels={"lung": 1})
    assert {f.kind for f in result.findings} == {"unknown_values"}
    assert all("value 2" in f.message for f in result.findings)


def test_an_unknown_task_is_refused_with_those_there_are(folders: tuple[Path, Path]) -> None:
    with pytest.raises(ConfigError, match="vessel, lung, tumor"):
        evaluate(*folders, task="liver")


def test_files_are_written_for_other_programs(folders: tuple[Path, Path], tmp_path: Path) -> None:
    steps = []
    out = tmp_path / "out"
    result = evaluate(*folders, labels={"lung": 1, "tumour": 2}, out=out, progress=lambda *s: steps.append(s))
    assert sorted(p.name for p in out.iterdir()) == ["cases.csv", "report.html", "summary.json"]
    with (out / "cases.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["case", "label", "metric", "value"]
    assert [(r["case"], r["label"], r["metric"]) for r in rows] == [(r.case, r.label, r.metric) for r in result.cases]
    assert [float(r["value"]) for r in rows] == pytest.approx([r.value for r in result.cases], nan_ok=True)
    summary = json.loads((out / "summary.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert summary == result.summary == json.loads(result.to_json())
    assert summary["format_version"] == 1
    assert {"medseg", "numpy", "scipy"} <= set(summary["versions"])
    assert {"dice", "iou", "hd95", "assd", "nsd", "empty masks", "interval"} <= set(summary["definitions"])
    assert [s[:2] for s in steps] == [(1, 3), (2, 3), (3, 3)]
    first = (out / "report.html").read_bytes()
    evaluate(*folders, labels={"lung": 1, "tumour": 2}, out=out)
    assert (out / "report.html").read_bytes() == first


def test_the_report_stands_alone_and_shows_best_median_and_worst(folders: tuple[Path, Path], tmp_path: Path) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    for case in "abc":
        save(images / f"{case}_0000.nii.gz", np.random.default_rng(0).normal(0, 100, (14, 16, 8)).astype(np.float32))
    result = evaluate(*folders, labels={"lung": 1, "tumour": 2}, out=out, images=images)
    page = (out / "report.html").read_text()
    assert not re.search(r"https?:", re.sub(r"base64,[^\"]+", "", page))
    assert not re.search(r"<(link|iframe)|@import|url\(|src=\"(?!data:)|src=\"//", page)
    for title in ("Best: ", "Median: ", "Worst: b"):
        assert title in page
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)" alt="([^"]+)"', page)
    assert len(pictures) == 6
    assert all(base64.b64decode(data).startswith(b"\x89PNG") and alt for data, alt in pictures)
    assert "radiological convention" in page and "Masks only" not in page
    assert "too few" in page and "1 infinite" in page
    assert result.report == out / "report.html"
    assert "lung" in result.text() and "report: " in result.text()


def test_a_case_name_cannot_smuggle_markup_into_the_report(tmp_path: Path) -> None:
    for side in ("ref", "pred"):
        save(tmp_path / side / "<b>x&y.nii.gz", label_map((BOX, 1)))
    evaluate(tmp_path / "pred", tmp_path / "ref", out=tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<b>x" not in page and "&lt;b&gt;x&amp;y" in page


def test_distances_on_a_tilted_grid_are_those_in_the_patient(tmp_path: Path) -> None:
    # The prediction lies one slice (5 mm, shifted by 2 mm along j) and two rows further: 4 mm aside, 5 mm up.
    tilted = np.array([[1, 0, 0, 0], [0, 1, 2, 0], [0, 0, 5, 0], [0, 0, 0, 1.0]])
    ref, pred = np.zeros((9, 20, 4), np.uint8), np.zeros((9, 20, 4), np.uint8)
    ref[4, 10, 1] = 1
    pred[4, 12, 2] = 1
    save(tmp_path / "ref" / "a.nii.gz", ref, tilted)
    save(tmp_path / "pred" / "a.nii.gz", pred, tilted)
    result = evaluate(tmp_path / "pred", tmp_path / "ref", labels={"spot": 1})
    apart = tilted[:3, :3] @ (0, 2, 1)
    assert values(result, "a", "spot")["hd95"] == pytest.approx(float(np.linalg.norm(apart)))
    save(tmp_path / "pred" / "a.nii.gz", ref, tilted)
    result = evaluate(tmp_path / "pred", tmp_path / "ref", labels={"spot": 1})
    assert values(result, "a", "spot")["dice"] == 1.0
