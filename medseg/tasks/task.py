"""`Task`: what is scored, measured and trained by default for one kind of segmentation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.labels import LabelScheme
from medseg.metrics.metric import Column
from medseg.volume import Finding, Volume

__all__ = ["Row", "Table", "Task", "TaskCase", "TaskScores"]

Row = tuple[str | float | int, ...]
"""One line of a table: text, numbers, and "" where there is nothing to tell."""

Table = tuple[tuple[str, ...], tuple[Row, ...]]
"""Columns and rows. Units stand in the columns' names."""


@dataclass(frozen=True, slots=True)
class TaskCase:
    """One case as a task scores it.

    Args:
        pred: predicted label map.
        ref: reference on the same grid.
        scheme: what the integers of both mean.
        image: the image that was segmented, on the same grid; Hounsfield units where it is a CT.
        probabilities: on the same grid, one channel per output channel of the scheme (plain labels: background first),
            or without channels where the scheme has one label.
        fov: voxels that count, same shape; None where all do, or where the task finds the field of view itself.
    """

    pred: Volume
    ref: Volume
    scheme: LabelScheme
    image: Volume | None = None
    probabilities: Volume | None = None
    fov: NDArray[np.bool_] | None = None

    def masks(self, label: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Where prediction and reference hold the label; voxels that the reference ignores are in neither."""
        pred, ref = self.scheme.mask(self.pred.array, label), self.scheme.mask(self.ref.array, label)
        if self.scheme.ignore is not None:
            pred &= self.ref.array != self.scheme.ignore
        return pred, ref

    def counted(self, fov: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
        """The field of view without the voxels that the reference ignores; None where all count."""
        if self.scheme.ignore is None:
            return fov
        known = np.asarray(self.ref.array != self.scheme.ignore)
        return known if fov is None else fov & known

    def probability(self, label: str) -> NDArray[Any] | None:
        """The label's probabilities, or None where there are none."""
        if self.probabilities is None:
            return None
        if not self.probabilities.channels:
            return self.probabilities.array if len(self.scheme.names) == 1 else None
        return np.asarray(self.probabilities.array[self.scheme.names.index(label) + (not self.scheme.is_regions)])


@dataclass(frozen=True, slots=True)
class TaskScores:
    """What a task adds to the metrics of a case.

    Args:
        values: label -> name -> value; what each name means is in `Task.columns`, or it is a metric's.
        tables: name -> (columns, rows): lists of things in the case (lesions, calibres, sides).
        findings: what makes a value doubtful, e.g. a lung that is cut off.
    """

    values: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    tables: Mapping[str, Table] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Task:
    """A kind of segmentation: data, no loops.

    Args:
        name: as `task:` in a configuration and `--task` name it.
        labels: what the integers mean where nobody says it; None where that would be a guess.
        metrics: of every label, by the names of `medseg.metrics`.
        leading: which of the scores a report shows first, best first.
        tolerance_mm: of NSD.
        columns: name -> heading, unit and direction of every value that `score` gives beside metrics.
        score: what the task measures beside `metrics`.
        baseline: a segmentation without learning, `baseline(image, scheme) -> label map`, to show beside every model;
            None for an image it does not suit.
        defaults: dotted key -> value, for the keys a configuration with this task leaves out.
    """

    name: str
    labels: LabelScheme | None
    metrics: tuple[str, ...]
    leading: tuple[str, ...]
    tolerance_mm: float
    columns: Mapping[str, Column]
    score: Callable[[TaskCase], TaskScores]
    baseline: Callable[[Volume, LabelScheme], NDArray[Any] | None] | None
    defaults: Mapping[str, Any]
