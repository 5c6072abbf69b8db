"""The words and tables of an acceptance, for the page to sign and for a console."""

from __future__ import annotations

import math

from medseg.evaluation.acceptance import Acceptance, LabelAcceptance, SampleSize, SiteGroup
from medseg.evaluation.statistics import MIN_PATIENTS, Statistics
from medseg.reports.acceptance_page import AcceptancePage, PageRow, PageTable
from medseg.version import __version__

__all__ = ["page_of", "summary_lines"]

# So much fits on one page of A4.
_MOST_LABELS, _MOST_GROUPS, _MOST_REVIEWS = 3, 4, 2
_MOST_DIFFERENCES = 2
_LONGEST = 80


def page_of(result: Acceptance, model_hash: str, model_name: str, left_out: tuple[str, ...]) -> AcceptancePage:
    """The page of an acceptance.

    Args:
        result: of `accept_cases`.
        model_hash: `Model.model_hash`.
        model_name: of the bundle's folder or zip.
        left_out: attributes that have too many values to group by.
    """
    return AcceptancePage(
        title="Acceptance of a segmentation model at this site",
        subtitle=f"Model {_short(model_name, 40)}, hash {model_hash}, medseg {__version__}. For research only.",
        facts={
            "cases with masks": str(len(result.cases)),
            "patients": str(result.patients),
            "failed": str(len(result.failed)),
            "need review": str(len(result.review)),
        },
        tables=(_scores(result), _sizes(result), _groups(result, left_out)),
        sentences=(*_sentences(result), *_reviews(result)),
        warning=_warning(result),
    )


def summary_lines(result: Acceptance) -> list[str]:
    """A line for each label and each statement that matters."""
    lines = [
        f"{len(result.cases)} cases of {result.patients} patients: {len(result.failed)} failed, "
        f"{len(result.review)} need review"
    ]
    for name, label in result.labels.items():
        lines.append(f"{name}: Dice {_mean(label.dice, 3)}; {_bias(label, result.unit)}")
    return [*lines, *([_warning(result)] if _warning(result) else []), *_sentences(result)]


def _scores(result: Acceptance) -> PageTable:
    shown = [name for name, _ in _lowest(result)]
    head: tuple[str, ...] = (
        "label",
        "cases",
        "Dice, mean (95% interval)",
        "median",
        "lower quartile",
        f"patients for {result.width:g}",
    )
    if result.least_dice is not None:
        head = (*head, f"above {result.least_dice:g}", "patients to show it")
    rows = []
    for name in shown:
        label = result.labels[name]
        cells = [_short(name, 32), str(label.dice.n), _mean(label.dice, 3), _number(label.dice.median, 3)]
        cells += [_number(label.dice.q1, 3), _needed(label.for_width)]
        if label.for_bound is not None:
            cells += [_shown(label.shown), _needed(label.for_bound)]
        rows.append(PageRow(tuple(cells), marked=label.shown is False))
    note = (
        f"Patients for {result.width:g}: needed in all for an interval of that width, at the spread that was found and "
        "(in brackets) at the upper end of what it may be."
    )
    rest = len(result.labels) - len(shown)
    more = (f"{rest} more labels, all with a higher Dice, are in acceptance.json.",) if rest else ()
    return PageTable("Dice", head, tuple(rows), (note, *more))


def _sizes(result: Acceptance) -> PageTable:
    names = sorted(result.labels, key=lambda name: -abs(_order(result.labels[name].size.relative_bias)))[:_MOST_LABELS]
    head = ("label", "cases", f"difference in {result.unit}, mean (95% interval)", "of all", "limits of agreement")
    rows = []
    for name in names:
        size = result.labels[name].size
        limits = "-" if math.isnan(size.low) else f"{_number(size.low, 2)} to {_number(size.high, 2)}"
        share = "-" if math.isnan(size.relative_bias) else f"{size.relative_bias:+.1%}"
        rows.append(PageRow((_short(name, 32), str(size.bias.n), _mean(size.bias, 2), share, limits)))
    return PageTable("Volume, prediction less reference" if result.unit == "ml" else "Size", head, tuple(rows))


def _groups(result: Acceptance, left_out: tuple[str, ...]) -> PageTable:
    order = sorted(
        result.groups, key=lambda group: (not group.differs, 2.0 if group.p is None else group.p, group.dice)
    )
    shown = order[:_MOST_GROUPS]
    rows = tuple(
        PageRow(
            (
                f"{group.attribute}: {_short(group.value, 28)}",
                _short(group.label, 24),
                str(group.n),
                _number(group.dice, 3),
                _number(group.others, 3),
                _number(group.bias, 2),
                "too few" if group.p is None else f"{group.p:.2g}",
            ),
            group.differs,
        )
        for group in shown
    )
    head = ("group", "label", "cases", "Dice", "all others", f"difference in {result.unit}", "p")
    notes = ["p: rank-sum test against all others, corrected for the number of groups (Holm)."]
    if not rows:
        notes = ["All cases have the same scanner, kernel and thickness, or none of them is known."]
    if len(order) > len(shown):
        notes.append(f"{len(order) - len(shown)} more groups are in acceptance.json.")
    if left_out:
        notes.append(f"Not grouped, as there are too many values: {_short(', '.join(left_out))}.")
    return PageTable("By scanner, kernel and slice thickness", head, rows, (" ".join(notes),))


def _warning(result: Acceptance) -> str:
    parts = []
    if result.patients < MIN_PATIENTS:
        parts.append(
            f"{result.patients} patients are too few for an interval; at least {MIN_PATIENTS} are needed, and "
            "30 or more to see a change later."
        )
    if result.failed:
        parts.append(f"{len(result.failed)} of {len(result.cases)} cases failed and are in no score.")
    low = [name for name, label in result.labels.items() if label.shown is False]
    if low:
        parts.append(f"A mean Dice above {result.least_dice:g} is not shown for {_short(', '.join(low))}.")
    return " ".join(parts)


def _sentences(result: Acceptance) -> list[str]:
    found = [_difference(group) for group in result.groups if group.differs]
    if result.groups and not found:
        tested = sum(group.p is not None for group in result.groups)
        found.append(
            f"No difference between groups is shown in {tested} tests; groups of few cases would not show one."
            if tested
            else "No group has the 3 patients that a test needs; whether the model differs between groups is not known."
        )
    found = found[:_MOST_DIFFERENCES]
    for name, label in _lowest(result)[:_MOST_DIFFERENCES]:
        have, need = label.dice.n_patients, label.for_width
        if need.expected is None:
            found.append(f"{_short(name, 32)}: too few patients to say how many are needed.")
        elif need.expected > have:
            cautious = (
                "" if need.cautious is None else f", up to {max(need.cautious - have, 0)} if the spread is larger"
            )
            found.append(
                f"{_short(name, 32)}: {need.expected - have} more patients are needed for an interval of width "
                f"{result.width:g}{cautious}."
            )
    if result.least_dice is not None:
        for name, label in _lowest(result)[:_MOST_DIFFERENCES]:
            if label.shown is not True and label.for_bound is not None:
                found.append(_to_show(name, label, result.least_dice))
    found.append("acceptance.json goes to medseg drift --accepted, as what later studies are compared with.")
    return found


def _lowest(result: Acceptance) -> list[tuple[str, LabelAcceptance]]:
    """The labels with the lowest Dice."""
    return sorted(result.labels.items(), key=lambda item: _order(item[1].dice.mean))[:_MOST_LABELS]


def _difference(group: SiteGroup) -> str:
    word = "worse" if group.dice < group.others else "better"
    return (
        f"{group.label} is {word} where {group.attribute} is {_short(group.value, 40)}: Dice {group.dice:.3f} in "
        f"{group.n} cases, {group.others:.3f} in the others (p = {group.p:.2g})."
    )


def _to_show(name: str, label: LabelAcceptance, least: float) -> str:
    assert label.for_bound is not None
    need, title = label.for_bound.expected, _short(name, 32)
    if need is None:
        return f"{title}: no number of patients would show a mean Dice above {least:g}: it is {label.dice.mean:.3f}."
    if need > label.dice.n_patients:
        return f"{title}: {need - label.dice.n_patients} more patients probably show a Dice above {least:g}."
    return f"{title}: {need} patients are usually enough to show a Dice above {least:g}, here they were not."


def _reviews(result: Acceptance) -> list[str]:
    found = [
        f"{_short(case.case, 40)} needs review: {_short(case.findings[0])}" for case in result.review[:_MOST_REVIEWS]
    ]
    more = len(result.review) - len(found)
    return [*found, f"{more} more cases need review; cases.csv names them."] if more > 0 else found


def _mean(statistics: Statistics, digits: int) -> str:
    if statistics.n == 0:
        return "no case"
    mean = _number(statistics.mean, digits)
    if statistics.ci_low is None or statistics.ci_high is None:
        return f"{mean} (too few patients for an interval)"
    return f"{mean} ({_number(statistics.ci_low, digits)} to {_number(statistics.ci_high, digits)})"


def _bias(label: LabelAcceptance, unit: str) -> str:
    return f"prediction less reference {_mean(label.size.bias, 2)} {unit}"


def _needed(size: SampleSize) -> str:
    if size.expected is None:
        return "-"
    return str(size.expected) + (f" ({size.cautious})" if size.cautious is not None else "")


def _shown(shown: bool | None) -> str:
    return "not known" if shown is None else "yes" if shown else "no"


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _order(value: float) -> float:
    return 0.0 if math.isnan(value) else value


def _short(text: str, longest: int = _LONGEST) -> str:
    return text if len(text) <= longest else text[: longest - 3] + "..."
