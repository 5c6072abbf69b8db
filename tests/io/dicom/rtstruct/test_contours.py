"""Masks as contours along voxel edges: exact both ways, checked by hand, by property and against matplotlib."""

from __future__ import annotations

import time

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Polygon
from scipy import ndimage

from medseg.io.dicom.rtstruct.contours import fill, trace

MASKS = hnp.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def area(contour):
    i, j = contour.T
    return float(i @ np.roll(j, -1) - np.roll(i, -1) @ j) / 2


def mask_of(*rows):
    """Rows of text, 'x' inside: row j of the picture, column i."""
    return np.array([[c == "x" for c in row] for row in rows]).T


def corners(contour):
    return {tuple(p) for p in contour.tolist()}


def test_one_voxel_is_a_square_around_its_centre():
    (contour,) = trace(mask_of("...", ".x.", "..."))
    assert corners(contour) == {(0.5, 0.5), (0.5, 1.5), (1.5, 0.5), (1.5, 1.5)}
    assert len(contour) == 4
    assert area(contour) == 1


def test_points_on_a_straight_edge_are_left_out():
    (contour,) = trace(mask_of("xxxx", "xxxx", "xxx."))
    assert len(contour) == 6
    assert area(contour) == 11


def test_a_hole_is_a_contour_of_its_own_that_runs_the_other_way():
    outer, hole = trace(mask_of("xxx", "x.x", "xxx"))
    assert (area(outer), area(hole)) == (9, -1)


def test_voxels_that_touch_in_a_corner_are_contours_of_their_own():
    assert [area(c) for c in trace(mask_of("x.", ".x"))] == [1, 1]
    assert [area(c) for c in trace(mask_of(".x", "x."))] == [1, 1]


def test_a_hole_that_touches_the_outside_in_a_corner_is_outside():
    # A ring of one part, closed around the hole but for a corner, in which the outline touches itself.
    (contour,) = trace(mask_of("xxx", "x.x", "xx."))
    assert area(contour) == 7 and len(corners(contour)) == len(contour) - 1


def test_an_empty_mask_has_no_contour_and_no_contour_an_empty_mask():
    assert trace(np.zeros((3, 4), bool)) == []
    assert fill([], (3, 4)).shape == (3, 4)
    assert not fill([np.zeros((2, 2))], (3, 4)).any()


@settings(deadline=None, max_examples=400)
@given(MASKS)
def test_any_mask_comes_back_from_its_contours(mask):
    contours = trace(mask)
    np.testing.assert_array_equal(fill(contours, mask.shape), mask)
    assert sum(map(area, contours)) == mask.sum()


@settings(deadline=None, max_examples=400)
@given(MASKS)
def test_every_part_and_hole_has_one_contour_that_turns_at_every_point(mask):
    contours = trace(mask)
    # Parts are connected by edges, holes by corners too.
    parts = ndimage.label(mask)[1]
    holes = ndimage.label(np.pad(~mask, 1, constant_values=True), np.ones((3, 3)))[1] - 1
    assert sum(area(c) > 0 for c in contours) == parts
    assert sum(area(c) < 0 for c in contours) == holes
    for contour in contours:
        step = np.roll(contour, -1, axis=0) - contour
        assert ((step == 0).sum(axis=1) == 1).all()
        assert (np.abs(step) @ np.ones(2) >= 1).all()
        assert ((step * np.roll(step, 1, axis=0)).sum(axis=1) == 0).all()


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        # In 64ths, of which floats tell every crossing from a centre; what is nearer has a test of its own below.
        hnp.arrays(
            float, st.tuples(st.integers(3, 7), st.just(2)), elements=st.integers(-192, 768).map(lambda n: n / 64)
        ),
        min_size=1,
        max_size=3,
    )
)
def test_any_polygons_fill_the_voxels_whose_centres_they_hold_an_odd_number_of_times(polygons):
    shape = (10, 8)
    mask = fill(polygons, shape)
    # An independent even-odd test of each centre: crossings of a ray towards smaller i.
    for i, j in np.ndindex(shape):
        odd = grazed = False
        for points in polygons:
            for (x0, y0), (x1, y1) in zip(points.tolist(), np.roll(points, -1, axis=0).tolist(), strict=True):
                if y0 > y1:
                    x0, y0, x1, y1 = x1, y1, x0, y0
                if y0 <= j < y1:
                    crossing = x0 + (j - y0) * ((x1 - x0) / (y1 - y0))
                    odd ^= crossing <= i
                    # On which side of a contour within rounding of it a centre lies, floats do not say.
                    grazed |= 0 < abs(crossing - i) < 1e-9
        assert grazed or mask[i, j] == odd


def test_a_contour_within_rounding_of_a_centre_fills_without_fail():
    polygon = np.array([[1.0, -1.0], [1.0, 5.1e-24], [5.1e-24, 5.1e-24]])
    assert fill([polygon], (10, 8)).sum() in (0, 1)


def test_polygons_that_share_an_edge_share_no_voxel_and_leave_none_out():
    rng = np.random.default_rng(0)
    outline = np.array([[1.0, 1.0], [9.0, 1.0], [9.0, 9.0], [1.0, 9.0]])
    for _ in range(200):
        middle = rng.integers(2, 9, 2).astype(float) if rng.random() < 0.5 else rng.uniform(1, 9, 2)
        triangles = [fill([np.array([outline[n], outline[n - 3], middle])], (11, 11)) for n in range(4)]
        np.testing.assert_array_equal(np.sum(triangles, axis=0), fill([outline], (11, 11)).astype(int))


def test_a_contour_through_voxel_centres_takes_in_its_lower_side_only():
    square = np.array([[1.0, 2.0], [4.0, 2.0], [4.0, 5.0], [1.0, 5.0]])
    inside = np.argwhere(fill([square], (8, 8)))
    assert inside.min(axis=0).tolist() == [1, 2]
    assert inside.max(axis=0).tolist() == [3, 4]


def test_a_keyhole_contour_leaves_its_hole_open_and_its_channel_closed():
    outer = [(-0.5, -0.5), (6.5, -0.5), (6.5, 6.5), (-0.5, 6.5), (-0.5, 3.25)]
    inner = [(1.5, 3.25), (1.5, 4.5), (4.5, 4.5), (4.5, 1.5), (1.5, 1.5), (1.5, 3.25), (-0.5, 3.25)]
    expected = np.ones((7, 7), bool)
    expected[2:5, 2:5] = False
    np.testing.assert_array_equal(fill([np.array(outer + inner)], (7, 7)), expected)


def test_contours_beyond_the_image_are_cut_at_its_border():
    square = np.array([[-1e9, -1e9], [1e9, -1e9], [1e9, 1.5], [-1e9, 1.5]])
    np.testing.assert_array_equal(fill([square], (3, 4)), np.arange(4)[None] < np.full((3, 1), 2))


def test_the_order_and_direction_of_contours_do_not_matter():
    contours = trace(mask_of("xxxxx", "x...x", "x.x.x", "x...x", "xxxxx"))
    expected = fill(contours, (5, 5))
    np.testing.assert_array_equal(fill([c[::-1] for c in reversed(contours)], (5, 5)), expected)


@pytest.mark.parametrize("seed", range(3))
def test_matplotlib_finds_the_same_voxels(seed):
    blobs = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(60, 45)), 1.5) > 0.03
    centres = np.argwhere(np.ones(blobs.shape))
    odd = np.zeros(len(centres), bool)
    for contour in trace(blobs):
        odd ^= Polygon(contour).contains_points(centres)
    np.testing.assert_array_equal(odd.reshape(blobs.shape), blobs)


def test_noise_and_a_chessboard_take_no_more_than_a_moment():
    chessboard = np.indices((256, 256)).sum(axis=0) % 2 == 0
    noise = np.random.default_rng(0).random((256, 256)) < 0.6
    for mask in (chessboard, noise):
        began = time.process_time()
        contours = trace(mask)
        np.testing.assert_array_equal(fill(contours, mask.shape), mask)
        assert time.process_time() - began < 5
