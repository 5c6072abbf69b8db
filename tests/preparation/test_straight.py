"""Sheared grids: by hand, and as phantoms whose value says where a voxel lies in the patient."""

from __future__ import annotations

import doctest
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import plan_for
from volumes import ORIENTATIONS

import medseg
from medseg.errors import GeometryError
from medseg.geometry import reorient
from medseg.preparation import ChannelPlan, labels_to_network_grid, to_network_grid
from medseg.preparation import deskew as straight
from medseg.preparation.deskew import is_orthogonal, straight_grid
from medseg.volume import Metadata, Volume


def tilted(degrees: float, spacing: tuple[float, float, float], sideways: float = 0.0) -> np.ndarray:
    """Slices a `spacing[2]` apart that slide along j, and by `sideways` degrees along i, on an oblique patient."""
    shear = np.diag([*spacing, 1.0])
    shear[:2, 2] = spacing[2] * np.tan(np.radians([sideways, degrees]))
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]]
    affine = turn @ shear
    affine[:3, 3] = (-20.0, 14.0, 100.0)
    return affine


def places(volume: Volume) -> np.ndarray:
    """(3, *shape): world position of every voxel centre in mm."""
    index = np.indices(volume.shape).reshape(3, -1)
    return (volume.affine[:3, :3] @ index + volume.affine[:3, 3:]).reshape(3, *volume.shape)


def ball(affine: np.ndarray, shape: tuple[int, ...], radius: float) -> tuple[np.ndarray, np.ndarray]:
    """A ball in the middle, drawn on the grid by world distance; and its centre."""
    grid = Volume(np.zeros(shape), affine)
    centre = (affine @ [*(np.array(shape) - 1) / 2, 1.0])[:3]
    return np.linalg.norm(places(grid) - centre[:, None, None, None], axis=0) <= radius, centre


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2.0 * float((a & b).sum()) / float(a.sum() + b.sum())


# By hand


def step_per_slice(step: float) -> np.ndarray:
    """Each slice lies `step` voxels further along j."""
    return np.array([[1.0, 0, 0, 0], [0, 1, step, 0], [0, 0, 2, 0], [0, 0, 0, 1]])


def test_a_shift_of_whole_voxels_per_slice_by_hand() -> None:
    array = np.arange(1, 19, dtype=np.int16).reshape(2, 3, 3)
    volume = Volume(array[None], step_per_slice(1.0), channels=1)
    affine, shape = straight_grid(volume)
    np.testing.assert_allclose(affine, np.diag([1.0, 1, 2, 1]), atol=1e-12)
    assert shape == (2, 5, 3)
    got, grid = to_network_grid(volume, plan_for(spacing_mm=None))
    labels = labels_to_network_grid(volume.with_array(array), plan_for(spacing_mm=None))
    # Slice k begins k voxels further along j; beside it lie the image's lowest value and the background.
    for seen, beside in ((got[0], 1), (labels, 0)):
        expected = np.full((2, 5, 3), beside)
        for k in range(3):
            expected[:, k : k + 3, k] = array[:, :, k]
        np.testing.assert_array_equal(seen, expected)
    assert (grid.native_shape, grid.oriented_shape, grid.network_spacing_mm) == ((2, 3, 3), (2, 5, 3), (1, 1, 2))
    np.testing.assert_array_equal(grid.to_native(labels), array)


def test_a_shift_of_half_a_voxel_is_shared_between_two_slices_by_hand() -> None:
    array = np.zeros((1, 3, 2), np.float32)
    array[0, :, 0], array[0, :, 1] = (0, 4, 8), (0, 40, 80)
    affine, shape = straight_grid(Volume(array, step_per_slice(0.5)))
    # 2.5 voxels from the first to the last centre take 4 voxels, a quarter of a voxel more on either side.
    assert shape == (1, 4, 2)
    np.testing.assert_allclose(affine[:3, 3], (0, -0.25, 0), atol=1e-12)
    got, _ = to_network_grid(Volume(array[None], step_per_slice(0.5), channels=1), plan_for(spacing_mm=None))
    # Slice 0 is read at -0.25, 0.75, 1.75, 2.75; slice 1, half a voxel further, at -0.75, 0.25, 1.25, 2.25.
    np.testing.assert_allclose(got[0, 0, :, 0], [0, 3, 7, 0], atol=1e-5)
    np.testing.assert_allclose(got[0, 0, :, 1], [0, 10, 50, 80], atol=1e-5)


def test_the_examples_hold() -> None:
    assert doctest.testmod(straight).failed == 0


def test_a_tenth_of_a_voxel_over_the_whole_volume_is_still_orthogonal() -> None:
    assert is_orthogonal(step_per_slice(0.0999 / 9), (5, 5, 10)) and is_orthogonal(np.diag([1.0, -2, 3, 1]), (9, 9, 9))
    assert not is_orthogonal(step_per_slice(0.1001 / 9), (5, 5, 10))
    assert is_orthogonal(step_per_slice(5.0), (5, 5, 1)), "one slice is not offset from any other"
    assert is_orthogonal(step_per_slice(5.0), (5, 5, 9), axes=(0, 1))
    assert is_orthogonal(step_per_slice(5.0), (5, 5, 9), axes=(0, 2))
    assert not is_orthogonal(step_per_slice(5.0), (5, 5, 9), axes=(1, 2))


@pytest.mark.parametrize("slices", [1, 2, 40])
def test_an_orthogonal_volume_is_left_alone(slices: int) -> None:
    array = np.random.default_rng(0).integers(-1000, 2000, (1, 6, 5, slices), dtype=np.int16)
    # Rounding errors as a float32 sform has them.
    affine = tilted(0.0, (0.7, 0.7, 3.0)).astype(np.float32).astype(np.float64)
    got, grid = to_network_grid(Volume(array, affine, channels=1), plan_for(spacing_mm=None))
    assert grid.straightening is None and np.shares_memory(got, array)
    np.testing.assert_array_equal(got, array)


def test_a_2d_net_sees_offset_slices_as_they_were_taken() -> None:
    array = np.random.default_rng(0).integers(0, 9, (1, 6, 5, 4), dtype=np.int16)
    volume = Volume(array, step_per_slice(0.6), channels=1)
    flat = {"dims": 2, "patch_size": (8, 8), "strides": ((1, 1), (2, 2)), "spacing_mm": None}
    got, grid = to_network_grid(volume, plan_for(**flat))
    assert grid.straightening is None
    np.testing.assert_array_equal(got, array)
    # Sagittal slices of the same stack would be sheared.
    got, grid = to_network_grid(volume, plan_for(**flat, orientation="ASR"))
    assert grid.straightening is not None and got.shape == (1, 7, 4, 6)


def test_an_absurd_shear_is_refused_before_memory_is_taken() -> None:
    affine = np.eye(4)
    affine[0, 2] = 1e6
    volume = Volume(np.zeros((1, 4, 4, 4)), affine, channels=1, metadata=Metadata(source="odd.nii"))
    with pytest.raises(GeometryError, match=r"odd\.nii lies on a grid that is sheared by 90 degrees.*at most 60"):
        to_network_grid(volume, plan_for())
    long = Volume(np.broadcast_to(np.uint8(0), (64, 64, 20_000)), tilted(50.0, (0.5, 0.5, 5.0)))
    with pytest.raises(GeometryError, match=r"sheared by 50 degrees.* 64 x 238\d\d\d x 20000 voxels.*16 times"):
        straight_grid(long)
    assert straight_grid(Volume(np.zeros((4, 4, 4)), tilted(59.0, (1, 1, 1))))[1] == (4, 9, 4)


def test_a_shear_without_a_known_spacing_means_nothing() -> None:
    volume = Volume(np.zeros((1, 4, 4, 4), np.uint8), step_per_slice(3.0), channels=1, spacing_known=False)
    assert to_network_grid(volume, plan_for(spacing_mm=None))[0].shape == (1, 4, 4, 4)


def test_every_channel_is_filled_with_its_own_lowest_value() -> None:
    array = np.stack([np.full((2, 3, 3), -1000), np.full((2, 3, 3), 5)]).astype(np.int16)
    array[:, 1, 1, 1] += 100
    plan = plan_for(spacing_mm=None, in_channels=2, normalization=(ChannelPlan(kind="zscore"),) * 2)
    got, _ = to_network_grid(Volume(array, step_per_slice(1.0), channels=2), plan)
    assert got.dtype == np.float32 and (got[0] - got[1] == -1005).all() and (got[1] == 5).sum() == 29


# Properties


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_axis_order_of_a_tilted_study_gives_the_same_network_input(orientation: str) -> None:
    rng = np.random.default_rng(0)
    image = Volume(rng.normal(size=(1, 9, 8, 6)).astype(np.float32), tilted(17.0, (1.0, 1.0, 2.5)), channels=1)
    labels = image.with_array(rng.integers(0, 5, image.shape, dtype=np.uint8))
    plan = plan_for(spacing_mm=(1.3, 0.9, 2.0))
    expected, first = to_network_grid(image, plan)
    expected_labels = labels_to_network_grid(labels, plan)
    came_back = image.with_array(
        first.to_native(np.arange(np.prod(first.oriented_shape)).reshape(first.oriented_shape))
    )

    turned = reorient(image, orientation)
    array, grid = to_network_grid(turned, plan)

    np.testing.assert_allclose(array, expected, atol=1e-5)
    assert (labels_to_network_grid(reorient(labels, orientation), plan) == expected_labels).mean() > 0.99
    assert grid.native_shape == turned.shape and grid.oriented_shape == first.oriented_shape
    back = grid.to_native(np.arange(np.prod(grid.oriented_shape)).reshape(grid.oriented_shape))
    assert (back == reorient(came_back, orientation).array).mean() > 0.99


affines = st.builds(
    tilted,
    degrees=st.floats(-35, 35),
    spacing=st.sampled_from([(1.0, 1.0, 2.5), (0.5, 0.5, 5.0), (2.0, 2.0, 1.0), (1.0, 1.0, 1.0)]),
    sideways=st.sampled_from([0.0, 0.0, -11.0, 20.0]),
)


@given(affine=affines, orientation=st.sampled_from(ORIENTATIONS), shape=st.tuples(*[st.integers(1, 12)] * 3))
@settings(max_examples=80, deadline=None)
def test_the_straight_grid_covers_every_voxel_and_keeps_the_slices(
    affine: np.ndarray, orientation: str, shape: tuple[int, int, int]
) -> None:
    volume = reorient(Volume(np.zeros(shape), affine), orientation)
    straight, size = straight_grid(volume)
    gram = straight[:3, :3].T @ straight[:3, :3]
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-9)
    assert np.linalg.det(straight) * np.linalg.det(volume.affine) > 0
    # The volume of a voxel is that of the sheared one: nothing is stretched.
    assert abs(np.linalg.det(straight)) == pytest.approx(abs(np.linalg.det(affine)))
    where = np.linalg.inv(straight)[:3] @ np.vstack([places(volume).reshape(3, -1), np.ones(volume.array.size)])
    assert where.min() > -2e-3 and (where.max(axis=1) < np.array(size) - 1 + 2e-3).all()
    # Along one axis, the normal, nothing moves and nothing is added.
    index = np.indices(volume.shape).reshape(3, -1)
    kept = [a for a in range(3) if size[a] == volume.shape[a] and np.allclose(where[a], index[a], atol=1e-6)]
    assert kept


@given(
    affine=affines,
    orientation=st.sampled_from(ORIENTATIONS),
    spacing=st.sampled_from([None, (1.0, 1.0, 2.0), (1.7, 1.1, 1.3)]),
    weights=st.tuples(*[st.floats(-1, 1)] * 3),
)
@settings(max_examples=40, deadline=None)
def test_a_linear_function_of_the_place_in_the_patient_survives(
    affine: np.ndarray, orientation: str, spacing: tuple[float, ...] | None, weights: tuple[float, ...]
) -> None:
    empty = reorient(Volume(np.zeros((14, 15, 9)), affine), orientation)
    values = np.tensordot(weights, places(empty), 1).astype(np.float32)
    array, grid = to_network_grid(empty.with_array(values[None], channels=1), plan_for(spacing_mm=spacing))
    if grid.straightening is None:
        return
    network = grid.straightening.network
    assert network.orientation == "RAS" and network.shape == array.shape[1:]
    assert network.spacing_mm == pytest.approx(grid.network_spacing_mm)
    where = places(network)
    index = (np.linalg.inv(empty.affine) @ np.vstack([where.reshape(3, -1), np.ones(array.size)]))[:3]
    inside = ((index >= 0) & (index <= np.array(empty.shape)[:, None] - 1)).all(axis=0).reshape(network.shape)
    assert inside.sum() > 100
    np.testing.assert_allclose(array[0][inside], np.tensordot(weights, where, 1)[inside], atol=1e-3)


@given(affine=affines, orientation=st.sampled_from(ORIENTATIONS))
@settings(max_examples=30, deadline=None)
def test_a_ball_is_still_a_ball_at_its_place_after_there_and_back(affine: np.ndarray, orientation: str) -> None:
    spacing = np.linalg.norm(affine[:3, 0]), np.linalg.norm(affine[:3, 1]), affine[2, 2]
    radius = 9.0 * max(spacing[0], spacing[2] / 2)
    shape = tuple(int(n) for n in np.ceil(2.6 * radius / np.array(spacing)))
    mask, centre = ball(affine, shape, radius)
    volume = reorient(Volume(mask.astype(np.uint8), affine), orientation)
    plan = plan_for(spacing_mm=None)

    on_network = labels_to_network_grid(volume, plan)
    _, grid = to_network_grid(volume.with_array(volume.array[None], channels=1), plan)
    back = grid.to_native(on_network)

    assert dice(back > 0, volume.array > 0) >= 0.95
    found = places(volume)[:, back > 0].mean(axis=1)
    off = np.linalg.inv(volume.affine[:3, :3]) @ (found - centre)
    assert np.abs(off).max() < 0.5
    if grid.straightening is not None:
        drawn = np.linalg.norm(places(grid.straightening.network) - centre[:, None, None, None], axis=0) <= radius
        assert dice(on_network > 0, drawn) >= 0.95


def test_axes_that_are_all_off_are_straightened_too() -> None:
    affine = np.array([[1.0, 0.3, 0.2, 5], [0.1, 1.1, -0.4, 6], [0.0, 0.1, 2.0, 7], [0, 0, 0, 1]])
    shape = (30, 28, 16)
    mask, centre = ball(affine, shape, 9.0)
    volume = Volume(mask[None].astype(np.uint8), affine, channels=1)
    array, grid = to_network_grid(volume, plan_for(spacing_mm=None))
    assert grid.straightening is not None
    network = grid.straightening.network
    assert is_orthogonal(network.affine, (512, 512, 512))
    drawn = np.linalg.norm(places(network) - centre[:, None, None, None], axis=0) <= 9.0
    assert dice(array[0] > 0.5, drawn) >= 0.95
    assert dice(grid.to_native(drawn.astype(np.uint8)) > 0, mask) >= 0.95


def test_probabilities_come_back_smoothly_and_labels_as_they_are() -> None:
    volume = Volume(np.zeros((1, 12, 12, 8), np.uint8), tilted(20.0, (1.0, 1.0, 2.0)), channels=1)
    _, grid = to_network_grid(volume, plan_for(spacing_mm=None))
    assert grid.straightening is not None
    ramp = np.broadcast_to(np.linspace(0, 1, grid.oriented_shape[1])[:, None], grid.oriented_shape).astype(np.float16)
    back = grid.to_native(ramp)
    assert back.dtype == np.float16 and back.shape == (12, 12, 8)
    # Steps along j stay equal, although most slices lie between the rows of the straight grid.
    assert np.ptp(np.diff(back.astype(np.float32), axis=1)) < 2e-3
    labels = grid.to_native(np.where(ramp > 0.5, 200, 7).astype(np.uint8))
    assert labels.dtype == np.uint8 and set(np.unique(labels)) == {7, 200}


def test_masks_on_a_study_with_a_tilted_gantry_go_there_and_back(data_folder: Path) -> None:
    study = medseg.read(data_folder / "dicom_bad/gantrytilting")
    plan = plan_for(spacing_mm=None)
    array, grid = to_network_grid(study.with_array(study.array[None], channels=1), plan)
    # 3.63 mm from the first slice to the last are 8.7 pixels; 5 mm along the table are 4.85 mm along the normal.
    assert array.shape == (1, 512, 521, 4) and grid.straightening is not None
    assert grid.network_spacing_mm == pytest.approx((0.418, 0.418, 5 * np.cos(np.radians(14.0))), abs=2e-3)
    mask, centre = ball(study.affine, study.shape, 40.0)
    labels = labels_to_network_grid(study.with_array(mask.astype(np.uint8)), plan)
    drawn = np.linalg.norm(places(grid.straightening.network) - centre[:, None, None, None], axis=0) <= 40.0
    assert dice(labels > 0, drawn) > 0.99
    assert dice(grid.to_native(labels) > 0, mask) > 0.99
