"""Resampling moves the affine with the array: checked by hand and against scipy and SimpleITK."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage
from volumes import ORIENTATIONS, outer_corners, says_where, tilted, volume_of

from medseg.errors import GeometryError
from medseg.geometry import pad, reorient
from medseg.resampling import resample, resample_affine, resample_array, resample_like, resampled_shape
from medseg.volume import Volume


def test_resampled_shape_by_hand() -> None:
    assert resampled_shape((10, 10, 3), (1.0, 1.0, 5.0), (2.0, 3.0, 1.0)) == (5, 3, 15)
    assert resampled_shape((2,), (1.0,), (100.0,)) == (1,)


def test_halving_the_resolution_averages_neighbours_and_takes_the_lower_label() -> None:
    row = np.array([0.0, 2.0, 10.0, 20.0])
    assert resample_array(row, (2,), order=1).tolist() == [1.0, 15.0]
    assert resample_array(row, (2,), order=0).tolist() == [0.0, 10.0]


def test_doubling_the_resolution_by_hand() -> None:
    row = np.array([0.0, 4.0])
    # New centres lie at -0.25, 0.25, 0.75, 1.25 old voxels; beyond the border the last value holds.
    assert resample_array(row, (4,), order=1).tolist() == [0.0, 1.0, 3.0, 4.0]
    assert resample_array(row, (4,), order=0).tolist() == [0.0, 0.0, 4.0, 4.0]


@given(
    shape=array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=7),
    data=st.data(),
)
@settings(max_examples=60)
def test_resample_array_equals_scipy_zoom_on_grids_with_kept_edges(shape: tuple[int, ...], data: st.DataObject) -> None:
    new = tuple(data.draw(st.integers(1, 9)) for _ in shape)
    array = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    scale = [b / a for a, b in zip(shape, new, strict=True)]
    theirs = ndimage.zoom(array, scale, order=1, mode="nearest", grid_mode=True)
    assert theirs.shape == new
    assert_allclose(resample_array(array, new, order=1), theirs, atol=1e-5)


@pytest.mark.parametrize("order", [0, 1])
def test_resample_agrees_with_simpleitk(order: int) -> None:
    rng = np.random.default_rng(1)
    volume = volume_of((9, 11, 7), (1.0, 2.0, 3.0)).with_array(rng.integers(0, 9, (9, 11, 7)).astype(np.float32))
    ours = resample(volume, (1.7, 1.3, 2.2), order)
    source = sitk.GetImageFromArray(np.asarray(volume.array).T.copy())
    source.SetSpacing(volume.spacing_mm)
    source.SetOrigin(volume.affine[:3, 3].tolist())
    method = sitk.sitkLinear if order else sitk.sitkNearestNeighbor
    theirs = sitk.Resample(
        source,
        list(ours.shape),
        sitk.Transform(),
        method,
        ours.affine[:3, 3].tolist(),
        ours.spacing_mm,
        np.eye(3).ravel().tolist(),
        0.0,
        sitk.sitkFloat32,
        True,  # like ours, hold the last value between the outermost centre and the outer edge
    )
    assert_allclose(ours.array, sitk.GetArrayFromImage(theirs).T, atol=1e-4)


@given(
    shape=array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6),
    target=st.tuples(*[st.floats(0.4, 6.0)] * 3),
    orientation=st.sampled_from(ORIENTATIONS),
)
@settings(max_examples=50)
def test_resampling_keeps_the_outer_edges(
    shape: tuple[int, ...], target: tuple[float, float, float], orientation: str
) -> None:
    volume = reorient(volume_of(shape, (1.0, 2.0, 3.0)), orientation)
    result = resample(volume, target)
    assert_allclose(outer_corners(result), outer_corners(volume), atol=1e-9)
    assert result.orientation == orientation


def test_nearest_keeps_the_type_and_makes_no_new_label() -> None:
    labels = Volume(np.random.default_rng(0).choice([0, 3, 200], (5, 6, 7)).astype(np.uint8), np.eye(4))
    result = resample(labels, (0.7, 1.9, 0.6), order=0)
    assert result.array.dtype == np.uint8
    assert set(np.unique(result.array)) <= {0, 3, 200}


def test_channels_are_resampled_alike() -> None:
    one = np.random.default_rng(0).standard_normal((4, 5, 6))
    both = Volume(np.stack([one, 2 * one]), np.eye(4), channels=2)
    result = resample(both, (0.8, 1.5, 2.0))
    assert_allclose(result.array[1], 2 * result.array[0], rtol=1e-5)
    assert_allclose(result.array[0], resample(Volume(one, np.eye(4)), (0.8, 1.5, 2.0)).array)


def test_a_linear_ramp_in_world_coordinates_survives_resampling() -> None:
    volume = volume_of((12, 12, 12), (1.0, 1.5, 2.0))
    grid = np.stack([*np.meshgrid(*([np.arange(12.0)] * 3), indexing="ij"), np.ones((12, 12, 12))])
    ramp = volume.with_array((volume.affine[:3] @ grid.reshape(4, -1)).sum(0).reshape(12, 12, 12))
    result = resample(ramp, (0.9, 1.1, 2.7))
    inner = tuple(slice(2, -2) for _ in range(3))
    index = np.stack(np.meshgrid(*[np.arange(float(n)) for n in result.shape], indexing="ij"))
    places = (result.affine[:3] @ np.vstack([index.reshape(3, -1), np.ones(index[0].size)])).sum(0)
    assert_allclose(result.array[inner], places.reshape(result.shape)[inner], atol=1e-3)


def test_resample_affine_moves_the_first_centre_inwards() -> None:
    affine = resample_affine(np.eye(4), (4, 4), (2, 8))
    assert_allclose(affine[:3, 3], [0.5, -0.25, 0.0])
    assert_allclose(np.diag(affine), [2.0, 0.5, 1.0, 1.0])


def test_pixels_are_not_resampled_to_millimetres() -> None:
    photo = Volume(np.zeros((4, 4)), np.eye(4), spacing_known=False)
    with pytest.raises(GeometryError, match="no known spacing"):
        resample(photo, (1, 1))


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (1.0, 1.0, 0.0), (1.0, 1.0, -2.0)])
def test_a_spacing_that_does_not_fit_is_refused(spacing: tuple[float, ...]) -> None:
    with pytest.raises(GeometryError, match="one positive value per axis"):
        resample(volume_of((3, 3, 3)), spacing)


# Onto another grid


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("target", ["LPS", "SAR", "PIL"])
def test_resample_like_a_reoriented_grid_is_exact(order: int, target: str) -> None:
    volume = volume_of((3, 4, 5), (1.0, 2.0, 3.0))
    reference = reorient(volume, target)
    result = resample_like(volume, reference, order)
    assert_array_equal(result.array, reference.array)
    assert result.same_geometry(reference)


@pytest.mark.parametrize("order", [0, 1])
def test_resample_like_agrees_with_resample_up_to_the_outer_edges(order: int) -> None:
    volume = volume_of((7, 9, 5), (2.0, 2.0, 2.0))
    finer = resample(volume, (1.28, 1.38, 1.43), order)  # odd to odd: no centre lies half-way between two others
    assert finer.shape == (11, 13, 7)
    result = resample_like(volume, finer, order, outside=-999)
    assert_allclose(result.array, finer.array, atol=1e-3)


def test_resample_like_fills_what_lies_outside() -> None:
    volume = volume_of((4, 4, 4)).with_array(np.ones((2, 4, 4, 4)), channels=2)
    larger = pad(volume_of((4, 4, 4)), (2, 0, 0), (0, 0, 1))
    result = resample_like(volume, larger, outside=-5)
    assert result.channels == 2
    assert_array_equal(result.array[:, :2], -5)
    assert_array_equal(result.array[:, 2:, :, :4], 1)
    assert_array_equal(result.array[..., 4:], -5)


def test_resample_like_needs_to_know_where_things_are() -> None:
    photo = Volume(np.zeros((4, 4)), np.eye(4), spacing_known=False)
    with pytest.raises(GeometryError, match="3D volumes with known spacing"):
        resample_like(photo, volume_of((2, 2, 2)))


# Sheared grids (gantry tilt): voxels lie where the affine says


def test_a_tilted_volume_is_resampled_along_its_own_axes() -> None:
    volume = tilted()
    result = resample(volume, (0.8, 2.0, 1.3))
    # Spacing is counted along the axes, so along k obliquely from slice to slice: 9 slices of 2.72 mm.
    assert result.shape == (15, 10, 19)
    assert_allclose(outer_corners(result), outer_corners(volume), atol=1e-9)
    inner = tuple(slice(2, -2) for _ in range(3))
    assert_allclose(result.array[inner], says_where(result)[inner], atol=1e-3)


def test_a_tilted_volume_is_resampled_onto_a_straight_grid_and_back() -> None:
    volume = tilted()
    straight = Volume(
        np.zeros((16, 20, 17)), np.array([[1, 0, 0, -20], [0, 1, 0, 32], [0, 0, 1.25, 8], [0, 0, 0, 1.0]])
    )
    result = resample_like(volume, straight, outside=np.nan)
    inside = np.isfinite(result.array)
    where = np.linalg.inv(volume.affine) @ straight.affine @ [*np.argwhere(inside).T, np.ones(inside.sum())]
    deep = ((where[:3] >= 0) & (where[:3] <= np.array(volume.shape)[:, None] - 1)).all(axis=0)
    assert deep.sum() > 1000
    assert_allclose(result.array[inside][deep], says_where(straight)[inside][deep], atol=1e-3)
    back = resample_like(straight.with_array(says_where(straight)), volume, outside=np.nan)
    inside = np.isfinite(back.array)
    inside[[0, -1]] = inside[:, [0, -1]] = inside[:, :, [0, -1]] = False
    assert inside.sum() > 500
    assert np.median(np.abs(back.array[inside] - volume.array[inside])) < 1e-4


@pytest.mark.parametrize("axis_order", [(0, 1, 2), (2, 0, 1)])
def test_a_label_map_on_a_grid_that_is_twice_as_coarse_does_not_move(axis_order) -> None:
    fine = np.zeros((60, 60, 60), np.uint8)
    fine[13:37, 15:39, 17:41] = 1
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, axis_order] * 0.5
    coarse = Volume(np.zeros((30, 30, 30), np.uint8), resample_affine(affine, fine.shape, (30, 30, 30)))
    found = resample_like(Volume(fine, affine), coarse, order=0)
    centre, expected = (v.affine @ [*np.argwhere(v.array).mean(axis=0), 1.0] for v in (found, Volume(fine, affine)))
    np.testing.assert_allclose(centre, expected, atol=0.02)


def test_labels_stay_where_they_are_when_a_volume_becomes_twice_as_coarse() -> None:
    labels = np.zeros((80, 80, 80), np.uint8)
    labels[21:59, 21:59, 21:59] = 1
    volume = Volume(labels, np.eye(4))
    for each in (volume, volume.with_array(labels[None], channels=1)):
        coarse = resample(each, (2.0, 2.0, 2.0), order=0)
        found = coarse.affine @ [*np.argwhere(coarse.array.reshape(coarse.shape)).mean(axis=0), 1.0]
        np.testing.assert_allclose(found[:3], np.argwhere(labels).mean(axis=0), atol=0.02)
