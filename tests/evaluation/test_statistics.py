"""Means and intervals over cases."""

from __future__ import annotations

import math

import numpy as np
import pytest

from medseg.evaluation.statistics import MIN_PATIENTS, bootstrap_interval, describe_scores
from medseg.metrics.empty import bounded


def test_infinite_distances_enter_as_the_image_diagonal_and_are_counted() -> None:
    values, n_infinite = bounded([1.0, math.inf, 3.0, math.inf], [50.0, 60.0, 70.0, 80.0])
    assert values.tolist() == [1.0, 60.0, 3.0, 80.0]
    assert n_infinite == 2


def test_mean_sd_and_median_by_hand() -> None:
    found = describe_scores([1.0, 2.0, 6.0], ["a", "b", "c"], np.random.default_rng(0))
    assert (found.mean, found.median, found.n, found.n_patients) == (3.0, 2.0, 3, 3)
    assert found.sd == pytest.approx(math.sqrt(7.0))
    assert found.ci_low is None and found.ci_high is None


def test_no_scores_give_no_numbers() -> None:
    found = describe_scores([], [], np.random.default_rng(0))
    assert math.isnan(found.mean) and found.n == 0 and found.ci_low is None


def test_there_is_no_interval_below_the_smallest_number_of_patients() -> None:
    rng = np.random.default_rng(0)
    scores = np.linspace(0.5, 0.9, 40)
    few = [str(i % (MIN_PATIENTS - 1)) for i in range(40)]
    assert bootstrap_interval(scores, few, rng) is None
    assert bootstrap_interval(scores, [str(i % MIN_PATIENTS) for i in range(40)], rng) is not None


def test_equal_scores_give_an_interval_of_no_width() -> None:
    assert bootstrap_interval([0.7] * 10, range(10), np.random.default_rng(0)) == (pytest.approx(0.7),) * 2


def test_the_same_seed_gives_the_same_interval_inside_the_limits() -> None:
    scores = np.array([1.0] * 9 + [0.0, 0.2, 0.9])
    first, second = (
        bootstrap_interval(scores, range(12), np.random.default_rng(3), limits=(0.0, 1.0)) for _ in range(2)
    )
    assert first is not None and first == second
    assert 0.0 <= first[0] < scores.mean() < first[1] <= 1.0


def test_many_cases_of_few_patients_do_not_narrow_the_interval() -> None:
    rng = np.random.default_rng(1)
    per_patient = rng.beta(8, 1.5, 12)
    once = bootstrap_interval(per_patient, range(12), np.random.default_rng(0))
    often = bootstrap_interval(np.repeat(per_patient, 10), np.repeat(np.arange(12), 10), np.random.default_rng(0))
    assert once is not None and often is not None
    assert often == pytest.approx(once, abs=1e-9)


@pytest.mark.parametrize(("n", "lowest"), [(10, 0.90), (50, 0.915)])
def test_intervals_cover_the_true_mean_of_skewed_scores(n: int, lowest: float) -> None:
    rng = np.random.default_rng(0)
    truth, studies, covered = 8 / 9.5, 400, 0
    for _ in range(studies):
        interval = bootstrap_interval(rng.beta(8, 1.5, n), range(n), rng, (0.0, 1.0), resamples=1000)
        assert interval is not None
        covered += interval[0] <= truth <= interval[1]
    assert lowest <= covered / studies <= 0.985
