"""Acceptance of a model at a site: what it scores on the site's own cases, for which of them it is worse, and how many
cases are still missing.

Intervals come from patients drawn with replacement (`medseg.evaluation.statistics`). Sample sizes are those of
Student's t for the mean of one value a patient, at the SD that was found and at the upper end of what it may be, the
upper bound of a one-sided 80% interval: an SD of few cases is too small as often as too large.
Source: R. Browne, Statistics in Medicine 14 (1995), 1933-1940; S. Julious, Pharmaceutical Statistics 4 (2005), 81-87.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.special import stdtrit

from medseg.errors import ConfigError
from medseg.evaluation.paired import holm
from medseg.evaluation.statistics import MIN_PATIENTS, Statistics, describe_scores

__all__ = [
    "Acceptance",
    "AcceptedCase",
    "AcceptedLabel",
    "Agreement",
    "LabelAcceptance",
    "SampleSize",
    "SiteGroup",
    "accept_cases",
    "cases_for_bound",
    "cases_for_width",
]

_SEED = 7
_MOST = 100_000
_POWER = 0.8
_SD_LEVEL = 0.8
_FEWEST_IN_GROUP = 3
_DIFFERS = 0.05


@dataclass(frozen=True, slots=True)
class AcceptedLabel:
    """One label of one case.

    Args:
        dice: NaN where neither mask holds the label.
        pred_size, ref_size: of both masks, in ml, or in voxels where there is no volume.
    """

    dice: float
    pred_size: float
    ref_size: float


@dataclass(frozen=True, slots=True)
class AcceptedCase:
    """One case of the site.

    Args:
        case, patient: names.
        labels: name -> scores; empty if the case failed.
        attributes: "scanner", "kernel", "slice thickness" and other properties -> value.
        needs_review: whether the model asks for a look at the mask.
        findings: a sentence each.
        figures: what `drift` compares later studies with.
        error: why the case failed; '' if it did not.
    """

    case: str
    patient: str
    labels: Mapping[str, AcceptedLabel] = field(default_factory=dict)
    attributes: Mapping[str, str] = field(default_factory=dict)
    needs_review: bool = False
    findings: tuple[str, ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True, slots=True)
class SampleSize:
    """How many patients are needed: at the SD that was found, and at the upper end of what it may be.

    None where no number is enough, or where fewer than two patients leave the SD unknown.
    """

    expected: int | None
    cautious: int | None


@dataclass(frozen=True, slots=True)
class Agreement:
    """Difference of the predicted size and the reference's (Bland and Altman, Lancet 327 (1986), 307-310).

    Args:
        bias: its statistics, prediction less reference.
        low, high: limits of agreement, mean -/+ 1.96 SD; NaN below two cases.
        relative_bias: sum of the differences by the sum of the references; NaN where these are empty.
    """

    bias: Statistics
    low: float
    high: float
    relative_bias: float


@dataclass(frozen=True, slots=True)
class LabelAcceptance:
    """One label over all cases.

    Args:
        dice: over the cases whose reference holds the label.
        size: agreement of its volume, over all cases.
        for_width: patients for an interval of Dice of the stated width.
        for_bound: patients until the interval probably (80%) lies above the least Dice; None if none is stated.
        shown: whether the interval lies above the least Dice; None if none is stated or there is no interval.
    """

    dice: Statistics
    size: Agreement
    for_width: SampleSize
    for_bound: SampleSize | None
    shown: bool | None


@dataclass(frozen=True, slots=True)
class SiteGroup:
    """The cases with one value of one attribute, for one label.

    Args:
        attribute, value, label: which.
        n: number of cases with a Dice.
        dice: mean of their Dice.
        others: mean Dice of all other cases.
        bias: mean difference of the predicted size and the reference's.
        p: of the rank-sum test of their Dice against the others', after Holm's correction over all groups; None below 3
            patients on either side.
    """

    attribute: str
    value: str
    label: str
    n: int
    dice: float
    others: float
    bias: float
    p: float | None

    @property
    def differs(self) -> bool:
        """Whether the model is worse or better on them than on the others, at 5% over all groups."""
        return self.p is not None and self.p < _DIFFERS


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The outcome.

    Args:
        cases: all, also those that failed.
        labels: name -> scores.
        groups: by attribute, value and label.
        unit: of sizes, "ml" or "voxels".
        width: wanted width of the interval of mean Dice.
        least_dice: what the mean Dice has to exceed; None: nothing stated.
    """

    cases: tuple[AcceptedCase, ...]
    labels: Mapping[str, LabelAcceptance]
    groups: tuple[SiteGroup, ...]
    unit: str
    width: float
    least_dice: float | None

    @property
    def failed(self) -> tuple[AcceptedCase, ...]:
        """The cases without a mask."""
        return tuple(case for case in self.cases if case.error)

    @property
    def review(self) -> tuple[AcceptedCase, ...]:
        """The cases whose masks need review."""
        return tuple(case for case in self.cases if case.needs_review)

    @property
    def patients(self) -> int:
        """How many patients have a mask."""
        return len({case.patient for case in self.cases if not case.error})


def accept_cases(
    cases: Sequence[AcceptedCase], labels: Sequence[str], unit: str, width: float, least_dice: float | None
) -> Acceptance:
    """Statistics of a site's cases.

    Args:
        cases: at least one.
        labels: of the model, in its order.
        unit: of sizes.
        width: wanted width of the 95% interval of the mean Dice, in (0, 1).
        least_dice: what its lower end has to exceed, in (0, 1); None: nothing.

    Raises:
        ConfigError: a width or Dice out of range.
    """
    for name, value in (("--width", width), ("--least-dice", least_dice)):
        if value is not None and not 0 < value < 1:
            raise ConfigError(f"{name} is {value:g}; expected a Dice between 0 and 1, such as 0.05")
    rng = np.random.default_rng(_SEED)
    done = [case for case in cases if not case.error]
    found = {label: _label(label, done, rng, width, least_dice) for label in labels}
    return Acceptance(tuple(cases), found, _groups(done, labels), unit, width, least_dice)


def _label(
    label: str, cases: Sequence[AcceptedCase], rng: np.random.Generator, width: float, least: float | None
) -> LabelAcceptance:
    scored = [case for case in cases if label in case.labels]
    held = [case for case in scored if case.labels[label].ref_size > 0]
    dice = [case.labels[label].dice for case in held]
    statistics = describe_scores(dice, [case.patient for case in held], rng, (0.0, 1.0))
    sd = _sd_of_patients(dice, [case.patient for case in held])
    differences = [case.labels[label].pred_size - case.labels[label].ref_size for case in scored]
    bias = describe_scores(differences, [case.patient for case in scored], rng)
    total = sum(case.labels[label].ref_size for case in scored)
    size = Agreement(
        bias,
        bias.mean - 1.96 * bias.sd,
        bias.mean + 1.96 * bias.sd,
        sum(differences) / total if total else math.nan,
    )
    bound = None if least is None else cases_for_bound(sd, statistics.n_patients, statistics.mean - least)
    shown = None if least is None or statistics.ci_low is None else statistics.ci_low > least
    return LabelAcceptance(statistics, size, cases_for_width(sd, statistics.n_patients, width), bound, shown)


def _sd_of_patients(values: Sequence[float], patients: Sequence[str]) -> float:
    means = _per_patient(values, patients)
    return float(np.std(means, ddof=1)) if len(means) > 1 else math.nan


def _per_patient(values: Sequence[float], patients: Sequence[str]) -> list[float]:
    held: dict[str, list[float]] = {}
    for value, patient in zip(values, patients, strict=True):
        held.setdefault(patient, []).append(value)
    return [float(np.mean(each)) for each in held.values()]


def cases_for_width(sd: float, patients: int, width: float) -> SampleSize:
    """Patients until the 95% interval of a mean is as narrow as wanted.

    Args:
        sd: among `patients` patients; NaN below two.
        patients: how many there are.
        width: of the whole interval.

    Example:
        >>> cases_for_width(0.1, 20, 0.1).expected
        18
    """
    return _sizes(sd, patients, lambda n, each: 2 * _t(0.975, n) * each / math.sqrt(n) <= width)


def cases_for_bound(sd: float, patients: int, distance: float) -> SampleSize:
    """Patients until the lower end of the 95% interval probably (80%) exceeds a bound.

    Args:
        sd, patients: see `cases_for_width`.
        distance: of the mean that was found above the bound; no number of patients is enough where it is not above 0.

    Example:
        >>> cases_for_bound(0.1, 20, 0.05).expected, cases_for_bound(0.1, 20, 0.0).expected
        (34, None)
    """
    if not distance > 0:
        return SampleSize(None, None)
    return _sizes(sd, patients, lambda n, each: (_t(0.975, n) + _t(_POWER, n)) * each / math.sqrt(n) <= distance)


def _sizes(sd: float, patients: int, enough: Callable[[int, float], bool]) -> SampleSize:
    if patients < 2 or not math.isfinite(sd):
        return SampleSize(None, None)
    from scipy.stats import chi2

    largest = sd * math.sqrt((patients - 1) / float(chi2.ppf(1 - _SD_LEVEL, patients - 1)))
    return SampleSize(_smallest(lambda n: enough(n, sd)), _smallest(lambda n: enough(n, largest)))


def _smallest(enough: Callable[[int], bool]) -> int | None:
    # Fewer patients have no interval.
    low, high = MIN_PATIENTS - 1, MIN_PATIENTS
    while not enough(high):
        low, high = high, 2 * high
        if high > _MOST:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _t(level: float, n: int) -> float:
    return float(stdtrit(n - 1, level))


def _groups(cases: Sequence[AcceptedCase], labels: Sequence[str]) -> tuple[SiteGroup, ...]:
    found = []
    for attribute in dict.fromkeys(name for case in cases for name in case.attributes):
        values = sorted({case.attributes.get(attribute, "") for case in cases})
        if len(values) < 2:
            continue
        for label in labels:
            held = [case for case in cases if label in case.labels and case.labels[label].ref_size > 0]
            for value in values:
                inside = [case for case in held if case.attributes.get(attribute, "") == value]
                others = [case for case in held if case.attributes.get(attribute, "") != value]
                if inside:
                    found.append(_group(attribute, value or "(not stated)", label, inside, others))
    corrected = holm([group.p for group in found])
    return tuple(replace(group, p=p) for group, p in zip(found, corrected, strict=True))


def _group(
    attribute: str, value: str, label: str, inside: Sequence[AcceptedCase], others: Sequence[AcceptedCase]
) -> SiteGroup:
    one, two = (
        _per_patient([c.labels[label].dice for c in each], [c.patient for c in each]) for each in (inside, others)
    )
    p = None
    if min(len(one), len(two)) >= _FEWEST_IN_GROUP:
        from scipy.stats import mannwhitneyu

        p = float(mannwhitneyu(one, two).pvalue)
    return SiteGroup(
        attribute,
        value,
        label,
        len(inside),
        float(np.mean([case.labels[label].dice for case in inside])),
        float(np.mean([case.labels[label].dice for case in others])) if others else math.nan,
        float(np.mean([case.labels[label].pred_size - case.labels[label].ref_size for case in inside])),
        p,
    )
