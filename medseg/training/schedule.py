"""Progress of a training, and its learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence

from medseg.config import DEFAULT_MINUTES, TrainingConfig

__all__ = [
    "default_learning_rate",
    "has_no_gain",
    "is_over",
    "learning_rate",
    "progress_of",
    "with_epochs",
]

_LEARNING_RATES = {"adamw": 2e-3, "sgd": 1e-2}
# The one-cycle schedule, as torch's OneCycleLR has it: where the peak is, and the peak over the first and last rate.
_RISE = 0.3
_FIRST, _LAST = 25.0, 25.0 * 1e4


def with_epochs(config: TrainingConfig, cases: int, batch_size: int) -> TrainingConfig:
    """The configuration with `max_epochs` counted in iterations: `max_iterations` is the smaller of both limits.

    An epoch is as many samples as there are training cases, so ceil(cases / batch_size) iterations.

    Args:
        config: of the training.
        cases: that train.
        batch_size: samples of a step, on all devices and in all parts of it together.

    Example:
        >>> with_epochs(TrainingConfig(max_epochs=10), cases=33, batch_size=4).max_iterations
        90
    """
    if config.max_epochs is None:
        return config
    iterations = config.max_epochs * math.ceil(cases / batch_size)
    return config.model_copy(update={"max_iterations": min(iterations, config.max_iterations or iterations)})


def progress_of(iteration: int, elapsed_seconds: float, config: TrainingConfig) -> float:
    """Fraction of the schedule done, 0 to 1: the larger share of `max_iterations` and `max_minutes`, where given.

    Only iterations alone are independent of the machine, so only they resume bit for bit. `max_epochs` has become
    `max_iterations` before, see `with_epochs`.
    """
    shares = [] if config.max_iterations is None else [iteration / config.max_iterations]
    if config.max_minutes is not None or not shares:
        shares.append(elapsed_seconds / (60 * (config.max_minutes or DEFAULT_MINUTES)))
    return min(1.0, max(shares))


def is_over(iteration: int, elapsed_seconds: float, config: TrainingConfig) -> bool:
    """Whether either limit is reached."""
    return progress_of(iteration, elapsed_seconds, config) >= 1.0


def has_no_gain(scores: Sequence[float], config: TrainingConfig) -> bool:
    """Whether `patience` validations or more have passed since the best one; without patience, never.

    Args:
        scores: of all validations so far, the larger the better.
        config: of the training.

    Example:
        >>> has_no_gain([0.5, 0.7, 0.7, 0.6], TrainingConfig(patience=2))
        True
    """
    if config.patience is None or not scores:
        return False
    return len(scores) - 1 - scores.index(max(scores)) >= config.patience


def default_learning_rate(config: TrainingConfig) -> float:
    """The peak learning rate: the one configured, or the usual one for the optimizer."""
    return config.learning_rate or _LEARNING_RATES[config.optimizer]


def learning_rate(iteration: int, progress: float, config: TrainingConfig) -> float:
    """Learning rate of one iteration: the schedule at `progress`, times the linear warm-up.

    poly: (1 - progress)^power; cosine: (1 + cos(pi progress)) / 2; constant: 1. one_cycle has a rise of its own in the
    place of the warm-up: from 1/25 to 1 in the first 30 %, then down to 1/250000, both along half a cosine.

    Source:
        poly: Chen et al., DeepLab, TPAMI 2018, section 4.1. cosine: Loshchilov & Hutter, SGDR, ICLR 2017, equation 5.
        one_cycle: Smith & Topin, Super-Convergence, 2018, with the numbers of torch's OneCycleLR; momentum stays.

    Example:
        >>> learning_rate(100, 0.5, TrainingConfig(learning_rate=1.0, poly_power=1.0, warmup_iterations=0))
        0.5
    """
    peak = default_learning_rate(config)
    if config.schedule == "one_cycle":
        if progress < _RISE:
            return _half_cosine(peak / _FIRST, peak, progress / _RISE)
        return _half_cosine(peak, peak / _LAST, (progress - _RISE) / (1 - _RISE))
    warm_up = min(1.0, (iteration + 1) / (config.warmup_iterations + 1))
    if config.schedule == "cosine":
        return warm_up * _half_cosine(peak, 0.0, progress)
    decay = 1.0 if config.schedule == "constant" else (1.0 - progress) ** config.poly_power
    return peak * warm_up * decay


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
