"""Mean IoU as in PASCAL VOC: with background, pooled over the data set, without void."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg.errors import ConfigError
from medseg.evaluation import evaluate

# Two pictures of 2 x 4 pixels; 255 is void.
REFERENCES = {"a": [[0, 0, 1, 1], [0, 255, 1, 2]], "b": [[0, 0, 0, 0], [2, 2, 255, 255]]}
PREDICTIONS = {"a": [[0, 1, 1, 1], [0, 1, 2, 2]], "b": [[0, 0, 0, 2], [2, 0, 1, 2]]}
# Void left out, over both: background hits a (2) + b (3); in references 3 + 4, in predictions 2 + 4.
BACKGROUND = 5 / (7 + 6 - 5)
# Label 1 hits 2 of 3, predicted 3 times; label 2 hits 1 + 1 of 1 + 2, predicted 2 + 2 times.
FIRST, SECOND = 2 / (3 + 3 - 2), 2 / (3 + 4 - 2)


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[Path, Path]:
    for folder, masks in (("pred", PREDICTIONS), ("ref", REFERENCES)):
        (tmp_path / folder).mkdir()
        for name, rows in masks.items():
            Image.fromarray(np.array(rows, np.uint8)).save(tmp_path / folder / f"{name}.png")
    return tmp_path / "pred", tmp_path / "ref"


@pytest.mark.parametrize("labels", [None, {"cat": 1, "dog": 2}], ids=["numbers", "names"])
def test_the_background_counts_void_does_not_and_the_usual_miou_stands_beside(
    pictures: tuple[Path, Path], labels: dict[str, int] | None, tmp_path: Path
) -> None:
    result = evaluate(*pictures, labels=labels, miou="voc", metrics=("dice",), out=tmp_path / "out")
    summary = result.summary
    assert summary["miou_voc"] == pytest.approx((BACKGROUND + FIRST + SECOND) / 3)
    assert summary["miou"] == pytest.approx((FIRST + SECOND) / 2)
    assert len(summary.labels) == 2 and "PASCAL VOC" in summary.definitions["miou_voc"]
    assert f"PASCAL VOC, with background: {summary['miou_voc']:.3f}" in result.text()
    assert "mIoU, PASCAL VOC" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_it_agrees_with_counting_mask_by_mask(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    hits, unions = np.zeros(5), np.zeros(5)
    for n in range(4):
        ref, pred = rng.choice([0, 1, 2, 3, 4, 255], (20, 30)), rng.integers(0, 5, (20, 30))
        for folder, array in (("pred", pred), ("ref", ref)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(array.astype(np.uint8)).save(tmp_path / folder / f"{n}.png")
        for value in range(5):
            known = ref != 255
            hits[value] += ((ref == value) & (pred == value) & known).sum()
            unions[value] += (((ref == value) | (pred == value)) & known).sum()
    summary = evaluate(tmp_path / "pred", tmp_path / "ref", miou="voc", metrics=("dice",)).summary
    assert summary.miou_voc == pytest.approx(float(np.mean(hits / unions)))


def test_void_in_a_prediction_is_background(tmp_path: Path) -> None:
    for folder, rows in (("pred", [[1, 255, 255, 0]]), ("ref", [[1, 1, 0, 0]])):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.array(rows * 2, np.uint8)).save(tmp_path / folder / "a.png")
    summary = evaluate(tmp_path / "pred", tmp_path / "ref", labels={"x": 1}, miou="voc", metrics=("dice",)).summary
    assert summary.miou_voc == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert summary.confusion.voxels == ((4, 0), (2, 2))


def test_it_is_absent_where_it_was_not_asked_for(pictures: tuple[Path, Path]) -> None:
    summary = evaluate(*pictures, labels={"cat": 1, "dog": 2}, metrics=("dice",)).summary
    assert summary.miou_voc is None and "miou_voc" not in summary and "miou_voc" not in summary.definitions


def test_where_it_cannot_be_computed_it_is_refused(pictures: tuple[Path, Path]) -> None:
    with pytest.raises(ConfigError, match="one class for each voxel"):
        evaluate(*pictures, labels={"whole": [1, 2], "core": [2]}, miou="voc")
    with pytest.raises(ConfigError, match="ignores 255, which is the label border"):
        evaluate(*pictures, labels={"cat": 1, "border": 255}, miou="voc")
    with pytest.raises(ConfigError, match="miou"):
        evaluate(*pictures, miou="pascal")
