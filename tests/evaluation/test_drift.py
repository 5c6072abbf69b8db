"""Sequential tests of drift: false alarms as stated whatever the distribution, planted shifts found in time."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from medseg.errors import ConfigError
from medseg.evaluation.drift import DriftOptions, find_drift
from medseg.evaluation.sequential import (
    Cusum,
    alarm_threshold,
    chance_of_alarm,
    delays_of_shift,
    rate_scores,
    sequential_scores,
)


def studies(rng: np.random.Generator, n: int, shift: float = 0.0) -> list[dict[str, float]]:
    """One skewed figure, one with ties, one event."""
    return [
        {
            "noise": float(np.exp(rng.normal() + shift)),
            "thickness": float(rng.choice([1.0, 2.5, 5.0])),
            "needs review": float(rng.random() < 0.1),
        }
        for _ in range(n)
    ]


def test_chance_of_alarm_is_that_of_published_tables() -> None:
    # D. Hawkins and D. Olwell, Cumulative Sum Charts (1998): ARL 336 (two-sided 168) for k = 0.5, h = 4.
    assert chance_of_alarm(0.5, 4.0, 336) == pytest.approx(1 - np.exp(-1), abs=0.005)


@pytest.mark.parametrize("draw", ["skewed", "ties", "event"])
def test_ranks_of_unchanged_values_are_normal_scores_whatever_the_distribution(draw: str) -> None:
    rng = np.random.default_rng(1)

    def drawn(n: int) -> NDArray[np.float64]:
        made = {
            "skewed": lambda: rng.lognormal(0, 2, n),
            "ties": lambda: rng.choice([1.0, 5.0], n),
            "event": lambda: (rng.random(n) < 0.1) * 1.0,
        }
        return np.asarray(made[draw](), np.float64)

    scores = np.concatenate([sequential_scores(drawn(100), drawn(5), rng) for _ in range(60)])
    assert abs(scores.mean()) < 0.04
    assert scores.std() == pytest.approx(1, abs=0.03)
    assert np.mean(scores > 1.96) == pytest.approx(0.025, abs=0.008)


def test_rate_scores_are_normal_at_the_accepted_rate_and_higher_above_it() -> None:
    rng = np.random.default_rng(2)
    at, above = (rate_scores(rng.random(4000) < rate, 0.1, rng) for rate in (0.1, 0.3))
    assert abs(at.mean()) < 0.05 and at.std() == pytest.approx(1, abs=0.04)
    assert above.mean() > 0.2


def test_false_alarms_of_many_unshifted_sequences_are_at_most_as_stated() -> None:
    options = DriftOptions(false_alarms=0.2, studies=100)
    alarms = sum(
        find_drift(studies(rng, 100), studies(rng, 10), options, "outside").state == "alarm"
        for rng in map(np.random.default_rng, range(40))
    )
    # Bonferroni keeps it below 0.2; 4 standard errors above that.
    assert alarms / 40 < 0.2 + 4 * np.sqrt(0.2 * 0.8 / 40)
    assert alarms  # a test that never alarms would find nothing either


def test_a_shift_is_found_after_as_many_studies_as_stated() -> None:
    found = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        before, after = studies(rng, 100), studies(rng, 100, shift=1.5)
        drift = find_drift(before + after, studies(rng, 30), DriftOptions(), "outside")
        stated = find_drift(before, studies(rng, 30), DriftOptions(), "outside").long_delay
        noise = next(figure for figure in drift.figures if figure.name == "noise")
        assert noise.alarm_after is not None and noise.direction == "higher"
        assert noise.since > noise.before
        found.append(noise.alarm_after - 100 <= stated)
    # Nine of ten are found so soon; 12 are few.
    assert np.mean(found) > 0.6


def test_few_studies_are_never_called_steady() -> None:
    rng = np.random.default_rng(3)
    for reference, n in ((0, 0), (20, 0), (20, 5), (3, 10)):
        drift = find_drift(studies(rng, n), studies(rng, reference), DriftOptions(), "outside")
        assert drift.state == "too_few" and "TOO FEW" in drift.text()
    assert find_drift(studies(rng, 49), None, DriftOptions(), "outside").state == "too_few"


def test_enough_unshifted_studies_are_steady_and_say_what_would_have_been_found() -> None:
    rng = np.random.default_rng(4)
    drift = find_drift(studies(rng, 200), studies(rng, 40), DriftOptions(), "outside")
    assert drift.state == "steady" and drift.chance_to_find > 0.9
    assert drift.record()["alarms"] == [] and "STEADY" in drift.text()


def test_studies_outside_the_training_ranges_alarm_without_any_accepted_case() -> None:
    outside = [{"outside": 0.0}] * 50 + [{"outside": 1.0}] * 25
    drift = find_drift(outside, None, DriftOptions(), "outside")
    assert [figure.name for figure in drift.alarms] == ["outside"]


def test_a_cusum_names_the_direction_and_the_beginning_of_a_change() -> None:
    cusum = Cusum(0.5, alarm_threshold(0.5, 0.001, 100))
    assert cusum.alarm([0.0] * 10 + [-3.0] * 10) == (14, 10, -1)
    assert cusum.alarm([0.0] * 20) is None
    assert Cusum(0.5, 5.0, both=False).alarm([-3.0] * 20) is None


def test_a_small_reference_finds_small_shifts_late_or_never() -> None:
    cusum = Cusum(0.5, 9.0)
    few, many = (
        float(np.isfinite(delays_of_shift(cusum, 1.0, n, 100, np.random.default_rng(0))).mean()) for n in (10, 300)
    )
    assert few < 0.3 < 0.95 < many


@pytest.mark.parametrize(
    ("wrong", "option"),
    [({"false_alarms": 0.0}, "--false-alarms"), ({"studies": 1}, "--studies"), ({"shift": float("nan")}, "--shift")],
)
def test_impossible_options_are_refused(wrong: dict[str, float], option: str) -> None:
    with pytest.raises(ConfigError, match=option):
        DriftOptions(**wrong)  # type: ignore[arg-type]
