"""Labelme JSON: a hand-computed case, a file as version 6.3.1 saves it, and back."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from medseg.errors import AnnotationError
from medseg.io.annotations import Annotated, read_annotations, write_annotations
from medseg.volume import Volume


def png(mask):
    buffer = io.BytesIO()
    Image.fromarray(np.array(mask, bool)).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def shape(label, kind, points, **more):
    fixed = {"group_id": None, "description": "", "shape_type": kind, "flags": {}, "mask": None}
    return {"label": label, "points": points, **fixed, **more}


def document(shapes, width=8, height=6):
    """What Labelme 6.3.1 saves with 'save with image data' off."""
    return {
        "version": "6.3.1",
        "flags": {},
        "shapes": shapes,
        "imagePath": "images/scan.png",
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }


def saved(tmp_path, content, name="scan.json"):
    path = tmp_path / name
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2), encoding="utf-8")
    return path


def rows_of(annotated):
    return ["".join(map(str, row)) for row in annotated.label_map.array.T.tolist()]


CASE = [
    # Pixels 1..6 x 1..4: Labelme's painter counts the outline in.
    shape("organ", "polygon", [[1.5, 1.5], [6.5, 1.5], [6.5, 4.5], [1.5, 4.5]], group_id=1),
    # A hole of 2 x 2 pixels, as Labelme users draw it.
    shape("_background_", "rectangle", [[3.9, 3.9], [2.2, 2.2]]),
    # A brush mask over the organ, with a gap that shows it.
    shape("lesion", "mask", [[5, 3], [7, 4]], mask=png([[1, 0, 1], [1, 1, 1]])),
    shape("tip", "point", [[1.0, 1.0]]),
    shape("vessel", "linestrip", [[0.0, 0.0], [3.0, 3.0], [4.0, 1.0]]),
]


def test_holes_and_overlap_by_hand(tmp_path):
    (annotated,) = read_annotations(saved(tmp_path, document(CASE)))
    assert rows_of(annotated) == [
        "00000000",
        "02222220",
        "02002220",
        "02002121",
        "02222111",
        "00000000",
    ]
    assert annotated.classes == {"_background_": 0, "lesion": 1, "organ": 2}
    assert annotated.image_name == "images/scan.png"
    assert annotated.label_map.shape == (8, 6)
    assert annotated.label_map.array.dtype == np.uint8
    assert not annotated.label_map.spacing_known
    np.testing.assert_array_equal(annotated.label_map.affine, np.eye(4))
    assert [(f.kind, f.message) for f in annotated.findings] == [
        ("ignored_shapes", "1 x point, which has no area and is skipped"),
        ("ignored_shapes", "1 x linestrip, which has no area and is skipped"),
    ]


def test_given_classes_decide_the_values(tmp_path):
    classes = {"organ": 300, "lesion": 7, "_background_": 0, "other": 9}
    (annotated,) = read_annotations(saved(tmp_path, document(CASE)), classes)
    assert np.unique(annotated.label_map.array).tolist() == [0, 7, 300]
    assert annotated.label_map.array.dtype == np.uint16
    assert list(annotated.classes.items()) == [("_background_", 0), ("lesion", 7), ("other", 9), ("organ", 300)]


def test_a_class_that_the_given_ones_lack_is_refused_by_name(tmp_path):
    with pytest.raises(AnnotationError, match=r"scan\.json.*'lesion', which is not among the given classes \(organ: 1"):
        read_annotations(saved(tmp_path, document(CASE)), {"organ": 1, "_background_": 0})


def labelme_paints(kind, points, width, height):
    """`shape_to_mask` of labelme/utils/shape.py of 6.3.1, on the whole image."""
    mask = Image.new("L", (width, height))
    draw = ImageDraw.Draw(mask)
    xy = [tuple(p) for p in points]
    if kind == "circle":
        (cx, cy), (px, py) = xy
        d = ((cx - px) ** 2 + (cy - py) ** 2) ** 0.5
        draw.ellipse(((cx - d, cy - d), (cx + d, cy + d)), outline=1, fill=1)
    elif kind == "rectangle":
        (x0, y0), (x1, y1) = xy
        draw.rectangle(((min(x0, x1), min(y0, y1)), (max(x0, x1), max(y0, y1))), outline=1, fill=1)
    else:
        draw.polygon(xy, outline=1, fill=1)
    return np.asarray(mask)


@pytest.mark.parametrize("kind", ["polygon", "rectangle", "circle", "oriented_rectangle"])
def test_every_shape_covers_the_pixels_that_labelme_paints(tmp_path, kind):
    rng = np.random.default_rng(0)
    for _ in range(40):
        width, height = rng.integers(5, 40, 2).tolist()
        count = {"polygon": rng.integers(3, 9), "oriented_rectangle": 4}.get(kind, 2)
        points = rng.uniform(-5, 45, (count, 2)).round(2).tolist()
        content = document([shape("a", kind, points)], width, height)
        (annotated,) = read_annotations(saved(tmp_path, content))
        np.testing.assert_array_equal(annotated.label_map.array.T, labelme_paints(kind, points, width, height))


def test_a_missing_size_is_taken_from_the_embedded_image(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6)).save(buffer, format="JPEG")
    content = document(CASE)
    content.update(imageHeight=None, imageWidth=None, imageData=base64.b64encode(buffer.getvalue()).decode())
    assert read_annotations(saved(tmp_path, content))[0].label_map.shape == (8, 6)


def test_a_mask_with_fractional_corners_keeps_its_own_size(tmp_path):
    """Labelme moves masks by fractions of a pixel; the box is then not that of the PNG."""
    content = document([shape("a", "mask", [[2.4, 1.4], [4.6, 2.6]], mask=png(np.ones((2, 3))))])
    assert rows_of(read_annotations(saved(tmp_path, content))[0])[:4] == [
        "00000000",
        "00111000",
        "00111000",
        "00000000",
    ]


def test_a_mask_that_leaves_the_image_is_cut(tmp_path):
    content = document([shape("a", "mask", [[-1, -1], [1, 0]], mask=png([[1, 1, 1], [1, 0, 1]]))])
    assert rows_of(read_annotations(saved(tmp_path, content))[0])[:2] == ["01000000", "00000000"]


def test_files_in_a_folder_share_one_table(tmp_path):
    saved(tmp_path, document([shape("b", "rectangle", [[0, 0], [1, 1]])]), "1.json")
    saved(tmp_path, document([shape("a", "rectangle", [[0, 0], [1, 1]])]), "2.json")
    first, second = read_annotations(tmp_path)
    assert first.classes == second.classes == {"a": 1, "b": 2}
    assert (first.label_map.array.max(), second.label_map.array.max()) == (2, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"imageWidth": 10**9}, "image size of 1000000000 x 6; at most 268435456 pixels"),
        ({"imageHeight": 0}, "image size of 8 x 0; expected positive numbers"),
        ({"imageHeight": "6"}, "imageHeight is '6'; expected an integer"),
        ({"imageHeight": None}, "neither imageHeight and imageWidth nor imageData"),
        (
            {"shapes": [shape("a", "polygon", [[1, 1], [2, 2]])]},
            r"shapes\[0\].points has 2 points; expected at least 3",
        ),
        ({"shapes": [shape("a", "polygon", [[1, 1], [2, 2], [float("nan"), 1]])]}, "expected finite numbers only"),
        ({"shapes": [shape("a", "polygon", [[1, 1], [2, 2], [1e9, 1]])]}, "far outside the image"),
        ({"shapes": [shape("a", "polygon", "no points")]}, "is 'no points'; expected a list of points"),
        ({"shapes": [shape("a", "rectangle", [[1, 1]])]}, "1 points; a rectangle has 2"),
        ({"shapes": [shape("a", "blob", [[1, 1]])]}, "shape_type is 'blob'; expected polygon, rectangle"),
        ({"shapes": [shape(7, "polygon", [[1, 1]])]}, "label is 7; expected a text"),
        ({"shapes": [shape("a", "mask", [[0, 0], [1, 1]], mask="AAAA")]}, "is not a PNG that can be opened"),
        ({"shapes": [shape("a", "mask", [[0, 0], [3, 3]], mask=png([[1]]))]}, "1 x 1 pixels; its box requires 4 x 4"),
        ({"shapes": [shape("a", "mask", [[0, 0], [1, 1]])]}, "mask is None; expected a text"),
        ({"shapes": [3]}, r"shapes\[0\] is 3; expected an object"),
    ],
)
def test_damaged_files_are_refused_with_the_place(tmp_path, change, message):
    with pytest.raises(AnnotationError, match=message) as caught:
        read_annotations(saved(tmp_path, {**document([]), **change}))
    assert "scan.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_label_map_comes_back(tmp_path):
    labels = np.zeros((9, 7), np.uint8)
    labels[1:7, 1:6] = 2
    labels[3:5, 3] = 0
    labels[8] = 5
    volume = Volume(labels, np.eye(4), spacing_known=False)
    classes = {"organ": 2, "lesion": 5}
    write_annotations(Annotated(volume, classes, "scan.png"), tmp_path / "out.json", "labelme")
    (again,) = read_annotations(tmp_path / "out.json", classes)
    np.testing.assert_array_equal(again.label_map.array, labels)
    assert again.image_name == "scan.png"
    written = json.loads((tmp_path / "out.json").read_text())
    assert list(written) == ["version", "flags", "shapes", "imagePath", "imageData", "imageHeight", "imageWidth"]
    # The part with a hole is a mask; a line of pixels too.
    assert [s["shape_type"] for s in written["shapes"]] == ["mask", "mask"]
