"""Supervisely JSON: a hand-computed case, a project as the platform exports it, and back."""

from __future__ import annotations

import base64
import io
import json
import zlib

import numpy as np
import pytest
from PIL import Image

from medseg.errors import AnnotationError
from medseg.io.annotations import Annotated, read_annotations, write_annotations
from medseg.volume import Volume

# The example of the SDK's documentation: a ring of 3 x 3 pixels (supervisely/geometry/bitmap.py, base64_2_data).
RING = (
    "eJzrDPBz5+WS4mJgYOD19HAJAtLMIMwIInOeqf8BUmwBPiGuQPr///9Lb86/C2QxlgT5BTM4PLuRBuTwebo4hlTMSa44sKHhISMDuxpTYrr03F6g"
    "DIOnq5/LOqeEJgDM5ht6"
)


def packed(mask):
    """As Bitmap.data_2_base64 of the SDK does it: a palette PNG with transparency."""
    image = Image.fromarray(np.array(mask, np.uint8))
    image.putpalette([0, 0, 0, 255, 255, 255])
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", transparency=0, optimize=0)
    return base64.b64encode(zlib.compress(buffer.getvalue())).decode()


def item(title, kind, number=497521359, **geometry):
    return {
        "id": number,
        "classId": 1661571,
        "objectId": None,
        "description": "",
        "geometryType": kind,
        "labelerLogin": "admin",
        "createdAt": "2022-11-24T13:40:39.313Z",
        "updatedAt": "2023-02-20T08:14:24.563Z",
        "tags": [],
        "classTitle": title,
        **geometry,
    }


def document(objects, width=9, height=7):
    return {
        "description": "",
        "tags": [{"id": 86458971, "tagId": 28283797, "name": "plane", "value": "axial", "labelerLogin": "admin"}],
        "size": {"height": height, "width": width},
        "objects": objects,
    }


META = {
    "classes": [
        {
            "title": "organ",
            "description": "",
            "shape": "any",
            "color": "#A80B10",
            "geometry_config": {},
            "id": 1661571,
            "hotkey": "",
        },
        {
            "title": "lesion",
            "description": "",
            "shape": "bitmap",
            "color": "#B8E986",
            "geometry_config": {},
            "id": 1661572,
            "hotkey": "",
        },
        {
            "title": "bone",
            "description": "",
            "shape": "rectangle",
            "color": "#9F21DE",
            "geometry_config": {},
            "id": 1661573,
            "hotkey": "",
        },
    ],
    "tags": [
        {
            "name": "plane",
            "value_type": "any_string",
            "color": "#ED68A1",
            "id": 28283797,
            "hotkey": "",
            "applicable_type": "all",
            "classes": [],
        }
    ],
    "projectType": "images",
    "projectSettings": {"multiView": {"enabled": False, "tagName": None, "tagId": None, "isSynced": False}},
}

CASE = [
    # Pixels 1..7 x 1..5 without 3..5 x 2..4: the outline of the hole belongs to the hole.
    item(
        "organ",
        "polygon",
        points={"exterior": [[1, 1], [7, 1], [7, 5], [1, 5]], "interior": [[[3, 2], [5, 2], [5, 4], [3, 4]]]},
    ),
    item("lesion", "bitmap", bitmap={"data": RING, "origin": [6, 3]}),
    item("bone", "rectangle", points={"exterior": [[0, 0], [1, 2]], "interior": []}),
    item("organ", "point", points={"exterior": [[4, 4]], "interior": []}),
]
ROWS = [
    "330000000",
    "331111110",
    "331000110",
    "011000222",
    "011000212",
    "011111222",
    "000000000",
]


def saved(folder, content, name="scan.png.json"):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def rows_of(annotated):
    return ["".join(map(str, row)) for row in annotated.label_map.array.T.tolist()]


def test_holes_and_overlap_by_hand_in_a_project(tmp_path):
    """project/meta.json gives the order of the classes; project/dataset/ann/IMAGE.json the objects."""
    saved(tmp_path / "project", META, "meta.json")
    path = saved(tmp_path / "project" / "ds0" / "ann", document(CASE))
    (annotated,) = read_annotations(path)
    assert rows_of(annotated) == ROWS
    assert annotated.classes == {"organ": 1, "lesion": 2, "bone": 3}
    assert annotated.image_name == "scan.png"
    assert [f.message for f in annotated.findings] == ["1 x point, which cannot be painted and is skipped"]


def test_a_project_folder_is_read_whole(tmp_path):
    saved(tmp_path, META, "meta.json")
    for name in ("a.png.json", "b.png.json"):
        saved(tmp_path / "ds0" / "ann", document(CASE), name)
    found = read_annotations(tmp_path)
    assert [a.image_name for a in found] == ["a.png", "b.png"]
    assert [rows_of(a) for a in found] == [ROWS, ROWS]
    assert found[0].findings[-1].kind == "other_files"
    assert "meta.json" in found[0].findings[-1].message


def test_without_the_project_classes_are_sorted(tmp_path):
    (annotated,) = read_annotations(saved(tmp_path, document(CASE)))
    assert annotated.classes == {"bone": 1, "lesion": 2, "organ": 3}


def test_the_bitmap_of_the_sdk_documentation(tmp_path):
    content = document([item("a", "bitmap", bitmap={"data": RING, "origin": [0, 0]})], 3, 3)
    assert rows_of(read_annotations(saved(tmp_path, content))[0]) == ["111", "101", "111"]


def test_polygons_with_holes_are_what_opencv_paints(tmp_path):
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(0)
    for _ in range(60):
        width, height = rng.integers(5, 40, 2).tolist()
        rings = [rng.integers(0, (width, height), (rng.integers(3, 8), 2)) for _ in range(3)]
        # As Polygon._draw_impl of the SDK.
        expected = np.zeros((height, width), np.uint8)
        cv2.fillPoly(expected, pts=[rings[0].astype(np.int32)], color=1)
        cv2.fillPoly(expected, pts=[r.astype(np.int32) for r in rings[1:]], color=0)
        points = {"exterior": rings[0].tolist(), "interior": [r.tolist() for r in rings[1:]]}
        path = saved(tmp_path, document([item("a", "polygon", points=points)], width, height))
        np.testing.assert_array_equal(read_annotations(path)[0].label_map.array.T, expected)


def test_a_bitmap_from_the_sdk_with_a_palette_and_one_that_leaves_the_image(tmp_path):
    content = document([item("a", "bitmap", bitmap={"data": packed([[1, 0, 1], [1, 1, 1]]), "origin": [-1, 6]})])
    assert rows_of(read_annotations(saved(tmp_path, content))[0])[6] == "010000000"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": {"width": 10**9, "height": 7}}, "image size of 1000000000 x 7"),
        ({"size": {"width": 9}}, "size lacks 'height'"),
        ({"framesCount": 3}, "annotates a Supervisely video"),
        ({"volumeMeta": {}}, "annotates a Supervisely volume"),
        ({"objects": [item("a", "blob")]}, "geometryType is 'blob'"),
        ({"objects": [item("a", "polygon", points={"exterior": [], "interior": []})]}, "has 0 points"),
        ({"objects": [item("a", "polygon", points=[[1, 2]])]}, "expected an object"),
        ({"objects": [item("a", "rectangle", points={"exterior": [[1, 2]], "interior": []})]}, "a rectangle has 2"),
        ({"objects": [item("a", "bitmap", bitmap={"data": RING[:60], "origin": [0, 0]})]}, "the file is damaged"),
        ({"objects": [item("a", "bitmap", bitmap={"data": RING, "origin": [0]})]}, r"expected \[x, y\]"),
        ({"objects": [item("a", "bitmap", bitmap={"data": RING, "origin": [0, 10**9]})]}, "far outside the image"),
    ],
)
def test_damaged_files_are_refused_with_the_place(tmp_path, change, message):
    with pytest.raises(AnnotationError, match=message) as caught:
        read_annotations(saved(tmp_path, {**document([]), **change}))
    assert "scan.png.json" in str(caught.value)


def test_a_bitmap_that_unpacks_without_end_is_refused(tmp_path):
    bomb = base64.b64encode(zlib.compress(bytes(2**27), 9)).decode()
    content = document([item("a", "bitmap", bitmap={"data": bomb, "origin": [0, 0]})])
    with pytest.raises(AnnotationError, match="unpacks to more than"):
        read_annotations(saved(tmp_path, content))


def test_a_label_map_comes_back_with_its_holes_as_interior_rings(tmp_path):
    labels = np.zeros((9, 8), np.uint8)
    labels[1:8, 1:7] = 1
    labels[3:6, 3:5] = 0
    labels[4, 4] = 2
    volume = Volume(labels, np.eye(4), spacing_known=False)
    write_annotations(Annotated(volume, {"a": 1, "b": 2}, "scan.png"), tmp_path / "scan.png.json", "supervisely")
    (again,) = read_annotations(tmp_path / "scan.png.json")
    np.testing.assert_array_equal(again.label_map.array, labels)
    assert again.image_name == "scan.png"
    ring, dot = json.loads((tmp_path / "scan.png.json").read_text())["objects"]
    assert ring["geometryType"] == "polygon"
    assert sorted(ring["points"]["interior"][0]) == [[3, 3], [3, 4], [5, 3], [5, 4]]
    assert dot["geometryType"] == "bitmap"
