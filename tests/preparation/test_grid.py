"""From the native grid to the network grid and back."""

from __future__ import annotations

import numpy as np
import pytest
from plans import plan_for
from pydantic import ValidationError
from scipy import ndimage
from scipy.linalg import polar
from volumes import ORIENTATIONS

from medseg.errors import GeometryError
from medseg.geometry import reorient
from medseg.preparation import ChannelPlan, labels_to_network_grid, to_network_grid
from medseg.resampling import resample
from medseg.volume import Volume


def head() -> tuple[Volume, Volume]:
    rng = np.random.default_rng(0)
    affine = np.array([[0.99, 0.1, 0, -8], [-0.1, 0.99, 0.05, 4], [0, -0.05, 2.0, 3], [0, 0, 0, 1.0]])
    affine[:3, :3] = polar(affine[:3, :3])[0] * (1.0, 1.0, 2.0)
    image = Volume(rng.normal(size=(1, 9, 8, 7)).astype(np.float32), affine, channels=1)
    return image, image.with_array(rng.integers(0, 5, (9, 8, 7), dtype=np.uint8))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("net", ["RAS", "RSA"])
def test_every_axis_order_gives_the_same_network_input_and_comes_back(orientation: str, net: str) -> None:
    image, labels = head()
    spacing = (1.0, 1.0, 2.0) if net == "RAS" else (1.0, 2.0, 1.0)
    plan = plan_for(orientation=net, spacing_mm=spacing)
    expected, _ = to_network_grid(image, plan)
    expected_labels = labels_to_network_grid(labels, plan)

    turned, turned_labels = reorient(image, orientation), reorient(labels, orientation)
    array, grid = to_network_grid(turned, plan)
    label_map = labels_to_network_grid(turned_labels, plan)

    np.testing.assert_array_equal(array, expected)
    np.testing.assert_array_equal(label_map, expected_labels)
    assert grid.native_shape == turned.shape and grid.oriented_shape == grid.network_shape == array.shape[1:]
    np.testing.assert_array_equal(grid.to_native(label_map), turned_labels.array)


def test_forty_eight_orientations_are_tested() -> None:
    assert len(set(ORIENTATIONS)) == 48


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "ASR", "IPL"])
def test_resampling_before_or_after_turning_is_the_same(orientation: str) -> None:
    image, labels = head()
    plan = plan_for(spacing_mm=(1.5, 0.8, 1.3))
    array, grid = to_network_grid(reorient(image, orientation), plan)
    # The independent way: turn, then resample as a Volume.
    np.testing.assert_allclose(array, resample(reorient(image, "RAS"), plan.spacing_mm).array, atol=1e-5)
    expected = resample(reorient(labels, "RAS"), plan.spacing_mm, order=0).array
    got = labels_to_network_grid(reorient(labels, orientation), plan)
    assert (got != expected).mean() < 0.2  # ties between two voxels go to either side
    assert grid.network_shape == expected.shape == (6, 10, 11)
    assert grid.network_spacing_mm == pytest.approx((9 / 6, 8 / 10, 14 / 11))


def test_network_grid_samples_where_scipy_samples() -> None:
    ramp = np.arange(8, dtype=np.float32)[:, None, None] * np.ones((1, 4, 4), np.float32)
    array, _ = to_network_grid(Volume(ramp[None] + 0.25, np.eye(4), channels=1), plan_for(spacing_mm=(2.0, 1.0, 1.0)))
    # Half-pixel centres: output voxel n lies at input position 2 n + 0.5.
    expected = ndimage.map_coordinates(ramp[:, 0, 0] + 0.25, [[0.5, 2.5, 4.5, 6.5]], order=1)
    np.testing.assert_allclose(array[0, :, 0, 0], expected)


def test_a_2d_net_keeps_the_slices_of_a_volume() -> None:
    image = Volume(np.zeros((1, 10, 10, 6), np.int16), np.diag([1.0, 1.0, 5.0, 1.0]), channels=1)
    plan = plan_for(dims=2, spacing_mm=(2.0, 2.0, 3.0), patch_size=(8, 8), strides=((1, 1), (2, 2)))
    array, grid = to_network_grid(image, plan)
    assert array.shape == (1, 5, 5, 6)
    assert grid.network_spacing_mm == (2.0, 2.0, 5.0)


def test_whole_numbers_stay_int16_where_that_is_exact_or_harmless() -> None:
    hu = Volume(np.arange(-300, 300, dtype=np.int32).reshape(1, 10, 10, 6), np.eye(4), channels=1)
    window = (ChannelPlan(kind="window", low=-100, high=100, mean=-100, std=200),)
    assert to_network_grid(hu, plan_for(spacing_mm=(1, 1, 1)))[0].dtype == np.int16
    assert to_network_grid(hu, plan_for(spacing_mm=(1, 1, 2), normalization=window))[0].dtype == np.int16
    assert to_network_grid(hu, plan_for(spacing_mm=(1, 1, 2)))[0].dtype == np.float32
    fine = hu.with_array(hu.array * 0.3, channels=1)
    assert to_network_grid(fine, plan_for(spacing_mm=(1, 1, 1)))[0].dtype == np.float32


def test_images_that_do_not_fit_the_plan_are_refused() -> None:
    volume = Volume(np.zeros((1, 4, 4, 4)), np.eye(4), channels=1)
    picture = Volume(np.zeros((1, 4, 4)), np.eye(4), channels=1, spacing_known=False)
    flat = plan_for(dims=2, orientation=None, spacing_mm=None, patch_size=(4, 4), strides=((1, 1), (2, 2)))
    with pytest.raises(GeometryError, match=r"2D image .* plan is for 3D"):
        to_network_grid(picture, plan_for())
    with pytest.raises(GeometryError, match=r"3D image .* plan is for 2D"):
        to_network_grid(volume, flat)
    with pytest.raises(GeometryError, match=r"1 channel\(s\), the plan expects 2"):
        to_network_grid(volume, plan_for(in_channels=2, normalization=(ChannelPlan(kind="zscore"),) * 2))
    with pytest.raises(GeometryError, match="no known spacing"):
        to_network_grid(picture, flat.model_copy(update={"spacing_mm": (1.0, 1.0)}))
    with pytest.raises(GeometryError, match="is not on the grid"):
        to_network_grid(picture, flat)[1].to_native(np.zeros((5, 4)))
    assert to_network_grid(picture, flat)[1].to_native(np.ones((4, 4), np.uint8)).shape == (4, 4)


@pytest.mark.parametrize("unit", [1e-3, 1e3, 1e-6])
@pytest.mark.parametrize("dims", [2, 3])
def test_a_spacing_in_another_unit_is_refused_by_what_it_would_become(unit: float, dims: int) -> None:
    spacing = np.array([0.7, 0.7, 2.5]) * unit
    volume = Volume(np.zeros((1, 64, 60, 30), np.int16), np.diag([*spacing, 1.0]), channels=1)
    plan = plan_for(dims=dims, patch_size=(16, 16, 8)[:dims], strides=((1,) * dims, (2,) * dims))
    with pytest.raises(GeometryError, match="another unit") as caught:
        to_network_grid(volume, plan)
    text = str(caught.value)
    assert f"{spacing[0]:.4g} x {spacing[1]:.4g} x {spacing[2]:.4g} mm" in text
    assert "plan 1 x 1 x" in text
    assert "64 x 60 x 30 voxels" in text


@pytest.mark.parametrize("spacing", [1e-300, 1e300])
def test_a_plan_of_an_impossible_spacing_is_refused(spacing: float) -> None:
    with pytest.raises(ValidationError, match="spacing_mm"):
        plan_for(spacing_mm=(spacing, spacing, spacing))


def test_more_network_voxels_than_memory_is_free_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import medseg.preparation.grid as grid

    image, _ = head()
    monkeypatch.setattr(grid, "free_memory", lambda: 2 * 9 * 8 * 7 - 1)
    with pytest.raises(GeometryError, match="GB of memory are free"):
        to_network_grid(image, plan_for())
    # Where nobody knows how much there is, the largest machines are the limit.
    monkeypatch.setattr(grid, "free_memory", lambda: None)
    assert to_network_grid(image, plan_for())[0].shape == (1, 9, 8, 7)
    with pytest.raises(GeometryError, match="GB of memory are free"):
        to_network_grid(image, plan_for(spacing_mm=(1e-4, 1e-4, 1e-4)))


def test_thin_pixels_and_thick_slices_are_resampled() -> None:
    volume = Volume(np.zeros((1, 64, 60, 3), np.int16), np.diag([0.05, 0.05, 20.0, 1.0]), channels=1)
    assert to_network_grid(volume, plan_for())[1].network_shape == (3, 3, 30)


@pytest.mark.parametrize("spacing", [0.0009, 150.0])
def test_an_image_with_voxels_that_no_patient_has_is_refused_for_a_plan_of_patients(spacing: float) -> None:
    plan = plan_for(spacing_mm=(0.05 if spacing < 1 else 20.0,) * 3)
    volume = Volume(np.zeros((4, 4, 4), np.float32), np.diag([spacing, spacing, spacing, 1.0]))
    with pytest.raises(GeometryError, match=r"voxels of .* another unit, such as (metres|centimetres|micrometres)"):
        to_network_grid(volume.with_array(volume.array[None], 1), plan)
