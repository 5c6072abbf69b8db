"""The files of a comparison: `compare.csv`, `summary.json`, `report.html`, `table.tex`, `methods.txt`."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np

from medseg.disk.atomic import write_text_atomic
from medseg.evaluation.columns import record_of, title_of
from medseg.evaluation.comparison_result import ComparisonResult, PairedRow, few_patients
from medseg.evaluation.latex import latex_tables
from medseg.reports.figures import distribution_png
from medseg.reports.html import Cell, Picture, Report, Table, write_report

__all__ = ["write_comparison"]

_MOST_PICTURES = 12
_NOTHING = "\N{EN DASH}"


def write_comparison(folder: Path, result: ComparisonResult) -> ComparisonResult:
    """Write the files; `summary.json` last. The report of a single case has its scores, no ranking and no tests.

    Returns:
        The result, with where the files are.

    Raises:
        WriteError: if a file cannot be written.
    """
    single = len(result.cases) == 1
    facts = {"Models": str(len(result.models)), "Cases": str(len(result.cases))}
    written = replace(result, out=folder, report=folder / "report.html")
    write_text_atomic(folder / "compare.csv", _csv(result))
    write_text_atomic(folder / "table.tex", latex_tables(result))
    write_text_atomic(folder / "methods.txt", str(result.summary["method"]) + "\n")
    write_report(
        folder / "report.html",
        Report(
            title="Comparison of models",
            subtitle=f"{len(result.models)} models, {len(result.cases)} case(s), {result.n_patients} patient(s)",
            facts=facts if single else facts | {"First": _first(result)},
            headline=_score_table(result) if single else _ranking_table(result),
            notes=_notes(result),
            distributions=_pictures(result),
            tables={
                heading: tables
                for heading, tables in (("Seeds", _seed_table(result)), ("Non-inferiority", _margin_table(result)))
                if tables
            },
            cases=None if single else _paired_table(result),
            method=str(result.summary["method"]),
            versions=result.summary["versions"],
        ),
    )
    write_text_atomic(folder / "summary.json", written.to_json() + "\n")
    return written


def _csv(result: ComparisonResult) -> str:
    buffer = io.StringIO()
    names = [f.name for f in fields(PairedRow)]
    writer = csv.DictWriter(buffer, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: "" if v is None else v for k, v in asdict(row).items()} for row in result.rows)
    return buffer.getvalue()


def _first(result: ComparisonResult) -> str:
    return ", ".join(result.ranking[0].first) if result.ranking else _NOTHING


def _notes(result: ComparisonResult) -> tuple[str, ...]:
    few = few_patients(result.n_patients) if len(result.cases) == 1 else []
    notes = tuple(note for note in result.notes if note not in few)
    if result.complete:
        return notes
    return ("Not complete: not every case or prediction is in this comparison.", *notes)


def _score_table(result: ComparisonResult) -> Table:
    """Of a single case: each model's score."""
    rows = [
        (
            Cell(label),
            Cell(title_of(name)),
            *(Cell(f"{found[m][0]:.3f}", sort=repr(found[m][0])) for m in result.models),
        )
        for (label, name), found in result.values.items()
        if all(found.values())
    ]
    return Table("Scores of the case", ("Label", "Metric", *result.models), tuple(rows))


def _seed_table(result: ComparisonResult) -> tuple[Table, ...]:
    """How much models that were trained several times vary by seed."""
    if all(len(folders) == 1 for folders in result.seeds.values()):
        return ()
    rows = []
    for (label, metric), found in result.seed_means.items():
        cells = []
        for means in found.values():
            small = (
                (f"SD {np.std(means, ddof=1):.4f}", f"{min(means):.3f} to {max(means):.3f}") if len(means) > 1 else ()
            )
            text = f"{np.mean(means):.3f}" if means else _NOTHING
            cells.append(Cell(text, small, sort=repr(float(np.mean(means))) if means else "NaN"))
        rows.append((Cell(label), Cell(title_of(metric)), *cells))
    head = (f"{name}, {len(folders)} seed(s)" for name, folders in result.seeds.items())
    caption = "Mean over cases and seeds, with SD and range of the seeds' means"
    return (Table(caption, ("Label", "Metric", *head), tuple(rows)),)


def _margin_table(result: ComparisonResult) -> tuple[Table, ...]:
    """What a margin of non-inferiority shows."""
    rows = [
        (
            Cell(row.label),
            Cell(title_of(row.metric)),
            Cell(verdict.model),
            Cell(verdict.other),
            Cell(f"{verdict.bound:+.4f}", sort=repr(verdict.bound)),
            Cell("yes" if verdict.shown else "not shown"),
        )
        for row in result.rows
        for verdict in row.verdicts()
    ]
    if not rows:
        return ()
    caption = (
        f"A model is non-inferior where it is worse by less than {result.summary['margin']:g}; the bound "
        "is one-sided, 97.5%, and below 0 where the model is better"
    )
    head = ("Label", "Metric", "Model", "Compared with", "Worse by at most", "Non-inferior")
    return (Table(caption, head, tuple(rows)),)


def _ranking_table(result: ComparisonResult) -> Table:
    rows = []
    for row in result.ranking:
        found = row.ranking
        cells = [Cell("all metrics" if row.by == "all" else title_of(row.by))]
        for i in range(len(row.models)):
            small = [f"mean rank {found.mean_rank[i]:.2f}"]
            if found.rank_low:
                small.append(f"place {found.rank_low[i]:.0f} to {found.rank_high[i]:.0f}")
                small.append(f"first in {found.first_share[i]:.0%}")
            cells.append(Cell(str(found.rank[i]), tuple(small)))
        cells.append(Cell(_NOTHING if found.kendall_tau is None else f"{found.kendall_tau:.2f}"))
        rows.append(tuple(cells))
    caption = "Places by mean rank, with the 95% range of places and the share of first places over resampled patients"
    return Table(caption, ("Ranking by", *result.models, "Kendall's tau"), tuple(rows))


def _paired_table(result: ComparisonResult) -> Table:
    rows = []
    for row in result.rows:
        interval = ("too few for an interval",) if row.ci_low is None else (f"[{row.ci_low:+.3f}, {row.ci_high:+.3f}]",)
        p_values = [(row.p_permutation, row.p_permutation_holm), (row.p_wilcoxon, row.p_wilcoxon_holm)]
        rows.append(
            (
                Cell(row.label),
                Cell(title_of(row.metric)),
                Cell(row.first),
                Cell(row.second),
                Cell(f"{row.mean_first:.3f}", sort=repr(row.mean_first)),
                Cell(f"{row.mean_second:.3f}", sort=repr(row.mean_second)),
                Cell(f"{row.difference:+.3f}", interval, sort=repr(row.difference)),
                *(
                    Cell(_NOTHING, sort="NaN")
                    if corrected is None
                    else Cell(f"{corrected:.3g}", (f"uncorrected {plain:.3g}",), sort=repr(corrected))
                    for plain, corrected in p_values
                ),
                Cell(f"{row.n_cases} / {row.n_patients}"),
            )
        )
    head = ("Label", "Metric", "First", "Second", "Mean of first", "Mean of second", "Difference by patient")
    tests = ("p, permutation (Holm)", "p, Wilcoxon (Holm)", "Cases / patients")
    return Table("Every pair. Press a heading to sort by it", (*head, *tests), tuple(rows))


def _pictures(result: ComparisonResult) -> tuple[Picture, ...]:
    pictures = []
    for (label, metric), values in list(result.values.items())[:_MOST_PICTURES]:
        every = [v for found in values.values() for v in found]
        if len(every) < 2 * len(values):
            continue
        title = title_of(metric)
        low, high = record_of(metric).limits
        limits = (max(low, min(every)) if low < 0 else low, min(high, max(every)) or 1.0)
        spread = "; ".join(f"{name}: {min(v):.3f} to {max(v):.3f}" for name, v in values.items())
        caption = "Each dot is a case whose reference holds the label; the box shows median and quartiles."
        picture = distribution_png(values, f"{title}, {label}", limits)
        pictures.append(Picture(f"{label}: {title}", caption, f"{title} of {label} per case. {spread}", picture))
    return tuple(pictures)
