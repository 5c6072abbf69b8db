"""The learning rate and the end of a training, by hand."""

from __future__ import annotations

import pytest

from medseg.config import TrainingConfig
from medseg.training.schedule import is_over, learning_rate, progress_of


def test_poly_decay_is_one_minus_progress_to_the_power_of_nine_tenths() -> None:
    config = TrainingConfig(learning_rate=0.01, warmup_iterations=0)
    assert learning_rate(500, 0.0, config) == pytest.approx(0.01)
    assert learning_rate(500, 0.5, config) == pytest.approx(0.01 * 0.5**0.9)
    assert learning_rate(500, 1.0, config) == 0.0


def test_warm_up_rises_linearly_to_the_peak() -> None:
    config = TrainingConfig(learning_rate=1.0, warmup_iterations=4, schedule="constant")
    assert [learning_rate(n, 0.0, config) for n in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])


def test_progress_is_the_larger_share_of_iterations_and_minutes() -> None:
    assert progress_of(25, 1e9, TrainingConfig(max_iterations=100)) == 0.25
    assert progress_of(25, 30.0, TrainingConfig(max_minutes=1)) == 0.5
    both = TrainingConfig(max_iterations=100, max_minutes=1)
    assert progress_of(25, 30.0, both) == 0.5
    assert progress_of(75, 30.0, both) == 0.75
    assert progress_of(25, 1800.0, TrainingConfig()) == 0.5


@pytest.mark.parametrize("minutes", [1.0, 0.1, 1e-3])
def test_the_rate_has_decayed_when_the_minutes_end_before_the_iterations(minutes: float) -> None:
    both = TrainingConfig(max_iterations=10**6, max_minutes=minutes, learning_rate=1.0, warmup_iterations=0)
    rates = [learning_rate(0, progress_of(10, share * 60 * minutes, both), both) for share in (0.0, 0.5, 0.99, 1.0)]
    assert rates == sorted(rates, reverse=True) and rates[2] < 0.02 and rates[3] == 0.0


def test_training_ends_at_whichever_limit_comes_first() -> None:
    both = TrainingConfig(max_iterations=100, max_minutes=1)
    assert is_over(100, 0.0, both)
    assert is_over(5, 60.0, both)
    assert not is_over(99, 59.0, both)
    assert not is_over(99, 1e9, TrainingConfig(max_iterations=100))
