"""What an evaluation hands back, and the files it leaves for other programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.disk.atomic import write_text_atomic
from medseg.errors import PartialFailure
from medseg.evaluation.case_rows import CaseRow
from medseg.evaluation.columns import columns_of, title_of
from medseg.evaluation.scoring import CaseScores
from medseg.evaluation.statistics import Statistics
from medseg.evaluation.summary import Summary
from medseg.volume import Finding

__all__ = ["Evaluation", "write_files"]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What an evaluation found.

    Args:
        cases: every number of every case; `label` is "" for what concerns the whole case.
        summary: statistics of the data set; as a mapping, the content of `summary.json`.
        findings: what is worth knowing about the input.
        out: the folder that was written, or None.
        report: `report.html` in it, or None.

    Example:
        >>> from medseg.evaluation import evaluate
        >>> evaluate("masks/", "references/").report is None
        True
    """

    cases: tuple[CaseRow, ...]
    summary: Summary
    findings: tuple[Finding, ...] = ()
    out: Path | None = None
    report: Path | None = None

    def to_json(self) -> str:
        """The summary as JSON."""
        return json.dumps(self.summary.record, indent=2, ensure_ascii=False, allow_nan=False)

    def text(self) -> str:
        """A table for a terminal: a line per label, the means over labels, then the baseline and a second observer."""
        summary = self.summary
        asked = columns_of(summary.options.metrics)
        metrics = [m for m in dict.fromkeys(m for found in summary.labels.values() for m in found) if m in asked]
        rows = [["", *map(title_of, metrics), "cases"]]
        rows += [_row(label, found, metrics) for label, found in summary.labels.items()]
        if len(summary.labels) > 1:
            means = summary.mean
            rows.append(["mean", *(f"{means[m]:.3f}" if m in means else "-" for m in metrics), ""])
        for name, other in summary.others.items():
            rows += [_row(f"{label}, {name}", found, metrics) for label, found in other.labels.items()]
        if len(metrics) > 6:
            rows = [list(row) for row in zip(*rows, strict=True)]
        lines = []
        if not summary.complete:
            lines.append("NOT COMPLETE: not every reference was scored against a prediction, see the notes")
        if summary.demonstration:
            lines.append(f"DEMONSTRATION, no held-out patient: {summary.demonstration}")
        lines += _aligned(rows)
        if summary.miou_voc is not None:
            lines.append(f"mIoU as in PASCAL VOC, with background: {summary.miou_voc:.3f}")
        lines += [*(f"note: {f.message}" for f in self.findings)]
        if summary.interval.note:
            lines.append(f"note: {summary.interval.note}")
        if self.report is not None:
            lines.append(f"report: {self.report}")
        return "\n".join(line.rstrip() for line in lines)

    def raise_for_missing(self) -> None:
        """Raise where predictions were missing, so that a script cannot take the scores for complete.

        Raises:
            PartialFailure: naming them.
        """
        partial = [f.message for f in self.findings if f.kind == "partial"]
        if partial:
            raise PartialFailure("; ".join(partial))


def write_files(folder: Path, result: Evaluation, scores: Sequence[CaseScores]) -> None:
    """Write `cases.csv`, a CSV per table of the task, and last `summary.json`.

    Raises:
        WriteError: if a file cannot be written.
    """
    rows = [(row.case, row.label, row.metric, repr(row.value)) for row in result.cases]
    write_text_atomic(folder / "cases.csv", _csv(("case", "label", "metric", "value"), rows))
    for name in dict.fromkeys(n for case in scores for n in case.tables):
        held = [case for case in scores if name in case.tables]
        lines = [(case.case, *row) for case in held for row in case.tables[name][1]]
        write_text_atomic(folder / f"{name}.csv", _csv(("case", *held[0].tables[name][0]), lines))
    write_text_atomic(folder / "summary.json", result.to_json() + "\n")


def _csv(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return buffer.getvalue()


def _row(name: str, found: Mapping[str, Statistics], metrics: Sequence[str]) -> list[str]:
    n = max((each.n for each in found.values()), default=0)
    return [name, *(_cell(found.get(m)) for m in metrics), str(n)]


def _cell(found: Statistics | None) -> str:
    if found is None or not found.n:
        return "-"
    interval = "" if found.ci_low is None else f" [{found.ci_low:.3f}, {found.ci_high:.3f}]"
    return f"{found.mean:.3f}{interval}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The first column to the left, the others to the right."""
    width = [max(len(row[c]) for row in rows) for c in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(w) if c == 0 else cell.rjust(w) for c, (cell, w) in enumerate(zip(row, width, strict=True))
        )
        for row in rows
    ]
