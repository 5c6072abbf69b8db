"""The evaluation's report: which numbers and which cases it shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from medseg.evaluation.columns import column, columns_of, record_of, title_of
from medseg.evaluation.pictures import (
    GALLERY_KEY,
    Cases,
    agreement,
    distributions,
    examples,
    froc_pictures,
    gallery,
    view3d,
)
from medseg.evaluation.scoring import CaseScores
from medseg.evaluation.statistics import Statistics
from medseg.evaluation.summary import AbsentLabel, Summary
from medseg.evaluation.tables import NOTHING, number, report_tables, statistics_cell
from medseg.metrics.registry import ALL_METRICS
from medseg.reports.figures import label_colours
from medseg.reports.html import Cell, Report, Table, write_report

__all__ = ["write_evaluation_report"]

_ABSENT = {
    "n": "Cases",
    "n_clean": "Nothing found",
    "specificity": ALL_METRICS["specificity"].title,
    "false_positive_ml": "False positive (ml)",
    "false_positive_px": "False positive (pixels)",
    "false_positive_count": "False findings per case",
}
# A wider table does not fit a page.
_MOST_COLUMNS = 8


def write_evaluation_report(path: Path, cases: Cases, summary: Summary, niivue: str = "") -> None:
    """Write `report.html`. Of a single case it shows the scores alone, without what needs several cases.

    Args:
        path: the file.
        cases: files and scores of the cases.
        summary: of these cases.
        niivue: NiiVue's script, for a 3D view of the worst case; '' leaves it out.

    Raises:
        ReadError: if a mask can no longer be read.
        WriteError: if the file cannot be written.
    """
    single = summary.n_cases == 1
    labels = list(summary.labels)
    shown, problems = examples(cases)
    metrics = _shown(summary)
    few = [summary.interval.note] if summary.interval.note and not single else []
    write_report(
        path,
        Report(
            title="Segmentation evaluation",
            subtitle=f"{summary.n_cases} case(s), {summary.n_patients} patient(s), {len(labels)} label(s)",
            facts=_facts(summary),
            headline=_headline(summary, metrics),
            warning=_warning(summary),
            notes=(*(f.message for f in summary.findings), *problems, *few),
            absent=_absent_table(summary.absent, single),
            overlays=shown,
            key=label_colours(labels),
            view=view3d(cases, niivue),
            distributions=distributions(cases),
            agreement=agreement(cases) if single else (*agreement(cases), *froc_pictures(summary.froc)),
            gallery=gallery(cases),
            gallery_key=GALLERY_KEY,
            tables=report_tables(cases.scores, summary, metrics),
            cases=_case_table(cases.scores, metrics),
            definitions=_definitions(summary, single),
            method=summary.method,
            versions=summary.versions,
        ),
    )


def _warning(summary: Summary) -> str:
    """What must not be overlooked: that not everything was scored, or that no patient was held out."""
    found = []
    if not summary.complete:
        found.append("Not complete: not every reference was scored against a prediction, see the notes.")
    if summary.demonstration:
        found.append(f"Demonstration, no held-out patient: {summary.demonstration}.")
    return " ".join(found)


def _facts(summary: Summary) -> dict[str, str]:
    facts = {"Cases": str(summary.n_cases), "Patients": str(summary.n_patients)}
    means = {
        "Mean Dice": summary.mean_dice,
        "mIoU, pooled": summary.miou,
        "mIoU, mean of cases": summary.miou_case_mean,
    }
    if summary.n_cases == 1:
        means = {"Mean Dice": summary.mean_dice, "mIoU": summary.miou} if len(summary.labels) > 1 else {}
    means["mIoU, PASCAL VOC"] = summary.miou_voc
    return facts | {name: f"{value:.3f}" for name, value in means.items() if value is not None}


def _shown(summary: Summary) -> list[str]:
    """The columns that come first: those that lead in the task, then the metrics that were asked for."""
    there = list(dict.fromkeys(m for found in summary.labels.values() for m in found))
    asked = columns_of(summary.options.metrics)
    leading = [m for m in summary.leading if m in there]
    return leading + [m for m in there if m in asked and m not in leading]


def _headline(summary: Summary, metrics: Sequence[str]) -> Table:
    """A row per label, or, of many metrics for a few labels, a row per metric."""
    single = summary.n_cases == 1
    every: dict[str, Mapping[str, Statistics]] = dict(summary.labels)
    for name, other in summary.others.items():
        every |= {f"{label}, {name}": found for label, found in other.labels.items()}
    cells = [[statistics_cell(found.get(m), m, single) for m in metrics] for found in every.values()]
    counts = [str(max((each.n for each in found.values()), default=0)) for found in every.values()]
    names = list(every)
    if len(summary.labels) > 1:
        names, counts = [*names, "mean of labels"], [*counts, ""]
        means = summary.mean
        cells.append([Cell(number(means[m], m) if m in means else NOTHING) for m in metrics])
    columns = [title_of(m) for m in metrics]
    if single:
        caption = "Scores of the case; a dash where its reference lacks the label"
        table = cells
    else:
        caption = "Mean over the cases whose reference holds the label, with 95% interval by patient, and median"
        columns.append("Cases")
        table = [[*row, Cell(count)] for row, count in zip(cells, counts, strict=True)]
    if len(columns) > _MOST_COLUMNS >= len(names):
        rows = [(Cell(name), *row) for name, row in zip(columns, zip(*table, strict=True), strict=True)]
        return Table(caption, ("Metric", *names), tuple(rows))
    rows = [(Cell(name), *row) for name, row in zip(names, table, strict=True)]
    return Table(caption, ("Label", *columns), tuple(rows))


def _definitions(summary: Summary, single: bool) -> dict[str, str]:
    """Title -> definition, of the metrics, then of what the task measures beside them."""
    needs_several = ("interval", "outliers", "miou_case_mean")
    found = {
        record_of(name).title if name in ALL_METRICS else name: text
        for name, text in summary.definitions.items()
        if not (single and name in needs_several)
    }
    for name in dict.fromkeys(m for columns in summary.labels.values() for m in columns):
        record = record_of(name)
        if record.definition and name not in columns_of(ALL_METRICS):
            found[record.title] = f"{record.definition}."
    return found


def _absent_table(absent: Mapping[str, AbsentLabel], single: bool) -> Table | None:
    if not absent:
        return None
    found = {label: asdict(each) for label, each in absent.items()}
    keys = [key for key in _ABSENT if any(values[key] is not None for values in found.values())]
    rows = [(Cell(label), *(_absent_cell(values[key]) for key in keys)) for label, values in found.items()]
    means = "" if single else ". Means over these cases"
    caption = f"Scored separately: the reference lacks the label, so nothing should be found{means}"
    return Table(caption, ("Label", *(_ABSENT[key] for key in keys)), tuple(rows))


def _absent_cell(value: float | None) -> Cell:
    if value is None or math.isnan(value):
        return Cell(NOTHING)
    return Cell(str(value) if isinstance(value, int) else f"{value:.4g}")


def _case_table(scores: Sequence[CaseScores], metrics: Sequence[str]) -> Table:
    known = {c.spacing_known for c in scores}
    unit = "ml" if known == {True} else "pixels" if known == {False} else "ml or pixels"
    rows = []
    for case in scores:
        for label, found in case.labels.items():
            values = {column(m, case.spacing_known): v for m, v in found.values.items()}
            sizes = (found.overlap.in_ref * case.voxel_size, found.overlap.in_pred * case.voxel_size)
            cells = [Cell(case.case), Cell(label)]
            for metric in metrics:
                value = values.get(metric, math.nan)
                cells.append(Cell(number(value, metric), sort=_sort_key(value)))
            cells += [Cell(f"{size:.4g}", sort=_sort_key(size)) for size in sizes]
            rows.append(tuple(cells))
    head = ("Case", "Label", *(title_of(m) for m in metrics), f"Reference ({unit})", f"Prediction ({unit})")
    return Table("Press a heading to sort by it; every measure is in cases.csv", head, tuple(rows))


def _sort_key(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if math.isinf(value) else repr(value)
