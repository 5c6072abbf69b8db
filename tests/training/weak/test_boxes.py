"""Label maps from boxes, and boxes that cannot be meant."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner
from weak_pictures import Pictures

from medseg.cli import app
from medseg.config import load_config
from medseg.errors import ConfigError, DatasetError
from medseg.io import read, write
from medseg.labels import LabelScheme
from medseg.training.weak.boxes import Box, box_odds, boxes_in
from medseg.training.weak.folder import weak_config_of
from medseg.training.weak.pseudo_labels import make_pseudo_labels
from medseg.volume import Volume

HEAD = "case,label,i_min,i_max,j_min,j_max"
SCHEME = LabelScheme.from_mapping({"lesion": 1})


@pytest.fixture(scope="module")
def images(pictures: Pictures, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pictures with a lesion, in one folder."""
    root = tmp_path_factory.mktemp("boxes") / "images"
    shutil.copytree(pictures.root / "lesion", root)
    return root


def rows_of(pictures: Pictures) -> list[str]:
    rows = []
    for name, mask in pictures.masks.items():
        if mask.any():
            (i, i_end), (j, j_end) = ((int(each.min()), int(each.max())) for each in np.nonzero(mask))
            rows.append(f"{name.removeprefix('lesion_')},lesion,{i},{i_end},{j},{j_end}")
    return rows


def make(images: Path, out: Path, rows: Sequence[str], head: str = HEAD) -> Path:
    table = out.parent / "boxes.csv"
    table.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    settings = {"data.labels": {"lesion": 1}, "weak.boxes": str(table), "weak.longest": 48}
    return make_pseudo_labels(weak_config_of(images, settings), out).folder


def test_boxes_become_label_maps_that_fit_better_than_the_boxes(
    images: Path, pictures: Pictures, tmp_path: Path
) -> None:
    folder = make(images, tmp_path / "labels", rows_of(pictures))
    dice, of_boxes = [], []
    for name, mask in pictures.masks.items():
        if not mask.any():
            continue
        array = read(folder / f"{name.removeprefix('lesion_')}.png").array
        box = np.zeros_like(mask)
        (i, i_end), (j, j_end) = ((each.min(), each.max()) for each in np.nonzero(mask))
        box[i : i_end + 1, j : j_end + 1] = True
        assert not array[~box].any(), "outside of its boxes a label cannot be"
        found = array == 1
        dice.append(2 * (found & mask).sum() / (found.sum() + mask.sum()))
        of_boxes.append(2 * mask.sum() / (box.sum() + mask.sum()))
    assert np.mean(dice) > np.mean(of_boxes) + 0.03
    config = load_config(folder / "train.yaml")
    assert config.data.ignore == 255


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("p00,lesion,-1,10,5,9", "i = -1 to 10, but the image has i = 0 to 47"),
        ("p00,lesion,5,10,40,48", "j = 40 to 48, but the image has j = 0 to 47"),
        ("p00,lesion,5,10,100,120", "j = 100 to 120"),
        ("p00,lesion,10,5,8,9", "a maximum is below its minimum"),
        ("p00,lesion,1.5,5,8,9", "expected the whole number"),
        ("p00,lesion,,5,8,9", "expected the whole number"),
        ("p000,lesion,1,5,8,9", "there is no case 'p000'"),
        ("p00,lesions,1,5,8,9", "'lesions' is not a label"),
    ],
)
def test_boxes_that_cannot_be_meant_are_refused_before_anything_is_written(
    images: Path, tmp_path: Path, row: str, message: str
) -> None:
    with pytest.raises(DatasetError, match=message) as raised:
        make(images, tmp_path / "labels", [row])
    assert "boxes.csv line 2" in str(raised.value)
    assert not (tmp_path / "labels").exists()


def test_a_label_without_a_box_is_refused(images: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="has a box of label 'lesion'"):
        make(images, tmp_path / "labels", [])


def test_a_missing_column_and_a_missing_file_are_told(images: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no column j_max"):
        make(images, tmp_path / "labels", ["p00,lesion,1,2,3"], "case,label,i_min,i_max,j_min")
    settings = ["data.labels={lesion: 1}", "--boxes", str(tmp_path / "none.csv")]
    done = CliRunner().invoke(app, ["pseudo-label", str(images), "-o", str(tmp_path / "labels"), *settings])
    assert isinstance(done.exception, ConfigError)


def test_rectangles_of_an_annotation_tool_are_boxes_and_those_outside_are_told(images: Path, tmp_path: Path) -> None:
    def annotation(points: Sequence[Sequence[float]], name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for image in images.iterdir():
            shape = {"label": "lesion", "points": points, "shape_type": "rectangle"}
            size = {"imageHeight": 48, "imageWidth": 48}
            document = {"version": "5.5.0", "shapes": [shape], "imagePath": image.name, "imageData": None, **size}
            (folder / f"{image.stem}.json").write_text(json.dumps(document))
        return folder

    settings = {"data.labels": {"lesion": 1}, "weak.longest": 48, "weak.crf": False}
    boxes = annotation([[10, 12], [20, 30]], "inside")
    folder = make_pseudo_labels(weak_config_of(images, {**settings, "weak.boxes": str(boxes)}), tmp_path / "o").folder
    i, j = np.nonzero(read(folder / "p00.png").array)
    assert 10 <= i.min() < i.max() <= 20
    assert 12 <= j.min() < j.max() <= 30
    outside = annotation([[60, 60], [70, 80]], "outside")
    with pytest.raises(DatasetError, match="covers no pixel of the image"):
        make_pseudo_labels(weak_config_of(images, {**settings, "weak.boxes": str(outside)}), tmp_path / "p")


def test_label_maps_of_filled_boxes_are_boxes_in_volumes_slice_by_slice(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for n in range(3):
        image, filled = rng.normal(size=(20, 18, 4)).astype(np.float32), np.zeros((20, 18, 4), np.uint8)
        filled[4:12, 5:13, 1], filled[6:10, 5:13, 2] = 1, 1
        write(Volume(image, np.eye(4)), tmp_path / "data" / "images" / f"c{n}.nii.gz")
        write(Volume(filled, np.eye(4)), tmp_path / "data" / "labels" / f"c{n}.nii.gz")
    settings = {"data.labels": {"lesion": 1}, "weak.source": "boxes", "weak.longest": 20, "net.dims": 2}
    folder = make_pseudo_labels(weak_config_of(tmp_path / "data", settings), tmp_path / "out").folder
    array = read(folder / "c0.nii.gz").array
    assert array.shape == (20, 18, 4)
    assert not array[..., [0, 3]].any()
    assert {*np.unique(array[6:10, 5:13, 2])} - {255}


def test_parts_of_a_volume_that_do_not_fill_their_box_are_boxes_of_slices() -> None:
    array = np.zeros((8, 8, 3), np.uint8)
    array[1:5, 1:5, 0], array[2:4, 2:4, 1] = 1, 1
    assert [(box.start, box.stop) for box in boxes_in(array, SCHEME)] == [
        ((1, 1, 0), (5, 5, 1)),
        ((2, 2, 1), (4, 4, 2)),
    ]
    assert [(box.start, box.stop) for box in boxes_in(np.ones((2, 3, 4), np.uint8), SCHEME)] == [((0, 0, 0), (2, 3, 4))]


def test_a_label_most_likely_fills_the_ellipse_that_touches_its_box() -> None:
    odds, allowed = box_odds([Box("lesion", (2, 4), (12, 14))], (20, 20), ["lesion"])
    assert allowed.sum() == 100
    assert odds[0, 7, 9] > 4
    assert odds[0, 2, 4] < 0 < odds[0, 2, 9]
    assert (odds[0] > 0).sum() == pytest.approx(np.pi * 25, rel=0.06)
