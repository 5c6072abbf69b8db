"""The model beside its task's baseline and a second observer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medseg.evaluation.columns import column
from medseg.evaluation.label_statistics import labels_of, statistics_per_label
from medseg.evaluation.paired import Comparison, compare_paired
from medseg.evaluation.scoring import CaseScores
from medseg.evaluation.summary import ReferenceModel
from medseg.metrics.empty import bounded

__all__ = ["reference_models"]


def reference_models(cases: Sequence[CaseScores], rng: np.random.Generator) -> dict[str, ReferenceModel]:
    """Name ("baseline", "second reference") -> its scores, and the model's less its own."""
    result = {}
    for name in dict.fromkeys(n for c in cases for n in c.others):
        held = [c for c in cases if name in c.others]
        differences = {}
        for label in labels_of(held):
            both = [c for c in held if label in c.others[name] and c.labels[label].overlap.in_ref]
            differences[label] = _differences(both, name, label, rng)
        statistics = statistics_per_label(held, rng, lambda case, name=name: case.others[name])  # type: ignore[misc]
        result[name] = ReferenceModel(len(held), statistics, differences)
    return result


def _differences(cases: Sequence[CaseScores], name: str, label: str, rng: np.random.Generator) -> dict[str, Comparison]:
    columns: dict[str, list[tuple[float, float, str]]] = {}
    for case in cases:
        other = case.others[name][label].values
        for metric in other:
            pair, _ = bounded([case.labels[label].values[metric], other[metric]], [case.diagonal] * 2)
            if not np.isnan(pair).any():
                rows = columns.setdefault(column(metric, case.spacing_known), [])
                rows.append((float(pair[0]), float(pair[1]), case.group))
    return {
        metric: compare_paired([r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows], rng)
        for metric, rows in columns.items()
    }
