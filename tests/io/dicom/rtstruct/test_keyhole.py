"""Keyhole contours: one for each part of a mask, holes connected, exact under every rule of filling."""

from __future__ import annotations

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Polygon
from scipy import ndimage

from medseg.io.dicom.rtstruct.combine import combine
from medseg.io.dicom.rtstruct.contours import fill
from medseg.io.dicom.rtstruct.keyhole import trace_with_keyholes

MASKS = hnp.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def ring(size, *holes):
    mask = np.ones((size, size), bool)
    for low_i, low_j, high_i, high_j in holes:
        mask[low_i:high_i, low_j:high_j] = False
    return mask


@settings(deadline=None, max_examples=400)
@given(MASKS)
def test_any_mask_comes_back_from_its_keyholes_whether_contours_are_united_or_cancel(mask):
    contours = trace_with_keyholes(mask)
    np.testing.assert_array_equal(fill(contours, mask.shape), mask)
    united = np.zeros(mask.shape, bool)
    for contour in contours:
        united |= fill([contour], mask.shape)
    np.testing.assert_array_equal(united, mask)
    found = combine(contours, [], mask.shape)
    np.testing.assert_array_equal(found.mask, mask)
    assert (found.repeated, found.crossing) == (0, 0)


def rounded_and_outlined(contours, shape):
    """As rt-utils paints: corners rounded to whole voxels, filled by cv2.fillPoly, which paints the outline, too."""
    corners = [np.around(contour).astype(int) for contour in contours]
    mask = fill(corners, shape)
    for contour in corners:
        for start, end in zip(contour, np.roll(contour, -1, axis=0), strict=True):
            (low_i, low_j), (high_i, high_j) = np.minimum(start, end), np.maximum(start, end)
            assert low_i == high_i or low_j == high_j
            mask[low_i : high_i + 1, low_j : high_j + 1] = True
    return mask


@settings(deadline=None, max_examples=400)
@given(MASKS)
def test_programs_that_round_corners_to_voxels_and_paint_the_outline_find_the_mask(mask):
    np.testing.assert_array_equal(rounded_and_outlined(trace_with_keyholes(mask), mask.shape), mask)


@settings(deadline=None, max_examples=200)
@given(MASKS)
def test_contours_lose_hardly_any_area(mask):
    areas = [
        abs(c[:, 0] @ np.roll(c[:, 1], -1) - c[:, 1] @ np.roll(c[:, 0], -1)) / 2 for c in trace_with_keyholes(mask)
    ]
    edges = sum(int(np.abs(np.diff(np.pad(mask.astype(int), 1), axis=axis)).sum()) for axis in (0, 1))
    assert mask.sum() - 1.01 * edges / 128 <= sum(areas) + 1e-9 and sum(areas) <= mask.sum() + 1e-9


@settings(deadline=None, max_examples=200)
@given(MASKS)
def test_a_channel_stays_in_the_region_and_beside_the_voxel_centres(mask):
    for contour in trace_with_keyholes(mask):
        for (i, j), (next_i, next_j) in zip(contour, np.roll(contour, -1, axis=0), strict=True):
            if j != next_j or j % 1 != 0.25:
                continue
            low, high = sorted((i, next_i))
            assert mask[int(low + 0.5) : int(high + 0.5), round(j)].all()


@pytest.mark.parametrize(
    "mask",
    [
        ring(9, (3, 3, 5, 5)),
        ring(9, (1, 1, 3, 3), (4, 1, 6, 3), (7, 1, 8, 8), (1, 5, 6, 8)),
        ring(9, (1, 1, 2, 2), (2, 2, 3, 3), (3, 3, 4, 4)),
        ring(9, (1, 3, 2, 4), (3, 3, 4, 4), (5, 3, 6, 4), (7, 3, 8, 4)),
    ],
    ids=["one hole", "several", "diagonal", "in a row"],
)
def test_a_part_with_holes_is_one_contour_that_matplotlib_fills_too(mask):
    (contour,) = trace_with_keyholes(mask)
    centres = np.argwhere(np.ones(mask.shape))
    np.testing.assert_array_equal(Polygon(contour).contains_points(centres).reshape(mask.shape), mask)


def test_an_island_in_a_hole_is_a_contour_of_its_own():
    mask = ring(9, (2, 2, 7, 7))
    mask[4, 4] = True
    assert sorted(int(fill([contour], mask.shape).sum()) for contour in trace_with_keyholes(mask)) == [1, 56]


def test_a_long_chain_of_holes_is_no_deep_recursion():
    mask = np.ones((4001, 3), bool)
    mask[1::2, 1] = False
    (contour,) = trace_with_keyholes(mask)
    np.testing.assert_array_equal(fill([contour], mask.shape), mask)


@pytest.mark.parametrize("seed", range(3))
def test_smooth_shapes_with_holes_come_back(seed):
    blobs = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(90, 75)), 1.5) > -0.1
    contours = trace_with_keyholes(blobs)
    assert len(contours) == sum(int(fill([c], blobs.shape).any()) for c in contours)
    np.testing.assert_array_equal(fill(contours, blobs.shape), blobs)
