"""`evaluate`: masks against references, with intervals, files for other programs and a report to look at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medseg.evaluation.annotated import only_annotated
from medseg.evaluation.case_rows import case_rows
from medseg.evaluation.labels import check_values, fill_labels, resolve_labels
from medseg.evaluation.options import EvaluateOptions
from medseg.evaluation.pairs import find_pairs
from medseg.evaluation.pictures import Cases
from medseg.evaluation.report import write_evaluation_report
from medseg.evaluation.result import Evaluation, write_files
from medseg.evaluation.scoring import Scoring
from medseg.evaluation.summarise import case_findings, spacing_findings, summarise, unused_findings
from medseg.evaluation.voc import VOID, with_void
from medseg.evaluation.workers import score_all
from medseg.labels import LabelScheme
from medseg.reports.view3d import niivue_script

__all__ = ["EvaluateOptions", "Evaluation", "evaluate"]


def evaluate(
    pred: str | Path,
    ref: str | Path,
    task: str | None = None,
    out: str | Path | None = None,
    labels: LabelScheme | Mapping[str, int | Sequence[int]] | str | Path | None = None,
    images: str | Path | None = None,
    *,
    options: EvaluateOptions | None = None,
    progress: Callable[[float, float, str], None] | None = None,
    **keywords: Any,
) -> Evaluation:
    """Score predicted label maps against references.

    Args:
        pred: folder of predictions, or one file. Cases are matched by name: the file name without image suffixes.
        ref: folder of references, or one file.
        task, labels, images: as in `EvaluateOptions`.
        out: folder for `cases.csv`, `summary.json`, `report.html` and the task's tables; None writes nothing.
        options: everything else; `task`, `labels`, `images` and `keywords` replace what it says.
        progress: called as `progress(done, total, text)`.
        keywords: any field of `EvaluateOptions`, as in `evaluate("masks/", "references/", metrics=("dice", "hd95"))`.

    Returns:
        Numbers per case, the summary, findings and where the report lies. Where the spacing is not known (PNG, JPEG),
        distances are in pixels, named `hd95_px` and so on, and what needs millimetres, as NSD, is left out.

    Raises:
        TypeError: for a keyword that `EvaluateOptions` does not have.
        ConfigError: for a task, labels, or options that cannot be used.
        DatasetError: for missing predictions (named), folders that look swapped, or label values that do not fit.
        GeometryError: for a prediction on another grid than its reference, both printed.
        ReadError: for a file that cannot be read.
        WriteError: if `out` cannot be written.

    Example:
        >>> result = evaluate("masks/", "references/", task="lung", out="report/")
        >>> round(result.summary.labels["lung"]["dice"].mean, 2), result.report.name
        (0.91, 'report.html')
    """
    named = {"task": task, "labels": labels, "images": images}
    given: dict[str, Any] = {name: value for name, value in named.items() if value is not None} | keywords
    asked = replace(options or EvaluateOptions(), **given)
    niivue = "" if asked.view3d is None else niivue_script(Path(asked.view3d))
    scheme = resolve_labels(asked.labels, Path(pred), asked.known_task)
    if asked.miou == "voc" and scheme is not None:
        scheme = with_void(scheme)
    asked.check_probabilities(scheme)
    scoring = Scoring(scheme, asked.score_options, asked.known_task, asked.label_threshold, asked.resample_prediction)
    if asked.miou == "voc":
        scoring = replace(scoring, void=VOID)
    pairs, found = find_pairs(Path(pred), Path(ref), asked.sources, asked.missing)
    scores = score_all(pairs, scoring, asked.memory_gb, progress or (lambda done, total, text: None))
    checked = check_values(scores, scheme)
    if scheme is None:
        scores = fill_labels(scores)
    scores, partial = only_annotated(pairs, scores, scheme)
    findings = (
        *found,
        *checked,
        *partial,
        *spacing_findings(scores, asked),
        *unused_findings(asked),
        *case_findings(scores),
    )
    summary = summarise(pairs, scores, scheme, asked, findings)
    result = Evaluation(case_rows(scores), summary, summary.findings)
    if out is None:
        return result
    folder = Path(out)
    result = replace(result, out=folder, report=folder / "report.html")
    write_files(folder, result, scores)
    cases = Cases(pairs, scores, list(summary.labels), scheme, asked.label_threshold, asked.resample_prediction)
    write_evaluation_report(folder / "report.html", cases, summary, niivue)
    return result
