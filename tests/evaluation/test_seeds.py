"""The interval over seeds and patients: against another implementation, by hand, and on simulated trainings."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from scipy.stats import bootstrap

from medseg.evaluation.paired import compare_paired
from medseg.evaluation.seeds import resampled_differences, seeds_interval
from medseg.evaluation.statistics import bootstrap_interval

Scores = np.ndarray


def trained(rng: np.random.Generator, seeds: int, patients: Scores, by_seed: float, by_both: float) -> Scores:
    """`(seeds, patients)` scores: how hard a patient is, how good a training is, and what is left to chance."""
    n = len(patients)
    return patients + by_seed * rng.standard_normal((seeds, 1)) + by_both * rng.standard_normal((seeds, n))


def drawn(first: Scores, second: Scores, rng: np.random.Generator, resamples: int) -> Scores:
    return np.concatenate(list(resampled_differences(first, second, rng, resamples)))


def test_resamples_are_those_of_scipys_bootstrap_of_seeds_and_patients() -> None:
    rng = np.random.default_rng(1)
    patients = rng.beta(8, 1.5, 12)
    first, second = trained(rng, 4, patients, 0.02, 0.03), trained(rng, 3, patients - 0.02, 0.01, 0.03)

    def difference(p: Scores, a: Scores, b: Scores) -> float:
        return float(first[np.ix_(a, p)].mean() - second[np.ix_(b, p)].mean())

    other = bootstrap(
        (np.arange(12), np.arange(4), np.arange(3)),
        difference,
        n_resamples=8000,
        vectorized=False,
        method="percentile",
        rng=np.random.default_rng(2),
    )
    own = drawn(first, second, rng, 8000)
    assert own.std(ddof=1) == pytest.approx(other.standard_error, rel=0.04)
    quantiles = np.linspace(0.025, 0.975, 9)
    np.testing.assert_allclose(
        np.quantile(own, quantiles), np.quantile(other.bootstrap_distribution, quantiles), atol=0.1 * own.std()
    )


def test_two_seeds_and_two_patients_give_the_sixteen_differences_that_can_be_drawn() -> None:
    first, second = np.array([[0.9, 0.5], [0.7, 0.1]]), np.zeros((1, 2))
    expected = Counter(
        round(float(np.mean([first[s, p] for s in seeds for p in patients])), 6)
        for seeds in itertools.product((0, 1), repeat=2)
        for patients in itertools.product((0, 1), repeat=2)
    )
    own = drawn(first, second, np.random.default_rng(0), 32_000)
    found = Counter(np.round(own, 6).tolist())
    assert found.keys() == expected.keys()
    assert all(found[value] / 2000 == pytest.approx(count, abs=0.15) for value, count in expected.items())


def test_with_one_seed_each_it_is_the_interval_over_patients() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.beta(8, 1.5, (2, 1, 15))
    own = seeds_interval(first, second, np.random.default_rng(4), resamples=20_000)
    usual = bootstrap_interval((first - second)[0], range(15), np.random.default_rng(5), resamples=20_000)
    assert own == pytest.approx(usual, abs=0.03 * (own[1] - own[0]))


def test_the_interval_does_not_depend_on_which_model_comes_first() -> None:
    rng = np.random.default_rng(6)
    first, second = rng.beta(8, 1.5, (3, 20)), rng.beta(6, 1.5, (4, 20))
    low, high = seeds_interval(first, second, np.random.default_rng(7), resamples=20_000)
    other = seeds_interval(second, first, np.random.default_rng(8), resamples=20_000)
    assert (-other[1], -other[0]) == pytest.approx((low, high), abs=0.04 * (high - low))


def test_cases_of_a_patient_count_as_one_and_differences_as_means_over_seeds() -> None:
    first = np.array([[0.9, 0.7, 0.5], [0.7, 0.5, 0.3]])
    found = compare_paired(first, np.zeros(3), ["a", "a", "b"], np.random.default_rng(0))
    assert found.difference == pytest.approx((0.7 + 0.4) / 2) and found.n_patients == 2 and found.ci_low is None


def coverage(patients: int, seeds: int, by_seed: float, studies: int, rng: np.random.Generator) -> tuple[float, float]:
    """How often the interval holds the true difference, 0, and how often the interval over patients alone does."""
    held = plain = 0
    for _ in range(studies):
        hard = rng.beta(8, 1.5, patients)
        first, second = (trained(rng, seeds, hard, by_seed, 0.04) for _ in range(2))
        low, high = seeds_interval(first, second, rng, resamples=1000)
        held += low <= 0 <= high
        alone = bootstrap_interval(first.mean(axis=0) - second.mean(axis=0), range(patients), rng, resamples=1000)
        assert alone is not None
        plain += alone[0] <= 0 <= alone[1]
    return held / studies, plain / studies


# Standard deviation of a training's mean, 0.002 to 0.03, beside 0.04 of a single case.
@pytest.mark.slow
@pytest.mark.parametrize("by_seed", [0.002, 0.01, 0.03])
@pytest.mark.parametrize(("patients", "seeds"), [(12, 3), (20, 5), (50, 3), (50, 5)])
def test_intervals_cover_95_percent_of_differences_between_trainings(
    patients: int, seeds: int, by_seed: float, capsys: pytest.CaptureFixture[str]
) -> None:
    held, plain = coverage(
        patients, seeds, by_seed, 1000, np.random.default_rng([patients, seeds, int(1000 * by_seed)])
    )
    with capsys.disabled():
        print(f"\n{patients} patients, {seeds} seeds, SD {by_seed}: covers {held:.3f}, over patients alone {plain:.3f}")  # noqa: T201
    assert held >= 0.93
    assert held >= plain
