"""Label maps as outlines: connected parts, pixel edges, pixel indices."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medseg.io.annotations.outlines import parts, pixel_edges, pixel_indices
from medseg.io.annotations.polygons import coco_polygon, opencv_polygon

MASKS = arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12)))


def test_parts_are_connected_through_edges_not_corners():
    found = list(parts(np.array([[1, 0, 2], [0, 1, 2], [1, 1, 0]])))
    assert [(p.value, p.top, p.left, p.mask.sum()) for p in found] == [(1, 0, 0, 1), (1, 1, 0, 3), (2, 0, 2, 2)]


def test_a_ring_has_an_outer_outline_and_one_of_its_hole():
    mask = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool)
    assert pixel_edges(mask) == [[(0, 0), (3, 0), (3, 3), (0, 3)], [(1, 1), (1, 2), (2, 2), (2, 1)]]


def test_pixel_indices_go_through_the_pixels_of_the_part_or_of_the_hole():
    outer, hole = pixel_edges(np.pad(np.zeros((2, 2), bool), 1, constant_values=True))
    assert pixel_indices(outer) == [(0, 0), (3, 0), (3, 3), (0, 3)]
    assert sorted(pixel_indices(hole, hole=True)) == [(1, 1), (1, 2), (2, 1), (2, 2)]


def test_an_outline_that_touches_itself_in_a_corner_does_not_cross():
    mask = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]], bool)
    rings = pixel_edges(mask)
    # The hole opens through the corner, so there is one outline.
    assert len(rings) == 1
    np.testing.assert_array_equal(coco_polygon(np.array(rings[0], float), 3, 3, "here").on_box(0, 0, 3, 3), mask)


@settings(deadline=None, max_examples=150)
@given(MASKS)
def test_pixel_edges_give_the_same_pixels_back(mask):
    again = np.zeros_like(mask)
    for part in parts(mask.astype(np.uint8)):
        outer, *holes = pixel_edges(part.mask)
        height, width = part.mask.shape
        painted = coco_polygon(np.array(outer, float), width, height, "here").on_box(0, 0, height, width)
        for hole in holes:
            painted &= ~coco_polygon(np.array(hole, float), width, height, "here").on_box(0, 0, height, width)
        again[part.top : part.top + height, part.left : part.left + width] |= painted
    np.testing.assert_array_equal(again, mask)


@settings(deadline=None, max_examples=150)
@given(MASKS)
def test_pixel_indices_give_the_same_pixels_back(mask):
    for part in parts(mask.astype(np.uint8)):
        outer, *holes = pixel_edges(part.mask)
        height, width = part.mask.shape
        ring = pixel_indices(outer)
        painted = opencv_polygon([np.array((ring * 3)[: max(3, len(ring))], float)], width, height, "here")
        seen = painted.on_box(0, 0, height, width)
        # Thin arms and holes that touch may need a bitmap; nothing of the part is ever lost.
        assert seen[part.mask].all()
        if not holes:
            np.testing.assert_array_equal(seen, part.mask)
