"""A z-scored channel is judged as the network sees it: neither the scale of its grey levels nor their offset counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg.labels import LabelScheme
from medseg.preparation.case_features import CaseFeatures, measure_case
from medseg.preparation.normalize import body_statistics
from medseg.preparation.training_range import TrainingRange, learn_range
from medseg.volume import Volume

SCHEME = LabelScheme.from_mapping({"ball": 1})
AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])
SHAPE = (20, 24, 16)


def ball(seed: int, masked: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """An MR of whole numbers from 0 to about 200 that shows a bright ball, and its mask; masked: on a black frame."""
    rng = np.random.default_rng(seed)
    grid = np.meshgrid(*[np.arange(n) * s for n, s in zip(SHAPE, (1, 1, 2), strict=True)], indexing="ij")
    centre = [n * s / 2 + rng.uniform(-1, 1) for n, s in zip(SHAPE, (1, 1, 2), strict=True)]
    inside = sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) < rng.uniform(5, 6) ** 2
    image = np.rint(100 + 50 * inside + rng.normal(0, 8, SHAPE)).clip(0, 255)
    if masked:
        image[:6] = 0
    return image, inside.astype(np.uint8)


def measured(image: np.ndarray, mask: np.ndarray, zscored: tuple[bool, ...] = (True,)) -> CaseFeatures:
    channels = image if image.ndim == 4 else image[None]
    volume = Volume(channels, AFFINE, channels=len(channels))
    return measure_case(volume, Volume(mask, AFFINE), SCHEME).normalized(zscored)


def compared(known: TrainingRange, case: CaseFeatures) -> set[str]:
    return {each.span.kind for each in known.compare(case) if each.distance > 1}


def damaged(kind: str, image: np.ndarray) -> np.ndarray:
    return {
        "none": lambda: image,
        "noise": lambda: np.rint(image + np.random.default_rng(9).normal(0, 80, image.shape)),
        "bent": lambda: np.rint((image / 255) ** 4 * 255),
        "inverted": lambda: 255 - image,
        "frame": lambda: np.where(np.arange(24)[:, None] < 15, 0, image),
    }[kind]()


KNOWN = learn_range([measured(*ball(seed)) for seed in range(12)])
KNOWN_MASKED = learn_range([measured(*ball(seed, masked=True)) for seed in range(12)])


@settings(max_examples=60, deadline=None)
@given(
    exponent=st.floats(-2, 3),
    offset=st.floats(-100, 100),
    dtype=st.sampled_from([np.float32, np.float64]),
    damage=st.sampled_from(["none", "noise", "bent", "inverted", "frame"]),
    masked=st.booleans(),
)
def test_scale_and_offset_change_no_finding(exponent, offset, dtype, damage, masked) -> None:
    image, mask = ball(100, masked)
    image = damaged(damage, image)
    known = KNOWN_MASKED if masked else KNOWN
    as_it_is = compared(known, measured(image, mask))
    assert (as_it_is == set()) == (damage == "none")
    # The offset in standard deviations: one of a billion would leave nothing of the image in single precision.
    other = 10**exponent * (image + offset * image.std())
    assert compared(known, measured(other.astype(dtype), mask)) == as_it_is


@pytest.mark.parametrize(
    ("dtype", "factor", "offset"),
    [
        (np.uint8, 1, 0),
        (np.int8, 1, -128),
        (np.uint16, 200, 11),
        (np.int16, 100, -20000),
        (np.int32, 100000, -(10**7)),
        (np.uint32, 10**6, 7),
    ],
)
@pytest.mark.parametrize("masked", [False, True])
def test_neither_does_the_type_that_grey_levels_are_stored_in(dtype, factor, offset, masked) -> None:
    image, mask = ball(101, masked)
    one = measured(image, mask)
    other = measured((image * factor + offset).astype(dtype), mask)
    assert [f.key for f in other.features] == [f.key for f in one.features]
    np.testing.assert_allclose([f.value for f in other.features], [f.value for f in one.features], atol=2e-3)
    np.testing.assert_allclose([f.slack for f in other.features], [f.slack for f in one.features], atol=2e-3)
    np.testing.assert_allclose(other.pictures, one.pictures, atol=5e-3)


@pytest.mark.parametrize("factor", [0.01, 1.0, 1000.0])
def test_grey_levels_that_hardly_differ_are_judged_alike_too(factor) -> None:
    """Most of the image at one grey level: the width between 10% and 90% is 0, and features in widths are huge."""
    image = np.full(SHAPE, 100.0)
    image[::7, 3] = 0.0
    image[5:7, 5:7, 5:7] = 140.0
    mask = (image == 140).astype(np.uint8)
    image[:6] = 20.0
    one = {f.key: f.value for f in measured(image, mask).features}
    other = {f.key: f.value for f in measured(factor * (image - 50), mask).features}
    assert max(abs(v) for v in one.values()) > 1e3
    assert other == pytest.approx(one, rel=1e-2, abs=1e-2)


def test_normalised_grey_levels_are_those_of_the_plan() -> None:
    image, mask = ball(102, masked=True)
    mean, std = body_statistics(image)
    inside = image[image != 0]
    found = {f.what: f.value for f in measured(image, mask).features if f.kind in {"level", "label_level"}}
    for share in (1, 10, 50, 90, 99):
        expected = (np.percentile(inside, share) - mean) / std
        assert found.pop(f"normalised grey level at {share}%") == pytest.approx(expected, abs=1e-4)
    assert found == {"normalised median grey level": pytest.approx((np.median(image[mask > 0]) - mean) / std, abs=1e-4)}


def test_a_zscored_mr_below_zero_has_no_hounsfield_units() -> None:
    """A phase image from -4096 to 4095, or an MR whose rescale intercept is -1024, holds neither air nor bone."""
    image, mask = ball(103)
    pair = np.stack([image * 8 - 1024, image * 4 - 700])
    hounsfield = {"tissue", "between"}
    assert hounsfield <= {f.kind for f in measured(pair, mask, (False, False)).features}
    assert not hounsfield & {f.kind for f in measured(pair, mask, (True, True)).features}
    mixed = measured(pair, mask, (False, True))
    assert {f.channel for f in mixed.features if f.kind == "tissue"} == {0}
    assert not any(f.kind == "between" for f in mixed.features)


def test_a_feature_between_two_ct_channels_stays_beside_a_zscored_one() -> None:
    image, mask = ball(104)
    three = np.stack([image - 400, image - 350, image - 300])
    between = [f.what for f in measured(three, mask, (False, True, False)).features if f.kind == "between"]
    assert between and all("channel 3 less channel 1" in what for what in between)


@pytest.mark.parametrize("training", [0.0, 0.24])
def test_a_background_of_just_over_or_just_under_a_fifth_is_alike(training) -> None:
    """Background counts from a share of 20% on: what lies below is measured as 0, and 0 and 19% look the same."""

    def framed(seed: int, share: float) -> CaseFeatures:
        image, mask = ball(seed)
        image.reshape(-1)[: int(share * image.size)] = 0
        return measured(image, mask)

    known = learn_range([framed(seed, training) for seed in range(8)])
    assert "empty" not in compared(known, framed(20, 0.19)) | compared(known, framed(21, 0.21))
    assert "empty" in compared(known, framed(22, 0.6))


def petct(seed: int, hu: float = 0.0, factor: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """A clipped CT beside a z-scored MR or PET."""
    ct, mask = ball(seed)
    other = ball(seed + 1000)[0] - 60 * mask
    rng = np.random.default_rng(seed)
    ct = np.where(rng.random(SHAPE) < 0.3, -1000.0, ct)
    return np.stack([ct + hu, factor * other]), mask


def test_in_a_plan_that_mixes_both_each_channel_is_judged_by_its_own_kind() -> None:
    plan = (False, True)
    known = learn_range([measured(*petct(seed), plan) for seed in range(10)])
    assert compared(known, measured(*petct(50), plan)) == set()
    assert compared(known, measured(*petct(50, factor=400.0), plan)) == set()
    assert {"level", "label_level"} <= compared(known, measured(*petct(50, hu=1024.0), plan))
    assert known.better_order(measured(*petct(50), plan)) is None
    image, mask = petct(50)
    assert known.better_order(measured(image[::-1], mask, plan)) == (1, 0)


@pytest.mark.parametrize("factors", [(1.0, 1.0), (300.0, 0.1)])
def test_swapped_zscored_channels_show_whatever_their_scale(factors) -> None:
    def pair(seed: int) -> tuple[np.ndarray, np.ndarray]:
        bright, mask = ball(seed)
        dark = 300 - bright + np.random.default_rng(seed).normal(0, 8, SHAPE)
        return np.stack([bright * factors[0], dark * factors[1]]), mask

    plan = (True, True)
    known = learn_range([measured(*pair(seed), plan) for seed in range(8)])
    for seed in range(20, 26):
        image, mask = pair(seed)
        assert known.better_order(measured(image, mask, plan)) is None
        assert known.better_order(measured(image[::-1], mask, plan)) == (1, 0)


def test_a_case_without_zscored_channels_is_left_as_it_was_measured() -> None:
    image, mask = petct(60)
    volume = Volume(image, AFFINE, channels=2)
    case = measure_case(volume, Volume(mask, AFFINE), SCHEME)
    assert case.normalized((False, False)) == case


def test_one_training_case_in_other_units_does_not_widen_the_range() -> None:
    """Of 260 hippocampus images a few are stored in units 400 times larger than the others'."""
    pairs = [ball(seed) for seed in range(12)]
    pairs[0] = (pairs[0][0] * 400, pairs[0][1])
    known = learn_range([measured(*pair) for pair in pairs])
    span = next(s for s in known.spans if s.what == "normalised grey level at 99%")
    assert 0 < span.low <= span.high < 6 and math.isclose(known.widening, 1.0)
