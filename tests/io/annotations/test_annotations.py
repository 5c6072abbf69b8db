"""The front door: which format a file is, folders, names for outputs, and label maps through every format."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medseg.errors import AnnotationError, ConfigError, ReadError, WriteError
from medseg.io.annotations import (
    FORMATS,
    Annotated,
    case_names,
    iter_annotations,
    read_annotations,
    write_annotations,
)
from medseg.volume import Volume

CLASSES = {"organ": 1, "lesion": 2, "vessel 10": 300}


def annotated(array, classes=CLASSES, name="scan.png"):
    return Annotated(Volume(array, np.eye(4), spacing_known=False), classes, name)


def written(folder, array, format, **more):
    path = folder / ("a.xml" if format == "cvat" else "a.json")
    write_annotations(annotated(array, **more), path, format)
    return path


@pytest.mark.parametrize("format", FORMATS)
@settings(deadline=None, max_examples=60)
@given(
    array=arrays(np.uint16, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.sampled_from([0, 1, 2, 300]))
)
def test_every_label_map_comes_back_from_every_format(tmp_path_factory, format, array):
    path = written(tmp_path_factory.mktemp("a"), array, format)
    (again,) = read_annotations(path, CLASSES)
    np.testing.assert_array_equal(again.label_map.array, array)
    assert again.label_map.array.dtype == np.uint16
    assert not again.findings


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_label_map_gives_the_same_bytes(tmp_path, format):
    array = np.random.default_rng(0).integers(0, 3, (12, 9)).astype(np.uint8)
    first = written(tmp_path, array, format).read_bytes()
    assert written(tmp_path, array, format).read_bytes() == first
    assert first.endswith(b"\n")
    assert [p.name for p in tmp_path.iterdir()] == ["a.xml" if format == "cvat" else "a.json"]


@pytest.mark.parametrize("format", FORMATS)
def test_an_empty_label_map_is_an_image_without_shapes(tmp_path, format):
    (again,) = read_annotations(written(tmp_path, np.zeros((5, 4), np.uint8), format), CLASSES)
    assert again.label_map.shape == (5, 4)
    assert not again.label_map.array.any()


@pytest.mark.parametrize("format", FORMATS)
def test_the_suffix_does_not_matter(tmp_path, format):
    path = written(tmp_path, np.eye(5, dtype=np.uint8), format)
    moved = shutil.move(path, tmp_path / "export")
    assert read_annotations(moved, CLASSES)[0].label_map.array.sum() == 5


def test_label_maps_come_one_at_a_time(tmp_path):
    for n in range(3):
        write_annotations(annotated(np.full((4, 4), n % 2 + 1, np.uint8)), tmp_path / f"{n}.json", "labelme")
    maps = iter_annotations(tmp_path)
    assert next(maps).classes == {"lesion": 1, "organ": 2}
    assert [int(a.label_map.array[0, 0]) for a in maps] == [1, 2]


def test_a_folder_of_two_formats_is_refused(tmp_path):
    written(tmp_path, np.eye(5, dtype=np.uint8), "cvat")
    written(tmp_path, np.eye(5, dtype=np.uint8), "coco")
    with pytest.raises(AnnotationError, match="mixes annotations of coco, cvat"):
        read_annotations(tmp_path)


def test_a_damaged_file_in_a_folder_is_not_skipped(tmp_path):
    written(tmp_path, np.eye(5, dtype=np.uint8), "labelme")
    (tmp_path / "b.json").write_text('{"shapes": [')
    with pytest.raises(AnnotationError, match=r"b\.json is damaged or cut off"):
        read_annotations(tmp_path)


def test_two_data_sets_with_other_ids_need_a_table(tmp_path):
    for name, classes in (("1.json", {"a": 1, "b": 2}), ("2.json", {"b": 1, "a": 2})):
        write_annotations(annotated(np.eye(5, dtype=np.uint8), classes), tmp_path / name, "coco")
    with pytest.raises(AnnotationError, match="numbers its categories differently"):
        read_annotations(tmp_path)
    first, second = read_annotations(tmp_path, {"a": 1, "b": 2})
    assert (first.label_map.array.max(), second.label_map.array.max()) == (1, 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "neither JSON nor XML"),
        (b"\x89PNG\r\n\x1a\n", "neither JSON nor XML"),
        (b"{}", "not an annotation of Labelme, CVAT, Supervisely or COCO"),
        (b"[1, 2]", "not an annotation of"),
        (b'{"shapes": \xff}', "byte 11 is not UTF-8"),
        (b"[" * 200_000, "damaged"),
        (b'{"a": ' * 200_000, "damaged"),
        (b"<a>" * 200_000, "damaged or cut off"),
        (b"<html></html>", "not an annotation of"),
    ],
)
def test_what_is_no_annotation_is_refused_by_name(tmp_path, content, message):
    path = tmp_path / "thing.json"
    path.write_bytes(content)
    with pytest.raises(AnnotationError, match=message) as caught:
        read_annotations(path)
    assert "thing.json" in str(caught.value)


def test_a_byte_order_mark_is_no_damage(tmp_path):
    path = written(tmp_path, np.eye(5, dtype=np.uint8), "labelme")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(read_annotations(path)) == 1


def test_a_missing_or_empty_place_is_named(tmp_path):
    with pytest.raises(ReadError, match=r"nothing\.json does not exist"):
        read_annotations(tmp_path / "nothing.json")
    with pytest.raises(AnnotationError, match="contains no annotation"):
        read_annotations(tmp_path)


def test_what_a_format_does_not_hold_is_not_written(tmp_path):
    stack = annotated(np.ones((3, 3, 2), np.uint8))
    flat = annotated(np.ones((3, 3), np.uint8))
    for given_maps, format, message in (
        (stack, "coco", "a stack can be written as CVAT video"),
        ([flat, flat], "labelme", "contains one image, found 2"),
        ([stack, flat], "cvat", "images or one video"),
        ([], "coco", "no label maps"),
        (flat, "yolo", "'yolo' is not known"),
    ):
        with pytest.raises(WriteError, match=message):
            write_annotations(given_maps, tmp_path / "a.json", format)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("array", "classes", "message"),
    [
        (np.full((2, 2), 7, np.uint8), {"a": 1}, r"value\(s\) \[7\] without a name"),
        (np.ones((2, 2), np.uint8), {"a": 1, "b": 1}, r"value\(s\) \[1\] have two names"),
        (np.ones((2, 2), np.float32), {"a": 1}, "not a label map"),
    ],
)
def test_values_need_one_name_each(tmp_path, array, classes, message):
    with pytest.raises(AnnotationError, match=message):
        write_annotations(annotated(array, classes), tmp_path / "a.json", "coco")


def test_a_value_beyond_16_bits_is_not_written(tmp_path):
    with pytest.raises(ConfigError, match="expected an integer from 0 to 65535"):
        write_annotations(annotated(np.full((2, 2), 10**9, np.uint32), {"a": 10**9}), tmp_path / "a.json", "coco")


def test_names_for_outputs_are_safe_and_unique():
    names = [
        "a/b.png",
        "a\\b.jpg",
        "../../etc/passwd",
        "/",
        "C:\\x.png",
        "scan.nii.gz",
        "x" * 300,
        "é ü.png",
        "a\nb.png",
    ]
    given_maps = [annotated(np.ones((1, 1), np.uint8), name=name) for name in names]
    expected = ["a_b", "a_b_2", "etc_passwd", "image", "C__x", "scan", "x" * 150, "é ü", "a_b_3"]
    assert case_names(given_maps) == expected


def test_written_json_is_plain(tmp_path):
    path = written(tmp_path, np.eye(5, dtype=np.uint8), "labelme", classes={"größe": 1})
    assert "größe" in path.read_text(encoding="utf-8")
    assert json.loads(path.read_text(encoding="utf-8"))["imageData"] is None
