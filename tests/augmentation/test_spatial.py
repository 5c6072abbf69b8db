"""Spatial augmentation against hand-computed cases and scipy's interpolation at the same points."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, map_coordinates

from medseg.augmentation import SpatialAugment, SpatialParams
from medseg.config import AugmentationConfig
from medseg.errors import ConfigError

SHAPES = {2: (34, 27), 3: (24, 19, 28)}
ALWAYS: dict[str, Any] = {"probability": 1.0, "elastic_probability": 1.0}
NEVER: dict[str, Any] = {"probability": 0.0, "elastic_probability": 0.0}


def sample(dims: int, channels: int = 1, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    image = torch.from_numpy(rng.standard_normal((channels, *SHAPES[dims]), dtype=np.float32))
    return image, torch.from_numpy(rng.integers(0, 9, (1, *SHAPES[dims])).astype(np.uint8))


def plain(augment: SpatialAugment, shape: tuple[int, ...], **changes: Any) -> SpatialParams:
    """Parameters without any deformation, then changed as asked."""
    quiet = SpatialAugment(augment.dims, augment.patch, augment.spacing_mm, **NEVER)
    return replace(quiet.draw(np.random.default_rng(0), shape), **changes)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("elastic", [0.0, 1.0])
@pytest.mark.parametrize("cropped", [False, True])
def test_image_is_linear_and_labels_are_nearest_at_the_same_points_as_scipys(
    dims: int, elastic: float, cropped: bool
) -> None:
    image, labels = sample(dims, channels=2)
    augment = SpatialAugment(
        dims,
        (17, 20, 14)[:dims] if cropped else None,
        (1.0, 1.4, 2.0)[:dims],
        probability=1.0,
        elastic_probability=elastic,
        mirror_axes=(True,) * dims,
    )
    lowest = image.flatten(1).amin(dim=1)
    for seed in range(4):
        params = augment.draw(np.random.default_rng(seed), SHAPES[dims], center=(12, 9, 13)[:dims] if cropped else None)
        moved, moved_labels = augment.apply(image, labels, params)
        points = augment.coordinates(params)
        for channel in range(2):
            padded = np.pad(image[channel].numpy().astype(float), 2, constant_values=lowest[channel].item())
            expected = map_coordinates(padded, points + 2, order=1, mode="nearest")
            np.testing.assert_allclose(moved[channel].numpy(), expected, atol=2e-4)
        expected_labels = map_coordinates(np.pad(labels[0].numpy(), 2), points + 2, order=0, mode="nearest")
        # single precision may decide otherwise within 1e-4 voxels of a point half-way between two voxels
        clear = (np.abs(points - np.floor(points) - 0.5) > 1e-4).all(axis=0)
        assert clear.mean() > 0.99
        np.testing.assert_array_equal(moved_labels[0].numpy()[clear], expected_labels[clear])


@pytest.mark.parametrize("dims", [2, 3])
def test_labels_are_exactly_the_nearest_neighbours_on_half_and_whole_voxels(dims: int) -> None:
    _, labels = sample(dims)
    augment = SpatialAugment(dims, SHAPES[dims])
    # a zoom by two about a voxel: every point lies on a voxel or exactly half-way, where the higher index wins
    center = tuple((n - 1) / 2 for n in SHAPES[dims])
    params = plain(augment, SHAPES[dims], matrix=np.eye(dims) / 2, center=center)
    _, moved = augment.apply(labels.float(), labels, params)
    points = augment.coordinates(params)
    assert np.array_equal(points * 4, np.round(points * 4))
    index = np.floor(points + 0.5).astype(int)
    np.testing.assert_array_equal(moved[0].numpy(), labels[0].numpy()[tuple(index)])


@pytest.mark.parametrize("dims", [2, 3])
def test_nothing_drawn_reproduces_the_image_bit_for_bit(dims: int) -> None:
    image, labels = sample(dims, channels=3)
    augment = SpatialAugment(dims, **NEVER)
    moved, moved_labels = augment.apply(image, labels, augment.draw(np.random.default_rng(0), SHAPES[dims]))
    assert torch.equal(moved, image) and torch.equal(moved_labels, labels)
    assert moved.data_ptr() != image.data_ptr() and moved_labels.data_ptr() != labels.data_ptr()


@pytest.mark.parametrize("dims", [2, 3])
def test_a_deformation_of_zero_goes_through_the_resampling_and_reproduces_the_image(dims: int) -> None:
    image, labels = sample(dims, channels=2)
    augment = SpatialAugment(dims, None, (0.7, 1.1, 1.9)[:dims], **ALWAYS)
    params = augment.draw(np.random.default_rng(0), SHAPES[dims])
    assert params.displacement is not None
    params = replace(params, matrix=np.eye(dims), displacement=np.zeros_like(params.displacement))
    assert params.resamples
    moved, moved_labels = augment.apply(image, labels, params)
    torch.testing.assert_close(moved, image, atol=5e-5, rtol=0)
    assert torch.equal(moved_labels, labels)


def test_an_undeformed_patch_is_a_crop_with_the_centre_in_its_middle() -> None:
    image, labels = sample(3)
    augment = SpatialAugment(3, (8, 7, 6), **NEVER)
    params = augment.draw(np.random.default_rng(0), SHAPES[3], center=(12, 9, 20))
    moved, moved_labels = augment.apply(image, labels, params)
    assert torch.equal(moved, image[:, 8:16, 6:13, 17:23])
    assert torch.equal(moved_labels, labels[:, 8:16, 6:13, 17:23])


def test_a_patch_over_the_edge_is_filled_with_the_minimum_and_with_label_zero() -> None:
    image = torch.arange(1.0, 17.0).view(1, 4, 4)
    labels = torch.ones(1, 4, 4, dtype=torch.uint8)
    augment = SpatialAugment(2, (4, 4), **NEVER)
    moved, moved_labels = augment.apply(image, labels, augment.draw(np.random.default_rng(0), (4, 4), center=(0, 2)))
    assert moved[0].tolist() == [[1.0] * 4, [1.0] * 4, [1, 2, 3, 4], [5, 6, 7, 8]]
    assert moved_labels[0].tolist() == [[0] * 4, [0] * 4, [1] * 4, [1] * 4]


@pytest.mark.parametrize("elastic", [0.0, 1.0])
def test_outside_of_the_image_lie_the_given_fill_and_the_ignored_label(elastic: float) -> None:
    image, labels = torch.full((2, 10, 10), 5.0), torch.full((1, 10, 10), 3, dtype=torch.uint8)
    augment = SpatialAugment(2, (40, 40), probability=1, elastic_probability=elastic, ignore=255)
    params = augment.draw(np.random.default_rng(0), (10, 10))
    moved, moved_labels = augment.apply(image, labels, params, fill=(-1.0, 7.0))
    assert moved[:, 0, 0].tolist() == [-1.0, 7.0] and moved_labels[0, 0, 0] == 255
    assert moved[:, 20, 20].tolist() == [5.0, 5.0] and moved_labels[0, 20, 20] == 3
    assert set(moved_labels.unique().tolist()) == {3, 255}


def test_the_minimum_of_the_whole_image_fills_even_where_the_patch_never_touches_it() -> None:
    image, labels = torch.full((1, 30, 30), 4.0), torch.zeros(1, 30, 30, dtype=torch.uint8)
    image[0, 29, 29] = -9.0
    augment = SpatialAugment(2, (8, 8), **ALWAYS)
    moved, _ = augment.apply(image, labels, augment.draw(np.random.default_rng(0), (30, 30), center=(0, 0)))
    assert moved.min() == -9.0


def test_a_patch_far_outside_of_the_image_is_all_fill() -> None:
    image, labels = sample(3)
    for options in (NEVER, ALWAYS):
        augment = SpatialAugment(3, (4, 4, 4), **options)
        params = augment.draw(np.random.default_rng(0), SHAPES[3], center=(100, -80, 4))
        moved, moved_labels = augment.apply(image, labels, params)
        assert torch.equal(moved, image.min().expand(1, 4, 4, 4)) and not moved_labels.any()


@pytest.mark.parametrize("dims", [2, 3])
def test_the_same_parameters_give_the_same_sample_and_leave_the_input_alone(dims: int) -> None:
    image, labels = sample(dims)
    before = image.clone(), labels.clone()
    augment = SpatialAugment(dims, mirror_axes=(True,) * dims, **ALWAYS)
    first = augment.draw(np.random.default_rng(7), SHAPES[dims])
    second = SpatialAugment(dims, mirror_axes=(True,) * dims, **ALWAYS).draw(np.random.default_rng(7), SHAPES[dims])
    results = [augment.apply(image, labels, params) for params in (first, first, second)]
    for moved, moved_labels in results[1:]:
        assert torch.equal(moved, results[0][0]) and torch.equal(moved_labels, results[0][1])
    assert torch.equal(image, before[0]) and torch.equal(labels, before[1])


def test_image_and_labels_are_moved_alike() -> None:
    rng = np.random.default_rng(0)
    smooth = gaussian_filter(rng.standard_normal((40, 40, 40)), 4)
    labels = torch.from_numpy((smooth > 0).astype(np.uint8))[None]
    augment = SpatialAugment(3, mirror_axes=(True, True, True), **ALWAYS)
    for seed in range(5):
        moved, moved_labels = augment.apply(
            labels.float(), labels, augment.draw(np.random.default_rng(seed), (40, 40, 40))
        )
        # a voxel is more of the label than not where the label is nearest, but for thin corners
        assert ((moved > 0.5) == (moved_labels > 0)).float().mean() > 0.97
        sure = (moved == 0) | (moved == 1)
        assert torch.equal(moved[sure], moved_labels[sure].float()) and sure.float().mean() > 0.5


@pytest.mark.parametrize("options", [NEVER, ALWAYS])
def test_mirroring_is_the_mirrored_result_and_twice_is_none(options: dict[str, Any]) -> None:
    image, labels = sample(3)
    augment = SpatialAugment(3, (12, 11, 14), **options)
    params = augment.draw(np.random.default_rng(1), SHAPES[3])
    straight = augment.apply(image, labels, params)
    mirrored = augment.apply(image, labels, replace(params, flips=(True, False, True)))
    torch.testing.assert_close(mirrored[0].flip(1, 3), straight[0], atol=1e-4, rtol=0)
    assert torch.equal(mirrored[1].flip(1, 3), straight[1])
    quiet = SpatialAugment(3, **NEVER)
    once = replace(quiet.draw(np.random.default_rng(0), SHAPES[3]), flips=(False, True, True))
    twice = quiet.apply(*quiet.apply(image, labels, once), once)
    assert torch.equal(twice[0], image) and torch.equal(twice[1], labels)


def test_only_the_axes_allowed_are_mirrored_each_in_half_of_the_samples() -> None:
    augment = SpatialAugment(3, mirror_axes=(True, False, True), **NEVER)
    rng = np.random.default_rng(0)
    flips = np.array([augment.draw(rng, (8, 8, 8)).flips for _ in range(2000)])
    assert not flips[:, 1].any()
    np.testing.assert_allclose(flips[:, [0, 2]].mean(axis=0), 0.5, atol=0.05)
    assert not any(SpatialAugment(3, **NEVER).draw(rng, (8, 8, 8)).flips)


def test_a_quarter_turn_is_numpys() -> None:
    image, labels = torch.rand(1, 9, 9), torch.arange(81).view(1, 9, 9)
    augment = SpatialAugment(2)
    params = plain(augment, (9, 9), matrix=np.array([[0.0, -1.0], [1.0, 0.0]]))
    moved, moved_labels = augment.apply(image, labels, params)
    torch.testing.assert_close(moved[0], torch.from_numpy(np.rot90(image[0].numpy(), -1).copy()), atol=1e-5, rtol=0)
    assert np.array_equal(moved_labels[0].numpy(), np.rot90(labels[0].numpy(), -1))


def test_a_scale_above_one_magnifies() -> None:
    labels = torch.zeros(1, 40, 40, dtype=torch.uint8)
    labels[:, 15:25, 15:25] = 1
    augment = SpatialAugment(2, scale=(2.0, 2.0), rotation_degrees=0, probability=1, elastic_probability=0)
    _, moved = augment.apply(labels.float(), labels, augment.draw(np.random.default_rng(0), (40, 40)))
    assert moved.sum() == 400


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.8, 1.3, 2.2), (0.5, 0.5, 5.0), (4.0, 0.7, 0.9)])
def test_distances_in_millimetres_are_kept_by_rotation(spacing: tuple[float, float, float]) -> None:
    augment = SpatialAugment(3, None, spacing, scale=(1, 1), probability=1, elastic_probability=0)
    params = augment.draw(np.random.default_rng(3), (20, 20, 20))
    to_mm = np.array(spacing)[:, None]
    points = augment.coordinates(params).reshape(3, -1) * to_mm
    voxels = np.indices((20, 20, 20)).reshape(3, -1) * to_mm
    pick = np.random.default_rng(0).integers(0, 8000, (200, 2))
    before = np.linalg.norm(voxels[:, pick[:, 0]] - voxels[:, pick[:, 1]], axis=0)
    after = np.linalg.norm(points[:, pick[:, 0]] - points[:, pick[:, 1]], axis=0)
    np.testing.assert_allclose(after, before, atol=1e-9)
    assert params.resamples and np.linalg.det(params.matrix) == pytest.approx(1)


def test_slices_far_apart_are_not_resampled_across() -> None:
    augment = SpatialAugment(3, None, (0.5, 5.0, 0.5), **ALWAYS)
    points = augment.coordinates(augment.draw(np.random.default_rng(0), (30, 12, 30)))
    np.testing.assert_allclose(points[1], np.indices((30, 12, 30))[1], atol=1e-9)
    assert np.abs(points[0] - np.indices((30, 12, 30))[0]).max() > 1


@pytest.mark.parametrize(
    ("dims", "spacing", "patch"),
    [
        (2, None, (40, 40)),
        (3, None, (24, 24, 24)),
        (3, (0.7, 0.7, 1.9), (28, 20, 12)),
        (3, (0.5, 0.5, 4.0), (32, 32, 8)),
    ],
)
def test_even_the_strongest_deformation_does_not_fold(dims: int, spacing: Any, patch: tuple[int, ...]) -> None:
    for grid in (1, 4, 8):
        augment = SpatialAugment(dims, patch, spacing, elastic_magnitude=0.5, elastic_grid=grid, **ALWAYS)
        for seed in range(10):
            points = augment.coordinates(augment.draw(np.random.default_rng(seed), (64,) * dims))
            steps = [np.diff(points, axis=1 + axis) for axis in range(dims)]
            inner = [s[(slice(None), *[slice(0, p - 1) for p in patch])] for s in steps]
            determinant = np.linalg.det(np.moveaxis(np.stack(inner, axis=1), (0, 1), (-2, -1)))
            assert determinant.min() > 0


def test_the_elastic_displacement_is_about_the_magnitude_asked_for() -> None:
    augment = SpatialAugment(3, (64, 64, 32), (1.0, 1.0, 1.5), probability=0, elastic_probability=1)
    largest = []
    for seed in range(20):
        params = augment.draw(np.random.default_rng(seed), (64, 64, 32))
        shift = (augment.coordinates(params) - np.indices((64, 64, 32))).reshape(3, -1)
        largest.append(np.abs(shift * np.array([[1.0], [1.0], [1.5]])).max(axis=1))
    extents = np.array([64.0, 64.0, 48.0])
    assert (np.array(largest) <= 0.04 * extents * 1.3).all()
    assert (np.mean(largest, axis=0) > 0.02 * extents).all()


def test_only_the_voxels_that_the_patch_touches_are_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(-1000, 1000, (1, 60, 50, 40)).astype(np.int16)
    codes = rng.integers(0, 5, (1, 60, 50, 40)).astype(np.uint8)
    for name, array in (("image", values), ("labels", codes)):
        array.tofile(tmp_path / name)
    image = np.memmap(tmp_path / "image", np.int16, "r", shape=values.shape)
    labels = np.memmap(tmp_path / "labels", np.uint8, "r", shape=codes.shape)
    augment = SpatialAugment(3, (12, 12, 12), **ALWAYS)
    params = augment.draw(np.random.default_rng(0), (60, 50, 40), center=(20, 30, 20))
    moved, moved_labels = augment.apply(image, labels, params)
    points = augment.coordinates(params).reshape(3, -1)
    inside = tuple(slice(int(lo) - 4, int(hi) + 6) for lo, hi in zip(points.min(1), points.max(1), strict=True))
    poisoned = torch.full(values.shape, torch.nan)
    poisoned[(slice(None), *inside)] = torch.from_numpy(values[(slice(None), *inside)]).float()
    again, again_labels = augment.apply(poisoned, torch.from_numpy(codes), params)
    assert moved.dtype == torch.float32 and torch.equal(moved, again)
    assert moved_labels.dtype == torch.uint8 and torch.equal(moved_labels, again_labels)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int8, torch.int16, torch.int32, torch.int64])
@pytest.mark.parametrize("options", [NEVER, ALWAYS])
def test_labels_keep_their_type_and_their_largest_values(dtype: torch.dtype, options: dict[str, Any]) -> None:
    largest = min(torch.iinfo(dtype).max, 2**24 - 1)
    codes = np.random.default_rng(0).choice([0, 1, largest - 1, largest], (1, 20, 20))
    labels = torch.from_numpy(codes).to(dtype)
    augment = SpatialAugment(2, scale=(1.5, 1.5), **options)
    _, moved = augment.apply(torch.zeros(1, 20, 20), labels, augment.draw(np.random.default_rng(0), (20, 20)))
    assert moved.dtype == dtype
    assert {0, 1, largest - 1, largest} == set(moved.to(torch.int64).unique().tolist())


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(1, 14), min_size=2, max_size=3),
    sizes=st.lists(st.integers(1, 12), min_size=3, max_size=3),
    spacing=st.lists(st.floats(0.2, 6.0), min_size=3, max_size=3),
    center=st.lists(st.floats(-3, 16), min_size=3, max_size=3),
    seed=st.integers(0, 2**32 - 1),
    elastic=st.booleans(),
)
def test_any_patch_has_its_size_and_no_value_or_label_that_was_not_there(
    shape: list[int], sizes: list[int], spacing: list[float], center: list[float], seed: int, elastic: bool
) -> None:
    dims = len(shape)
    rng = np.random.default_rng(seed)
    image = torch.from_numpy(rng.uniform(-3, 5, (2, *shape)))
    labels = torch.from_numpy(rng.integers(2, 6, (1, *shape)).astype(np.int32))
    augment = SpatialAugment(
        dims, sizes[:dims], spacing[:dims], probability=0.7, elastic_probability=float(elastic), elastic_grid=3
    )
    params = augment.draw(rng, shape, center[:dims])
    moved, moved_labels = augment.apply(image, labels, params)
    assert moved.shape == (2, *sizes[:dims]) and moved.dtype == torch.float32
    assert moved_labels.shape == (1, *sizes[:dims]) and moved_labels.dtype == torch.int32
    for channel in range(2):
        assert image[channel].min() - 1e-4 <= moved[channel].min()
        assert moved[channel].max() <= image[channel].max() + 1e-4
    assert set(moved_labels.unique().tolist()) <= {0, *labels.unique().tolist()}


def test_config_decides_and_mirror_false_switches_all_mirroring_off() -> None:
    config = AugmentationConfig(mirror=False, rotation_degrees=12, elastic_grid=6, spatial_probability=0.5)
    augment = SpatialAugment.from_config(config, 3, (8, 8, 8), mirror_axes=(True, True, True), ignore=9)
    assert augment.mirror_axes == (False,) * 3 and augment.rotation_degrees == 12 and augment.elastic_grid == 6
    assert augment.probability == 0.5 and augment.patch == (8, 8, 8) and augment.ignore == 9
    full = SpatialAugment.from_config(AugmentationConfig(), 2, mirror_axes=(True, True))
    assert full.mirror_axes == (True, True) and full.rotation_degrees == 180
    assert SpatialAugment(2, mirror_axes=(True, False)).rotation_degrees == 30


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dims": 4}, "expected 2 or 3"),
        ({"dims": 3, "patch": (8, 8)}, "patch has 2 entries, expected 3"),
        ({"dims": 3, "patch": (8, 0, 8)}, "at least one voxel"),
        ({"dims": 2, "spacing_mm": (1.0, -1.0)}, "positive"),
        ({"dims": 2, "spacing_mm": (1.0, float("nan"))}, "positive"),
        ({"dims": 2, "mirror_axes": (True,)}, "mirror_axes has 1 entries"),
        ({"dims": 2, "scale": (1.2, 0.8)}, "smaller first"),
        ({"dims": 2, "elastic_grid": 0}, "at least 1"),
    ],
)
def test_impossible_settings_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        SpatialAugment(**options)


def test_arrays_that_do_not_fit_are_refused() -> None:
    augment = SpatialAugment(2, **NEVER)
    params = augment.draw(np.random.default_rng(0), (8, 8))
    image, labels = torch.zeros(1, 8, 8), torch.zeros(1, 8, 8, dtype=torch.uint8)
    with pytest.raises(ConfigError, match="labels has shape"):
        augment.apply(image, labels[:, :7], params)
    with pytest.raises(ConfigError, match="do not fit"):
        augment.draw(np.random.default_rng(0), (8, 8, 8, 8))
    with pytest.raises(ConfigError, match="do not fit"):
        augment.draw(np.random.default_rng(0), (8, 8), center=(1, 2, 3))
    beyond = SpatialAugment(2, (20, 20), ignore=-1, **NEVER)
    with pytest.raises(ConfigError, match="cannot hold"):
        beyond.apply(image, labels, beyond.draw(np.random.default_rng(0), (8, 8)))
    with pytest.raises(ConfigError, match="fill has 2 values"):
        beyond.apply(image, labels.to(torch.int16), beyond.draw(np.random.default_rng(0), (8, 8)), fill=(0.0, 1.0))
