"""Nothing moves on the way to a coarser grid: neither image nor labels, measured on phantoms whose place is known."""

from __future__ import annotations

import numpy as np
import pytest
from plans import SCHEME, case, plan_for
from scipy import ndimage

from medseg.config import RunConfig
from medseg.preparation import ChannelPlan, label_shares, labels_to_network_grid, to_network_grid
from medseg.preparation.fingerprint import Fingerprint
from medseg.preparation.interpolate import resample_image, resample_labels
from medseg.preparation.label_shares import labels_by_share
from medseg.preparation.plan_fields import ImagePlan, LabelPlan
from medseg.preparation.plan_upgrade import hashed_content, upgrade_plan
from medseg.preparation.planning import make_plan
from medseg.resampling import average_array, resample_array
from medseg.volume import Volume

ROOT = {"data": {"root": "somewhere"}}

FACTORS = (4 / 3, 1.5, 2.0, 2.5, 3.0, 4.0)
NEW = {"image": {"prefilter": "area"}, "labels": {"method": "area", "ties": "unbiased"}}


def network_plan(factor: float, dims: int = 3, **changes):
    if dims == 2:
        changes |= {"dims": 2, "orientation": None, "patch_size": (16, 16), "strides": ((1, 1), (2, 2))}
    kept = ChannelPlan(kind="none")
    return plan_for(spacing_mm=(factor,) * dims, normalization=(kept,), **{**NEW, **changes})


def distance(shape: tuple[int, ...], centre: np.ndarray) -> np.ndarray:
    grid = np.indices(shape).astype(np.float64)
    return np.sqrt(sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True)))


def centroid(weights: np.ndarray, native: tuple[int, ...]) -> np.ndarray:
    """Centre of mass in native voxels."""
    found = np.array(ndimage.center_of_mass(weights.astype(np.float64)))
    return (found + 0.5) * np.divide(native, weights.shape) - 0.5


def on_network_grid(label: np.ndarray, image: np.ndarray, plan) -> tuple[np.ndarray, np.ndarray]:
    volume = Volume(image[None].astype(np.float32), np.eye(4), channels=1)
    return labels_to_network_grid(volume.with_array(label), plan), to_network_grid(volume, plan)[0][0]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("factor", FACTORS)
def test_image_and_label_keep_their_place_on_a_coarser_grid(factor: float, dims: int) -> None:
    rng = np.random.default_rng(4)
    shape = (60,) * dims
    moved = []
    for _ in range(15 if dims == 3 else 60):
        offset, radius = rng.uniform(-2, 2, dims), rng.uniform(18, 21)
        # What the raster alone does to a ball, it does to its mirror image in reverse.
        for centre in (29.5 + offset, 29.5 - offset):
            away = distance(shape, centre)
            label, image = on_network_grid(
                (away <= radius).astype(np.uint8), np.clip(radius + 0.5 - away, 0, 1), network_plan(factor, dims)
            )
            moved.append([centroid(each, shape) - centre for each in (label, image)])
    found = np.abs(np.mean(moved, axis=0))
    assert found.max() <= 0.02, found


@pytest.mark.parametrize("factor", [4 / 3, 1.5, 2, 4])
def test_a_box_of_labels_stays_where_it_is_wherever_it_lies(factor: float) -> None:
    """Its faces are half-way between the samples of the coarser grid for some of these places."""
    moved, grown = [], []
    for first in range(12, 12 + 12):
        label = np.zeros((84, 84, 84), np.uint8)
        label[first : first + 48, first : first + 48, first : first + 48] = 1
        found, _ = on_network_grid(label, label, network_plan(factor))
        moved.append(centroid(found, label.shape) - (first + 23.5))
        grown.append(found.sum() * np.prod(np.divide(label.shape, found.shape)) / label.sum())
    assert np.abs(np.mean(moved, axis=0)).max() <= 0.02
    assert np.abs(np.mean(grown) - 1) < 0.02


@pytest.mark.parametrize("ties", ["lower", "upper"])
@pytest.mark.parametrize("slab", [30, 400, 2**22])
def test_the_label_of_the_largest_share_is_taken_slab_by_slab_as_at_once(ties, slab, monkeypatch) -> None:
    monkeypatch.setattr(label_shares, "SLAB_VOXELS", slab)
    rng = np.random.default_rng(slab)
    for trial in range(40):
        dims = 2 + trial % 2
        old, new = (tuple(int(n) for n in rng.integers(1, 12, dims)) for _ in range(2))
        labels = rng.integers(0, 4, old).astype((np.uint8, np.uint16, np.int64)[trial % 3])
        labels *= 90_000 if trial % 3 == 2 else 1
        labels = np.asfortranarray(labels) if trial % 4 else labels
        values = np.unique(labels)
        share = np.stack([average_array((labels == value).astype(np.float32), new) for value in values])
        best = share >= share.max(axis=0) - 1e-5
        low, high = values[best.argmax(axis=0)], values[len(values) - 1 - best[::-1].argmax(axis=0)]
        found = labels_by_share(labels, new, ties)
        assert found.dtype == labels.dtype
        np.testing.assert_array_equal(found, low if ties == "lower" else high)


@pytest.mark.parametrize("factor", [4 / 3, 1.5, 1.7, 2.0])
def test_balls_of_four_voxels_radius_keep_nine_tenths_of_their_volume_wherever_they_lie(factor) -> None:
    rng = np.random.default_rng(1)
    centres = [(11.5,) * 3, (11.0,) * 3, (12.0,) * 3, (11.0, 11.5, 12.0), *rng.uniform(10, 13, (40, 3))]
    for centre in centres:
        label = (distance((24,) * 3, np.array(centre)) <= 4).astype(np.uint8)
        found, _ = on_network_grid(label, label, network_plan(factor))
        kept = found.sum() * np.prod(np.divide(label.shape, found.shape)) / label.sum()
        assert 0.9 <= kept <= 1.1, (centre, kept)


def test_a_small_ball_beside_a_large_organ_of_the_same_label_keeps_its_volume_too() -> None:
    label = (distance((48,) * 3, np.full(3, 30.0)) <= 14).astype(np.uint8)
    ball = distance((48,) * 3, np.full(3, 7.0)) <= 4
    found, _ = on_network_grid(label | ball, label, network_plan(2.0))
    assert 0.9 <= found[:7, :7, :7].sum() * 8 / ball.sum() <= 1.1
    organ, _ = on_network_grid(label, label, network_plan(2.0))
    assert found[7:].sum() == organ[7:].sum()


def test_what_is_decided_by_more_than_a_third_stays_decided_and_slabs_and_memory_order_do_not_matter(
    monkeypatch,
) -> None:
    rng = np.random.default_rng(0)
    labels = ndimage.zoom(rng.integers(0, 5, (8, 8, 8)), 5, order=0).astype(np.uint8)
    new = (23, 20, 17)
    share = np.sort([average_array((labels == n).astype(np.float32), new) for n in range(5)], axis=0)
    winner = np.argmax([average_array((labels == n).astype(np.float32), new) for n in range(5)], axis=0)
    found = labels_by_share(labels, new, "unbiased")
    decided = share[-1] - share[-2] > 1 / 3 + 1e-4
    assert 0.5 < decided.mean() < 1 and (found == winner)[decided].all() and (found != winner)[~decided].any()
    monkeypatch.setattr(label_shares, "SLAB_VOXELS", 2000)
    np.testing.assert_array_equal(labels_by_share(np.asfortranarray(labels), new, "unbiased"), found)
    turned = labels_by_share(labels.transpose(1, 2, 0), (20, 17, 23), "unbiased").transpose(2, 0, 1)
    assert (turned != found).mean() < 0.05


def test_a_trunk_is_not_thickened_for_branches_that_the_grid_cannot_show() -> None:
    label = np.zeros((40, 40, 40), np.uint8)
    label[12:20, 12:20] = 1
    alone, _ = on_network_grid(label, label, network_plan(2.0))
    label[21:, 15, 1::4] = 1  # lines of one voxel
    found, _ = on_network_grid(label, label, network_plan(2.0))
    np.testing.assert_array_equal(found[6:10, 6:10], alone[6:10, 6:10])
    assert found.sum() <= alone.sum() + 20


def test_nearest_labels_with_unbiased_ties_stay_where_they_are() -> None:
    label = np.zeros((120, 120), np.uint8)
    label[33:87, 33:87] = 1
    moved = {}
    for ties in ("lower", "upper", "unbiased"):
        found = resample_labels(label, (60, 60), LabelPlan(ties=ties))
        moved[ties] = centroid(found, label.shape) - centroid(label, label.shape)
    assert np.abs(moved["unbiased"]).max() < 0.05
    assert moved["lower"].min() > 0.4 and moved["upper"].max() < -0.4


@pytest.mark.parametrize("prefilter", ["area", "gaussian"])
@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize("dims", [2, 3])
def test_no_voxel_is_skipped_where_an_image_gets_much_coarser(prefilter, order, dims) -> None:
    """Noise of standard deviation 1 averages out; without a prefilter single voxels come through."""
    image = np.random.default_rng(0).normal(size=(48,) * dims)
    spread = {}
    for each in ("none", prefilter):
        plan = network_plan(4.0, dims, image={"prefilter": each, "order": order})
        spread[each] = on_network_grid(np.zeros(image.shape, np.uint8), image, plan)[1].std()
    assert spread[prefilter] < 0.4 < spread["none"] + 0.1
    assert spread[prefilter] < 0.7 * spread["none"]


@pytest.mark.parametrize("prefilter", ["area", "gaussian"])
def test_axes_that_get_coarser_by_no_more_than_half_are_interpolated_as_before(prefilter) -> None:
    image = np.random.default_rng(0).normal(size=(1, 30, 24, 20)).astype(np.float32)
    for shape in ((20, 24, 20), (40, 24, 30)):
        found = resample_image(image, shape, ImagePlan(prefilter=prefilter))
        np.testing.assert_array_equal(found, resample_array(image, shape, 1))
    mixed = resample_image(image, (20, 8, 40), ImagePlan(prefilter="area"))
    np.testing.assert_allclose(mixed, resample_array(average_array(image, (30, 8, 20)), (20, 8, 40), 1), atol=1e-6)


def test_new_plans_average_and_share_and_upgraded_ones_take_what_is_nearest() -> None:
    new = make_plan(
        Fingerprint((case((40, 40, 20), (1.0, 1.0, 2.0)),), ("MR",)), RunConfig.model_validate(ROOT), SCHEME, 8.0, False
    )
    assert (new.image.prefilter, new.labels.method, new.labels.ties) == ("area", "area", "unbiased")
    old = type(new).model_validate(upgrade_plan(hashed_content(plan_for())))
    assert (old.image.prefilter, old.labels.method, old.labels.ties) == ("none", "nearest", "lower")
