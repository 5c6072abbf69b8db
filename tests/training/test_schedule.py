"""The learning rate and the end of a training, by hand."""

from __future__ import annotations

import pytest
import torch

from medseg.config import TrainingConfig
from medseg.training.schedule import is_over, learning_rate, progress_of, with_epochs


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


def test_cosine_is_half_a_cosine_of_progress() -> None:
    config = TrainingConfig(learning_rate=0.2, warmup_iterations=0, schedule="cosine")
    # (1 + cos(pi p)) / 2 at 0, 1/3, 1/2, 2/3 and 1.
    expected = [0.2, 0.15, 0.1, 0.05, 0.0]
    assert [learning_rate(9, p, config) for p in (0.0, 1 / 3, 0.5, 2 / 3, 1.0)] == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("schedule", ["poly", "cosine", "constant"])
def test_warm_up_multiplies_every_schedule_that_does_not_rise_itself(schedule: str) -> None:
    warm = TrainingConfig(learning_rate=1.0, warmup_iterations=3, schedule=schedule)
    cold = warm.model_copy(update={"warmup_iterations": 0})
    for iteration, factor in enumerate((0.25, 0.5, 0.75, 1.0, 1.0)):
        for progress in (0.0, 0.4):
            rate = learning_rate(iteration, progress, warm)
            assert rate == pytest.approx(factor * learning_rate(iteration, progress, cold))


def test_one_cycle_rises_to_its_peak_at_three_tenths_and_falls_to_almost_nothing() -> None:
    config = TrainingConfig(learning_rate=1.0, warmup_iterations=50, schedule="one_cycle")
    # Half a cosine from 0.04 to 1 over 0.3, then from 1 to 4e-6 over 0.7; midways lie at the means.
    points = {0.0: 0.04, 0.15: 0.52, 0.3: 1.0, 0.65: 0.500002, 1.0: 4e-6}
    assert [learning_rate(0, p, config) for p in points] == pytest.approx(list(points.values()), rel=1e-9)


def test_one_cycle_is_that_of_torch() -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    # torch puts the peak at step 0.3 * total_steps - 1 and the end at total_steps - 1.
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.3, total_steps=110, cycle_momentum=False)
    config = TrainingConfig(learning_rate=0.3, schedule="one_cycle")
    for step in range(110):
        progress = 0.3 * step / 32 if step <= 32 else 0.3 + 0.7 * (step - 32) / 77
        assert learning_rate(step, progress, config) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        if step < 109:
            optimizer.step()
            theirs.step()


@pytest.mark.parametrize(
    ("cases", "batch", "iterations"), [(10, 2, 50), (11, 2, 60), (1, 8, 10), (8, 8, 10), (9, 8, 20)]
)
def test_an_epoch_is_as_many_samples_as_there_are_cases(cases: int, batch: int, iterations: int) -> None:
    counted = with_epochs(TrainingConfig(max_epochs=10), cases, batch)
    assert counted.max_iterations == iterations
    assert is_over(iterations, 0.0, counted) and not is_over(iterations - 1, 1e9, counted)


def test_epochs_stand_beside_iterations_and_minutes_and_the_first_limit_counts() -> None:
    assert with_epochs(TrainingConfig(max_epochs=10, max_iterations=7), 10, 2).max_iterations == 7
    assert with_epochs(TrainingConfig(max_epochs=10, max_iterations=99), 10, 2).max_iterations == 50
    both = with_epochs(TrainingConfig(max_epochs=10, max_minutes=1), 10, 2)
    assert is_over(1, 60.0, both) and is_over(50, 0.0, both) and not is_over(49, 59.0, both)
    without = TrainingConfig(max_iterations=7)
    assert with_epochs(without, 10, 2) is without
