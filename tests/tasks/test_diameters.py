"""RECIST axes of shapes whose axes are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from medseg.tasks.diameters import axial_axis, axial_diameters


def ellipse(shape, spacing, center, half_axes, degrees):
    """Pixels whose centre lies in an ellipse; lengths in mm."""
    grid = np.stack(np.meshgrid(*[np.arange(n) * s for n, s in zip(shape, spacing, strict=True)], indexing="ij"), -1)
    angle = np.deg2rad(degrees)
    along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    offset = grid - center
    return ((offset @ along) / half_axes[0]) ** 2 + ((offset @ across) / half_axes[1]) ** 2 <= 1


@pytest.mark.parametrize("degrees", [0, 30, 45, 77, 90])
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.7, 1.1)], ids=["square pixels", "oblong pixels"])
def test_an_ellipse_has_its_axes_whichever_way_it_lies(degrees, spacing) -> None:
    mask = np.zeros((100, 100, 3), bool)
    mask[:, :, 1] = ellipse((100, 100), spacing, (35, 42), (24, 11), degrees)
    found = axial_diameters(mask, np.diag([*spacing, 5.0, 1.0]))
    assert found is not None and (found.axis, found.slice) == (2, 1)
    assert found.long_mm == pytest.approx(48, abs=1.3) and found.short_mm == pytest.approx(22, abs=1.3)


def test_a_rectangle_by_hand() -> None:
    mask = np.zeros((20, 20, 3), bool)
    mask[5:15, 8:12, 1] = True
    found = axial_diameters(mask, np.eye(4))
    assert found is not None
    # From the left edge of one corner pixel to the right edge of the opposite one: 10 across, 3 up.
    assert found.long_mm == pytest.approx(np.hypot(10, 3))
    assert sorted(map(tuple, found.long_ends.tolist())) in ([(4.5, 8, 1), (14.5, 11, 1)], [(4.5, 11, 1), (14.5, 8, 1)])
    # The bar is 4 high; a chord at a right angle to the diagonal is as much longer as it leans.
    assert found.short_mm == pytest.approx(4 * np.hypot(10, 3) / 10)


def test_one_voxel_is_as_long_as_its_longer_edge() -> None:
    mask = np.zeros((3, 3, 3), bool)
    mask[1, 1, 1] = True
    found = axial_diameters(mask, np.diag([2.0, 3.0, 9.0, 1.0]))
    assert found is not None and (found.long_mm, found.short_mm) == pytest.approx((3.0, 2.0))


def test_axes_are_at_right_angles_and_their_ends_lie_where_they_say() -> None:
    rng = np.random.default_rng(4)
    turn = Rotation.from_euler("xyz", [8, -12, 20], degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([0.8, 1.3, 4.0])
    affine[:3, 3] = (-30, 12, 5)
    mask = rng.random((14, 12, 4)) > 0.8
    found = axial_diameters(mask, affine)
    assert found is not None
    long, short = np.diff(found.long_ends_mm, axis=0)[0], np.diff(found.short_ends_mm, axis=0)[0]
    assert np.linalg.norm(long) == pytest.approx(found.long_mm)
    assert np.linalg.norm(short) == pytest.approx(found.short_mm)
    assert abs(long @ short) < 1e-9 * found.long_mm**2
    assert set(found.long_ends[:, 2]) == {float(found.slice)}


def test_no_two_edges_of_any_slice_are_further_apart() -> None:
    rng = np.random.default_rng(1)
    mask = rng.random((9, 8, 5)) > 0.85
    spacing = np.array([0.9, 1.4])
    found = axial_diameters(mask, np.diag([*spacing, 3.0, 1.0]))
    longest = 0.0
    for k in range(5):
        points = (
            np.concatenate([np.argwhere(mask[:, :, k]) + s for s in ((0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5))])
            * spacing
        )
        if len(points):
            longest = max(longest, np.linalg.norm(points[:, None] - points[None], axis=-1).max())
    assert found is not None and found.long_mm == pytest.approx(longest)


def test_slices_are_the_axial_ones_however_the_file_is_ordered() -> None:
    mask = np.zeros((30, 30, 6), bool)
    mask[4:24, 10:16, 2] = True
    mask[4:8, 10:16, 1:5] = True
    affine = np.diag([1.0, 1.0, 8.0, 1.0])
    expected = axial_diameters(mask, affine)
    turned = axial_diameters(mask.transpose(2, 0, 1), affine[:, [2, 0, 1, 3]])
    assert axial_axis(affine[:, [2, 0, 1, 3]]) == 0
    assert expected is not None and turned is not None
    assert (turned.axis, turned.slice, turned.long_mm, turned.short_mm) == pytest.approx(
        (0, 2, expected.long_mm, expected.short_mm)
    )


def test_a_photograph_is_measured_in_pixels_and_nothing_is_none() -> None:
    mask = np.zeros((20, 20), bool)
    mask[3:13, 5] = True
    found = axial_diameters(mask, np.eye(4))
    assert found is not None and (found.long_mm, found.short_mm) == pytest.approx((10, 1)) and found.axis == -1
    assert axial_diameters(np.zeros((4, 4), bool), np.eye(4)) is None
