"""The evaluation's report: which numbers and which cases it shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.evaluation.definitions import TITLES
from medseg.evaluation.pairs import Pair
from medseg.evaluation.pictures import GALLERY_KEY, Cases, agreement, distributions, examples, gallery
from medseg.evaluation.scoring import CaseScores
from medseg.evaluation.summary import column
from medseg.labels import LabelScheme
from medseg.metrics.empty import DISTANCES
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
_NOTHING = "\N{EN DASH}"


def write_evaluation_report(
    path: Path,
    pairs: Sequence[Pair],
    scores: Sequence[CaseScores],
    summary: Mapping[str, Any],
    scheme: LabelScheme | None,
    threshold: float | None = None,
    resample: bool = False,
) -> None:
    """Write `report.html`.

    Args:
        path: the file.
        pairs, scores: cases in the same order.
        summary: the content of `summary.json`.
        scheme: what the integers mean, None where labels are named by their number.
        threshold, resample: as in `medseg.evaluation.evaluate`.

    Raises:
        ReadError: if a mask can no longer be read.
        WriteError: if the file cannot be written.
    """
    labels = list(summary["labels"])
    cases = Cases(pairs, scores, labels, scheme, threshold, resample)
    shown, problems = examples(cases)
    interval = summary["interval"]
    notes = [f["message"] for f in summary["findings"]] + problems + ([interval["note"]] if interval["note"] else [])
    write_report(
        path,
        Report(
            title="Segmentation evaluation",
            subtitle=f"{summary['n_cases']} case(s), {summary['n_patients']} patient(s), {len(labels)} label(s)",
            facts=_facts(summary),
            headline=_headline(summary),
            warning=_warning(summary),
            notes=tuple(notes),
            absent=_absent_table(summary),
            overlays=shown,
            key=label_colours(labels),
            distributions=distributions(cases),
            agreement=agreement(cases),
            gallery=gallery(cases),
            gallery_key=GALLERY_KEY,
            cases=_case_table(scores),
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


def _headline(summary: Mapping[str, Any]) -> Table:
    labels: Mapping[str, Mapping[str, Mapping[str, Any]]] = summary["labels"]
    metrics = list(dict.fromkeys(m for found in labels.values() for m in found))
    every = dict(labels)
    for name, other in summary["others"].items():
        every |= {f"{label}, {name}": found for label, found in other["labels"].items()}
    rows = []
    for label, found in every.items():
        n = max((each["n"] for each in found.values()), default=0)
        rows.append((Cell(label), *(_statistics_cell(found.get(m), m) for m in metrics), Cell(str(n))))
    if len(labels) > 1:
        means = summary["mean"]
        cells = (Cell(_number(means[m], m) if m in means else _NOTHING) for m in metrics)
        rows.append((Cell("mean of labels"), *cells, Cell("")))
    return Table(
        "Mean over the cases whose reference holds the label, with 95% interval by patient, and median",
        ("Label", *(TITLES.get(m, m) for m in metrics), "Cases"),
        tuple(rows),
    )


def _statistics_cell(found: Mapping[str, Any] | None, metric: str) -> Cell:
    if found is None or found["mean"] is None:
        return Cell(_NOTHING)
    if found["ci_low"] is None:
        small = ["too few for an interval"]
    else:
        small = [f"[{_number(found['ci_low'], metric)}, {_number(found['ci_high'], metric)}]"]
    small.append(f"median {_number(found['median'], metric)}")
    if found["n_infinite"]:
        small.append(f"{found['n_infinite']} infinite")
    return Cell(_number(found["mean"], metric), tuple(small))


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
            cells.append(Cell(_NOTHING if value is None else str(value) if whole else f"{value:.4g}"))
        rows.append((Cell(label), *cells))
    caption = "Scored apart: the reference lacks the label, so nothing should be found. Means over these cases"
    return Table(caption, ("Label", *(_ABSENT[k] for k in keys)), tuple(rows))


def _case_table(scores: Sequence[CaseScores]) -> Table:
    metrics = list(
        dict.fromkeys(column(m, c.spacing_known) for c in scores for s in c.labels.values() for m in s.values)
    )
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
                cells.append(Cell(_number(value, metric), sort=_sort_key(value)))
            cells += [Cell(f"{size:.4g}", sort=_sort_key(size)) for size in sizes]
            rows.append(tuple(cells))
    head = ("Case", "Label", *(TITLES.get(m, m) for m in metrics), f"Reference ({unit})", f"Prediction ({unit})")
    return Table("Press a heading to sort by it", head, tuple(rows))


def _sort_key(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if math.isinf(value) else repr(value)


def _number(value: float, metric: str) -> str:
    if math.isnan(value):
        return _NOTHING
    if math.isinf(value):
        return "∞"
    return f"{value:.2f}" if metric.removesuffix("_px") in DISTANCES else f"{value:.3f}"
