"""What an evaluation hands back, and the files it leaves for other programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.disk.atomic import write_text_atomic
from medseg.errors import PartialFailure
from medseg.evaluation.columns import TITLES
from medseg.evaluation.scoring import CaseScores
from medseg.evaluation.summary import CaseRow
from medseg.volume import Finding

__all__ = ["FORMAT_VERSION", "Evaluation", "write_files"]

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What an evaluation found.

    Args:
        cases: every number of every case; `label` is "" for what concerns the whole case.
        summary: the content of `summary.json`.
        findings: what is worth knowing about the input.
        out: the folder that was written, or None.
        report: `report.html` in it, or None.
    """

    cases: tuple[CaseRow, ...]
    summary: Mapping[str, Any]
    findings: tuple[Finding, ...] = ()
    out: Path | None = None
    report: Path | None = None

    def to_json(self) -> str:
        """The summary as JSON."""
        return json.dumps(self.summary, indent=2, ensure_ascii=False, allow_nan=False)

    def text(self) -> str:
        """A table for a terminal: one line per label, then the means over labels, then what stands beside the model."""
        labels: Mapping[str, Mapping[str, Mapping[str, Any]]] = self.summary["labels"]
        asked = self.summary["options"]["metrics"]
        there = dict.fromkeys(m for found in labels.values() for m in found)
        metrics = [m for m in there if m.removesuffix("_px") in asked]
        rows = [["", *(TITLES.get(m, m) for m in metrics), "cases"]]
        rows += [self._row(label, found, metrics) for label, found in labels.items()]
        if len(labels) > 1:
            means = self.summary["mean"]
            rows.append(["mean", *(f"{means[m]:.3f}" if m in means else "-" for m in metrics), ""])
        for name, other in self.summary["others"].items():
            rows += [self._row(f"{label}, {name}", found, metrics) for label, found in other["labels"].items()]
        if len(metrics) > 6:
            rows = [list(row) for row in zip(*rows, strict=True)]
        width = [max(len(row[c]) for row in rows) for c in range(len(rows[0]))]
        lines = [
            "  ".join(
                cell.ljust(w) if c == 0 else cell.rjust(w) for c, (cell, w) in enumerate(zip(row, width, strict=True))
            )
            for row in rows
        ]
        few = self.summary["interval"]["note"]
        if self.summary["demonstration"]:
            lines.insert(0, f"DEMONSTRATION, no held-out patient: {self.summary['demonstration']}")
        if not self.summary["complete"]:
            lines.insert(0, "NOT COMPLETE: not every reference was scored against a prediction, see the notes")
        lines += [f"note: {f.message}" for f in self.findings] + ([f"note: {few}"] if few else [])
        if self.report is not None:
            lines.append(f"report: {self.report}")
        return "\n".join(line.rstrip() for line in lines)

    @staticmethod
    def _row(name: str, found: Mapping[str, Mapping[str, Any]], metrics: Sequence[str]) -> list[str]:
        n = max((each["n"] for each in found.values()), default=0)
        return [name, *(_cell(found.get(m)) for m in metrics), str(n)]

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


def _cell(found: Mapping[str, Any] | None) -> str:
    if found is None or found["mean"] is None:
        return "-"
    interval = "" if found["ci_low"] is None else f" [{found['ci_low']:.3f}, {found['ci_high']:.3f}]"
    return f"{found['mean']:.3f}{interval}"
