"""Statistics of every column of every label over the cases of a data set."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medseg.evaluation.columns import column, record_of
from medseg.evaluation.outliers import notable_cases
from medseg.evaluation.scoring import CaseScores, LabelScores
from medseg.evaluation.statistics import Statistics, describe_scores
from medseg.evaluation.summary import AbsentLabel, LabelStatistics, NotableCases
from medseg.metrics.empty import bounded

__all__ = ["absent_labels", "labels_of", "notable_per_label", "pooled_miou", "statistics_per_label"]


def labels_of(cases: Sequence[CaseScores]) -> list[str]:
    """Every label that any case is scored by, in the order of the case that has most of them first."""
    ordered = sorted(cases, key=lambda case: -len(case.labels))
    return list(dict.fromkeys(label for case in ordered for label in case.labels))


def statistics_per_label(
    cases: Sequence[CaseScores],
    rng: np.random.Generator,
    of: Callable[[CaseScores], Mapping[str, LabelScores]] | None = None,
) -> LabelStatistics:
    """Label -> column -> statistics over the cases whose reference holds the label.

    Args:
        cases: scores.
        rng: draws the bootstrap.
        of: which scores of a case; its own by default. Cases without scores are left out.
    """
    scores_of = of or (lambda case: case.labels)
    labels = labels_of(cases)
    return {
        label: {metric: _statistics(found, metric, rng) for metric, found in _columns(cases, label, scores_of).items()}
        for label in labels
    }


def notable_per_label(cases: Sequence[CaseScores]) -> dict[str, dict[str, NotableCases]]:
    """Label -> column -> worst cases and outliers, for the columns that know which way is better."""
    labels = labels_of(cases)
    result = {}
    for label in labels:
        columns = _columns(cases, label, lambda case: case.labels)
        found = {name: notable_cases(record_of(name), each.cases, each.values) for name, each in columns.items()}
        result[label] = {name: each for name, each in found.items() if each.worst}
    return result


def absent_labels(cases: Sequence[CaseScores]) -> dict[str, AbsentLabel]:
    """Label -> what was found in the cases whose reference lacks it, for labels with such cases."""
    labels = labels_of(cases)
    return {
        label: _absent(lacking, label)
        for label in labels
        if (lacking := [c for c in cases if label in c.labels and not c.labels[label].overlap.in_ref])
    }


def pooled_miou(cases: Sequence[CaseScores], labels: Sequence[str]) -> float:
    """Mean over the labels of the IoU of voxel counts pooled over the cases; NaN where no label occurs.

    Labels that neither side ever holds have no IoU and are left out.
    """
    found = []
    for label in labels:
        overlaps = [c.labels[label].overlap for c in cases if label in c.labels]
        hit = sum(o.true_positive for o in overlaps)
        union = hit + sum(o.false_positive + o.false_negative for o in overlaps)
        if union:
            found.append(hit / union)
    return float(np.mean(found)) if found else math.nan


@dataclass(frozen=True, slots=True)
class _Values:
    """One column of one label: finite values of the cases whose reference holds it and that have one."""

    cases: tuple[str, ...]
    groups: tuple[str, ...]
    values: tuple[float, ...]
    n_infinite: int


def _columns(
    cases: Sequence[CaseScores], label: str, scores_of: Callable[[CaseScores], Mapping[str, LabelScores]]
) -> dict[str, _Values]:
    """Column -> its values. A column that only cases without the label have is there, without values."""
    found: dict[str, list[tuple[str, str, float, float]]] = {}
    for case in cases:
        scores = scores_of(case).get(label)
        if scores is None:
            continue
        for metric, value in scores.values.items():
            rows = found.setdefault(column(metric, case.spacing_known), [])
            if scores.overlap.in_ref and not math.isnan(value):
                rows.append((case.case, case.group, value, case.diagonal))
    result = {}
    for metric, rows in found.items():
        finite, n_infinite = bounded([r[2] for r in rows], [r[3] for r in rows])
        values = tuple(float(v) for v in finite)
        result[metric] = _Values(tuple(r[0] for r in rows), tuple(r[1] for r in rows), values, n_infinite)
    return result


def _statistics(found: _Values, name: str, rng: np.random.Generator) -> Statistics:
    return describe_scores(found.values, found.groups, rng, record_of(name).limits, found.n_infinite)


def _absent(cases: Sequence[CaseScores], label: str) -> AbsentLabel:
    overlaps = [c.labels[label].overlap for c in cases]
    sizes: dict[bool, list[float]] = {}
    for case, overlap in zip(cases, overlaps, strict=True):
        sizes.setdefault(case.spacing_known, []).append(overlap.false_positive * case.voxel_size)
    return AbsentLabel(
        n=len(cases),
        n_clean=sum(o.false_positive == 0 for o in overlaps),
        specificity=float(np.mean([o.specificity for o in overlaps])),
        false_positive_count=float(np.mean([c.labels[label].false_positives or 0 for c in cases])),
        false_positive_ml=float(np.mean(sizes[True])) if True in sizes else None,
        false_positive_px=float(np.mean(sizes[False])) if False in sizes else None,
    )
