"""From scores per case to rows of a table and a summary of the data set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from medseg.evaluation.scoring import CaseScores
from medseg.evaluation.statistics import Statistics, describe_scores
from medseg.metrics.empty import DISTANCES, bounded

__all__ = ["CaseRow", "case_dice", "case_rows", "column", "summarise"]


@dataclass(frozen=True, slots=True)
class CaseRow:
    """One number: `label` is "" for what concerns the whole case."""

    case: str
    label: str
    metric: str
    value: float


def column(metric: str, spacing_known: bool) -> str:
    """The name a metric is written under: distances in pixels are told apart from those in mm."""
    return metric if spacing_known or metric not in DISTANCES else f"{metric}_px"


def case_rows(cases: Sequence[CaseScores]) -> tuple[CaseRow, ...]:
    """Every number of every case, in the order of cases and labels."""
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
        `labels` -> label -> metric -> mean, sd, median, ci_low, ci_high, n, n_infinite, n_patients;
        `absent` -> label -> the cases whose reference lacks it;
        `mean` -> metric -> mean over the labels; `mean_dice`, `miou`, `miou_case_mean`.
    """
    labels = list(cases[0].labels) if cases else []
    per_label: dict[str, dict[str, Any]] = {}
    means: dict[str, list[float]] = {}
    for label in labels:
        held = [c for c in cases if c.labels[label].overlap.in_ref]
        per_label[label] = {}
        for metric in _columns(cases, label):
            found = _statistics(held, label, metric, rng)
            per_label[label][metric] = _plain(asdict(found))
            if found.n:
                means.setdefault(metric, []).append(found.mean)
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
    }


def _columns(cases: Sequence[CaseScores], label: str) -> list[str]:
    names: dict[str, None] = {}
    for case in cases:
        names |= dict.fromkeys(column(m, case.spacing_known) for m in case.labels[label].values)
    return list(names)


def _statistics(held: Sequence[CaseScores], label: str, metric: str, rng: np.random.Generator) -> Statistics:
    values, diagonals, groups = [], [], []
    for case in held:
        for name, value in case.labels[label].values.items():
            if column(name, case.spacing_known) == metric:
                values.append(value)
                diagonals.append(case.diagonal)
                groups.append(case.group)
    finite, n_infinite = bounded(values, diagonals)
    limits = (0.0, math.inf) if metric.removesuffix("_px") in DISTANCES else (0.0, 1.0)
    return describe_scores(finite, groups, rng, limits, n_infinite)


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
