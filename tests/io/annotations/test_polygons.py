"""Which pixels a polygon covers, by hand and against the libraries that the tools themselves paint with."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.errors import AnnotationError
from medseg.io.annotations.polygons import coco_polygon, ellipse, opencv_polygon

SQUARE = np.array([[1.0, 1.0], [4.0, 1.0], [4.0, 4.0], [1.0, 4.0]])


def whole(patch, height, width):
    return patch.on_box(0, 0, height, width)


def rows_of(mask):
    return ["".join("#" if v else "." for v in row) for row in mask]


def test_coco_counts_pixels_whose_centre_lies_inside():
    assert rows_of(whole(coco_polygon(SQUARE, 6, 5, "here"), 5, 6)) == [
        "......",
        ".###..",
        ".###..",
        ".###..",
        "......",
    ]


def test_opencv_counts_the_pixels_of_the_outline_in():
    assert rows_of(whole(opencv_polygon([SQUARE], 6, 5, "here"), 5, 6)) == [
        "......",
        ".####.",
        ".####.",
        ".####.",
        ".####.",
    ]


def test_a_polygon_that_crosses_itself_is_filled_even_odd():
    twice = np.array([[0.0, 0], [6, 0], [6, 6], [0, 6], [0, 0], [2, 2], [4, 2], [4, 4], [2, 4], [2, 2]])
    mask = whole(coco_polygon(twice, 6, 6, "here"), 6, 6)
    assert mask.sum() == 36 - 4
    assert not mask[2:4, 2:4].any()


def test_a_polygon_outside_the_image_paints_nothing():
    for painted in (coco_polygon(SQUARE + 20, 6, 5, "here"), opencv_polygon([SQUARE + 20], 6, 5, "here")):
        assert not whole(painted, 5, 6).any()


@pytest.mark.parametrize("paint", [coco_polygon, lambda p, w, h, s: opencv_polygon([p], w, h, s)])
def test_two_points_and_points_far_away_are_refused(paint):
    with pytest.raises(AnnotationError, match="shape 3 has 2 points; expected at least 3"):
        paint(SQUARE[:2], 6, 5, "shape 3")
    with pytest.raises(AnnotationError, match=r"\(1e\+09, 1\), far outside the image of 6 x 5"):
        paint(np.array([[1.0, 1.0], [1e9, 1.0], [4.0, 4.0]]), 6, 5, "shape 3")


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools 2.0.11
def test_coco_polygons_are_pycocotools_polygons():
    masks = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    for case in range(600):
        height, width = rng.integers(1, 60, 2).tolist()
        points = rng.uniform(-10, 70, (rng.integers(3, 12), 2))
        # Whole and half coordinates are where ties are decided.
        points = (points, np.round(points), np.round(points * 2) / 2)[case % 3]
        code = masks.frPyObjects([points.ravel().tolist()], height, width)
        expected = masks.decode(code)[:, :, 0].astype(bool)
        found = whole(coco_polygon(points, width, height, "here"), height, width)
        np.testing.assert_array_equal(found, expected, err_msg=str(points.tolist()))


def test_opencv_polygons_are_opencv_polygons_inside_the_image():
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(0)
    for _ in range(600):
        height, width = rng.integers(3, 60, 2).tolist()
        rings = [rng.integers(0, (width, height), (rng.integers(3, 12), 2)).astype(float) for _ in range(2)]
        expected = np.zeros((height, width), np.uint8)
        cv2.fillPoly(expected, [ring.astype(np.int32) for ring in rings], 1)
        found = whole(opencv_polygon(rings, width, height, "here"), height, width)
        np.testing.assert_array_equal(found, expected.astype(bool), err_msg=str([r.tolist() for r in rings]))


def test_an_ellipse_of_whole_radii_reaches_its_radii():
    mask = whole(ellipse((30, 20), (12, 6), 0, 60, 40), 40, 60)
    assert mask[20, 18:43].all()
    assert mask[14:27, 30].all()
    assert mask.sum(axis=1).max() == 25
    assert mask.sum(axis=0).max() == 13


def test_a_turned_ellipse_leans_clockwise():
    mask = whole(ellipse((30, 30), (20, 4), 45, 60, 60), 60, 60)
    assert mask[42, 42]
    assert not mask[42, 18]


def test_ellipses_are_opencv_ellipses_up_to_single_pixels_of_the_outline():
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(0)
    wrong = []
    for _ in range(300):
        height, width = rng.integers(10, 120, 2).tolist()
        centre, radii = rng.integers(0, (width, height)).tolist(), rng.integers(1, 50, 2).tolist()
        degrees = round(rng.uniform(0, 360), 2)
        expected = np.zeros((height, width), np.uint8)
        cv2.ellipse(expected, centre, radii, degrees, 0, 360, 1, -1)
        found = whole(ellipse(tuple(centre), tuple(radii), degrees, width, height), height, width)
        wrong.append(int((found != (expected > 0)).sum()))
    assert np.mean(wrong) < 2.5
    assert max(wrong) <= 15
