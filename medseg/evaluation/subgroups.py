"""Statistics by subgroup: the further columns of the list of cases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

import numpy as np

from medseg.evaluation.label_statistics import statistics_per_label
from medseg.evaluation.scoring import CaseScores
from medseg.evaluation.summary import Subgroup
from medseg.volume import Finding

__all__ = ["subgroup_statistics", "subgroups_of"]

_MOST_VALUES = 12


def subgroup_statistics(
    cases: Sequence[CaseScores], rng: np.random.Generator
) -> tuple[dict[str, dict[str, Subgroup]], tuple[Finding, ...]]:
    """Column -> value -> its cases and their statistics; and which columns make no subgroups."""
    columns, findings = subgroups_of(cases)
    found = {
        name: {
            value: Subgroup(len(held), len({c.group for c in held}), statistics_per_label(held, rng))
            for value, held in groups.items()
        }
        for name, groups in columns.items()
    }
    return found, findings


def subgroups_of(cases: Sequence[CaseScores]) -> tuple[dict[str, dict[str, list[CaseScores]]], tuple[Finding, ...]]:
    """Column -> value -> cases.

    Numbers with more than 12 values are split at their median; other columns with more values (names, comments) are
    left out, which is a finding. Cases without a value are one group, "(none)".
    """
    columns = list(dict.fromkeys(c for case in cases for c in case.subgroups))
    result: dict[str, dict[str, list[CaseScores]]] = {}
    left_out = []
    for name in columns:
        texts = [case.subgroups.get(name, "").strip() for case in cases]
        distinct = set(texts) - {""}
        if len(distinct) > _MOST_VALUES:
            numbers = {t: _number(t) for t in distinct}
            known = [v for t in texts if (v := numbers.get(t)) is not None]
            if any(v is None for v in numbers.values()):
                left_out.append(name)
                continue
            middle = median(known)
            low, high = f"{name} <= {middle:g}", f"{name} > {middle:g}"
            texts = [t and (low if (numbers[t] or 0.0) <= middle else high) for t in texts]
        if len(set(texts)) < 2:
            continue
        found: dict[str, list[CaseScores]] = {text or "(none)": [] for text in sorted(set(texts))}
        for case, text in zip(cases, texts, strict=True):
            found[text or "(none)"].append(case)
        result[name] = found
    if not left_out:
        return result, ()
    message = f"column(s) {', '.join(left_out)} make no subgroups: more than {_MOST_VALUES} values that are not numbers"
    return result, (Finding("subgroups_left_out", message),)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
