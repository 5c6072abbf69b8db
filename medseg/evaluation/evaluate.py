"""`evaluate`: masks against references, with intervals, files for other programs and a report to look at."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medseg.errors import ConfigError
from medseg.evaluation.definitions import TITLES, definitions, method_text, versions
from medseg.evaluation.labels import check_values, fill_labels, resolve_labels
from medseg.evaluation.pairs import Pair, find_pairs
from medseg.evaluation.report import write_evaluation_report
from medseg.evaluation.scoring import CaseScores, score_pair
from medseg.evaluation.statistics import MIN_PATIENTS, RESAMPLES
from medseg.evaluation.summary import CaseRow, case_rows, summarise
from medseg.io.atomic import write_text_atomic
from medseg.labels import LabelScheme
from medseg.metrics.score import METRICS, ScoreOptions
from medseg.volume import Finding

__all__ = ["Evaluation", "evaluate"]

FORMAT_VERSION = 1
_MAX_WORKERS = 8


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
        """A table for a terminal: one line per label, then the means over labels."""
        labels: Mapping[str, Mapping[str, Mapping[str, Any]]] = self.summary["labels"]
        metrics = list(dict.fromkeys(m for found in labels.values() for m in found))
        rows = [["", *(TITLES.get(m, m) for m in metrics), "cases"]]
        for label, found in labels.items():
            n = max((each["n"] for each in found.values()), default=0)
            rows.append([label, *(_cell(found.get(m)) for m in metrics), str(n)])
        if len(labels) > 1:
            means = self.summary["mean"]
            rows.append(["mean", *(f"{means[m]:.3f}" if m in means else "-" for m in metrics), ""])
        width = [max(len(row[c]) for row in rows) for c in range(len(rows[0]))]
        lines = [
            "  ".join(
                cell.ljust(w) if c == 0 else cell.rjust(w) for c, (cell, w) in enumerate(zip(row, width, strict=True))
            )
            for row in rows
        ]
        few = self.summary["interval"]["note"]
        lines += [f"note: {f.message}" for f in self.findings] + ([f"note: {few}"] if few else [])
        if self.report is not None:
            lines.append(f"report: {self.report}")
        return "\n".join(line.rstrip() for line in lines)


def evaluate(
    pred: str | Path,
    ref: str | Path,
    task: str | None = None,
    out: str | Path | None = None,
    labels: LabelScheme | Mapping[str, int | Sequence[int]] | str | Path | None = None,
    images: str | Path | None = None,
    cases: str | Path | None = None,
    resample_prediction: bool = False,
    seed: int = 0,
    progress: Callable[[float, float, str], None] | None = None,
    *,
    label_threshold: float | None = None,
    metrics: Sequence[str] = METRICS,
    tolerance_mm: float = 2.0,
    surface: str = "voxel",
    hd95: str = "max_directed",
    assd: str = "pooled",
) -> Evaluation:
    """Score predicted label maps against references.

    Args:
        pred: folder of predictions, or one file. Cases are matched by name: the file name without image suffixes.
        ref: folder of references, or one file.
        task: must be None in this version.
        out: folder for `cases.csv`, `summary.json` and `report.html`; None writes nothing.
        labels: scheme, mapping `{name: value or values}`, or a YAML file of them (a training config will do). Without
            it `labels.json` beside the predictions; without that every integer in the references, named by its number.
        images: folder of images (or one file) to show under the contours in the report.
        cases: CSV with the columns `case` and `group` (the patient): which cases count, and which belong together.
        resample_prediction: bring predictions to their reference's grid (nearest) instead of refusing other grids.
        seed: of the bootstrap.
        progress: called as `progress(done, total, text)`.
        label_threshold: voxels above it are label 1, for 0/255 masks; a file of only 0 and 1 is left as it is.
        metrics, tolerance_mm, surface, hd95, assd: as in `medseg.metrics.score_case`.

    Returns:
        Numbers per case, the summary, findings and where the report lies. Where the spacing is not known (PNG, JPEG),
        distances are in pixels, named `hd95_px` and `assd_px`, and NSD, whose tolerance is in mm, is left out.

    Raises:
        ConfigError: for a task, labels, or options that cannot be used.
        DatasetError: for missing predictions (named), or label values that do not fit each other.
        GeometryError: for a prediction on another grid than its reference, both printed.
        ReadError: for a file that cannot be read.
        WriteError: if `out` cannot be written.

    Example:
        >>> result = evaluate("masks/", "references/", out="report/", images="images/")
        >>> result.summary["labels"]["lung"]["dice"]["mean"], result.report
    """
    if task is not None:
        raise ConfigError(
            f"task={task!r}: this version has no tasks; call evaluate(pred, ref, labels={{'name': value}}, ...) instead"
        )
    options = ScoreOptions(tuple(metrics), tolerance_mm, surface, hd95, assd)
    scheme = resolve_labels(labels, Path(pred))
    pairs, found = find_pairs(Path(pred), Path(ref), _path(images), _path(cases))
    report = progress or (lambda done, total, text: None)
    scores = _score_all(pairs, scheme, options, label_threshold, resample_prediction, report)
    findings = (*found, *check_values(scores, scheme), *_spacing_findings(scores, options))
    if scheme is None:
        scores = fill_labels(scores)
    rows = case_rows(scores)
    summary = _summary(scores, options, findings, seed)
    if out is None:
        return Evaluation(rows, summary, findings)
    folder = Path(out)
    write_text_atomic(folder / "cases.csv", _csv(rows))
    result = Evaluation(rows, summary, findings, folder, folder / "report.html")
    write_text_atomic(folder / "summary.json", result.to_json() + "\n")
    write_evaluation_report(
        folder / "report.html", pairs, scores, summary, scheme, threshold=label_threshold, resample=resample_prediction
    )
    return result


def _score_all(
    pairs: Sequence[Pair],
    scheme: LabelScheme | None,
    options: ScoreOptions,
    threshold: float | None,
    resample_prediction: bool,
    progress: Callable[[float, float, str], None],
) -> tuple[CaseScores, ...]:
    """Score cases side by side.

    Threads, not processes: decompression, array work and KD-tree searches run outside the interpreter lock, and a
    script that calls `evaluate` at its top level must not be run again by spawned workers.
    """
    workers = max(1, min(_MAX_WORKERS, os.cpu_count() or 1, len(pairs)))
    scored: dict[str, CaseScores] = {}
    with ThreadPoolExecutor(workers, thread_name_prefix="evaluate") as pool:
        futures = [pool.submit(score_pair, p, scheme, options, threshold, resample_prediction) for p in pairs]
        try:
            for future in as_completed(futures):
                result = future.result()
                scored[result.case] = result
                progress(len(scored), len(pairs), result.case)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return tuple(scored[pair.case] for pair in pairs)


def _spacing_findings(scores: Sequence[CaseScores], options: ScoreOptions) -> tuple[Finding, ...]:
    without = [c.case for c in scores if not c.spacing_known]
    if not without or not any(m in options.metrics for m in ("hd95", "assd", "nsd")):
        return ()
    message = f"the voxel spacing of {len(without)} case(s) is not known: distances are in pixels"
    if "nsd" in options.metrics:
        message += f", and NSD at {options.tolerance_mm:g} mm is left out"
    return (Finding("spacing_unknown", message),)


def _summary(
    scores: Sequence[CaseScores], options: ScoreOptions, findings: Sequence[Finding], seed: int
) -> dict[str, Any]:
    found = summarise(scores, np.random.default_rng(seed))
    n_patients = found["n_patients"]
    few = f"too few patients for intervals: {n_patients}, at least {MIN_PATIENTS} are needed"
    return {
        "format_version": FORMAT_VERSION,
        **found,
        "interval": {
            "level": 0.95,
            "method": "BCa bootstrap over patients with small-sample expansion",
            "resamples": RESAMPLES,
            "seed": seed,
            "min_patients": MIN_PATIENTS,
            "note": few if n_patients < MIN_PATIENTS else None,
        },
        "options": asdict(options) | {"metrics": list(options.metrics)},
        "definitions": definitions(options),
        "method": method_text(options, found["n_cases"], n_patients),
        "findings": [{"kind": f.kind, "message": f.message} for f in findings],
        "versions": versions(),
    }


def _csv(rows: Sequence[CaseRow]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["case", "label", "metric", "value"])
    writer.writerows((row.case, row.label, row.metric, repr(row.value)) for row in rows)
    return buffer.getvalue()


def _cell(found: Mapping[str, Any] | None) -> str:
    if found is None or found["mean"] is None:
        return "-"
    interval = "" if found["ci_low"] is None else f" [{found['ci_low']:.3f}, {found['ci_high']:.3f}]"
    return f"{found['mean']:.3f}{interval}"


def _path(value: str | Path | None) -> Path | None:
    return None if value is None else Path(value)
