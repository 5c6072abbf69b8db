"""`evaluate`: masks against references, with intervals, files for other programs and a report to look at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from medseg.errors import ConfigError
from medseg.evaluation.case_list import listed
from medseg.evaluation.confusion import confusion_summary
from medseg.evaluation.further import froc_summary, others_summary, subgroup_summary
from medseg.evaluation.labels import check_values, fill_labels, resolve_labels
from medseg.evaluation.method_text import INTERVAL_METHOD, definitions, method_text, versions
from medseg.evaluation.pairs import PARTIAL, Missing, Pair, Sources, find_pairs
from medseg.evaluation.report import write_evaluation_report
from medseg.evaluation.result import FORMAT_VERSION, Evaluation, write_files
from medseg.evaluation.scoring import CaseScores, Scoring
from medseg.evaluation.statistics import MIN_PATIENTS, RESAMPLES
from medseg.evaluation.summary import case_rows, summarise
from medseg.evaluation.workers import score_all
from medseg.labels import LabelScheme
from medseg.metrics.definitions import ALL_INFO
from medseg.metrics.score import METRICS, ScoreOptions
from medseg.reports.view3d import niivue_script
from medseg.tasks import Task, get_task
from medseg.volume import Finding

__all__ = ["Evaluation", "evaluate"]

_TOLERANCE_MM = 2.0


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
    fov: str | Path | None = None,
    probabilities: str | Path | None = None,
    second_reference: str | Path | None = None,
    missing: Missing = "refuse",
    memory_gb: float | None = None,
    label_threshold: float | None = None,
    metrics: Sequence[str] | None = None,
    tolerance_mm: float | None = None,
    surface: str = "voxel",
    hd95: str = "max_directed",
    assd: str = "pooled",
    demonstration: str = "",
    view3d: str | Path | None = None,
) -> Evaluation:
    """Score predicted label maps against references.

    Args:
        pred: folder of predictions, or one file. Cases are matched by name: the file name without image suffixes.
        ref: folder of references, or one file.
        task: "vessel", "lung" or "tumor": its metrics, tolerance, measures, tables and, with images, its baseline.
        out: folder for `cases.csv`, `summary.json`, `report.html` and the task's tables; None writes nothing.
        labels: scheme, mapping `{name: value or values}`, or a YAML file of them (a training config will do). Without
            it `labels.json` beside the predictions, then the task's; without these every integer in the references,
            named by its number.
        images: folder of images (or one file) to show in the report, and for tasks to measure in.
        cases: CSV with the columns `case` and `group` (the patient): which cases count, and which belong together. Any
            other column makes subgroups.
        resample_prediction: bring predictions to their reference's grid (nearest) instead of refusing other grids.
        seed: of the bootstrap.
        progress: called as `progress(done, total, text)`.
        fov: folder of masks of the voxels that count, for tasks and scores of probabilities.
        probabilities: folder of `.npz` (as `medseg predict --save-probabilities` writes them), NIfTI or PNG.
        second_reference: folder of references by another observer, scored like a model.
        missing: "refuse" a reference without prediction, or score an "empty" mask for it; then `complete` is False.
        memory_gb: memory that cases may take side by side; by default 60% of what is free.
        label_threshold: voxels above it are label 1, for 0/255 masks; a file of only 0 and 1 is left as it is.
        metrics: any of `medseg.metrics.definitions.ALL_INFO`; by default the task's, else those of `METRICS`. Those of
            probabilities ("auc", "average_precision", "brier", "ece") need `probabilities` and named labels.
        tolerance_mm: as in `medseg.metrics.score_case`; by default the task's, else 2 mm.
        surface, hd95, assd: as in `medseg.metrics.score_case`.
        demonstration: why the scores say nothing about new patients, as where none was held out from training. The
            report, the summary and its text then begin with it.
        view3d: NiiVue's `niivue.umd.js`: the report then shows the worst case in 3D, and grows by the script's 2 MB.

    Returns:
        Numbers per case, the summary, findings and where the report lies. Where the spacing is not known (PNG, JPEG),
        distances are in pixels, named `hd95_px` and so on, and what needs millimetres, as NSD, is left out.

    Raises:
        ConfigError: for a task, labels, or options that cannot be used.
        DatasetError: for missing predictions (named), folders that look swapped, or label values that do not fit.
        GeometryError: for a prediction on another grid than its reference, both printed.
        ReadError: for a file that cannot be read.
        WriteError: if `out` cannot be written.

    Example:
        >>> result = evaluate("masks/", "references/", task="lung", out="report/")
        >>> round(result.summary["labels"]["lung"]["dice"]["mean"], 2), result.report.name
        (0.91, 'report.html')
    """
    known = get_task(task) if task is not None else None
    niivue = "" if view3d is None else niivue_script(Path(view3d))
    options = _options(known, metrics, tolerance_mm, surface, hd95, assd)
    scheme = resolve_labels(labels, Path(pred), known)
    scoring = Scoring(scheme, options, known, label_threshold, resample_prediction)
    beside = Sources(_path(images), _path(fov), _path(probabilities), _path(second_reference), _path(cases))
    _check_probabilities(options, scheme, beside.probabilities)
    pairs, found = find_pairs(Path(pred), Path(ref), beside, missing)
    scores = score_all(pairs, scoring, memory_gb, progress or (lambda done, total, text: None))
    options = options.fitting(max(len(case.spacing) for case in scores), spacing_known=True)
    checked = check_values(scores, scheme)
    if scheme is None:
        scores = fill_labels(scores)
    rng = np.random.default_rng(seed)
    subgroups, left_out = subgroup_summary(scores, rng)
    findings = (
        *sorted(found, key=lambda f: f.kind not in (PARTIAL, "cases_left_out")),
        *checked,
        *_spacing_findings(scores, options),
        *_unused(known, beside, options),
        *_case_findings(scores),
        *left_out,
    )
    summary = {
        "format_version": FORMAT_VERSION,
        "complete": not any(f.kind in (PARTIAL, "cases_left_out") for f in findings),
        "demonstration": demonstration or None,
        "task": task,
        "leading": list(known.leading) if known else [],
        **summarise(scores, rng),
        "others": others_summary(scores, rng),
        "subgroups": subgroups,
        "froc": froc_summary(scores),
        "confusion": confusion_summary([case.confusion for case in scores], scheme),
        **_provenance(pairs, scores, scheme, options, findings, seed),
    }
    rows = case_rows(scores)
    if out is None:
        return Evaluation(rows, summary, findings)
    folder = Path(out)
    result = Evaluation(rows, summary, findings, folder, folder / "report.html")
    write_files(folder, result, scores)
    write_evaluation_report(
        folder / "report.html", pairs, scores, summary, scheme, label_threshold, resample_prediction, niivue
    )
    return result


def _options(
    task: Task | None, metrics: Sequence[str] | None, tolerance_mm: float | None, surface: str, hd95: str, assd: str
) -> ScoreOptions:
    names = tuple(metrics) if metrics is not None else task.metrics if task is not None else METRICS
    usual = task.tolerance_mm if task is not None else _TOLERANCE_MM
    return ScoreOptions(names, usual if tolerance_mm is None else tolerance_mm, surface, hd95, assd)


def _spacing_findings(scores: Sequence[CaseScores], options: ScoreOptions) -> tuple[Finding, ...]:
    without = [c.case for c in scores if not c.spacing_known]
    in_mm = [m for m in options.metrics if ALL_INFO[m].unit == "mm" or ALL_INFO[m].needs_mm]
    if not without or not in_mm:
        return ()
    message = f"the voxel spacing of {len(without)} case(s) is not known: distances are in pixels"
    left_out = [ALL_INFO[m].title for m in in_mm if ALL_INFO[m].needs_mm]
    if left_out:
        message += f", and {', '.join(left_out)}, which need millimetres, are left out"
    return (Finding("spacing_unknown", message),)


def _check_probabilities(options: ScoreOptions, scheme: LabelScheme | None, path: Path | None) -> None:
    names = ", ".join(options.of_probabilities)
    if names and path is None:
        raise ConfigError(f"{names} need probabilities: give their folder with --probabilities (probabilities=...)")
    if names and scheme is None:
        raise ConfigError(
            f"{names} need to know which label the probabilities belong to: name the labels with --labels (labels=...)"
        )


def _unused(task: Task | None, beside: Sources, options: ScoreOptions) -> tuple[Finding, ...]:
    """What was not given, where a task would have used it, and what was given for nothing."""
    if task is None and options.of_probabilities:
        return ()
    if task is None:
        unused = [name for name, path in (("--fov", beside.fov), ("--probabilities", beside.probabilities)) if path]
        return tuple(
            Finding("not_used", f"{name} is used by tasks and scores of probabilities only") for name in unused
        )
    baseline = " and the task's baseline" if task.baseline is not None else ""
    absent = [
        (beside.images, f"no --images: measures in the image{baseline} are left out"),
        (beside.probabilities, "no --probabilities: scores of probabilities (AUC, FROC) are left out"),
    ]
    return tuple(Finding("not_given", message) for path, message in absent if path is None)


def _case_findings(scores: Sequence[CaseScores]) -> tuple[Finding, ...]:
    """One finding per kind, with the cases it concerns."""
    kinds: dict[str, list[tuple[str, str]]] = {}
    for case in scores:
        for finding in case.findings:
            kinds.setdefault(finding.kind, []).append((case.case, finding.message))
    found = []
    for kind, each in kinds.items():
        names = list(dict.fromkeys(name for name, _ in each))
        found.append(Finding(kind, f"{each[0][1]}: {listed(names, 'case')}"))
    return tuple(found)


def _provenance(
    pairs: Sequence[Pair],
    scores: Sequence[CaseScores],
    scheme: LabelScheme | None,
    options: ScoreOptions,
    findings: Sequence[Finding],
    seed: int,
) -> dict[str, Any]:
    """How the numbers came about, and what two evaluations must share to be compared."""
    n_patients = len({c.group for c in scores})
    few = f"too few patients for intervals: {n_patients}, at least {MIN_PATIENTS} are needed"
    return {
        "interval": {
            "level": 0.95,
            "method": INTERVAL_METHOD,
            "resamples": RESAMPLES,
            "seed": seed,
            "min_patients": MIN_PATIENTS,
            "note": few if n_patients < MIN_PATIENTS else None,
        },
        "options": asdict(options) | {"metrics": list(options.metrics)},
        "label_values": None if scheme is None else dict(zip(scheme.names, map(list, scheme.values), strict=True)),
        "groups": {case.case: case.group for case in scores},
        "reference_hashes": {case.case: case.ref_hash for case in scores},
        "missing_predictions": [pair.case for pair in pairs if pair.pred is None],
        "definitions": definitions(options),
        "method": method_text(options, len(scores), n_patients),
        "findings": [{"kind": f.kind, "message": f.message} for f in findings],
        "versions": versions(),
    }


def _path(value: str | Path | None) -> Path | None:
    return None if value is None else Path(value)
