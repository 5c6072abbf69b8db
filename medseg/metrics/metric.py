"""What a metric is: one record with its heading, unit, direction, definition, policy for empty masks, and function."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from string import Formatter
from typing import Any, Literal

from medseg.metrics.empty import EmptyPolicy

__all__ = ["Better", "Column", "Metric"]

Better = Literal["higher", "lower", "zero"]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of numbers, one per case and label: a metric, or what a task measures.

    Args:
        title: heading, without the unit.
        unit: "" for a share or a count; "mm", "ml", "HU", ... else.
        better: "higher", "lower", or "zero" for signed differences; None where the number only describes, as a volume.
        definition: what is computed, a sentence without its full stop.
        limits: smallest and largest value it can have; intervals are cut to them.
        decimals: digits after the point in a report.

    Example:
        >>> Column("Volume", "ml").heading
        'Volume (ml)'
    """

    title: str
    unit: str = ""
    better: Better | None = None
    definition: str = ""
    limits: tuple[float, float] = (-math.inf, math.inf)
    decimals: int = 3

    @property
    def heading(self) -> str:
        """Title with the unit in parentheses."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    def badness(self, value: float) -> float | None:
        """A number that grows as a score gets worse; None where the column only describes.

        Example:
            >>> Column("Dice", better="higher").badness(0.75), Column("Length difference", better="zero").badness(-2.0)
            (-0.75, 2.0)
        """
        if self.better is None:
            return None
        return -value if self.better == "higher" else value if self.better == "lower" else abs(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric(Column):
    """A metric: a column, how it is computed, and when it means something.

    In `definition`, names in braces are fields of `medseg.metrics.conventions.Conventions`; they are the metric's
    options, and `ScoreOptions.define` writes their values in.

    Args:
        function: the score of one label in one case, from a `medseg.metrics.label_pair.LabelPair`; for metrics of
            probabilities from a `medseg.metrics.probabilistic.ProbabilityCounts`.
        source: where it is published.
        empty: its value where a mask is empty, see `medseg.metrics.empty`. Under "share" and "distance" the function
            is only called where neither mask is.
        needs: "masks", or "probabilities" as `evaluate --probabilities` takes them.
        needs_mm: it means nothing where the spacing is not known.
        needs_3d: it means nothing in 2D.

    Example:
        >>> from medseg.metrics import ALL_METRICS
        >>> ALL_METRICS["nsd"].options, ALL_METRICS["hd95"].is_distance
        (('tolerance_mm', 'surface'), True)
    """

    function: Callable[[Any], float]
    source: str
    empty: EmptyPolicy = "share"
    needs: Literal["masks", "probabilities"] = "masks"
    needs_mm: bool = False
    needs_3d: bool = False

    @property
    def is_distance(self) -> bool:
        """Whether it is in mm where the spacing is known and in pixels elsewhere, infinite for a missed label."""
        return self.empty == "distance"

    @property
    def options(self) -> tuple[str, ...]:
        """The conventions that its value depends on."""
        return tuple(name for _, name, _, _ in Formatter().parse(self.definition) if name)
