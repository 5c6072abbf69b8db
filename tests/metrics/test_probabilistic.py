"""Scores of probabilities: by hand, and against their definitions pair by pair and threshold by threshold."""

from __future__ import annotations

import math

import numpy as np
import pytest

from medseg.errors import ConfigError, DatasetError, GeometryError
from medseg.metrics.probabilistic import PROBABILITY_METRICS, score_probabilities
from medseg.metrics.registry import PROBABILITY_INFO


def test_four_pixels_by_hand() -> None:
    # Of the pairs (inside, outside), 0.35 beats 0.1 but not 0.4, 0.8 beats both: 3 of 4. Thresholds from the top:
    # 0.8 (precision 1, recall + 1/2), 0.4 (no gain), 0.35 (precision 2/3, recall + 1/2).
    found = score_probabilities([[0.1, 0.4, 0.35, 0.8]], [[False, False, True, True]])
    assert found["auc"] == 3 / 4
    assert found["average_precision"] == pytest.approx(1 / 2 + (2 / 3) / 2)
    assert found["brier"] == pytest.approx((0.1**2 + 0.4**2 + 0.65**2 + 0.2**2) / 4)
    # Of bins a 15th wide, 0.35 and 0.4 share one, 0.375 on average where 1/2 would be right.
    assert found["ece"] == pytest.approx((0.1 + 2 * 0.125 + 0.2) / 4)


def test_ties_count_half() -> None:
    assert score_probabilities([[0.5, 0.5, 0.5]], [[True, False, False]], metrics=("auc",)) == {"auc": 0.5}
    # The precision at the one threshold is the share of the reference.
    found = score_probabilities([[0.5, 0.5, 0.5]], [[True, False, False]], metrics=("average_precision",))
    assert found["average_precision"] == pytest.approx(1 / 3)


def test_calibration_is_off_by_what_a_bin_promises_and_does_not_hold() -> None:
    # Ten voxels of 0.75, eight of them in the reference, and ten of 0.25, one of them: 0.05 and 0.15 off.
    values = np.repeat([0.75, 0.25], 10)[None]
    ref = np.array([[True] * 8 + [False] * 2 + [True] + [False] * 9])
    assert score_probabilities(values, ref, metrics=("ece",))["ece"] == pytest.approx((0.05 + 0.15) / 2)


def test_the_border_of_two_bins_belongs_to_the_lower() -> None:
    # 1/15 and 0.03 share the first bin: mean (1/15 + 0.03) / 2, half of them inside. 0.07 lies in the second.
    first = abs((1 / 15 + 0.03) / 2 - 0.5)
    found = score_probabilities([[1 / 15, 0.03, 0.07]], [[True, False, False]], metrics=("ece",))
    assert found["ece"] == pytest.approx((2 * first + 0.07) / 3)


def test_only_the_field_of_view_counts() -> None:
    values, ref = [[0.9, 0.2, 0.99, 0.0]], [[True, False, False, True]]
    assert score_probabilities(values, ref, [[True, True, False, False]], ("auc", "brier")) == pytest.approx(
        {"auc": 1.0, "brier": (0.1**2 + 0.2**2) / 2}
    )


@pytest.mark.parametrize("kind", ["float16", "float32", "float64", "8 bit"])
@pytest.mark.parametrize("dims", [2, 3])
def test_every_score_is_that_of_its_definition(kind: str, dims: int) -> None:
    for seed in range(10):
        rng = np.random.default_rng([seed, dims])
        shape = tuple(int(n) for n in rng.integers(3, 9, dims))
        ref, fov = rng.random(shape) < rng.uniform(0.1, 0.9), rng.random(shape) < 0.8
        ref.flat[:2], fov.flat[:2] = (True, False), True
        values = np.clip(0.4 * ref + 0.3 * rng.standard_normal(shape) + 0.3, 0, 1)
        if seed % 2:  # many ties
            values = np.round(values, 1)
        values = np.round(values * 255).astype(np.float32) / 255 if kind == "8 bit" else values.astype(kind)
        found = score_probabilities(values, ref, fov)
        p, inside = values[fov].astype(float), ref[fov]
        assert found["auc"] == pytest.approx(
            np.mean([(a > b) + (a == b) / 2 for a in p[inside] for b in p[~inside]]), abs=1e-12
        )
        precision = {t: inside[p >= t].mean() for t in p}
        assert found["average_precision"] == pytest.approx(np.mean([precision[t] for t in p[inside]]), abs=1e-12)
        assert found["brier"] == pytest.approx(np.mean((p - inside) ** 2), abs=1e-12)
        off = 0.0
        for n in range(15):
            here = (p > n / 15) & (p <= (n + 1) / 15) | (p == 0) & (n == 0)
            off += abs(p[here].sum() - inside[here].sum())
        assert found["ece"] == pytest.approx(off / len(p), abs=1e-12)


def test_scores_do_not_depend_on_how_the_same_values_are_stored() -> None:
    rng = np.random.default_rng(0)
    half, ref = rng.random((30, 40)).astype(np.float16), rng.random((30, 40)) > 0.7
    half[0, :2] = (0.0, -0.0)
    for kind in (np.float32, np.float64):
        assert score_probabilities(half.astype(kind), ref) == score_probabilities(half, ref)
        assert score_probabilities(half.astype(kind).T, ref.T) == pytest.approx(score_probabilities(half, ref))


def test_large_arrays_are_counted_piece_by_piece() -> None:
    rng = np.random.default_rng(0)
    half, ref = rng.random((3, 1200, 1000)).astype(np.float16), rng.random((3, 1200, 1000)) > 0.7
    # The second takes the path of values in full precision.
    nearly = half.astype(np.float64)
    nearly[2, 0, 0] += 1e-9
    assert score_probabilities(nearly, ref) == pytest.approx(score_probabilities(half, ref), abs=1e-9)


@pytest.mark.parametrize("full", [False, True])
def test_a_reference_of_nothing_or_everything_has_no_curve(full: bool) -> None:
    found = score_probabilities(np.full((2, 2), 0.25), np.full((2, 2), full))
    assert math.isnan(found["auc"])
    assert found["average_precision"] == 1.0 if full else math.isnan(found["average_precision"])
    assert found["brier"] == (0.5625 if full else 0.0625) and found["ece"] == (0.75 if full else 0.25)


def test_without_a_voxel_that_counts_there_is_no_score() -> None:
    found = score_probabilities(np.zeros((2, 2)), np.zeros((2, 2), bool), np.zeros((2, 2), bool))
    assert set(found) == set(PROBABILITY_METRICS) == set(PROBABILITY_INFO)
    assert all(math.isnan(v) for v in found.values())


def test_what_rounding_leaves_beyond_0_and_1_counts_as_0_and_1() -> None:
    assert score_probabilities([[-0.0005, 1.0005]], [[False, True]], metrics=("brier",)) == {"brier": 0.0}


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"metrics": ("dice",)}, ConfigError, "'dice'; there are auc"),
        ({"ref": np.zeros((3, 2), bool)}, GeometryError, r"\(2, 2\), reference \(3, 2\)"),
        ({"fov": np.zeros((3, 2), bool)}, GeometryError, r"field of view \(3, 2\)"),
        ({"probabilities": np.full((2, 2), 3.0)}, DatasetError, "logits"),
        ({"probabilities": np.full((2, 2), np.nan)}, DatasetError, "nan"),
        ({"probabilities": np.full((2, 2), "a")}, DatasetError, "numbers in"),
    ],
)
def test_wrong_input_is_refused_in_one_line(arguments: dict, error: type[Exception], words: str) -> None:
    given = {"probabilities": np.zeros((2, 2)), "ref": np.zeros((2, 2), bool)}
    with pytest.raises(error, match=words) as raised:
        score_probabilities(**(given | arguments))
    assert "\n" not in str(raised.value)
