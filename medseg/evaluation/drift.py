"""Drift of a model's studies: has a figure of image or mask changed since the model was accepted?

Each figure is tested by a CUSUM of sequential ranks (`medseg.evaluation.sequential`). The chance of a false alarm is
shared equally among all figures and directions (Bonferroni), so that the stated one holds for all of them together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from medseg.errors import ConfigError
from medseg.evaluation.sequential import Cusum, alarm_threshold, delays_of_shift, rate_scores, sequential_scores

__all__ = ["FIRST_STUDIES", "Drift", "DriftOptions", "FigureDrift", "find_drift"]

FORMAT_VERSION = 1
FIRST_STUDIES = 50
"""Without accepted figures, so many of the first studies are what the others are compared with."""
_CHANCE_TO_FIND = 0.8
_LONGEST = 400
_SEED = 20

Figures = Mapping[str, float]
State = Literal["steady", "alarm", "too_few"]


@dataclass(frozen=True, slots=True)
class DriftOptions:
    """How drift is tested.

    Args:
        false_alarms: chance of any false alarm within `studies` studies, in (0, 1).
        studies: see there; 10 to 1,000,000.
        shift: size of the shift that the test is made for and should find, in SD of a figure, 0.25 to 5.
        outside_rate: accepted share of studies outside the training ranges, in (0, 1).

    Raises:
        ConfigError: a number out of range.
    """

    false_alarms: float = 0.05
    studies: int = 1000
    shift: float = 1.5
    outside_rate: float = 0.1

    def __post_init__(self) -> None:
        limits: tuple[tuple[str, float, float, float], ...] = (
            ("--false-alarms", self.false_alarms, 1e-6, 0.5),
            ("--studies", self.studies, 10, 1_000_000),
            ("--shift", self.shift, 0.25, 5),
            ("--outside-rate", self.outside_rate, 0.001, 0.5),
        )
        for name, value, low, high in limits:
            if not low <= value <= high:
                raise ConfigError(f"{name} is {value:g}; expected a number from {low:g} to {high:g}")


@dataclass(frozen=True, slots=True)
class FigureDrift:
    """One figure.

    Args:
        name: of the figure.
        studies, reference: number of studies tested, and of values they are compared with at first.
        alarm_after: number of studies until the alarm; None without one.
        began_after: number of studies before the change probably began; None without alarm.
        direction: "higher", "lower" or "" without alarm.
        before, since: median before and since the change, or in reference and studies where there is no alarm; NaN
            where there is no value.
    """

    name: str
    studies: int
    reference: int
    alarm_after: int | None
    began_after: int | None
    direction: str
    before: float
    since: float

    def text(self) -> str:
        """The alarm in a sentence; '' without one."""
        if self.alarm_after is None or self.began_after is None:
            return ""
        return (
            f"{self.name} is {self.direction} since about study {self.began_after + 1} of {self.studies}: median "
            f"{self.since:.4g}, before {self.before:.4g}; found at study {self.alarm_after}"
        )


@dataclass(frozen=True, slots=True)
class Drift:
    """The outcome of the test of all figures.

    Args:
        state: "alarm", "steady", or "too_few" where a shift of the stated size would probably not have been found.
        studies, reference: number of studies tested, and accepted before.
        accepted: whether the reference is that of an accepted model, not the first studies.
        figures: every figure, those with an alarm first.
        chance_to_find: chance that a shift over the later half of the studies would have been found.
        median_delay, long_delay: after how many studies a shift that begins now is found, in half and in nine of ten
            cases; infinite beyond 400.
        threshold: of the CUSUM, in SD of its scores.
        options: see `DriftOptions`.
    """

    state: State
    studies: int
    reference: int
    accepted: bool
    figures: tuple[FigureDrift, ...]
    chance_to_find: float
    median_delay: float
    long_delay: float
    threshold: float
    options: DriftOptions

    @property
    def alarms(self) -> tuple[FigureDrift, ...]:
        """The figures with an alarm, the earliest first."""
        return tuple(figure for figure in self.figures if figure.alarm_after is not None)

    def text(self) -> str:
        """What the command prints."""
        options = self.options
        of = "accepted cases" if self.accepted else "first studies of the ledger"
        lines = [f"{self.studies} studies were compared with {self.reference} {of} by {len(self.figures)} figures."]
        if self.alarms:
            lines.append(f"ALARM: {len(self.alarms)} figure(s) have changed.")
            lines += [f"  {figure.text()}" for figure in self.alarms]
            lines.append("Look at these studies, and find out what has changed: scanner, protocol, patients, software.")
        elif self.state == "too_few":
            lines.append(
                f"TOO FEW: no change was found, but a shift of {options.shift:g} SD over the later half of these "
                f"studies would have been found with a chance of {self.chance_to_find:.0%} only. Repeat this with "
                "more studies, or accept the model on more cases."
            )
        else:
            lines.append(
                f"STEADY: no change was found. A shift of {options.shift:g} SD over the later half of these studies "
                f"would have been found with a chance of {self.chance_to_find:.0%}."
            )
        lines.append(f"A shift of {options.shift:g} SD that begins now is found {_delay_text(self)}.")
        lines.append(
            f"Chance of any false alarm: {options.false_alarms:.1%} in {options.studies} studies, if studies are "
            "independent of one another."
        )
        return "\n".join(lines)

    def record(self) -> dict[str, Any]:
        """For JSON; what is infinite or not defined is None."""
        return {
            "format_version": FORMAT_VERSION,
            "state": self.state,
            "studies": self.studies,
            "reference": self.reference,
            "accepted": self.accepted,
            "alarms": [figure.text() for figure in self.alarms],
            "chance_to_find": round(self.chance_to_find, 4),
            "delay": {"median": _finite(self.median_delay), "nine_of_ten": _finite(self.long_delay)},
            "threshold": round(self.threshold, 4),
            "false_alarms": self.options.false_alarms,
            "false_alarms_in_studies": self.options.studies,
            "shift_sd": self.options.shift,
            "outside_rate": self.options.outside_rate,
            "figures": [
                {
                    "name": figure.name,
                    "studies": figure.studies,
                    "reference": figure.reference,
                    "alarm_after": figure.alarm_after,
                    "began_after": figure.began_after,
                    "direction": figure.direction,
                    "before": _finite(figure.before),
                    "since": _finite(figure.since),
                }
                for figure in self.figures
            ],
        }


def find_drift(
    studies: Sequence[Figures], accepted: Sequence[Figures] | None, options: DriftOptions, outside: str
) -> Drift:
    """Test every figure of a sequence of studies.

    Args:
        studies: name -> value of each study, in the order of time; names may be missing.
        accepted: those of the cases that the model was accepted on; None: the first 50 studies take their place.
        options: chance of false alarms and size of shift.
        outside: the figure that counts features outside the training ranges: it is tested against a fixed rate of
            studies that have any, higher only.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> drawn = [{"noise": float(value)} for value in rng.normal(10, 1, 80)]
        >>> shifted = [{"noise": float(value)} for value in rng.normal(14, 1, 20)]
        >>> find_drift(drawn + shifted, None, DriftOptions(), "outside").state
        'alarm'
    """
    reference = list(studies[:FIRST_STUDIES] if accepted is None else accepted)
    tested = list(studies[FIRST_STUDIES:] if accepted is None else studies)
    names = sorted({name for study in tested for name in study})
    tests = max(1, sum(1 if name == outside else 2 for name in names))
    threshold = alarm_threshold(options.shift / 2, options.false_alarms / tests, options.studies)
    cusum = Cusum(options.shift / 2, threshold)
    found = [_test(name, tested, reference, cusum, options, outside) for name in names]
    found.sort(key=lambda each: (each.alarm_after is None, each.alarm_after or 0, each.name))
    late = len(tested) // 2
    rng = np.random.default_rng(_SEED)
    before = len(reference) + len(tested) - late
    past = delays_of_shift(cusum, options.shift, before, min(late, _LONGEST), rng)
    coming = delays_of_shift(cusum, options.shift, len(reference) + len(tested), _LONGEST, rng)
    chance = float(np.isfinite(past).mean()) if names else 0.0
    alarm = any(each.alarm_after is not None for each in found)
    state: State = "alarm" if alarm else "steady" if chance >= _CHANCE_TO_FIND else "too_few"
    median, long = (float(coming[math.ceil(share * len(coming)) - 1]) for share in (0.5, 0.9))
    return Drift(
        state, len(tested), len(reference), accepted is not None, tuple(found), chance, median, long, threshold, options
    )


def _test(
    name: str,
    tested: Sequence[Figures],
    reference: Sequence[Figures],
    cusum: Cusum,
    options: DriftOptions,
    outside: str,
) -> FigureDrift:
    # Some figures are missing in some studies, as the grey level in a label that was not found.
    places = [n for n, study in enumerate(tested) if name in study]
    values = [tested[n][name] for n in places]
    known = [case[name] for case in reference if name in case]
    # Another figure draws other random ties, the same one draws the same in every call.
    rng = np.random.default_rng([_SEED, *name.encode()])
    if name == outside:
        scores = rate_scores([value > 0 for value in values], options.outside_rate, rng)
        found = Cusum(cusum.drift, cusum.threshold, both=False).alarm(scores)
    else:
        found = cusum.alarm(sequential_scores(values, known, rng))
    if found is None:
        return FigureDrift(name, len(values), len(known), None, None, "", _median(known), _median(values))
    after, began, sign = found
    return FigureDrift(
        name,
        len(tested),
        len(known),
        places[after - 1] + 1,
        places[began],
        "higher" if sign > 0 else "lower",
        _median([*known, *values[:began]]),
        _median(values[began:]),
    )


def _median(values: Sequence[float]) -> float:
    return float(np.median(values)) if len(values) else math.nan


def _delay_text(drift: Drift) -> str:
    if math.isinf(drift.median_delay):
        return f"in fewer than half of all cases, even after {_LONGEST} studies"
    text = f"after {drift.median_delay:.0f} studies in half of all cases"
    if math.isinf(drift.long_delay):
        return f"{text}, but not in nine of ten within {_LONGEST}"
    return f"{text} and after {drift.long_delay:.0f} in nine of ten"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
