"""What intervals and tests promise, on simulated Dice-like scores: skewed, bounded by 1. The figures are printed."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.evaluation.paired import permutation_test, wilcoxon_test
from medseg.evaluation.statistics import bootstrap_interval

STUDIES = 2000
SHAPES = ((8.0, 1.5), (5.0, 1.0), (20.0, 1.2))


def percentile_interval(values: np.ndarray, rng: np.random.Generator, resamples: int) -> tuple[float, float]:
    """What most papers give."""
    means = values[rng.integers(0, len(values), (resamples, len(values)))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"beta{s}")
@pytest.mark.parametrize("n", [10, 20, 50])
def test_intervals_cover_95_percent_and_more_than_the_percentile_bootstrap(
    n: int, shape: tuple[float, float], capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(n)
    truth = shape[0] / sum(shape)
    covered = plain = 0
    for _ in range(STUDIES):
        scores = rng.beta(*shape, n)
        interval = bootstrap_interval(scores, range(n), rng, (0.0, 1.0), resamples=2000)
        assert interval is not None
        covered += interval[0] <= truth <= interval[1]
        low, high = percentile_interval(scores, rng, 1000)
        plain += low <= truth <= high
    with capsys.disabled():
        print(f"\nn = {n}, beta{shape}: covers {covered / STUDIES:.3f}, percentile bootstrap {plain / STUDIES:.3f}")  # noqa: T201
    assert covered > plain
    if n == 50:
        assert 0.93 <= covered / STUDIES <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("n", [8, 10, 20, 50])
def test_without_a_difference_one_test_in_twenty_finds_one(n: int, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(n)
    rejected = ranked = 0
    for _ in range(STUDIES):
        # Two models on the same cases: a hard case is hard for both, neither is better.
        difficulty = rng.beta(8, 1.5, n)
        first, second = (difficulty - 0.1 * rng.beta(1, 4, n) for _ in range(2))
        rejected += permutation_test(first - second, rng, permutations=1000) <= 0.05
        ranked += wilcoxon_test(first - second) <= 0.05
    with capsys.disabled():
        print(f"\nn = {n}: type I error {rejected / STUDIES:.3f} (permutation), {ranked / STUDIES:.3f} (Wilcoxon)")  # noqa: T201
    assert 0.035 <= rejected / STUDIES <= 0.065
