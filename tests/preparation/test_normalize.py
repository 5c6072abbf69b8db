"""Grey levels as a network sees them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.config import RunConfig
from medseg.errors import ConfigError, GeometryError
from medseg.labels import LabelScheme
from medseg.preparation import Scale, make_plan, normalize, scales_for
from medseg.preparation.fingerprint import Fingerprint, fingerprint_case
from medseg.preparation.normalize import body_statistics
from medseg.volume import Volume
from medseg.windowing import PRESETS, window

SCHEME = LabelScheme.from_mapping({"thing": 1})


def fingerprint_of(array: np.ndarray, names: tuple[str, ...] = ()) -> Fingerprint:
    image = Volume(array, np.eye(4), channels=array.shape[0])
    labels = np.zeros(array.shape[1:], np.uint8)
    labels[: len(labels) // 2] = 1
    return Fingerprint((fingerprint_case("a", "", image, image.with_array(labels), SCHEME),), names)


def plan_for(array: np.ndarray, names: tuple[str, ...] = (), **data):
    config = RunConfig(data={"root": "x", **data})
    return make_plan(fingerprint_of(array, names), config, SCHEME, memory_gb=4, on_gpu=False)


HU = np.random.default_rng(0).integers(-1100, 1500, (1, 12, 12, 12)).astype(np.int16)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_window_normalisation_equals_the_window_function(preset: str) -> None:
    scales = scales_for(HU, plan_for(HU, window=preset))
    np.testing.assert_allclose(normalize(HU, scales), window(HU, preset), atol=2e-7)


@given(st.floats(-500, 500), st.floats(1.5, 3000), st.sampled_from(["LINEAR", "LINEAR_EXACT"]))
def test_any_centre_and_width_equal_the_window_function(center: float, width: float, function: str) -> None:
    scales = scales_for(HU, plan_for(HU, window={"center": center, "width": width, "function": function}))
    expected = window(HU, center=center, width=width, function=function)
    np.testing.assert_allclose(normalize(HU, scales), expected, atol=1e-3 if width < 3 else 1e-5)


def test_normalize_clips_shifts_and_divides() -> None:
    array = np.array([[[-5, 0, 5, 50]], [[1, 2, 3, 4]]], np.int16)
    out = normalize(array, [Scale(0, 10, 5, 2), Scale(-math.inf, math.inf, 1, 0.5)])
    assert out.dtype == np.float32
    assert out.tolist() == [[[-2.5, -2.5, 0.0, 2.5]], [[0.0, 2.0, 4.0, 6.0]]]
    with pytest.raises(GeometryError, match="2 channels, the plan has 1"):
        normalize(array, [Scale(0, 10, 5, 2)])


def test_background_is_left_out_of_the_statistics_from_a_fifth_of_the_image() -> None:
    assert body_statistics(np.array([0, 0, 0, 1, 3])) == (2.0, 1.0)
    # Seven equal values in forty are too few to be background.
    few = np.array([100.0] * 7 + list(range(33)))
    assert body_statistics(few) == (few.mean(), few.std())
    assert body_statistics(np.full((4, 4), 7.0)) == (7.0, 1.0)


@given(st.integers(0, 2**32 - 1), st.floats(0.21, 0.9))
def test_background_is_found_wherever_it_lies(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=3000)
    values[: math.ceil(share * 3000)] = rng.normal()
    mean, std = body_statistics(rng.permutation(values))
    rest = values[math.ceil(share * 3000) :]
    assert (mean, std) == pytest.approx((rest.mean(), rest.std()))


def test_a_zscored_case_has_mean_0_and_std_1() -> None:
    array = np.random.default_rng(0).normal(40, 7, (1, 10, 10, 10)).astype(np.float32)
    out = normalize(array, scales_for(array, plan_for(array)))
    assert (out.mean(), out.std()) == pytest.approx((0, 1), abs=1e-5)


def test_ct_is_clipped_to_percentiles_of_the_labelled_voxels() -> None:
    plan = plan_for(HU).normalization[0]
    inside = HU[0, :6]
    assert plan.kind == "clip"
    assert (plan.low, plan.high) == pytest.approx(np.percentile(inside, [0.5, 99.5]), abs=15)
    assert (plan.mean, plan.std) == pytest.approx((inside.mean(), inside.std()), rel=1e-3)


def test_what_counts_as_ct() -> None:
    mr = np.abs(HU)
    assert plan_for(HU).normalization[0].kind == "clip"
    assert plan_for(mr).normalization[0].kind == "zscore"
    assert plan_for(HU + 0.5).normalization[0].kind == "zscore"
    assert plan_for(HU, modality="MR").normalization[0].kind == "zscore"
    assert plan_for(mr, modality="CT").normalization[0].kind == "clip"
    assert plan_for(mr, names=("ct",)).normalization[0].kind == "clip"


def test_a_window_is_for_the_ct_where_modalities_are_named() -> None:
    both = np.concatenate([HU, np.abs(HU)])
    kinds = [p.kind for p in plan_for(both, window="lung", modality=("CT", "PET")).normalization]
    assert kinds == ["window", "zscore"]
    assert [p.kind for p in plan_for(both, window="lung").normalization] == ["window", "window"]
    with pytest.raises(ConfigError, match="names 3 channels, but the images have 2"):
        plan_for(both, modality=("CT", "PET", "MR"))


def test_a_window_that_is_a_threshold_is_refused() -> None:
    with pytest.raises(ConfigError, match="width of 1 is a threshold"):
        plan_for(HU, window={"center": 0, "width": 1})
