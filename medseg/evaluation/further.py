"""What a summary says beside means: subgroups, the baseline, a second observer, FROC."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from medseg.evaluation.columns import column
from medseg.evaluation.paired import compare_paired
from medseg.evaluation.scoring import CaseScores
from medseg.evaluation.subgroups import subgroups_of
from medseg.evaluation.summary import statistics_per_label
from medseg.metrics.empty import bounded
from medseg.tasks.froc import Candidate, froc, froc_score
from medseg.volume import Finding

__all__ = ["froc_summary", "others_summary", "subgroup_summary"]

_CANDIDATES = "froc_candidates"


def subgroup_summary(
    cases: Sequence[CaseScores], rng: np.random.Generator
) -> tuple[dict[str, dict[str, Any]], tuple[Finding, ...]]:
    """Column -> value -> `n_cases`, `n_patients` and `labels` as in a summary."""
    columns, findings = subgroups_of(cases)
    found = {
        name: {
            value: {
                "n_cases": len(members),
                "n_patients": len({c.group for c in members}),
                "labels": statistics_per_label(members, rng),
            }
            for value, members in groups.items()
        }
        for name, groups in columns.items()
    }
    return found, findings


def others_summary(cases: Sequence[CaseScores], rng: np.random.Generator) -> dict[str, dict[str, Any]]:
    """Name ("baseline", "second reference") -> `n_cases`, `labels` as in a summary, and `model_minus`.

    `model_minus` -> label -> column -> the fields of `Comparison`, over the cases that both scored.
    """
    result = {}
    for name in dict.fromkeys(n for c in cases for n in c.others):
        held = [c for c in cases if name in c.others]
        differences = {}
        for label in held[0].labels:
            both = [c for c in held if label in c.others[name] and c.labels[label].overlap.in_ref]
            differences[label] = _differences(both, name, label, rng)
        result[name] = {
            "n_cases": len(held),
            "labels": statistics_per_label(held, rng, lambda case, name=name: case.others[name]),  # type: ignore[misc]
            "model_minus": differences,
        }
    return result


def _differences(cases: Sequence[CaseScores], name: str, label: str, rng: np.random.Generator) -> dict[str, Any]:
    columns: dict[str, list[tuple[float, float, str]]] = {}
    for case in cases:
        other = case.others[name][label].values
        for metric in other:
            pair, _ = bounded([case.labels[label].values[metric], other[metric]], [case.diagonal] * 2)
            if not np.isnan(pair).any():
                rows = columns.setdefault(column(metric, case.spacing_known), [])
                rows.append((float(pair[0]), float(pair[1]), case.group))
    return {
        metric: asdict(compare_paired([r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows], rng))
        for metric, rows in columns.items()
    }


def froc_summary(cases: Sequence[CaseScores]) -> dict[str, Any]:
    """Label -> `score` and the curve (`false_positives_per_case`, `sensitivity`), where tasks listed candidates."""
    listed = [case.tables[_CANDIDATES][1] for case in cases if _CANDIDATES in case.tables]
    labels = dict.fromkeys(str(row[0]) for rows in listed for row in rows)
    result = {}
    for label in labels:
        candidates, lesions = [], []
        for rows in listed:
            own = [row for row in rows if row[0] == label]
            candidates.append([Candidate(float(r[1]), int(r[2] or 0)) for r in own if r[1] != ""])
            lesions.append(int(own[0][3]) if own else 0)
        if not sum(lesions):
            continue
        rates, sensitivity = froc(candidates, lesions)
        score = froc_score(rates, sensitivity)
        result[label] = {
            "score": score if math.isfinite(score) else None,
            "false_positives_per_case": [float(v) for v in rates],
            "sensitivity": [float(v) for v in sensitivity],
        }
    return result
