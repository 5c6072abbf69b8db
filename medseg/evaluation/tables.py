"""Tables of a report beside scores and cases: subgroups, worst cases, outliers, confusion, FROC, what a task lists."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from medseg.evaluation.columns import record_of, title_of
from medseg.evaluation.paired import Comparison
from medseg.evaluation.scoring import CaseScores
from medseg.evaluation.statistics import Statistics
from medseg.evaluation.summary import (
    Confusion,
    FrocCurve,
    LabelStatistics,
    NotableCases,
    Outlier,
    ReferenceModel,
    Subgroup,
    Summary,
    WorstCase,
)
from medseg.reports.html import Cell, Table
from medseg.tasks.froc import CANDIDATES_TABLE, FROC_RATES

__all__ = ["NOTHING", "number", "report_tables", "statistics_cell"]

NOTHING = "\N{EN DASH}"
# Beyond these a table is looked up in its CSV.
_MOST_VALUES = 12
_MOST_ROWS = 200
# Metrics whose worst cases are listed: the leading ones, as all together are too many to look at.
_WORST_OF = 3
# Listed for the FROC curve, not to be read.
_HIDDEN = (CANDIDATES_TABLE,)


def report_tables(
    scores: Sequence[CaseScores], summary: Summary, metrics: Sequence[str]
) -> dict[str, tuple[Table, ...]]:
    """Heading -> tables, in the order of the report; headings without content are left out.

    Of a single case there are no tables that need several: differences by patient, worst cases, FROC.

    Args:
        scores: of every case.
        summary: of these cases.
        metrics: columns that the headline shows.
    """
    single = summary.n_cases == 1
    found: dict[str, tuple[Table, ...]] = {
        "Compared with the model": () if single else _others(summary.others, metrics),
        "Subgroups": tuple(_subgroup(name, groups, metrics) for name, groups in summary.subgroups.items()),
        "Worst cases and outliers": () if single else _notable(summary.notable, metrics),
        "Confusion between labels": _confusion(summary.confusion),
        "FROC": () if single else _froc(summary.froc),
        "Measures of the task": _measures(summary.labels, metrics, single),
    }
    for name in dict.fromkeys(n for case in scores for n in case.tables if n not in _HIDDEN):
        found[name.replace("_", " ").capitalize()] = (_task_table(name, scores),)
    return {heading: tables for heading, tables in found.items() if tables}


def number(value: float, name: str) -> str:
    """With as many digits as the column's record asks for."""
    if math.isnan(value):
        return NOTHING
    if math.isinf(value):
        return "∞"
    decimals = record_of(name).decimals
    return f"{value:.{decimals}f}" if decimals < 3 or abs(value) < 100 else f"{value:.1f}"


def statistics_cell(found: Statistics | None, name: str, single: bool = False) -> Cell:
    """Mean, with interval and median below; of a single case its score alone."""
    if found is None or not found.n:
        return Cell(NOTHING, sort="NaN")
    if single:
        return Cell("∞" if found.n_infinite else number(found.mean, name), (), repr(found.mean))
    if found.ci_low is None or found.ci_high is None:
        small = ["too few for an interval"]
    else:
        small = [f"[{number(found.ci_low, name)}, {number(found.ci_high, name)}]"]
    if found.n > 1:
        small.append(f"median {number(found.median, name)}")
    if found.n_infinite:
        small.append(f"{found.n_infinite} infinite")
    return Cell(number(found.mean, name), tuple(small), repr(found.mean))


def _others(others: Mapping[str, ReferenceModel], metrics: Sequence[str]) -> tuple[Table, ...]:
    """How far the model is from a baseline or a second observer."""
    rows = []
    for name, other in others.items():
        for label, columns in other.model_minus.items():
            for metric in (m for m in metrics if m in columns):
                found = columns[metric]
                if found.n_patients:
                    rows.append((Cell(name), Cell(label), Cell(title_of(metric)), *_difference(found, metric)))
    head = ("Compared with", "Label", "Metric", "Model minus it", "p (permutation)", "p (Wilcoxon)", "Patients")
    caption = "Differences by patient over the cases that both scored; p values of this table are not corrected"
    return (Table(caption, head, tuple(rows)),) if rows else ()


def _difference(found: Comparison, metric: str) -> tuple[Cell, ...]:
    low, high = found.ci_low, found.ci_high
    small = "too few for an interval"
    if low is not None and high is not None:
        small = f"[{number(low, metric)}, {number(high, metric)}]"
    p_values = (found.p_permutation, found.p_wilcoxon)
    return (
        Cell(number(found.difference, metric), (small,), repr(found.difference)),
        *(Cell(NOTHING, sort="NaN") if p is None else Cell(f"{p:.3g}", sort=repr(p)) for p in p_values),
        Cell(str(found.n_patients), sort=str(found.n_patients)),
    )


def _subgroup(name: str, groups: Mapping[str, Subgroup], metrics: Sequence[str]) -> Table:
    rows = []
    for value, found in groups.items():
        size = (found.n_cases, found.n_patients)
        for label, columns in found.labels.items():
            cells = (statistics_cell(columns.get(m), m) for m in metrics)
            rows.append((Cell(value), Cell(label), *(Cell(str(n), sort=str(n)) for n in size), *cells))
    head = (name, "Label", "Cases", "Patients", *map(title_of, metrics))
    return Table(f"By {name}: means with 95% interval by patient, and medians", head, tuple(rows))


def _notable(notable: Mapping[str, Mapping[str, NotableCases]], metrics: Sequence[str]) -> tuple[Table, ...]:
    def row(each: WorstCase | Outlier, label: str, name: str, last: Cell) -> tuple[Cell, ...]:
        score = Cell(number(each.value, name), sort=repr(each.value))
        return (Cell(each.case), Cell(label), Cell(title_of(name)), score, last)

    held = [(label, m, columns[m]) for label, columns in notable.items() for m in metrics if m in columns]
    worst = tuple(
        row(each, label, m, Cell(str(place), sort=str(place)))
        for label, m, found in held
        if m in metrics[:_WORST_OF]
        for place, each in enumerate(found.worst, 1)
    )
    far = tuple(
        row(each, label, m, Cell(f"{each.robust_z:.1f}", sort=repr(each.robust_z)))
        for label, m, found in held
        for each in found.outliers
    )
    head = ("Case", "Label", "Metric", "Score")
    tables = []
    if far:
        caption = "Outliers: far from the other cases on the worse side (the rule is given under Method)"
        tables.append(Table(caption, (*head, "Robust z"), far))
    if worst:
        tables.append(Table("The worst cases of the leading metrics", (*head, "Place from the worst"), worst))
    return tuple(tables)


def _confusion(confusion: Confusion) -> tuple[Table, ...]:
    """Shares of the reference's voxels; of many labels only the largest mistakes."""
    names, voxels = confusion.names, confusion.voxels
    if len(names) < 3:
        return ()
    totals = [sum(row) for row in voxels]
    if len(names) <= _MOST_VALUES:
        rows = tuple(
            (
                Cell(name),
                *(_share(count, totals[r]) for count in voxels[r]),
                Cell(f"{totals[r]:,}", sort=str(totals[r])),
            )
            for r, name in enumerate(names)
        )
        caption = "Of the reference's voxels with a value (row), the share that was predicted as each value (column)"
        return (Table(caption, ("Reference", *names, "Voxels"), rows),)
    off = [(voxels[r][p], r, p) for r in range(len(names)) for p in range(len(names)) if r != p and voxels[r][p]]
    listed = tuple(
        (Cell(names[r]), Cell(names[p]), _share(count, totals[r]), Cell(f"{count:,}", sort=str(count)))
        for count, r, p in sorted(off, key=lambda each: (-each[0], *each[1:]))[: 2 * _MOST_VALUES]
    )
    caption = f"The {len(listed)} largest confusions, and their share of the reference's voxels with that value"
    return (Table(caption, ("Reference", "Predicted as", "Share", "Voxels"), listed),) if listed else ()


def _share(count: int, total: int) -> Cell:
    return Cell(f"{count / total:.2%}", sort=repr(count / total)) if total else Cell(NOTHING, sort="NaN")


def _froc(froc: Mapping[str, FrocCurve]) -> tuple[Table, ...]:
    rows = []
    for label, found in froc.items():
        pairs = list(zip(found.false_positives_per_case, found.sensitivity, strict=True))
        reached = [max((s for rate, s in pairs if rate <= limit), default=0.0) for limit in FROC_RATES]
        score = NOTHING if found.score is None else f"{found.score:.3f}"
        rows.append((Cell(label), *(Cell(f"{s:.3f}") for s in reached), Cell(score)))
    caption = "Sensitivity for lesions at no more than the given number of false positives per case, and their mean"
    return (Table(caption, ("Label", *(f"{rate:g}" for rate in FROC_RATES), "Score"), tuple(rows)),) if rows else ()


def _measures(labels: LabelStatistics, metrics: Sequence[str], single: bool) -> tuple[Table, ...]:
    names = dict.fromkeys(m for found in labels.values() for m in found if m not in metrics)
    rows = tuple(
        (Cell(title_of(m)), *(statistics_cell(found.get(m), m, single) for found in labels.values())) for m in names
    )
    over = "" if single else ", mean over the cases whose reference holds the label"
    caption = f"What the task measures beside the metrics{over}"
    return (Table(caption, ("Measure", *labels), rows),) if rows else ()


def _task_table(name: str, scores: Sequence[CaseScores]) -> Table:
    held = [case for case in scores if name in case.tables]
    columns = held[0].tables[name][0]
    lines = [(case.case, *row) for case in held for row in case.tables[name][1]]
    rows = tuple(tuple(_cell(value) for value in line) for line in lines[:_MOST_ROWS])
    cut = "" if len(lines) <= _MOST_ROWS else f"; the first {_MOST_ROWS} of {len(lines)} lines"
    return Table(f"As in {name}.csv{cut}", ("Case", *(c.replace("_", " ") for c in columns)), rows)


def _cell(value: str | float | int) -> Cell:
    if isinstance(value, str):
        return Cell(value or NOTHING)
    return Cell(f"{value:.4g}" if isinstance(value, float) else str(value), sort=repr(value))
