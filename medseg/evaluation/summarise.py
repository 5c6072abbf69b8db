"""From scores per case to the summary of the data set."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from medseg.evaluation.annotated import scored_labels
from medseg.evaluation.case_list import listed
from medseg.evaluation.case_rows import case_miou
from medseg.evaluation.confusion import confusion_summary
from medseg.evaluation.froc_curves import froc_curves
from medseg.evaluation.label_statistics import (
    absent_labels,
    notable_per_label,
    pooled_miou,
    statistics_per_label,
)
from medseg.evaluation.method_text import INTERVAL_METHOD, definitions, method_text, versions
from medseg.evaluation.options import EvaluateOptions
from medseg.evaluation.pairs import PARTIAL, Pair
from medseg.evaluation.reference_models import reference_models
from medseg.evaluation.scoring import CaseScores
from medseg.evaluation.statistics import MIN_PATIENTS, RESAMPLES
from medseg.evaluation.subgroups import subgroup_statistics
from medseg.evaluation.summary import FORMAT_VERSION, Interval, Summary
from medseg.evaluation.voc import voc_miou
from medseg.labels import LabelScheme
from medseg.metrics.options import ScoreOptions
from medseg.metrics.registry import ALL_METRICS
from medseg.volume import Finding

__all__ = ["case_findings", "spacing_findings", "summarise", "unused_findings"]

_INCOMPLETE = (PARTIAL, "cases_left_out")


def summarise(
    pairs: Sequence[Pair],
    scores: Sequence[CaseScores],
    scheme: LabelScheme | None,
    asked: EvaluateOptions,
    findings: Sequence[Finding],
) -> Summary:
    """Statistics per label and column, over the labels, and by subgroup.

    Args:
        pairs, scores: cases in the same order; every case has the same labels, but those that are not annotated in it.
        scheme: what the integers mean, None where labels are named by their number.
        asked: what was asked for.
        findings: about the input, in any order; those that make the evaluation incomplete come first.
    """
    options = _fitting(asked, scores)
    task = asked.known_task
    rng = np.random.default_rng(asked.seed)
    # One generator draws for all: the order of these three decides the intervals.
    subgroups, without_subgroups = subgroup_statistics(scores, rng)
    labels = statistics_per_label(scores, rng)
    others = reference_models(scores, rng)
    means: dict[str, list[float]] = {}
    for found in labels.values():
        for name, each in found.items():
            if each.n:
                means.setdefault(name, []).append(each.mean)
    mean = {name: float(np.mean(values)) for name, values in means.items()}
    pooled = pooled_miou(scores, list(labels))
    of_cases = [m for m in map(case_miou, scores) if not math.isnan(m)]
    every = (
        *sorted(findings, key=lambda f: f.kind not in _INCOMPLETE),
        *without_subgroups,
    )
    n_patients = len({c.group for c in scores})
    return Summary(
        format_version=FORMAT_VERSION,
        complete=not any(f.kind in _INCOMPLETE for f in every),
        demonstration=asked.demonstration or None,
        task=asked.task,
        leading=task.leading if task else (),
        n_cases=len(scores),
        n_patients=n_patients,
        labels=labels,
        absent=absent_labels(scores),
        mean=mean,
        mean_dice=mean.get("dice"),
        miou=None if math.isnan(pooled) else pooled,
        miou_case_mean=float(np.mean(of_cases)) if of_cases else None,
        miou_voc=voc_miou([case.confusion for case in scores]) if asked.miou == "voc" else None,
        notable=notable_per_label(scores),
        others=others,
        subgroups=subgroups,
        froc=froc_curves(scores),
        confusion=confusion_summary([case.confusion for case in scores], scheme),
        interval=_interval(n_patients, asked.seed),
        options=options,
        label_values=None if scheme is None else dict(zip(scheme.names, scheme.values, strict=True)),
        groups={case.case: case.group for case in scores},
        reference_hashes={case.case: case.ref_hash for case in scores},
        scored_labels=scored_labels(pairs),
        missing_predictions=tuple(pair.case for pair in pairs if pair.pred is None),
        definitions=definitions(options, asked.miou == "voc"),
        method=method_text(options, len(scores), n_patients, asked.miou == "voc"),
        findings=every,
        versions=versions(),
    )


def _interval(n_patients: int, seed: int) -> Interval:
    few = f"too few patients for intervals: {n_patients}, at least {MIN_PATIENTS} are needed"
    note = few if n_patients < MIN_PATIENTS else None
    return Interval(0.95, INTERVAL_METHOD, RESAMPLES, seed, MIN_PATIENTS, note)


def _fitting(asked: EvaluateOptions, scores: Sequence[CaseScores]) -> ScoreOptions:
    """The options without the metrics that mean nothing in any of the cases, being in 2D."""
    return asked.score_options.fitting(max(len(case.spacing) for case in scores), spacing_known=True)


def spacing_findings(scores: Sequence[CaseScores], asked: EvaluateOptions) -> tuple[Finding, ...]:
    """That distances are in pixels where the spacing is not known, and which metrics are left out."""
    without = [c.case for c in scores if not c.spacing_known]
    metrics = [ALL_METRICS[m] for m in _fitting(asked, scores).metrics]
    if not without or not any(m.is_distance or m.needs_mm for m in metrics):
        return ()
    message = f"the voxel spacing of {len(without)} case(s) is not known: distances are in pixels"
    left_out = [m.title for m in metrics if m.needs_mm]
    if left_out:
        message += f", and {', '.join(left_out)}, which need millimetres, are left out"
    return (Finding("spacing_unknown", message),)


def unused_findings(asked: EvaluateOptions) -> tuple[Finding, ...]:
    """What was not given, where a task would have used it, and what was given for nothing."""
    task, beside = asked.known_task, asked.sources
    if task is None:
        if asked.score_options.of_probabilities:
            return ()
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


def case_findings(scores: Sequence[CaseScores]) -> tuple[Finding, ...]:
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
