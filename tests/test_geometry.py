"""Every step moves the affine with the array: checked by hand, by round trips, against scipy and SimpleITK."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes
from nibabel.orientations import axcodes2ornt, io_orientation
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

from medseg.errors import GeometryError
from medseg.geometry import Reorientation, check_same_geometry, crop, flip_lps_ras, orientation_of, pad, reorient
from medseg.resampling import resample, resample_affine, resample_array, resample_like, resampled_shape
from medseg.volume import Volume

ORIENTATIONS = [
    "".join(pair[side] for pair, side in zip(order, sides, strict=True))
    for order in permutations(("LR", "PA", "IS"))
    for sides in product((0, 1), repeat=3)
]


def volume_of(shape: tuple[int, ...], spacing: tuple[float, ...] = (1.0, 1.0, 1.0), **more: object) -> Volume:
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (-20.0, 30.0, 7.5)
    return Volume(np.arange(np.prod(shape)).reshape(shape).astype(np.int32), affine, **more)  # type: ignore[arg-type]


def world(affine: np.ndarray, index: tuple[int, ...]) -> np.ndarray:
    return (affine @ [*index, 1.0])[:3]


def outer_corners(volume: Volume) -> np.ndarray:
    ends = [(-0.5, n - 0.5) for n in volume.shape]
    return np.array([world(volume.affine, corner) for corner in product(*ends)])


# Orientation


def test_there_are_48_orientations() -> None:
    assert len(set(ORIENTATIONS)) == 48


@pytest.mark.parametrize("target", ORIENTATIONS)
def test_a_left_marker_stays_on_the_left_in_every_orientation(target: str) -> None:
    volume = volume_of((4, 5, 6), (1.0, 2.0, 3.0))
    moved = reorient(volume, target)
    assert moved.orientation == target
    # RAS+: the first voxel of a RAS volume is the leftmost, most posterior, lowest one.
    marker = tuple(int(v) for v in np.argwhere(moved.array == volume.array[0, 4, 0])[0])
    assert_allclose(world(moved.affine, marker), world(volume.affine, (0, 4, 0)))
    for axis, letter in enumerate(target):
        first = {"R": True, "L": False, "A": False, "P": True, "S": True, "I": False}[letter]
        assert marker[axis] == (0 if first else moved.shape[axis] - 1)


@pytest.mark.parametrize("source", ORIENTATIONS)
def test_reorienting_there_and_back_is_exact(source: str) -> None:
    volume = reorient(volume_of((2, 3, 4, 5), (0.7, 1.1, 3.0), channels=2), source)
    back = reorient(reorient(volume, "RAS"), source)
    assert_array_equal(back.array, volume.array)
    assert_allclose(back.affine, volume.affine, atol=1e-12)


@given(
    shape=array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=5),
    source=st.sampled_from(ORIENTATIONS),
    target=st.sampled_from(ORIENTATIONS),
    angle=st.floats(-0.6, 0.6),
)
@settings(max_examples=60)
def test_undo_brings_an_oblique_grid_back(shape: tuple[int, ...], source: str, target: str, angle: float) -> None:
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    volume = reorient(volume_of(shape, (0.5, 1.5, 4.0)), source)
    affine = turn @ volume.affine
    move = Reorientation.between(affine, target)
    moved = move.apply(volume.array)
    assert_array_equal(move.undo(moved), volume.array)
    moved_affine = move.move_affine(affine, volume.shape)
    assert orientation_of(moved_affine) == target
    for index in product(*[{0, n - 1} for n in volume.shape]):
        place = tuple(int(v) for v in np.argwhere(moved == volume.array[index])[0])
        assert_allclose(world(moved_affine, place), world(affine, index), atol=1e-9)


@pytest.mark.parametrize("source", ORIENTATIONS[::5])
def test_reorienting_agrees_with_nibabel(source: str) -> None:
    import nibabel as nib

    volume = reorient(volume_of((3, 4, 5), (1.0, 2.0, 3.0)), source)
    image = nib.Nifti1Image(np.asarray(volume.array), volume.affine)
    theirs = image.as_reoriented(
        nib.orientations.ornt_transform(io_orientation(volume.affine), axcodes2ornt(tuple("LPS")))
    )
    ours = reorient(volume, "LPS")
    assert_array_equal(ours.array, theirs.dataobj)
    assert_allclose(ours.affine, theirs.affine)


@pytest.mark.parametrize("target", ["RAX", "RA", "RRS", "RASL", "", "LRS"])
def test_something_that_is_no_orientation_is_refused(target: str) -> None:
    with pytest.raises(GeometryError, match="not an orientation"):
        reorient(volume_of((2, 2, 2)), target)


def test_an_image_without_a_third_axis_is_not_reoriented() -> None:
    with pytest.raises(GeometryError, match="only 3D"):
        reorient(Volume(np.zeros((2, 2)), np.eye(4)))


def test_lps_and_ras_differ_in_the_sign_of_x_and_y() -> None:
    affine = np.array([[1.0, 2, 3, 4], [5, 6, 7, 8], [9, 1, 2, 3], [0, 0, 0, 1]])
    assert_allclose(flip_lps_ras(affine)[:3], [[-1, -2, -3, -4], [-5, -6, -7, -8], [9, 1, 2, 3]])
    assert_allclose(flip_lps_ras(flip_lps_ras(affine)), affine)


# Resampling


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


# Sheared grids (gantry tilt): voxels lie where the affine says, whatever is done to them


def tilted(shape: tuple[int, ...] = (12, 13, 9)) -> Volume:
    """Slices 2.5 mm apart that slide by 1 mm along j and 0.4 mm along i; values linear in the world position."""
    affine = np.array([[1.0, 0, 0.4, -20], [0, 1.5, 1.0, 30], [0, 0, 2.5, 7.5], [0, 0, 0, 1]])
    empty = Volume(np.zeros(shape, np.float32), affine)
    return empty.with_array(says_where(empty).astype(np.float32))


def says_where(volume: Volume) -> np.ndarray:
    index = np.indices(volume.shape).reshape(3, -1)
    places = volume.affine[:3, :3] @ index + volume.affine[:3, 3:]
    return (np.array([1.0, -2.0, 0.5]) @ places).reshape(volume.shape)


@pytest.mark.parametrize("target", ORIENTATIONS)
def test_a_tilted_volume_turns_without_moving_a_voxel(target: str) -> None:
    moved = reorient(tilted(), target)
    assert moved.orientation == target
    assert_allclose(moved.array, says_where(moved), atol=1e-4)


def test_a_tilted_volume_is_resampled_along_its_own_axes() -> None:
    volume = tilted()
    result = resample(volume, (0.8, 2.0, 1.3))
    # Spacing is counted along the axes, so along k obliquely from slice to slice: 9 slices of 2.72 mm.
    assert result.shape == (15, 10, 19)
    assert_allclose(outer_corners(result), outer_corners(volume), atol=1e-9)
    inner = tuple(slice(2, -2) for _ in range(3))
    assert_allclose(result.array[inner], says_where(result)[inner], atol=1e-3)


def test_a_tilted_volume_is_cropped_and_padded_in_place() -> None:
    part = crop(pad(tilted(), (1, 2, 3), (0, 0, 1)), (1, 3, 4), (9, 12, 8))
    assert_allclose(part.array, says_where(part), atol=1e-4)


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


# Crop and pad


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SLP"])
def test_a_cropped_voxel_stays_where_it_was(orientation: str) -> None:
    volume = reorient(volume_of((5, 6, 7), (1.0, 2.0, 3.0)), orientation)
    part = crop(volume, (1, 2, 3), (4, 4, 6))
    assert part.shape == (3, 2, 3)
    assert part.array[0, 0, 0] == volume.array[1, 2, 3]
    assert_allclose(world(part.affine, (0, 0, 0)), world(volume.affine, (1, 2, 3)))


@given(
    before=st.tuples(*[st.integers(0, 3)] * 3),
    after=st.tuples(*[st.integers(0, 3)] * 3),
    orientation=st.sampled_from(ORIENTATIONS),
)
@settings(max_examples=40)
def test_crop_undoes_pad(before: tuple[int, ...], after: tuple[int, ...], orientation: str) -> None:
    volume = reorient(volume_of((2, 3, 4, 5), (1.0, 2.0, 3.0), channels=2), orientation)
    padded = pad(volume, before, after, value=-1)
    back = crop(padded, before, [b + n for b, n in zip(before, volume.shape, strict=True)])
    assert_array_equal(back.array, volume.array)
    assert back.same_geometry(volume, 1e-9)


def test_crop_and_pad_serve_images() -> None:
    image = Volume(np.arange(6).reshape(2, 3), np.eye(4), spacing_known=False)
    padded = pad(image, (1, 0), (0, 2), value=9)
    assert padded.array.tolist() == [[9] * 5, [0, 1, 2, 9, 9], [3, 4, 5, 9, 9]]
    assert crop(padded, (1, 0), (3, 3)).same_geometry(image)


@pytest.mark.parametrize(("start", "stop"), [((0, 0, 0), (4, 3, 3)), ((-1, 0, 0), (2, 2, 2)), ((1, 1, 1), (1, 2, 2))])
def test_a_box_outside_the_volume_is_refused(start: tuple[int, ...], stop: tuple[int, ...]) -> None:
    with pytest.raises(GeometryError, match="does not lie inside"):
        crop(volume_of((3, 3, 3)), start, stop)


@pytest.mark.parametrize(("before", "after"), [((1, 1), (1, 1, 1)), ((0, 0, -1), (0, 0, 0))])
def test_padding_that_does_not_fit_is_refused(before: tuple[int, ...], after: tuple[int, ...]) -> None:
    with pytest.raises(GeometryError, match="padding"):
        pad(volume_of((3, 3, 3)), before, after)


def test_two_grids_that_differ_are_both_printed() -> None:
    volume = volume_of((3, 3, 3))
    check_same_geometry(volume, volume, "a", "b")
    with pytest.raises(GeometryError, match=r"a\.nii and b\.nii .*shape \(3, 3, 3\).*shape \(4, 3, 3\).*resample_like"):
        check_same_geometry(volume, volume_of((4, 3, 3)), "a.nii", "b.nii")
