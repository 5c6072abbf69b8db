"""Reference ranges of the training cases, for out-of-distribution checks.

The range of a feature is what the training cases span, widened by a fraction of that span that shrinks with the number
of cases: a few cases determine a range poorly. It is widened further until the training cases themselves pass, each
compared with all others (leave one out).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from medseg.lookup import nearest_hint
from medseg.preparation.background import Rule
from medseg.preparation.case_features import CaseFeatures, Feature

__all__ = ["KINDS", "ComparedFeature", "Kind", "Span", "TrainingRange", "learn_range"]

Sides = Literal["both", "low", "high"]
# Largest share of training cases that may lie outside when each is held against the others.
LEAVE_ONE_OUT_SHARE = 0.02
FEWEST_FOR_PRESENCE = 5
FEWEST_FOR_ODD = 10
LARGEST_WIDENING = 2.0
# Larger values carry no information; their differences would overflow.
LARGEST = 1e30


@dataclass(frozen=True, slots=True)
class Kind:
    """How features of one kind are compared.

    Args:
        unit: behind the number in a sentence.
        scale: 'log' for what varies by factors, 'logit' for shares, 'fisher' for correlations (0.998 and 0.9995 are far
            apart), 'linear' for what else may be negative.
        floor: deviation that is always permitted, in units of the scale (0.2 on 'log' is about 20%).
        fewest: training cases below which the kind is not checked.
        meaning: what a value outside the range may mean.
        sides: which end of the span is checked.
    """

    unit: str
    scale: Literal["log", "logit", "fisher", "linear"]
    floor: float
    fewest: int
    meaning: str
    sides: Sides = "both"


KINDS: Mapping[str, Kind] = {
    "spacing": Kind(" mm", "log", 0.2, 1, "slices or pixels of another size, or a wrong spacing in the file"),
    "extent": Kind(" mm", "log", 0.25, 1, "a cut or larger field of view, another body part, or a wrong spacing"),
    "level": Kind("", "linear", 0.0, 3, "another scanner, sequence or contrast phase, or a CT not in HU"),
    "shape": Kind("", "linear", 0.1, 3, "another sequence, contrast phase or unit"),
    "tails": Kind("", "log", 0.2, 3, "another sequence, window or unit, or artefacts"),
    "grain": Kind("", "log", 0.3, 3, "more noise, blur, or a resampled image"),
    "empty": Kind("", "logit", 0.5, 3, "another field of view, or a masked image"),
    "tissue": Kind("", "logit", 0.4, 3, "another body part, contrast phase or unit (a CT not in HU)"),
    "correlation": Kind("", "fisher", 0.15, 3, "channels that are swapped, doubled or of another kind or phase"),
    "between": Kind("", "linear", 0.03, 3, "channels that are swapped, or another contrast phase"),
    "picture": Kind("", "linear", 0.05, 4, "another body part, position or section", "low"),
    "size": Kind(" ml", "log", 0.3, 3, "a cut or altered organ, or a wrong mask"),
    "area": Kind("", "log", 0.3, 3, "a cut or altered organ, or a wrong mask"),
    "cut": Kind("", "linear", 0.1, 3, "the field of view may cut it", "high"),
    "place": Kind("", "linear", 0.05, 3, "another position or section, or a wrong mask"),
    "length": Kind(" mm", "log", 0.25, 3, "a cut organ, or a wrong mask"),
    "largest": Kind("", "logit", 1.5, 3, "a mask in pieces", "low"),
    "label_level": Kind("", "linear", 0.0, 3, "another sequence or contrast phase, a CT not in HU, or a wrong mask"),
    "contrast": Kind("", "linear", 0.15, 3, "another contrast phase or sequence, swapped channels, or a wrong mask"),
}


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)


Value = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]
Number = Annotated[int, Field(ge=-1, le=1024)]


class Span(_Part):
    """One feature over the training cases: lowest and highest value, how many cases have it, and its mean slack."""

    kind: str
    what: Annotated[str, Field(max_length=200)]
    channel: Number = -1
    label: Number = -1
    low: Value
    high: Value
    cases: Annotated[int, Field(ge=0)]
    slack: Annotated[float, Field(ge=0, le=LARGEST)] = 0.0

    @field_validator("kind")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in KINDS:
            raise ValueError(f"expected one of {', '.join(KINDS)}{nearest_hint(value, KINDS)}")
        return value

    @model_validator(mode="after")
    def _ascending(self) -> Span:
        if self.low > self.high:
            raise ValueError("low is above high")
        return self

    @property
    def key(self) -> tuple[str, int, int]:
        """Which feature it is."""
        return self.what, self.channel, self.label


@dataclass(frozen=True, slots=True)
class ComparedFeature:
    """A feature of a new case and the span of the training cases.

    Args:
        feature: of the case.
        span: of the training cases.
        distance: how far it lies outside the span, in parts of what is allowed; above 1 is outside the range.
    """

    feature: Feature
    span: Span
    distance: float


class TrainingRange(_Part):
    """Reference ranges of the training cases; no case is named.

    Args:
        cases: how many.
        modalities: DICOM modalities of the cases; empty where no file has one.
        spacing_known: whether every case has a physical scale.
        spans: of every feature.
        widening: factor on the permitted deviation with which the training cases pass, each against all others.
        pictures: per channel the mean coarse picture, (8^n,).
        always_present: labels that every training case holds.
        swap_gain: by how much a case may fit better with its channels in another order (mean distance).
        inside_body: whether all labels of all cases lie in the body's box (`medseg.preparation.body`), so that nothing
            need be looked for outside; False where it was not measured.
        background: how the background of the training cases was separated from the rest, see `measure_case`; new
            cases are measured in the same way.
    """

    cases: Annotated[int, Field(ge=0)]
    modalities: Annotated[tuple[Annotated[str, Field(max_length=200)], ...], Field(max_length=1024)] = ()
    spacing_known: bool = True
    spans: tuple[Span, ...]
    widening: Annotated[float, Field(ge=0, le=1e3)] = 1.0
    pictures: Annotated[tuple[Annotated[tuple[Value, ...], Field(max_length=4096)], ...], Field(max_length=1024)] = ()
    always_present: Annotated[tuple[bool, ...], Field(max_length=1024)] = ()
    swap_gain: Annotated[float, Field(ge=0, le=1e3)] = 0.0
    inside_body: bool = False
    background: Rule = "common"

    def compare(self, case: CaseFeatures) -> tuple[ComparedFeature, ...]:
        """Every feature of a case with its span; features that no training case has are left out."""
        spans = {span.key: span for span in self.spans}
        return tuple(
            ComparedFeature(feature, span, _distance(feature, span, self.widening))
            for feature in (*case.features, *agreement(case.pictures, self.pictures))
            if (span := spans.get(feature.key)) is not None and span.cases >= KINDS[span.kind].fewest
        )

    def better_order(self, case: CaseFeatures) -> tuple[int, ...] | None:
        """The order of channels that fits clearly better than the given one; None where the given one is right."""
        costs = _channel_costs(case, self.spans, self.widening)
        if costs is None:
            return None
        order, gain = _best_order(costs)
        return order if gain > self.swap_gain else None


def learn_range(
    cases: Sequence[CaseFeatures], modalities: Sequence[str] = (), spacing_known: bool = True, inside_body: bool = False
) -> TrainingRange:
    """The reference ranges of training cases.

    Args:
        cases: measured by `measure_case` with their reference label maps.
        modalities: DICOM modality of each; '' where unknown.
        spacing_known: whether all have a physical scale.
        inside_body: whether all their labels lie in the body's box.
    """
    cases = [_finite(case) for case in cases]
    pictures = np.array([case.pictures for case in cases])
    others = [np.delete(pictures, n, axis=0).mean(axis=0) for n in range(len(cases))] if len(cases) > 1 else []
    measured = [
        (*case.features, *(agreement(case.pictures, others[n]) if others else ())) for n, case in enumerate(cases)
    ]
    table = _Table(measured)
    widening = _widening(table)
    spans = table.spans()
    present = np.array([case.present for case in cases])
    return TrainingRange(
        cases=len(cases),
        modalities=tuple(sorted({m for m in modalities if m})),
        spacing_known=spacing_known,
        spans=spans,
        widening=widening,
        pictures=tuple(tuple(float(v) for v in np.round(each, 3)) for each in pictures.mean(axis=0)),
        always_present=tuple(bool(p) and len(cases) >= FEWEST_FOR_PRESENCE for p in np.atleast_1d(present.all(axis=0))),
        swap_gain=_swap_gain(cases, table, widening),
        inside_body=inside_body,
        background=cases[0].background,
    )


def _finite(case: CaseFeatures) -> CaseFeatures:
    """The case without features that are infinite or NaN, as grey levels near the largest float make them."""
    features = tuple(f for f in case.features if abs(f.value) <= LARGEST and 0 <= f.slack <= LARGEST)
    pictures = tuple(tuple(v if math.isfinite(v) else 0.0 for v in picture) for picture in case.pictures)
    return replace(case, features=features, pictures=pictures)


def agreement(
    pictures: Sequence[Sequence[float]], means: Sequence[Sequence[float]] | NDArray[np.float64]
) -> tuple[Feature, ...]:
    """Correlation of each channel's coarse picture with the mean one."""
    if len(pictures) != len(means):
        return ()
    return tuple(
        Feature("picture", "likeness of the coarse picture to the mean of the training cases", _correlation(p, m), n)
        for n, (p, m) in enumerate(zip(pictures, means, strict=True))
    )


def _correlation(one: Sequence[float], two: Sequence[float] | NDArray[np.float64]) -> float:
    first, second = np.asarray(one), np.asarray(two)
    if first.shape != second.shape or first.std() < 1e-9 or second.std() < 1e-9:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


class _Table:
    """Every feature over the cases that have it."""

    def __init__(self, cases: Sequence[Sequence[Feature]]) -> None:
        self.cases = cases
        self.features: dict[tuple[str, int, int], list[Feature | None]] = {}
        for number, case in enumerate(cases):
            for feature in case:
                of_cases = self.features.setdefault(feature.key, [None] * len(cases))
                of_cases[number] = feature

    def spans(self, without: int | None = None) -> tuple[Span, ...]:
        """Spans of all cases but one."""
        spans = []
        for of_cases in self.features.values():
            kept = [f for number, f in enumerate(of_cases) if f is not None and number != without]
            if kept:
                values = [f.value for f in kept]
                spans.append(
                    Span(
                        kind=kept[0].kind,
                        what=kept[0].what,
                        channel=kept[0].channel,
                        label=kept[0].label,
                        low=min(values),
                        high=max(values),
                        cases=len(kept),
                        slack=float(np.mean([f.slack for f in kept])),
                    )
                )
        return tuple(spans)


def _widening(table: _Table) -> float:
    worst = []
    for number, case in enumerate(table.cases):
        spans = {span.key: span for span in table.spans(without=number)}
        distances = [
            _distance(f, span, 1.0)
            for f in case
            if (span := spans.get(f.key)) is not None and span.cases >= KINDS[f.kind].fewest
        ]
        worst.append(max(distances, default=0.0))
    # One outlier among many cases is not a reason to let everything pass.
    allowed = math.ceil(LEAVE_ONE_OUT_SHARE * len(worst)) if len(worst) >= FEWEST_FOR_ODD else 0
    needed = sorted(worst, reverse=True)[allowed] if len(worst) > 2 else 1.0
    return round(min(max(1.0, needed), LARGEST_WIDENING), 3)


def _distance(feature: Feature, span: Span, widening: float) -> float:
    kind = KINDS[span.kind]
    here, low, high = _on_scale(feature, span)
    below = low - here if kind.sides != "high" else 0.0
    above = here - high if kind.sides != "low" else 0.0
    outside = max(below, above, 0.0)
    allowed = _share(span.cases) * widening * (high - low) + kind.floor + span.slack + 1e-9
    return outside / allowed


def _on_scale(feature: Feature, span: Span) -> tuple[float, float, float]:
    """The feature and the ends of its span on the scale of their kind."""
    scale = _SCALES[KINDS[span.kind].scale]
    least = -math.inf if feature.least is None else feature.least
    here, low, high = (scale(max(value, least)) for value in (feature.value, span.low, span.high))
    return here, low, high


def _share(cases: int) -> float:
    """How much of a span of `cases` values a new value may lie outside of it: 2.7 at 5 cases, 0.4 at 40, 0.2 at 200.

    About what holds 999 of 1000 new values of a normal distribution, a little more where cases are many.
    """
    return min(5.0, 10 / max(1, cases - 1) + 0.15)


def _log(value: float) -> float:
    return math.log(max(value, 1e-6))


def _logit(value: float) -> float:
    # Shares below 1% are alike: a speck beside a mask must not make a range that lets a mask in halves pass.
    share = min(max(value, 0.01), 0.99)
    return math.log(share / (1 - share))


def _fisher(value: float) -> float:
    return math.atanh(min(max(value, -0.9999), 0.9999))


_SCALES: Mapping[str, Callable[[float], float]] = {"log": _log, "logit": _logit, "fisher": _fisher, "linear": float}


def _channel_costs(case: CaseFeatures, spans: Sequence[Span], widening: float) -> NDArray[np.float64] | None:
    """(n, n) mean distance of the features of channel i to the spans of channel j; None for a single channel."""
    by_channel: dict[int, dict[tuple[str, int], Span]] = defaultdict(dict)
    for span in spans:
        if span.channel >= 0 and span.kind != "picture" and span.cases >= KINDS[span.kind].fewest:
            by_channel[span.channel][span.what, span.label] = span
    features: dict[int, list[Feature]] = defaultdict(list)
    for feature in case.features:
        if feature.channel >= 0:
            features[feature.channel].append(feature)
    count = len(features)
    if count < 2 or count != len(by_channel):
        return None
    costs = np.zeros((count, count))
    for i in range(count):
        for j in range(count):
            known = [(f, by_channel[j].get((f.what, f.label))) for f in features[i]]
            each = [_deviation(f, span) for f, span in known if span is not None]
            costs[i, j] = float(np.mean(each)) if each else 0.0
    return costs


def _deviation(feature: Feature, span: Span) -> float:
    """Distance from the middle of the span in half spans, at most 4, so that no single feature decides."""
    here, low, high = _on_scale(feature, span)
    half = (high - low) / 2 + KINDS[span.kind].floor + span.slack + 1e-9
    return min(abs(here - (low + high) / 2) / half, 4.0)


def _best_order(costs: NDArray[np.float64]) -> tuple[tuple[int, ...], float]:
    """Where each channel fits best, and how much better per channel than the given order."""
    # A tenth of the time that `predict` takes to start, and only models of several channels need it.
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(costs)
    return tuple(int(c) for c in columns), float(np.trace(costs) - costs[rows, columns].sum()) / len(costs)


def _swap_gain(cases: Sequence[CaseFeatures], table: _Table, widening: float) -> float:
    """Half as much again as the largest gain that a wrong order brings a training case, and at least 0.1."""
    gains = [0.0]
    for number, case in enumerate(cases):
        costs = _channel_costs(case, table.spans(without=number), widening)
        if costs is not None:
            gains.append(_best_order(costs)[1])
    return round(max(0.1, 1.5 * max(gains)), 4)
