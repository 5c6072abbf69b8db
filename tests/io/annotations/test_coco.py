"""COCO JSON: a hand-computed case, the structure of the published sets and of CVAT's export, and back."""

from __future__ import annotations

import json

import numpy as np
import pytest

from medseg.errors import AnnotationError
from medseg.io.annotations import Annotated, read_annotations, write_annotations
from medseg.volume import Volume


def document(annotations, images=None, categories=None):
    """The structure of instances_val2017.json (cocodataset.org, 'Data format')."""
    image = {
        "license": 4,
        "file_name": "000000397133.jpg",
        "coco_url": "http://images.cocodataset.org/val2017/000000397133.jpg",
        "height": 5,
        "width": 6,
        "date_captured": "2013-11-14 17:02:52",
        "flickr_url": "http://farm7.staticflickr.com/6116/6255196340_da26cf2c9e_z.jpg",
        "id": 397133,
    }
    lung = {"supercategory": "organ", "id": 2, "name": "lung"}
    nodule = {"supercategory": "lesion", "id": 7, "name": "nodule"}
    return {
        "info": {
            "description": "COCO 2017 Dataset",
            "url": "http://cocodataset.org",
            "version": "1.0",
            "year": 2017,
            "contributor": "COCO Consortium",
            "date_created": "2017/09/01",
        },
        "licenses": [{"url": "http://creativecommons.org/licenses/by-nc-sa/2.0/", "id": 1, "name": "BY-NC-SA"}],
        "images": [image] if images is None else images,
        "annotations": annotations,
        "categories": [lung, nodule] if categories is None else categories,
    }


def annotation(category, segmentation, number=1, crowd=0, image=397133):
    return {
        "segmentation": segmentation,
        "area": 702.1057499999998,
        "iscrowd": crowd,
        "image_id": image,
        "bbox": [1.0, 1.0, 3.0, 3.0],
        "category_id": category,
        "id": number,
    }


def saved(tmp_path, content):
    path = tmp_path / "instances_val2017.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def rows_of(annotated):
    return ["".join(map(str, row)) for row in annotated.label_map.array.T.tolist()]


# Two polygons of one object: 3 x 3 pixels, and one pixel apart.
POLYGONS = annotation(2, [[1, 1, 4, 1, 4, 4, 1, 4], [5.0, 0.0, 6.0, 0.0, 6.0, 1.0, 5.0, 1.0]])
# A ring of 3 x 3 at column 2, row 2 with a hole, down the columns of 5 pixels: 2 columns (10) and 2 rows off; then
# 3 on, 2 off, 1 on, 1 off (the hole), 1 on, 2 off, 3 on, and the last column off.
RING = [12, 3, 2, 1, 1, 1, 2, 3, 5]


def test_holes_and_overlap_by_hand(tmp_path):
    content = document([POLYGONS, annotation(7, {"size": [5, 6], "counts": RING}, 2)])
    (annotated,) = read_annotations(saved(tmp_path, content))
    assert rows_of(annotated) == [
        "000002",
        "022200",
        "027770",
        "027270",
        "007770",
    ]
    # The ids are the values.
    assert annotated.classes == {"lung": 2, "nodule": 7}
    assert annotated.image_name == "000000397133.jpg"
    (finding,) = annotated.findings
    assert finding.kind == "overlap"
    assert finding.message.startswith("shapes of different classes share 3 pixels")


def test_file_order_is_painting_order(tmp_path):
    content = document([annotation(7, {"size": [5, 6], "counts": RING}, 2), POLYGONS])
    assert rows_of(read_annotations(saved(tmp_path, content))[0])[2:] == ["022270", "022270", "007770"]


def test_the_ring_as_compressed_text(tmp_path):
    masks = pytest.importorskip("pycocotools.mask")
    code = masks.frPyObjects({"size": [5, 6], "counts": RING}, 5, 6)["counts"].decode()
    plain = read_annotations(saved(tmp_path, document([annotation(7, {"size": [5, 6], "counts": RING})])))
    packed = read_annotations(saved(tmp_path, document([annotation(7, {"size": [5, 6], "counts": code})])))
    np.testing.assert_array_equal(plain[0].label_map.array, packed[0].label_map.array)
    assert plain[0].label_map.array.sum() == 8 * 7


def test_an_export_of_cvat(tmp_path):
    """'COCO 1.0' of CVAT 2: attributes, a licence without a name, run lengths with iscrowd 1 for masks."""
    content = {
        "licenses": [{"name": "", "id": 0, "url": ""}],
        "info": {"contributor": "", "date_created": "", "description": "", "url": "", "version": "", "year": ""},
        "categories": [{"id": 1, "name": "liver", "supercategory": ""}, {"id": 2, "name": "cyst", "supercategory": ""}],
        "images": [
            {
                "id": 1,
                "width": 4,
                "height": 3,
                "file_name": "a/1.png",
                "license": 0,
                "flickr_url": "",
                "coco_url": "",
                "date_captured": 0,
            },
            {
                "id": 2,
                "width": 4,
                "height": 3,
                "file_name": "a/2.png",
                "license": 0,
                "flickr_url": "",
                "coco_url": "",
                "date_captured": 0,
            },
        ],
        "annotations": [
            {
                "id": 1,
                "image_id": 2,
                "category_id": 2,
                "segmentation": {"counts": [1, 2, 9], "size": [3, 4]},
                "area": 2.0,
                "bbox": [0.0, 1.0, 1.0, 2.0],
                "iscrowd": 1,
                "attributes": {"occluded": False},
            },
            {
                "id": 2,
                "image_id": 2,
                "category_id": 1,
                "segmentation": [],
                "area": 4.0,
                "bbox": [0.0, 0.0, 2.0, 2.0],
                "iscrowd": 0,
                "attributes": {"occluded": False, "rotation": 0.0},
            },
        ],
    }
    first, second = read_annotations(saved(tmp_path, content))
    assert rows_of(first) == ["0000", "0000", "0000"]
    assert rows_of(second) == ["0000", "2000", "2000"]
    assert (first.image_name, second.image_name) == ("a/1.png", "a/2.png")
    assert not first.findings
    assert [f.kind for f in second.findings] == ["crowd", "ignored_shapes"]


def test_ids_from_0_are_counted_from_1(tmp_path):
    categories = [{"id": 1, "name": "b"}, {"id": 0, "name": "a"}]
    content = document([annotation(0, [[0, 0, 2, 0, 2, 2, 0, 2]])], categories=categories)
    (annotated,) = read_annotations(saved(tmp_path, content))
    assert annotated.classes == {"a": 1, "b": 2}
    assert annotated.label_map.array.max() == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (document([annotation(3, [])]), "category id 3, which the file does not list"),
        (document([annotation(2, [], image=5)]), "belongs to image 5, which the file does not list"),
        (document([annotation(2, {"size": [6, 5], "counts": RING})]), r"\[height, width\] \[6, 5\], not \[5, 6\]"),
        (document([annotation(2, {"size": [5, 6], "counts": [1, 2]})]), "run lengths for 3 pixels; expected 30"),
        (document([annotation(2, {"size": [5, 6], "counts": [10**11]})]), "exceed its 30 pixels"),
        (document([annotation(2, {"size": [5, 6], "counts": [1.5]})]), r"counts\[0\] is 1.5; expected an integer"),
        (document([annotation(2, [[0, 0, 2, 0, 2]])]), "expected a list of numbers x0, y0"),
        (document([annotation(2, [[0, 0, 2, 0, 2, float("inf")]])]), "expected finite numbers only"),
        (document([], categories=[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]), "repeats the category id 1"),
        (document([], images=[{"id": 1, "file_name": "a", "width": 10**9, "height": 10**9}]), "at most 268435456"),
        (document({}), "expected a list"),
    ],
)
def test_damaged_files_are_refused_with_the_place(tmp_path, content, message):
    with pytest.raises(AnnotationError, match=message) as caught:
        read_annotations(saved(tmp_path, content))
    assert "instances_val2017.json" in str(caught.value)


def test_label_maps_come_back_as_one_data_set(tmp_path):
    first = np.zeros((7, 6), np.uint8)
    first[1:6, 1:5] = 3
    first[3, 2:4] = 0
    second = np.eye(5, dtype=np.uint8)
    given = [
        Annotated(Volume(array, np.eye(4), spacing_known=False), {"a": 1, "b": 3}, name)
        for array, name in ((first, "1.png"), (second, "2.png"))
    ]
    write_annotations(given, tmp_path / "out.json", "coco")
    again = read_annotations(tmp_path / "out.json")
    for before, after in zip(given, again, strict=True):
        np.testing.assert_array_equal(after.label_map.array, before.label_map.array)
        assert after.classes == before.classes
        assert after.image_name == before.image_name
    written = json.loads((tmp_path / "out.json").read_text())["annotations"]
    assert [type(a["segmentation"]) for a in written] == [dict] + [list] * 5
    assert (written[0]["area"], written[0]["bbox"]) == (18, [1, 1, 5, 4])


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools 2.0.11
def test_pycocotools_reads_what_is_written(tmp_path):
    coco = pytest.importorskip("pycocotools.coco")
    labels = np.random.default_rng(0).integers(0, 3, (20, 15)).astype(np.uint8)
    volume = Volume(labels, np.eye(4), spacing_known=False)
    write_annotations(Annotated(volume, {"a": 1, "b": 2}, "1.png"), tmp_path / "out.json", "coco")
    data = coco.COCO(str(tmp_path / "out.json"))
    painted = np.zeros((15, 20), np.uint8)
    for one in data.loadAnns(data.getAnnIds()):
        painted[data.annToMask(one).astype(bool)] = one["category_id"]
    np.testing.assert_array_equal(painted, labels.T)
