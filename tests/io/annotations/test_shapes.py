"""Painting shapes over each other, the table of classes, and the limits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medseg.errors import AnnotationError, ConfigError, MedsegError
from medseg.io.annotations.shapes import ClassTable, Notes, Patch, Picture, Shape, check_size, paint
from medseg.io.naming import natural_order

FILE = Path("scan.json")
FULL = np.ones((2, 2), bool)


def picture(shapes, width=4, height=3, frames=0, ordered=True):
    return Picture("scan.png", width, height, frames, iter(shapes), Notes(FILE), ordered)


def test_later_shapes_cover_earlier_ones_and_the_first_axis_is_x():
    shapes = [Shape("a", Patch(FULL, 0, 0)), Shape("b", Patch(FULL, 1, 1))]
    annotated = paint(picture(shapes), ClassTable.numbered("ab"), FILE)
    np.testing.assert_array_equal(annotated.label_map.array.T, [[1, 1, 0, 0], [1, 2, 2, 0], [0, 2, 2, 0]])
    assert not annotated.findings


def test_background_on_top_cuts_a_hole():
    shapes = [Shape("a", Patch(np.ones((3, 4), bool), 0, 0)), Shape("background", Patch(FULL, 1, 1))]
    annotated = paint(picture(shapes), ClassTable.numbered(["background", "a"]), FILE)
    assert annotated.label_map.array.sum() == 8


def test_overlap_is_told_where_the_format_has_no_order():
    shapes = [Shape("a", Patch(FULL, 0, 0)), Shape("a", Patch(FULL, 0, 0)), Shape("b", Patch(FULL, 1, 1))]
    annotated = paint(picture(shapes, ordered=False), ClassTable.numbered("ab"), FILE)
    assert [f.kind for f in annotated.findings] == ["overlap"]
    assert "share 1 pixels" in annotated.findings[0].message
    assert annotated.findings == annotated.label_map.findings


def test_frames_become_the_last_axis():
    annotated = paint(picture([Shape("a", Patch(FULL, 0, 2), 1)], frames=2), ClassTable.numbered("a"), FILE)
    assert annotated.label_map.shape == (4, 3, 2)
    assert annotated.label_map.array[2:, :2, 1].all()
    assert annotated.label_map.array.sum() == 4


def test_a_patch_is_cut_at_the_edges_of_the_image():
    mask = np.arange(12).reshape(3, 4) % 2 == 0
    patch = Patch.clipped(mask, -1, 2, 3, 4)
    assert (patch.top, patch.left) == (0, 2)
    np.testing.assert_array_equal(patch.mask, mask[1:, :2])
    assert not Patch.clipped(mask, 3, 0, 3, 4).mask.size


def test_names_with_numbers_sort_as_people_count():
    assert sorted(["label_10", "Label_2", "b", "A", "label_2"], key=natural_order) == [
        "A",
        "b",
        "Label_2",
        "label_2",
        "label_10",
    ]


def test_the_table_numbers_classes_in_their_order_but_background():
    table = ClassTable.numbered(["tumour", "_background_", "liver", "tumour"])
    assert table.values == {"tumour": 1, "_background_": 0, "liver": 2}
    assert list(table.ordered()) == ["_background_", "tumour", "liver"]
    assert table.dtype == np.uint8
    assert ClassTable.of({"a": 256}).dtype == np.uint16


@pytest.mark.parametrize("value", [-1, 65536, 1.0, "1", True])
def test_a_given_value_that_no_label_can_have_is_a_mistake_in_the_configuration(value):
    with pytest.raises(ConfigError, match="class 'a' has value"):
        ClassTable.of({"a": value})


def test_a_class_without_a_value_is_named():
    with pytest.raises(AnnotationError, match=r"scan\.json.*'b', which is not among the given classes \(a: 1\)"):
        paint(picture([Shape("b", Patch.empty())]), ClassTable.of({"a": 1}), FILE)


def test_too_many_classes_are_refused():
    with pytest.raises(AnnotationError, match="70000 classes"):
        ClassTable.numbered(map(str, range(70000)))


@pytest.mark.parametrize(
    "size", [(0, 5, 0), (-1, 5, 0), (5, 5, -1), (2**15, 2**15, 0), (10**9, 10**9, 0), (2**14, 2**14, 9)]
)
def test_impossible_sizes_are_refused(size):
    with pytest.raises(AnnotationError, match=r"scan\.json gives an image size of"):
        check_size(*size, "scan.json")


def test_shapes_that_paint_full_images_without_end_are_refused():
    mask = np.broadcast_to(np.zeros((), bool), (2**14, 2**14))
    shapes = (Shape("a", Patch(mask, 0, 0)) for _ in range(100))
    with pytest.raises(AnnotationError, match="split it"):
        paint(Picture("a", 2**14, 2**14, 0, shapes, Notes(FILE)), ClassTable.numbered("a"), FILE)


def test_the_error_is_a_value_error_that_ends_the_command_with_3():
    assert issubclass(AnnotationError, ValueError)
    assert issubclass(AnnotationError, MedsegError)
    assert AnnotationError.exit_code == 3
