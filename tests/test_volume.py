"""What a Volume promises: an array, its place in the patient, and nothing that can be changed by accident."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from medseg.errors import GeometryError
from medseg.volume import Finding, Metadata, Volume


def grid(*spacing: float) -> np.ndarray:
    return np.diag([*spacing, 1.0])


def test_shape_spacing_and_orientation_are_read_from_the_affine() -> None:
    volume = Volume(np.zeros((4, 5, 6)), grid(-1.0, 2.0, 2.5))
    assert volume.shape == (4, 5, 6)
    assert volume.dims == 3
    assert volume.spacing_mm == (1.0, 2.0, 2.5)
    assert volume.orientation == "LAS"


def test_spacing_of_an_oblique_grid_is_the_length_of_its_columns() -> None:
    affine = np.eye(4)
    affine[:3, :3] = [[0.0, -0.6, 0.8], [2.0, 0.0, 0.0], [0.0, 0.8, 0.6]]
    assert Volume(np.zeros((2, 2, 2)), affine).spacing_mm == pytest.approx((2.0, 1.0, 1.0))


def test_channels_come_first_and_are_not_part_of_the_shape() -> None:
    volume = Volume(np.zeros((3, 4, 5, 6)), np.eye(4), channels=3)
    assert volume.shape == (4, 5, 6)
    assert Volume(np.zeros((3, 4, 5)), np.eye(4), channels=3).dims == 2
    assert Volume(np.zeros((3, 4, 5)), np.eye(4)).dims == 3


@pytest.mark.parametrize(
    ("shape", "channels"), [((4,), 0), ((2, 3, 4, 5), 0), ((3, 4, 5, 6), 2), ((3, 4), 3), ((3, 4, 5), -1), ((), 0)]
)
def test_a_rank_that_does_not_fit_the_channels_is_refused(shape: tuple[int, ...], channels: int) -> None:
    with pytest.raises(GeometryError):
        Volume(np.zeros(shape), np.eye(4), channels=channels)


@pytest.mark.parametrize("affine", [np.eye(3), np.zeros((4, 4)), np.diag([1, 1, np.nan, 1]), grid(1, 1, 0)])
def test_an_affine_that_cannot_be_inverted_is_refused(affine: np.ndarray) -> None:
    with pytest.raises(GeometryError, match="affine"):
        Volume(np.zeros((2, 2, 2)), affine)


def test_voxels_of_nanometres_span_a_volume() -> None:
    assert Volume(np.zeros((2, 2, 2)), grid(1e-6, 1e-6, 1e-5)).spacing_mm == pytest.approx((1e-6, 1e-6, 1e-5))


def test_numbers_cannot_be_changed_through_the_volume() -> None:
    array, affine = np.zeros((2, 2, 2)), np.eye(4)
    volume = Volume(array, affine)
    with pytest.raises(ValueError, match="read-only"):
        volume.array[0, 0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        volume.affine[0, 3] = 1
    with pytest.raises(AttributeError):
        volume.channels = 2  # type: ignore[misc]
    # The owner keeps a writable array, and editing the affine it passed in moves nothing.
    array[0, 0, 0] = 1
    affine[0, 3] = 7
    assert volume.affine[0, 3] == 0


def test_pickling_keeps_everything_and_stays_read_only() -> None:
    volume = Volume(
        np.arange(8, dtype=np.int16).reshape(1, 2, 2, 2),
        grid(1, 2, 3),
        1,
        Metadata(modality="CT", patient_id="P"),
        (Finding("gap", "one slice is missing", ("a.dcm",)),),
        spacing_known=False,
    )
    back = pickle.loads(pickle.dumps(volume))
    assert np.array_equal(back.array, volume.array) and back.array.dtype == np.int16
    assert (back.channels, back.metadata, back.findings, back.spacing_known) == (
        1,
        volume.metadata,
        volume.findings,
        False,
    )
    assert not back.array.flags.writeable and not back.affine.flags.writeable


def test_with_array_keeps_the_place_and_refuses_another_shape() -> None:
    volume = Volume(np.zeros((2, 3, 4)), grid(1, 2, 3), metadata=Metadata(modality="CT"))
    two = volume.with_array(np.zeros((2, 2, 3, 4), np.uint8), channels=2)
    assert two.channels == 2 and two.array.dtype == np.uint8 and two.metadata.modality == "CT"
    assert two.same_geometry(volume)
    with pytest.raises(GeometryError, match="does not lie on a grid"):
        volume.with_array(np.zeros((2, 3, 5)))


def test_same_geometry_looks_at_the_farthest_corner() -> None:
    volume = Volume(np.zeros((101, 2, 2)), np.eye(4))
    stretched = np.eye(4)
    stretched[0, 0] = 1.0001  # 0.01 mm off at the hundredth voxel
    other = Volume(np.zeros((101, 2, 2)), stretched)
    assert not volume.same_geometry(other)
    assert volume.same_geometry(other, tolerance_mm=0.0101)
    assert not volume.same_geometry(Volume(np.zeros((100, 2, 2)), np.eye(4)))
    assert not volume.same_geometry(Volume(np.zeros((101, 2, 2)), np.eye(4), spacing_known=False))


def test_same_geometry_serves_images_too() -> None:
    image = Volume(np.zeros((4, 5)), np.eye(4), spacing_known=False)
    assert image.same_geometry(image.with_array(np.ones((3, 4, 5)), channels=3))


def test_the_diagonal_is_measured_over_whole_voxels() -> None:
    assert Volume(np.zeros((3, 2)), grid(1, 2, 1)).diagonal_mm == pytest.approx(5.0)


def test_repr_shows_shape_spacing_orientation_and_dtype() -> None:
    volume = Volume(np.zeros((4, 5, 6), np.int16), grid(-0.7, -0.7, 2.5))
    assert repr(volume) == "Volume(4 x 5 x 6, 0.7 x 0.7 x 2.5 mm, LPS, int16)"
    photo = Volume(np.zeros((3, 4, 5), np.uint8), np.eye(4), channels=3, spacing_known=False)
    assert repr(photo) == "Volume(4 x 5, 1 x 1 (pixels), uint8, channels=3)"


def test_repr_gives_away_no_identity() -> None:
    volume = Volume(np.zeros((2, 2, 2)), np.eye(4), metadata=Metadata(patient_id="SECRET-1"))
    assert "SECRET" not in repr(volume)
