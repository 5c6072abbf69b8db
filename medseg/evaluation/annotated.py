"""Evaluations of references in which not every label is annotated: only the annotated ones of a case are scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from medseg.errors import DatasetError
from medseg.evaluation.case_list import listed
from medseg.evaluation.pairs import Pair
from medseg.evaluation.scoring import CaseScores, LabelScores
from medseg.labels import LabelScheme
from medseg.lookup import nearest_hint
from medseg.volume import Finding

__all__ = ["only_annotated", "scored_labels"]

PARTIAL_LABELS = "partial_labels"


def only_annotated(
    pairs: Sequence[Pair], scores: Sequence[CaseScores], scheme: LabelScheme | None
) -> tuple[tuple[CaseScores, ...], tuple[Finding, ...]]:
    """Scores without the labels that the list of cases does not call annotated, and a finding that says so.

    What such a case shows of the other labels (rows of tables, confusion) is left out, too.

    Args:
        pairs, scores: cases in the same order.
        scheme: of the labels; None where they are named by their number.

    Raises:
        DatasetError: for a label that does not exist, or one that occurs in a reference that should lack it.
    """
    partly = {pair.case: pair.annotated for pair in pairs if pair.annotated is not None}
    result = tuple(_kept(case, partly[case.case], scheme) if case.case in partly else case for case in scores)
    if not partly:
        return result, ()
    first, names = next(iter(partly.items()))
    message = (
        f"{listed(list(partly), 'case')} scored by the labels only that are annotated there (column annotated), as "
        f"{first} by {', '.join(names)}"
    )
    return result, (Finding(PARTIAL_LABELS, message, tuple(partly)),)


def scored_labels(pairs: Sequence[Pair]) -> dict[str, tuple[str, ...]]:
    """Case -> the labels that were scored, for the cases in which not all were."""
    return {pair.case: pair.annotated for pair in pairs if pair.annotated is not None}


def _kept(case: CaseScores, annotated: Sequence[str], scheme: LabelScheme | None) -> CaseScores:
    unknown = next((name for name in annotated if name not in case.labels), None)
    if unknown is not None:
        hint = nearest_hint(unknown, case.labels)
        raise DatasetError(
            f"the list of cases calls the label {unknown!r} annotated in case {case.case!r}; the labels are "
            f"{', '.join(case.labels)}{hint}"
        )
    rest = [name for name in case.labels if name not in annotated]
    values = _values(scheme, annotated)
    held = next((n for n in rest if case.ref_values & (_values(scheme, [n]) - values)), None)
    if held is not None:
        raise DatasetError(
            f"the reference of case {case.case!r} holds the label {held!r}, which the list of cases does not call "
            "annotated there; name it in the column annotated, or take it out of the reference"
        )
    tables = {
        name: (columns, tuple(row for row in rows if not (columns[:1] == ("label",) and row[0] in rest)))
        for name, (columns, rows) in case.tables.items()
    }
    return replace(
        case,
        labels=_without(case.labels, rest),
        others={name: _without(scores, rest) for name, scores in case.others.items()},
        tables=tables,
        confusion={},
    )


def _without(scores: Mapping[str, LabelScores], names: Sequence[str]) -> dict[str, LabelScores]:
    return {name: each for name, each in scores.items() if name not in names}


def _values(scheme: LabelScheme | None, names: Sequence[str]) -> frozenset[int]:
    if scheme is None:
        return frozenset(map(int, names))
    return frozenset(v for name in names for v in scheme.values[scheme.names.index(name)])
