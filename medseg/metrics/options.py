"""Which metrics, by which conventions."""

from __future__ import annotations

from dataclasses import dataclass, replace

from medseg.errors import ConfigError
from medseg.lookup import nearest_hint
from medseg.metrics.conventions import Conventions
from medseg.metrics.registry import ALL_METRICS

__all__ = ["METRICS", "ScoreOptions"]

METRICS = ("dice", "iou", "hd95", "assd", "nsd")
"""The metrics that are computed where none are named, in the order reports show them."""


@dataclass(frozen=True, slots=True)
class ScoreOptions(Conventions):
    """Which metrics, by which conventions; the conventions are keywords, see `Conventions`.

    Args:
        metrics: names out of `medseg.metrics.ALL_METRICS`.

    Raises:
        ConfigError: for an unknown metric or convention, or a number out of range.

    Example:
        >>> ScoreOptions(("dice", "hd95"), hd95="pooled").metrics
        ('dice', 'hd95')
    """

    metrics: tuple[str, ...] = METRICS

    def __post_init__(self) -> None:
        unknown = [m for m in self.metrics if m not in ALL_METRICS]
        if unknown or not self.metrics:
            names = ", ".join(ALL_METRICS)
            hint = nearest_hint(unknown[0], ALL_METRICS) if unknown else ""
            wrong = ", ".join(map(repr, unknown)) or "(none given)"
            raise ConfigError(f"unknown metric {wrong}; there are {names}{hint}")
        # super() without arguments does not work in a dataclass with slots: Python 3.11 makes the class twice.
        Conventions.__post_init__(self)

    @property
    def of_masks(self) -> tuple[str, ...]:
        """The metrics that need masks alone."""
        return tuple(m for m in self.metrics if ALL_METRICS[m].needs == "masks")

    @property
    def of_probabilities(self) -> tuple[str, ...]:
        """The metrics that need probabilities."""
        return tuple(m for m in self.metrics if ALL_METRICS[m].needs == "probabilities")

    def fitting(self, dims: int, spacing_known: bool) -> ScoreOptions:
        """The same without the metrics that mean nothing in 2D, or where the spacing is not known.

        Args:
            dims: of the images, 2 or 3.
            spacing_known: whether millimetres are.

        Raises:
            ConfigError: if these are all that was asked for.
        """
        rest = tuple(m for m in self.metrics if dims == 3 or not ALL_METRICS[m].needs_3d)
        if not rest:
            raise ConfigError(f"{', '.join(self.metrics)} mean nothing in 2D images; ask for other metrics")
        rest = tuple(m for m in rest if spacing_known or not ALL_METRICS[m].needs_mm)
        if not rest:
            raise ConfigError(
                f"{', '.join(self.metrics)} need millimetres, and the spacing of these images is not known; "
                "ask for other metrics"
            )
        return replace(self, metrics=rest)

    def define(self, metric: str) -> str:
        """The metric's definition under these conventions: one sentence with its source, for a report or paper.

        Example:
            >>> ScoreOptions(("dice",)).define("dice")
            'Dice coefficient, 2TP / (2TP + FP + FN) (Dice, Ecology 1945).'
        """
        record = ALL_METRICS[metric]
        words = {name: self.in_words(name) for name in record.options}
        return f"{record.definition.format(**words)} ({record.source})."
