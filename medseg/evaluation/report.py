"""The evaluation's report: which numbers and which cases it shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.evaluation.method_text import TITLES
from medseg.evaluation.pairs import Pair
from medseg.evaluation.pictures import (
    GALLERY_KEY,
    Cases,
    agreement,
    distributions,
    examples,
    froc_curves,
    gallery,
    view3d,
)
from medseg.evaluation.scoring import CaseScores
from medseg.evaluation.summary import column
from medseg.evaluation.tables import NOTHING, further_tables, number, statistics_cell, title_of
from medseg.labels import LabelScheme
from medseg.reports.figures import label_colours
from medseg.reports.html import Cell, Report, Table, write_report

__all__ = ["write_evaluation_report"]

_ABSENT = {
    "n": "Cases",
    "n_clean": "Nothing found",
    "specificity": "Specificity",
    "false_positive_ml": "False positive (ml)",
    "false_positive_px": "False positive (pixels)",
    "false_positive_count": "False findings per case",
}
# A wider table does not fit a page.
_MOST_COLUMNS = 8


def write_evaluation_report(
    path: Path,
    pairs: Sequence[Pair],
    scores: Sequence[CaseScores],
    summary: Mapping[str, Any],
    scheme: LabelScheme | None,
    threshold: float | None = None,
    resample: bool = False,
    niivue: str = "",
) -> None:
    """Write `report.html`.

    Args:
        path: the file.
        pairs, scores: cases in the same order.
        summary: the content of `summary.json`.
        scheme: what the integers mean, None where labels are named by their number.
        threshold, resample: as in `medseg.evaluation.evaluate`.
        niivue: NiiVue's script, for a 3D view of the worst case; '' leaves it out.

    Raises:
        ReadError: if a mask can no longer be read.
        WriteError: if the file cannot be written.
    """
    labels = list(summary["labels"])
    cases = Cases(pairs, scores, labels, scheme, threshold, resample)
    shown, problems = examples(cases)
    metrics = _shown(summary)
    interval = summary["interval"]
    notes = [f["message"] for f in summary["findings"]] + problems + ([interval["note"]] if interval["note"] else [])
    write_report(
        path,
        Report(
            title="Segmentation evaluation",
            subtitle=f"{summary['n_cases']} case(s), {summary['n_patients']} patient(s), {len(labels)} label(s)",
            facts=_facts(summary),
            headline=_headline(summary, metrics),
            warning=_warning(summary),
            notes=tuple(notes),
            absent=_absent_table(summary),
            overlays=shown,
            key=label_colours(labels),
            view=view3d(cases, niivue),
            distributions=distributions(cases),
            agreement=(*agreement(cases), *froc_curves(summary["froc"])),
            gallery=gallery(cases),
            gallery_key=GALLERY_KEY,
            tables=further_tables(scores, summary, metrics),
            cases=_case_table(scores, metrics),
            definitions={TITLES.get(n, n).split(" (")[0]: text for n, text in summary["definitions"].items()},
            method=summary["method"],
            versions=summary["versions"],
        ),
    )


def _warning(summary: Mapping[str, Any]) -> str:
    """What nobody must overlook: that not everything was scored, or that no patient was held out."""
    found = []
    if not summary["complete"]:
        found.append("Not complete: not every reference was scored against a prediction, see the notes.")
    if summary["demonstration"]:
        found.append(f"Demonstration, no held-out patient: {summary['demonstration']}.")
    return " ".join(found)


def _facts(summary: Mapping[str, Any]) -> dict[str, str]:
    facts = {"Cases": str(summary["n_cases"]), "Patients": str(summary["n_patients"])}
    for key, name in (("mean_dice", "Mean Dice"), ("miou", "mIoU, pooled"), ("miou_case_mean", "mIoU, mean of cases")):
        if summary[key] is not None:
            facts[name] = f"{summary[key]:.3f}"
    return facts


def _shown(summary: Mapping[str, Any]) -> list[str]:
    """The columns that come first: those that lead in the task, then the metrics that were asked for."""
    there = list(dict.fromkeys(m for found in summary["labels"].values() for m in found))
    asked = summary["options"]["metrics"]
    leading = [m for m in summary["leading"] if m in there]
    return leading + [m for m in there if m.removesuffix("_px") in asked and m not in leading]


def _headline(summary: Mapping[str, Any], metrics: Sequence[str]) -> Table:
    """A row per label, or, of many metrics for a few labels, a row per metric."""
    labels: Mapping[str, Mapping[str, Mapping[str, Any]]] = summary["labels"]
    every = dict(labels)
    for name, other in summary["others"].items():
        every |= {f"{label}, {name}": found for label, found in other["labels"].items()}
    means = summary["mean"]
    caption = "Mean over the cases whose reference holds the label, with 95% interval by patient, and median"
    counts = [str(max((each["n"] for each in found.values()), default=0)) for found in every.values()]
    cells = [[statistics_cell(found.get(m), m) for m in metrics] for found in every.values()]
    names = list(every)
    if len(labels) > 1:
        names, counts = [*names, "mean of labels"], [*counts, ""]
        cells.append([Cell(number(means[m], m) if m in means else NOTHING) for m in metrics])
    columns = [*(title_of(m) for m in metrics), "Cases"]
    table = [[*row, Cell(count)] for row, count in zip(cells, counts, strict=True)]
    if len(columns) > _MOST_COLUMNS >= len(names):
        rows = [(Cell(name), *row) for name, row in zip(columns, zip(*table, strict=True), strict=True)]
        return Table(caption, ("Metric", *names), tuple(rows))
    rows = [(Cell(name), *row) for name, row in zip(names, table, strict=True)]
    return Table(caption, ("Label", *columns), tuple(rows))


def _absent_table(summary: Mapping[str, Any]) -> Table | None:
    absent: Mapping[str, Mapping[str, Any]] = summary["absent"]
    if not absent:
        return None
    keys = [k for k in _ABSENT if any(k in found for found in absent.values())]
    rows = []
    for label, found in absent.items():
        cells = []
        for key in keys:
            value = found.get(key)
            whole = isinstance(value, int)
            cells.append(Cell(NOTHING if value is None else str(value) if whole else f"{value:.4g}"))
        rows.append((Cell(label), *cells))
    caption = "Scored apart: the reference lacks the label, so nothing should be found. Means over these cases"
    return Table(caption, ("Label", *(_ABSENT[k] for k in keys)), tuple(rows))


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
