"""Progress of a training, and its learning rate."""

from __future__ import annotations

from medseg.config import DEFAULT_MINUTES, TrainingConfig

__all__ = ["default_learning_rate", "learning_rate", "progress_of"]

_LEARNING_RATES = {"adamw": 2e-3, "sgd": 1e-2}


def progress_of(iteration: int, elapsed_seconds: float, config: TrainingConfig) -> float:
    """Fraction of the schedule done, 0 to 1: the larger share of `max_iterations` and `max_minutes`, where given.

    Only iterations alone are independent of the machine, so only they resume bit for bit.
    """
    shares = [] if config.max_iterations is None else [iteration / config.max_iterations]
    if config.max_minutes is not None or not shares:
        shares.append(elapsed_seconds / (60 * (config.max_minutes or DEFAULT_MINUTES)))
    return min(1.0, max(shares))


def is_over(iteration: int, elapsed_seconds: float, config: TrainingConfig) -> bool:
    """Whether either limit is reached."""
    return progress_of(iteration, elapsed_seconds, config) >= 1.0


def default_learning_rate(config: TrainingConfig) -> float:
    """The peak learning rate: the one configured, or the usual one for the optimizer."""
    return config.learning_rate or _LEARNING_RATES[config.optimizer]


def learning_rate(iteration: int, progress: float, config: TrainingConfig) -> float:
    """Learning rate of one iteration: linear warm-up times the poly decay (1 - progress)^power.

    Source:
        Poly decay: Chen et al., DeepLab, TPAMI 2018, section 4.1.

    Example:
        >>> learning_rate(100, 0.5, TrainingConfig(learning_rate=1.0, poly_power=1.0, warmup_iterations=0))
        0.5
    """
    peak = default_learning_rate(config)
    warm_up = min(1.0, (iteration + 1) / (config.warmup_iterations + 1))
    decay = 1.0 if config.schedule == "constant" else (1.0 - progress) ** config.poly_power
    return peak * warm_up * decay
