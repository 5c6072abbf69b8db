"""What the integers in predictions and references mean, and whether they fit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from medseg.errors import ConfigError, DatasetError
from medseg.evaluation.scoring import CaseScores, LabelScores
from medseg.io.formats import is_there
from medseg.io.label_names import read_label_names
from medseg.labels import LabelScheme, label_table
from medseg.metrics.empty import empty_score
from medseg.metrics.overlap import Overlap
from medseg.metrics.registry import ALL_METRICS
from medseg.tasks import Task
from medseg.volume import Finding

__all__ = ["LABELS_FILE", "check_values", "fill_labels", "resolve_labels"]

LABELS_FILE = "labels.json"
"""`medseg predict` writes this beside its masks."""

Labels = LabelScheme | Mapping[str, int | Sequence[int]] | str | Path | None


def resolve_labels(labels: Labels, pred: Path, task: Task | None = None) -> LabelScheme | None:
    """The label scheme to score by.

    Args:
        labels: a scheme, a mapping, or a YAML or JSON file: plain `name: value` pairs, a key `labels` (and `ignore`),
            or a run's configuration with `data.labels`. Without it, `labels.json` beside the predictions.
        pred: the predictions.
        task: whose labels are used where nothing else names any.

    Returns:
        The scheme, or None: every integer in the references is then a label named by its number.

    Raises:
        ConfigError: for a file that cannot be read or names no labels; for a task without labels where none are named.
    """
    # A path that cannot exist is refused later, with the masks that it should hold.
    beside = (pred if is_there(pred) and pred.is_dir() else pred.parent) / LABELS_FILE
    written = is_there(beside) and beside.is_file()
    if labels is not None:
        given = labels if isinstance(labels, LabelScheme) else _given(labels)
        if given.is_regions and written and given.written.values == (known := read_label_names(beside)).values:
            # The masks hold regions without a value of their own under spare ones, which only their table names.
            return replace(known, ignore=given.ignore, also_ignored=given.also_ignored)
        return given
    if written:
        return read_label_names(beside)
    if task is not None and task.labels is None:
        raise ConfigError(
            f"task {task.name!r} does not know what the integers mean, and {beside} does not exist; name them with "
            "--labels, e.g. a YAML file with tumor: 1"
        )
    return task.labels if task is not None else None


def _given(labels: Mapping[str, int | Sequence[int]] | str | Path) -> LabelScheme:
    if isinstance(labels, Mapping):
        return LabelScheme.from_mapping(*label_table(labels))
    return read_label_names(Path(labels))


def check_values(cases: Sequence[CaseScores], scheme: LabelScheme | None) -> tuple[Finding, ...]:
    """Whether the integers of both sides fit the labels and each other.

    Raises:
        DatasetError: where no score can mean anything: references without any label, or both sides with other codes.
    """
    in_ref = frozenset[int]().union(*(c.ref_values for c in cases)) - {0}
    in_pred = frozenset[int]().union(*(c.pred_values for c in cases)) - {0}
    if scheme is None:
        if not in_ref:
            raise DatasetError("the references hold no label at all: every voxel is 0; are these the right files?")
        known, named = in_ref, "any reference"
    else:
        known, named = scheme.known_values - {0}, "the labels given"
        if in_ref and not in_ref & known:
            raise DatasetError(
                f"the references hold {_shown(in_ref)}, the labels are {_shown(known)}; {_remedy(in_ref)}"
            )
    if in_pred and not in_pred & known:
        raise DatasetError(
            f"the predictions hold {_shown(in_pred)}, the {'references' if scheme is None else 'labels'} "
            f"{_shown(known)}; {_remedy(in_ref | in_pred)}"
        )
    findings = []
    if scheme is not None and in_ref & set(scheme.spare):
        held = [n for n, each in zip(scheme.names, scheme.values, strict=True) if not in_ref.isdisjoint(each)]
        findings.append(
            Finding(
                "spare_values",
                f"the references hold {_shown(in_ref & set(scheme.spare))}, which only predicted masks should have, "
                f"for regions without a value of their own; it counts as {', '.join(held)}: give --labels if it means "
                "something else",
            )
        )
    for side, found in (("references", in_ref), ("predictions", in_pred)):
        if found - known:
            message = f"the {side} hold {_shown(found - known)}, not among {named}; it counts as background"
            findings.append(Finding("unknown_values", message))
    return tuple(findings)


def _remedy(values: frozenset[int]) -> str:
    if max(values) == 255:
        return "for 0/255 masks give label_threshold=127; else name the values with --labels"
    return "name the values of both sides with --labels, e.g. lung: 1"


def _shown(values: frozenset[int]) -> str:
    ordered = sorted(values)
    return (
        f"value{'s' if len(ordered) > 1 else ''} "
        + ", ".join(map(str, ordered[:8]))
        + (", ..." if len(ordered) > 8 else "")
    )


def fill_labels(cases: Sequence[CaseScores]) -> tuple[CaseScores, ...]:
    """The same labels in every case, where they were found in the files: all that any reference holds."""
    names = {str(v) for c in cases for v in c.ref_values - {0}}
    ordered = sorted(names, key=int)
    metrics = {c.case: next((tuple(s.values) for s in c.labels.values()), ()) for c in cases}
    most = max(metrics.values(), key=len, default=())
    result = []
    for case in cases:
        columns = metrics[case.case] or tuple(
            m
            for m in most
            if (case.spacing_known or not ALL_METRICS[m].needs_mm)
            and (len(case.spacing) == 3 or not ALL_METRICS[m].needs_3d)
        )
        absent = LabelScores({m: _both_empty(m) for m in columns}, Overlap(0, 0, 0, case.total), 0)
        result.append(replace(case, labels={name: case.labels.get(name, absent) for name in ordered}))
    return tuple(result)


def _both_empty(metric: str) -> float:
    score = empty_score(ALL_METRICS[metric].empty, True, True)
    return math.nan if score is None else score
