"""Every number of every case, as the lines of `cases.csv`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medseg.evaluation.columns import column
from medseg.evaluation.scoring import CaseScores

__all__ = ["CaseRow", "case_dice", "case_miou", "case_rows"]


@dataclass(frozen=True, slots=True)
class CaseRow:
    """One number: `label` is "" for what concerns the whole case."""

    case: str
    label: str
    metric: str
    value: float


def case_rows(cases: Sequence[CaseScores]) -> tuple[CaseRow, ...]:
    """Every number of every case, in the order of cases and labels.

    Scores of the baseline and of a second observer carry that name: `baseline:dice`, `second reference:dice`.
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
        rows.append(CaseRow(case.case, "", "miou", case_miou(case)))
        rows.append(CaseRow(case.case, "", "diagonal_mm" if case.spacing_known else "diagonal_px", case.diagonal))
    return tuple(rows)


def case_dice(case: CaseScores) -> float:
    """Mean Dice over the labels that the case's reference holds; NaN if it holds none."""
    found = [s.overlap.dice for s in case.labels.values() if s.overlap.in_ref]
    return float(np.mean(found)) if found else math.nan


def case_miou(case: CaseScores) -> float:
    """The same of IoU."""
    found = [s.overlap.iou for s in case.labels.values() if s.overlap.in_ref]
    return float(np.mean(found)) if found else math.nan
