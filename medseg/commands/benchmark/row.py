"""What was measured of one contender, over all rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medseg.commands.benchmark.contenders import Contender
from medseg.datasets.records import Case
from medseg.evaluation.statistics import describe_scores

__all__ = ["Quality", "Row", "make_row", "pareto_front"]


@dataclass(frozen=True, slots=True)
class Quality:
    """Dice over the cases: of each case the mean of its labels, leaving out labels that neither mask has.

    Args:
        mean: over the cases.
        interval: 95 %, by bootstrap over patients; None below 8 patients.
        n: cases with a score.
        labels: label -> mean.
    """

    mean: float
    interval: tuple[float, float] | None
    n: int
    labels: dict[str, float]

    @classmethod
    def of(cls, dice: Sequence[dict[str, float | None]], groups: Sequence[str]) -> Quality | None:
        """The quality from Dice of each case and label; None where there is none."""
        known = [[value for value in case.values() if value is not None] for case in dice]
        kept = [(float(np.mean(values)), group) for values, group in zip(known, groups, strict=True) if values]
        if not kept:
            return None
        rng = np.random.default_rng(0)
        found = describe_scores([score for score, _ in kept], [group for _, group in kept], rng, (0.0, 1.0))
        interval = None if found.ci_low is None or found.ci_high is None else (found.ci_low, found.ci_high)
        names = dict.fromkeys(name for case in dice for name in case)
        labels = {
            name: float(np.mean(values))
            for name in names
            if (values := [value for case in dice if (value := case.get(name)) is not None])
        }
        return cls(found.mean, interval, found.n, labels)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Args:
        contender: model and engine.
        error: why it could not be measured; '' if it was, and then the rest counts.
        seconds: per round and case, from the image in memory to its mask, wall clock.
        cpu_seconds: the same in processor time.
        voxels: per case.
        peak_memory_bytes: of its process at its largest, with Python and all libraries; None where the system does not
            say.
        device_memory_bytes: of the GPU.
        quality: Dice with the references, or with the masks of the first contender.
        notes: what the engine said of itself, such as that another one runs in its place.
    """

    contender: Contender
    error: str = ""
    seconds: tuple[tuple[float, ...], ...] = ()
    cpu_seconds: tuple[tuple[float, ...], ...] = ()
    voxels: tuple[int, ...] = ()
    peak_memory_bytes: int | None = None
    device_memory_bytes: int | None = None
    quality: Quality | None = None
    notes: tuple[str, ...] = ()

    @property
    def median_seconds(self) -> float:
        """Of a case."""
        return float(np.median(self.seconds))

    @property
    def p95_seconds(self) -> float:
        """Of a case."""
        return float(np.quantile(self.seconds, 0.95))

    @property
    def median_cpu_seconds(self) -> float:
        """Of a case."""
        return float(np.median(self.cpu_seconds))

    @property
    def cases_per_second(self) -> float:
        """Over all cases and rounds."""
        return float(np.size(self.seconds) / np.sum(self.seconds))

    @property
    def voxels_per_second(self) -> float:
        """Over all cases and rounds, on the images' own grid."""
        return float(sum(self.voxels) * len(self.seconds) / np.sum(self.seconds))


def make_row(contender: Contender, answers: Sequence[dict[str, Any]], cases: Sequence[Case]) -> Row:
    """A row from the answers of all rounds; the first error counts."""
    error = next((answer["error"] for answer in answers if "error" in answer), "")
    if error:
        return Row(contender, error)
    first = answers[0]

    def largest(key: str) -> int | None:
        return max((answer[key] for answer in answers if answer[key] is not None), default=None)

    return Row(
        contender,
        seconds=tuple(tuple(answer["seconds"]) for answer in answers),
        cpu_seconds=tuple(tuple(answer["cpu_seconds"]) for answer in answers),
        voxels=tuple(first["voxels"]),
        peak_memory_bytes=largest("peak_memory_bytes"),
        device_memory_bytes=largest("device_memory_bytes"),
        quality=Quality.of(first["dice"], [case.group or case.name for case in cases]),
        notes=tuple(first["notes"]),
    )


def pareto_front(points: Sequence[tuple[float, float]]) -> tuple[int, ...]:
    """Which points nothing beats: none is at least as fast and at least as good, and better in one of both.

    Args:
        points: (seconds, quality) each.

    Returns:
        Their places, the fastest first.

    Example:
        >>> pareto_front([(1.0, 0.8), (2.0, 0.9), (3.0, 0.85), (1.0, 0.7)])
        (0, 1)
    """
    front: list[int] = []
    for place in sorted(range(len(points)), key=lambda n: (points[n][0], -points[n][1])):
        if not front or points[place][1] > points[front[-1]][1]:
            front.append(place)
    return tuple(front)
