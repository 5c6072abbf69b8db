"""From scores per case to rows of a table and a summary of the data set."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from medseg.evaluation.columns import column, limits_of
from medseg.evaluation.outliers import notable_cases
from medseg.evaluation.scoring import CaseScores, LabelScores
from medseg.evaluation.statistics import Statistics, describe_scores
from medseg.metrics.empty import bounded

__all__ = ["CaseRow", "case_dice", "case_rows", "column", "statistics_per_label", "summarise"]


@dataclass(frozen=True, slots=True)
class CaseRow:
    """One number: `label` is "" for what concerns the whole case."""

    case: str
    label: str
    metric: str
    value: float


def case_rows(cases: Sequence[CaseScores]) -> tuple[CaseRow, ...]:
    """Every number of every case, in the order of cases and labels.

    Scores of what stands beside the model carry its name: `baseline:dice`, `second reference:dice`.
    """
    rows = []
    for case in cases:
        unit = "ml" if case.spacing_known else "px"
        for label, scores in case.labels.items():
            found = {column(m, case.spacing_known): v for m, v in scores.values.items()}
            found[f"reference_{unit}"] = scores.overlap.in_ref * case.voxel_size
            found[f"prediction_{unit}"] = scores.overlap.in_pred * case.voxel_size
            if scores.overlap.in_ref == 0:
                found["specificity"] = scores.overlap.specificity
                found[f"false_positive_{unit}"] = scores.overlap.false_positive * case.voxel_size
                found["false_positive_count"] = float(scores.false_positives or 0)
            for other, others in case.others.items():
                values = others[label].values if label in others else {}
                found |= {f"{other}:{column(m, case.spacing_known)}": v for m, v in values.items()}
            rows += [CaseRow(case.case, label, metric, float(value)) for metric, value in found.items()]
        rows.append(CaseRow(case.case, "", "miou", _case_miou(case)))
        rows.append(CaseRow(case.case, "", "diagonal_mm" if case.spacing_known else "diagonal_px", case.diagonal))
    return tuple(rows)


def case_dice(case: CaseScores) -> float:
    """Mean Dice over the labels that the case's reference holds; NaN if it holds none."""
    found = [s.overlap.dice for s in case.labels.values() if s.overlap.in_ref]
    return float(np.mean(found)) if found else math.nan


def summarise(cases: Sequence[CaseScores], rng: np.random.Generator) -> dict[str, Any]:
    """Statistics per label and metric, and over the labels. Numbers that do not exist are None.

    Args:
        cases: scores; every case has the same labels.
        rng: draws the bootstrap.

    Returns:
        `labels` -> label -> metric -> the fields of `Statistics`;
        `absent` -> label -> the cases whose reference lacks it;
        `mean` -> metric -> mean over the labels; `mean_dice`, `miou`, `miou_case_mean`;
        `notable` -> label -> metric -> worst cases and outliers.
    """
    labels = list(cases[0].labels) if cases else []
    per_label = statistics_per_label(cases, rng)
    means: dict[str, list[float]] = {}
    for found in per_label.values():
        for metric, each in found.items():
            if each["n"]:
                means.setdefault(metric, []).append(each["mean"])
    over_labels = {metric: float(np.mean(values)) for metric, values in means.items()}
    absent = {label: _absent(cases, label) for label in labels}
    case_mious = [m for m in (_case_miou(c) for c in cases) if not math.isnan(m)]
    return {
        "n_cases": len(cases),
        "n_patients": len({c.group for c in cases}),
        "labels": per_label,
        "absent": {label: found for label, found in absent.items() if found["n"]},
        "mean": over_labels,
        "mean_dice": over_labels.get("dice"),
        "miou": _none(_pooled_miou(cases, labels)),
        "miou_case_mean": float(np.mean(case_mious)) if case_mious else None,
        "notable": {label: _notable(cases, label) for label in labels},
    }


def statistics_per_label(
    cases: Sequence[CaseScores],
    rng: np.random.Generator,
    of: Callable[[CaseScores], Mapping[str, LabelScores]] | None = None,
) -> dict[str, dict[str, Any]]:
    """Label -> column -> the fields of `Statistics`, over the cases whose reference holds the label.

    Args:
        cases: scores.
        rng: draws the bootstrap.
        of: which scores of a case; its own by default. Cases without scores are left out.
    """
    scores_of = of or (lambda case: case.labels)
    labels = list(cases[0].labels) if cases else []
    return {
        label: {
            metric: _plain(asdict(_statistics(found, metric, rng)))
            for metric, found in _columns(cases, label, scores_of).items()
        }
        for label in labels
    }


@dataclass(frozen=True, slots=True)
class _Column:
    """One column of one label: finite values of the cases that hold it and have one."""

    cases: tuple[str, ...]
    groups: tuple[str, ...]
    values: tuple[float, ...]
    n_infinite: int


def _columns(
    cases: Sequence[CaseScores], label: str, scores_of: Callable[[CaseScores], Mapping[str, LabelScores]]
) -> dict[str, _Column]:
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
        result[metric] = _Column(tuple(r[0] for r in rows), tuple(r[1] for r in rows), values, n_infinite)
    return result


def _statistics(found: _Column, metric: str, rng: np.random.Generator) -> Statistics:
    return describe_scores(found.values, found.groups, rng, limits_of(metric), found.n_infinite)


def _notable(cases: Sequence[CaseScores], label: str) -> dict[str, Any]:
    columns = _columns(cases, label, lambda case: case.labels)
    found = {metric: notable_cases(metric, each.cases, each.values) for metric, each in columns.items()}
    return {metric: each for metric, each in found.items() if each["worst"]}


def _absent(cases: Sequence[CaseScores], label: str) -> dict[str, Any]:
    """The cases whose reference lacks the label: how often, and how much, was found where there is nothing."""
    lacking = [c for c in cases if not c.labels[label].overlap.in_ref]
    overlaps = [c.labels[label].overlap for c in lacking]
    found: dict[str, Any] = {"n": len(lacking), "n_clean": sum(o.false_positive == 0 for o in overlaps)}
    if lacking:
        found["specificity"] = _none(float(np.mean([o.specificity for o in overlaps])))
        found["false_positive_count"] = float(np.mean([c.labels[label].false_positives or 0 for c in lacking]))
        for unit, known in (("ml", True), ("px", False)):
            sizes = [
                o.false_positive * c.voxel_size
                for c, o in zip(lacking, overlaps, strict=True)
                if c.spacing_known == known
            ]
            if sizes:
                found[f"false_positive_{unit}"] = float(np.mean(sizes))
    return found


def _pooled_miou(cases: Sequence[CaseScores], labels: Sequence[str]) -> float:
    """Labels that neither side ever holds have no IoU and stay out."""
    found = []
    for label in labels:
        overlaps = [c.labels[label].overlap for c in cases]
        hit = sum(o.true_positive for o in overlaps)
        union = hit + sum(o.false_positive + o.false_negative for o in overlaps)
        if union:
            found.append(hit / union)
    return float(np.mean(found)) if found else math.nan


def _case_miou(case: CaseScores) -> float:
    found = [s.overlap.iou for s in case.labels.values() if s.overlap.in_ref]
    return float(np.mean(found)) if found else math.nan


def _none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {k: _none(v) if isinstance(v, float) else v for k, v in values.items()}
