"""Length and diameter of tubes whose length and diameter are known."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.tasks.centreline import measure_centreline


def tube(shape, spacing, start, stop, radius, flat=True):
    """Voxels whose centre lies in a cylinder with flat ends; start and stop in mm."""
    grid = np.stack(np.meshgrid(*[np.arange(n) * s for n, s in zip(shape, spacing, strict=True)], indexing="ij"), -1)
    axis = np.subtract(stop, start)
    length = np.linalg.norm(axis)
    along = (grid - start) @ (axis / length)
    across = np.linalg.norm(grid - start - along[..., None] * axis / length, axis=-1)
    return (across <= radius) & (along >= 0) & (along <= length)


@pytest.mark.parametrize(
    ("spacing", "start", "stop", "radius"),
    [
        ((1.0, 1.0, 1.0), (15, 15, 5), (15, 15, 45), 5.0),
        ((1.0, 1.0, 1.0), (8, 10, 6), (32, 38, 44), 4.0),
        ((0.7, 0.7, 2.0), (10, 12, 8), (20, 14, 70), 4.5),
        ((1.0, 1.0, 1.0), (6, 15, 5), (34, 15, 33), 6.0),
    ],
    ids=["along an axis", "oblique", "oblique in thick slices", "diagonal"],
)
def test_a_cylinder_has_its_length_and_its_diameter(spacing, start, stop, radius) -> None:
    shape = tuple(int(np.ceil((max(a, b) + 8) / s)) for a, b, s in zip(start, stop, spacing, strict=True))
    found = measure_centreline(tube(shape, spacing, start, stop, radius), spacing)
    assert found is not None and found.branches == 1
    length = np.linalg.norm(np.subtract(stop, start))
    assert found.length == pytest.approx(length, rel=0.04)
    assert found.mean_diameter == pytest.approx(2 * radius, rel=0.03)
    assert found.max_diameter == pytest.approx(2 * radius, rel=0.06)


def test_the_widest_place_of_a_bulging_vessel_is_found() -> None:
    spacing = (1.0, 1.0, 1.0)
    i, j, k = np.meshgrid(np.arange(40), np.arange(40), np.arange(80), indexing="ij")
    radius = 4 + 5 * np.exp(-(((k - 50) / 8.0) ** 2))
    found = measure_centreline((np.hypot(i - 20, j - 20) <= radius) & (k > 4) & (k < 76), spacing)
    assert found is not None
    assert found.max_diameter == pytest.approx(18, rel=0.04)
    assert abs(found.max_at[2] - 50) <= 3 and found.max_at[:2] == (20, 20)


def test_a_vessel_that_leaves_the_image_is_not_made_longer() -> None:
    mask = tube((31, 31, 40), (1.0, 1.0, 1.0), (15, 15, -20), (15, 15, 60), 5.0)
    found = measure_centreline(mask, (1.0, 1.0, 1.0))
    assert found is not None
    assert found.length == pytest.approx(40, rel=0.04) and found.mean_diameter == pytest.approx(10, rel=0.03)


def test_branches_add_up_and_their_meeting_point_is_no_diameter() -> None:
    shape, spacing = (70, 60), (1.0, 1.0)
    mask = tube(shape, spacing, (5, 30), (35, 30), 3.0)
    mask |= tube(shape, spacing, (35, 30), (60, 50), 3.0) | tube(shape, spacing, (35, 30), (60, 10), 3.0)
    found = measure_centreline(mask, spacing)
    assert found is not None and found.branches == 3
    assert found.length == pytest.approx(30 + 2 * np.hypot(25, 20), rel=0.05)
    assert found.mean_diameter == pytest.approx(6.5, abs=0.6) and found.max_diameter < 9


def test_a_strip_of_pixels_by_hand() -> None:
    mask = np.zeros((30, 11), bool)
    mask[5:25, 3:8] = True
    found = measure_centreline(mask, (0.5, 0.5))
    assert found is not None
    assert found.length == pytest.approx(10.0, abs=0.3) and found.mean_diameter == pytest.approx(2.5, abs=0.13)


def test_a_ring_is_as_long_as_its_middle_but_for_one_voxel() -> None:
    i, j = np.meshgrid(np.arange(81), np.arange(81), indexing="ij")
    distance = np.hypot(i - 40, j - 40)
    found = measure_centreline((distance > 27) & (distance < 33), (1.0, 1.0))
    assert found is not None
    assert found.length == pytest.approx(2 * np.pi * 30, rel=0.03) and found.mean_diameter == pytest.approx(6, rel=0.1)


def test_nothing_a_dot_and_a_full_image() -> None:
    assert measure_centreline(np.zeros((5, 5, 5), bool), (1.0, 1.0, 1.0)) is None
    dot = np.zeros((5, 5, 5), bool)
    dot[2, 2, 2] = True
    found = measure_centreline(dot, (1.0, 1.0, 1.0))
    assert found is not None and np.isnan(found.mean_diameter) and found.length <= 1
    assert measure_centreline(np.ones((4, 5, 20), bool), (1.0, 1.0, 1.0)) is not None


def test_a_blob_that_thinning_deletes_is_a_dot() -> None:
    blob = np.zeros((6, 6, 6), bool)
    blob[2:4, 2:4, 2:4] = True
    found = measure_centreline(blob, (1.0, 1.0, 1.0))
    assert found is not None and (found.length, found.branches) == (0.0, 1) and np.isnan(found.max_diameter)
