"""Padding, and what lies outside a scanner's field of view, takes no part in what is measured of grey levels."""

from __future__ import annotations

import numpy as np
import pytest
from plans import plan_for

from medseg.config import RunConfig
from medseg.labels import LabelScheme
from medseg.preparation import ChannelPlan, make_plan, scales_for
from medseg.preparation.fingerprint import Fingerprint, fingerprint_case
from medseg.preparation.padding import padding_mask, stated_padding
from medseg.reports.slices import pick_slice
from medseg.studies.measurements import findings_of_padding, measure, measurements_csv
from medseg.volume import Metadata, Volume

SCHEME = LabelScheme.from_mapping({"lung": 1})
SHAPE = (40, 40, 8)
AFFINE = np.diag([2.0, 2.0, 5.0, 1.0])
X, Y = np.indices(SHAPE[:2])
OUTSIDE = np.hypot(X - 19.5, Y - 19.5) > 19
LUNG = np.hypot(X - 8, Y - 19.5) < 10


def thorax(fill: float, modality: str = "CT", padding: tuple[float, ...] = (), dtype=np.int16) -> Volume:
    """A round field of view, `fill` outside, whose lung was cut by it: air 0 to -1000, lung about -800, the rest 40."""
    rng = np.random.default_rng(0)
    array = np.full(SHAPE, 40.0) + rng.normal(0, 10, SHAPE)
    array[LUNG] = rng.normal(-800, 40, (np.count_nonzero(LUNG), SHAPE[2]))
    array[OUTSIDE] = fill
    return Volume(np.rint(array).astype(dtype)[None], AFFINE, 1, Metadata(modality=modality, padding=padding))


def lung_mask(image: Volume) -> Volume:
    """The lung, drawn beyond the field of view."""
    return image.with_array(np.repeat(LUNG[..., None], SHAPE[2], 2).astype(np.uint8))


@pytest.mark.parametrize("modality", ["CT", ""])
@pytest.mark.parametrize("fill", [-1024, -1025, -1500, -2000, -2048, -3024])
def test_what_lies_outside_the_field_of_view_takes_no_part_in_mean_and_sd(fill, modality) -> None:
    image = thorax(fill, modality)
    mask = lung_mask(image)
    (lung,) = measure(mask, SCHEME, image)
    inside = image.array[0][(mask.array > 0) & ~np.repeat(OUTSIDE[..., None], SHAPE[2], 2)]
    assert (lung.mean, lung.sd) == pytest.approx((inside.mean(), inside.std()), abs=1e-3)
    # The mask is counted whole.
    assert lung.voxels == np.count_nonzero(mask.array) == inside.size + lung.padding_voxels
    assert lung.volume_ml == pytest.approx(lung.voxels * 0.02)


def test_a_blurred_rim_of_a_ct_takes_no_part_either() -> None:
    image = thorax(-3024, dtype=np.float32)
    array = image.array.copy()
    rim = OUTSIDE & (np.hypot(X - 19.5, Y - 19.5) < 20)
    array[0][rim] = -2400
    (lung,) = measure(lung_mask(image), SCHEME, image.with_array(array, 1))
    assert lung.mean == pytest.approx(-800, abs=5)


def test_padding_that_the_file_states_takes_no_part_wherever_it_lies() -> None:
    image = thorax(0, "MR", padding=(0.0, 0.0))
    (lung,) = measure(lung_mask(image), SCHEME, image)
    assert lung.mean == pytest.approx(-800, abs=5)
    middle = thorax(40, "CT", padding=(-2000.0, -1990.0))
    array = middle.array.copy()
    array[0, 4:8, 18:22] = -1995
    (lung,) = measure(lung_mask(middle), SCHEME, middle.with_array(array, 1))
    assert lung.padding_voxels == 4 * 4 * SHAPE[2]


def test_a_field_of_view_that_leaves_one_corner_of_a_crop_is_seen() -> None:
    image = thorax(-2000)
    crop = Volume(image.array[:, :20, :20], AFFINE, 1, image.metadata)
    assert crop.array[0, 0, 0, 0] == -2000 and (crop.array[0, -1, -1] > -1024).all()
    (lung,) = measure(Volume(lung_mask(image).array[:20, :20], AFFINE), SCHEME, crop)
    assert lung.mean == pytest.approx(-800, abs=5)


def test_air_and_lung_at_the_lowest_value_of_a_scanner_stay_measurements() -> None:
    """Emphysema and air are clipped at -1024 by scanners of 12 bits; only what hangs on a corner is outside."""
    image = thorax(-1024)
    array = image.array.copy()
    array[0, 6:9, 17:22] = -1024
    mask = image.with_array(np.zeros(SHAPE, np.uint8) + (array[0] == -1024) * LUNG[..., None].astype(np.uint8))
    padded = padding_mask(array[0], image.metadata, within=mask.array > 0)
    assert padded is not None and not padded[6:9, 17:22].any()
    np.testing.assert_array_equal(padded & (mask.array > 0), (mask.array > 0) & OUTSIDE[..., None])
    for turned in (array, np.asfortranarray(array)):
        np.testing.assert_array_equal(padding_mask(turned[0], image.metadata)[..., 0], OUTSIDE)


@pytest.mark.parametrize(
    ("low", "modality"), [(-1000, "CT"), (-1000, ""), (-2000, "MR"), (-2000, "PT"), (0, ""), (-1023, "CT")]
)
def test_values_that_a_scanner_may_measure_are_no_padding(low, modality) -> None:
    image = thorax(low, modality)
    assert padding_mask(image.array[0], image.metadata) is None
    assert measure(lung_mask(image), SCHEME, image)[0].padding_voxels == 0


def test_of_several_channels_only_what_none_can_measure_is_padding() -> None:
    assert stated_padding(Metadata(padding=(0.0, 0.0)), channels=2) == ()
    assert stated_padding(Metadata(padding=(0.0, 0.0)), channels=1) == ((0.0, 0.0),)
    assert stated_padding(Metadata(padding=(-2000.0,)), channels=2) == ((-2000.0, -2000.0),)


def test_a_mask_on_padding_is_told_and_much_of_it_needs_review() -> None:
    image = thorax(-2000)
    (finding,) = findings_of_padding(measure(lung_mask(image), SCHEME, image))
    assert finding.kind == "review_padding" and "voxels of lung lie on padding" in finding.message
    few = lung_mask(image).array * 0
    few[10:15, 15:25] = 1
    few[0, 0, 0] = 1
    (finding,) = findings_of_padding(measure(image.with_array(few), SCHEME, image))
    assert finding.kind == "padding_in_mask"
    few[0, 0, 0] = 0
    assert findings_of_padding(measure(image.with_array(few), SCHEME, image)) == ()


def test_a_label_that_lies_on_padding_only_has_a_volume_and_no_mean() -> None:
    image = thorax(-2000)
    corner = np.zeros(SHAPE, np.uint8)
    corner[:2, :2, :2] = 1
    (lung,) = measure(image.with_array(corner), SCHEME, image)
    assert (lung.voxels, lung.mean, lung.sd, lung.padding_voxels) == (8, None, None, 8)
    assert "padding" not in measurements_csv([("a", "done", [{"label": "lung"}])])


@pytest.mark.parametrize("fill", [-1024, -2000, -3024])
def test_percentiles_that_a_ct_is_clipped_to_are_those_of_measured_voxels(fill) -> None:
    image = thorax(fill)
    mask = lung_mask(image)
    fingerprint = Fingerprint((fingerprint_case("a", "", image, mask, SCHEME),), ())
    plan = make_plan(fingerprint, RunConfig(data={"root": "x"}), SCHEME, memory_gb=4, on_gpu=False).normalization[0]
    assert plan.kind == "clip" and plan.low > -950
    assert (plan.mean, plan.std) == pytest.approx((-800, 40), abs=3)


def test_labels_on_padding_only_still_give_a_plan() -> None:
    image = thorax(-2000)
    corner = np.zeros(SHAPE, np.uint8)
    corner[:2, :2] = 1
    case = fingerprint_case("a", "", image, image.with_array(corner), SCHEME)
    assert case.channels[0].mean == -2000


@pytest.mark.parametrize("kind", ["zscore", "unit"])
def test_stated_padding_takes_no_part_in_what_a_case_is_normalised_by(kind) -> None:
    array = np.random.default_rng(0).normal(500, 50, (1, 16, 16, 16)).astype(np.float32)
    padded = array.copy()
    padded[0, 5:8] = 4095
    rest = np.delete(array[0], slice(5, 8), axis=0)
    new = plan_for(normalization=(ChannelPlan(kind=kind, region="all"),))
    scale = scales_for(padded, new, ((4095.0, 4095.0),))[0]
    expected = (rest.mean(), rest.std()) if kind == "zscore" else (rest.min(), np.ptp(rest))
    assert (scale.mean, scale.std) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("fill", [-1025, -2000, -3024])
def test_unit_maps_what_a_ct_shows_to_0_to_1_whatever_lies_outside_the_field_of_view(fill) -> None:
    image = thorax(fill, "")
    plan = plan_for(normalization=(ChannelPlan(kind="unit"),))
    scale = scales_for(image.array, plan)[0]
    inside = image.array[0][~OUTSIDE]
    assert (scale.mean, scale.std) == (inside.min(), np.ptp(inside))


def test_older_plans_normalise_padding_as_they_did() -> None:
    array = np.random.default_rng(0).normal(500, 50, (1, 16, 16, 16)).astype(np.float32)
    array[0, 5:8] = 4095
    old = plan_for(normalization=(ChannelPlan(kind="zscore"),))
    assert scales_for(array, old, ((4095.0, 4095.0),)) == scales_for(array, old)


@pytest.mark.parametrize(("fill", "padding"), [(-3024, ()), (-1100, (-1100.0, -1100.0))])
def test_a_preview_is_as_bright_as_if_nothing_lay_outside_the_field_of_view(fill, padding) -> None:
    def shown(image: Volume) -> np.ndarray:
        mask = lung_mask(image)
        return pick_slice(image, mask, mask, {"lung": (1,)}).image

    with_fill, without = shown(thorax(fill, padding=padding)), shown(thorax(-800))
    tissue = without > 0.6
    assert tissue.any()
    np.testing.assert_allclose(with_fill[tissue], without[tissue], atol=0.05)
