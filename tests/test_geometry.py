"""Every step moves the affine with the array: checked by hand, by round trips, against nibabel."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes
from nibabel.orientations import axcodes2ornt, io_orientation
from numpy.testing import assert_allclose, assert_array_equal
from volumes import ORIENTATIONS, says_where, tilted, volume_of, world

from medseg.errors import GeometryError
from medseg.geometry import Reorientation, check_same_geometry, crop, flip_lps_ras, orientation_of, pad, reorient
from medseg.volume import Volume

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


# Sheared grids (gantry tilt): voxels lie where the affine says, whatever is done to them


@pytest.mark.parametrize("target", ORIENTATIONS)
def test_a_tilted_volume_turns_without_moving_a_voxel(target: str) -> None:
    moved = reorient(tilted(), target)
    assert moved.orientation == target
    assert_allclose(moved.array, says_where(moved), atol=1e-4)


def test_a_tilted_volume_is_cropped_and_padded_in_place() -> None:
    part = crop(pad(tilted(), (1, 2, 3), (0, 0, 1)), (1, 3, 4), (9, 12, 8))
    assert_allclose(part.array, says_where(part), atol=1e-4)


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
    with pytest.raises(GeometryError, match="is not inside"):
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
