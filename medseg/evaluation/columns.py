"""The columns of an evaluation: metrics, distances in pixels, and what tasks measure, each by its record."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from medseg.metrics.metric import Column
from medseg.metrics.registry import ALL_METRICS
from medseg.tasks import TASKS

__all__ = ["column", "columns_of", "record_of", "title_of"]

_UNKNOWN_LIMITS = (-math.inf, math.inf)


def column(metric: str, spacing_known: bool) -> str:
    """The name a value is written under: distances in pixels get another one than those in mm.

    Example:
        >>> column("hd95", False), column("dice", False), column("hd95", True)
        ('hd95_px', 'dice', 'hd95')
    """
    if spacing_known or metric not in ALL_METRICS or not ALL_METRICS[metric].is_distance:
        return metric
    return f"{metric}_px"


def columns_of(metrics: Iterable[str]) -> frozenset[str]:
    """Every column that the values of these metrics can be written under."""
    return frozenset(column(metric, known) for metric in metrics for known in (True, False))


def record_of(name: str) -> Column:
    """Heading, unit and direction of a column.

    Args:
        name: as `cases.csv` has it. A column that no metric and no task declares, as one of another version of medseg,
            only describes and is headed by its name.

    Example:
        >>> record_of("hd95_px").heading, record_of("length_difference_mm").better, record_of("tail_ratio").title
        ('HD95 (pixels)', 'zero', 'tail ratio')
    """
    if name in ALL_METRICS:
        return ALL_METRICS[name]
    for task in TASKS.values():
        if name in task.columns:
            return task.columns[name]
    for metric, record in ALL_METRICS.items():
        if record.is_distance and name == column(metric, False):
            return replace(record, unit="pixels")
    return Column(name.replace("_", " "), limits=_UNKNOWN_LIMITS)


def title_of(name: str) -> str:
    """Heading of a column, with its unit."""
    return record_of(name).heading
