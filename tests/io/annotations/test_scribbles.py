"""Lines and points as scribbles: what is drawn has a class, all else is to be ignored."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from medseg.cli import app
from medseg.io import read
from medseg.io.annotations import Scribbles, read_annotations

LINE, DOT, REST = [[4.5, 6.5], [14.5, 6.5]], [[10.5, 14.5]], [[2.5, 18.5], [17.5, 18.5]]


def labelme(folder: Path) -> Path:
    shapes = [
        {"label": "lesion", "points": LINE, "shape_type": "linestrip"},
        {"label": "cyst", "points": DOT, "shape_type": "point"},
        {"label": "background", "points": REST, "shape_type": "line"},
    ]
    size = {"imageHeight": 20, "imageWidth": 20}
    path = folder / "scan.json"
    path.write_text(json.dumps({"version": "5", "shapes": shapes, "imagePath": "scan.png", "imageData": None, **size}))
    return path


def cvat(folder: Path) -> Path:
    def drawn(tag: str, label: str, points: list[list[float]]) -> str:
        return f'<{tag} label="{label}" points="{";".join(f"{x},{y}" for x, y in points)}" z_order="0"/>'

    shapes = [drawn("polyline", "lesion", LINE), drawn("points", "cyst", DOT), drawn("polyline", "background", REST)]
    path = folder / "task.xml"
    image = f'<image id="0" name="scan.png" width="20" height="20">{"".join(shapes)}</image>'
    path.write_text(f"<annotations><version>1.1</version>{image}</annotations>")
    return path


def supervisely(folder: Path) -> Path:
    objects = [
        {"classTitle": label, "geometryType": kind, "points": {"exterior": points, "interior": []}}
        for label, kind, points in (("lesion", "line", LINE), ("cyst", "point", DOT), ("background", "line", REST))
    ]
    path = folder / "scan.png.json"
    path.write_text(json.dumps({"size": {"height": 20, "width": 20}, "objects": objects}))
    return path


@pytest.mark.parametrize("tool", [labelme, cvat, supervisely])
def test_lines_and_points_are_drawn_and_the_rest_is_left_open(tool, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (found,) = read_annotations(tool(tmp_path), {"lesion": 1, "cyst": 2}, Scribbles(3))
    array = found.label_map.array
    assert (array[4:15, 6] == 1).all(), "a line runs through the pixels of its points"
    assert (array[4:15, 5:8] == 1).all(), "it is three pixels wide"
    assert not (array[4:15, [3, 9]] == 1).any()
    assert array[10, 14] == 2
    assert (array[2:18, 18] == 0).all(), "what is called background is background"
    assert array[0, 0] == 255
    assert np.mean(array == 255) > 0.7
    assert not found.findings


@pytest.mark.parametrize("tool", [labelme, cvat, supervisely])
def test_without_a_width_lines_and_points_are_skipped_and_told(tool, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (found,) = read_annotations(tool(tmp_path), {"lesion": 1, "cyst": 2})
    assert not found.label_map.array.any()
    assert {finding.kind for finding in found.findings} == {"ignored_shapes"}


def test_convert_draws_scribbles_and_leaves_what_the_labels_say_is_ignored(tmp_path: Path) -> None:
    labels = tmp_path / "labels.yaml"
    labels.write_text("labels: {lesion: 1, cyst: 2}\nignore: 9\n")
    source = labelme(tmp_path)
    arguments = ["convert", str(source), str(tmp_path / "out.png"), "--scribbles", "1", "--labels", str(labels)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    array = read(tmp_path / "out.png").array
    assert set(np.unique(array)) == {0, 1, 2, 9}
    assert 11 <= (array == 1).sum() <= 15


def test_a_width_of_nothing_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["convert", str(labelme(tmp_path)), str(tmp_path / "o.png"), "--scribbles", "0"])
    assert done.exit_code != 0
    assert "give a width from 1" in str(done.exception)


def test_a_shape_outside_of_the_image_is_told(tmp_path: Path) -> None:
    path = labelme(tmp_path)
    document = json.loads(path.read_text())
    document["shapes"] = [{"label": "lesion", "points": [[30, 30], [35, 38]], "shape_type": "rectangle"}]
    path.write_text(json.dumps(document))
    (found,) = read_annotations(path)
    assert [finding.kind for finding in found.findings] == ["empty_shapes"]
