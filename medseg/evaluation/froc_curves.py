"""FROC curves of a data set, from the candidates that a task listed in each case."""

from __future__ import annotations

import math
from collections.abc import Sequence

from medseg.evaluation.scoring import CaseScores
from medseg.evaluation.summary import FrocCurve
from medseg.tasks.froc import CANDIDATES_TABLE, Candidate, froc, froc_score

__all__ = ["froc_curves"]


def froc_curves(cases: Sequence[CaseScores]) -> dict[str, FrocCurve]:
    """Label -> its curve, for labels with lesions in a reference, where tasks listed candidates."""
    listed = [case.tables[CANDIDATES_TABLE][1] for case in cases if CANDIDATES_TABLE in case.tables]
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
        result[label] = FrocCurve(
            score if math.isfinite(score) else None,
            tuple(float(v) for v in rates),
            tuple(float(v) for v in sensitivity),
        )
    return result
