"""Scores of probabilities, and of 2D images, chosen by name in an evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scenes import SHAPE, box, folders, save

from medseg.errors import ConfigError, ReadError
from medseg.evaluation import evaluate
from medseg.io import write
from medseg.labels import LabelScheme
from medseg.volume import Volume

ASKED = ("dice", "auc", "average_precision", "brier", "ece")


def stored(folder: Path, case: str, probabilities: np.ndarray) -> None:
    np.savez(folder / f"{case}.npz", probabilities=probabilities.astype(np.float16))


def test_scores_of_probabilities_are_chosen_like_any_other_metric(tmp_path: Path) -> None:
    pred, ref = folders(tmp_path, {"a": 10, "b": 5})
    # In b half of the reference is 0.25 and all else 0: pairs of a found voxel are won, the others tie.
    stored(pred, "a", 0.75 * box(10)[None])
    stored(pred, "b", 0.25 * box(5)[None])
    asked = {"metrics": (*ASKED, "boundary_iou"), "probabilities": pred}
    result = evaluate(pred, ref, labels={"tumor": 1}, out=tmp_path / "out", **asked)
    found = {r.metric: r.value for r in result.cases if r.case == "b"}
    voxels, inside = np.prod(SHAPE), 10 * 16
    assert found["dice"] == pytest.approx(2 / 3)
    assert found["auc"] == pytest.approx(0.5 + 0.5 / 2)
    assert found["average_precision"] == pytest.approx(0.5 + 0.5 * inside / voxels)
    assert found["brier"] == pytest.approx((80 * 0.75**2 + 80) / voxels)
    assert found["ece"] == pytest.approx((80 * 0.75 + 80) / voxels)
    assert set(result.summary["labels"]["tumor"]) == {*ASKED, "boundary_iou"}
    assert "(IoU of the voxels" in result.summary["method"] and "(area under the ROC" in result.summary["method"]
    assert result.summary["labels"]["tumor"]["auc"]["mean"] == pytest.approx((1 + 0.75) / 2)
    assert "ROC" in result.summary["definitions"]["auc"] and "ROC" in result.summary["method"]
    assert result.findings == ()
    assert "Average precision" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_the_field_of_view_bounds_and_ignored_voxels_leave_the_scores_of_probabilities(tmp_path: Path) -> None:
    pred, ref = folders(tmp_path, {"a": 10})
    wrong = 0.75 * box(10)
    wrong[0, 0], wrong[1, 0] = 1.0, 1.0
    stored(pred, "a", wrong[None])
    beyond, ignored = np.ones(SHAPE, np.uint8), box(10)
    beyond[0, 0], ignored[1, 0] = 0, 255
    save(tmp_path / "fov" / "a.nii.gz", beyond)
    save(ref / "a.nii.gz", ignored)
    scheme = LabelScheme.from_mapping({"tumor": 1}, ignore=255)
    given = {"labels": scheme, "metrics": ("auc",), "probabilities": pred}
    assert evaluate(pred, ref, fov=tmp_path / "fov", **given).summary["labels"]["tumor"]["auc"]["mean"] == 1.0
    assert evaluate(pred, ref, **given).summary["labels"]["tumor"]["auc"]["mean"] < 1.0


def test_a_case_without_probabilities_is_named(tmp_path: Path) -> None:
    pred, ref = folders(tmp_path, {"a": 10, "b": 5})
    stored(pred, "a", box(10)[None])
    result = evaluate(pred, ref, labels={"tumor": 1}, metrics=("dice", "auc"), probabilities=pred)
    assert any("probability file" in f.message and "(b)" in f.message for f in result.findings)
    assert {r.case for r in result.cases if r.metric == "auc"} == {"a"}


def test_masks_are_no_probabilities(tmp_path: Path) -> None:
    pred, ref = folders(tmp_path, {"a": 10})
    with pytest.raises(ReadError, match="only 0 and 1, a mask"):
        evaluate(pred, ref, labels={"tumor": 1}, metrics=("auc",), probabilities=pred)


def test_what_scores_of_probabilities_need_is_asked_for(tmp_path: Path) -> None:
    pred, ref = folders(tmp_path, {"a": 10})
    with pytest.raises(ConfigError, match=r"auc need probabilities.*--probabilities"):
        evaluate(pred, ref, labels={"tumor": 1}, metrics=("dice", "auc"))
    stored(pred, "a", box(10)[None])
    with pytest.raises(ConfigError, match="--labels"):
        evaluate(pred, ref, metrics=("auc",), probabilities=pred)


def test_cavities_are_left_out_of_2d_images(tmp_path: Path) -> None:
    for side in ("pred", "ref"):
        (tmp_path / side).mkdir()
        mask = np.zeros((20, 20), np.uint8)
        mask[5:15, 5:15] = 1
        write(Volume(mask, np.eye(4), spacing_known=False), tmp_path / side / "a.png")
    result = evaluate(tmp_path / "pred", tmp_path / "ref", task="vessel")
    assert {"betti_error_0", "betti_error_1"} <= set(result.summary["labels"]["vessel"])
    for where in (
        result.summary["labels"]["vessel"],
        result.summary["definitions"],
        result.summary["options"]["metrics"],
    ):
        assert "betti_error_2" not in where
