"""`Summary`: what an evaluation says about a data set, and its form in `summary.json`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from typing import Any

from medseg.evaluation.paired import Comparison
from medseg.evaluation.statistics import Statistics
from medseg.metrics.options import ScoreOptions
from medseg.volume import Finding

__all__ = [
    "FORMAT_VERSION",
    "AbsentLabel",
    "Confusion",
    "FrocCurve",
    "Interval",
    "LabelStatistics",
    "NotableCases",
    "Outlier",
    "ReferenceModel",
    "Subgroup",
    "Summary",
    "WorstCase",
]

FORMAT_VERSION = 1

LabelStatistics = Mapping[str, Mapping[str, Statistics]]
"""Label -> column -> statistics over the cases whose reference holds the label."""


@dataclass(frozen=True, slots=True)
class AbsentLabel:
    """The cases whose reference lacks a label: how much was found where there is nothing.

    Args:
        n: how many cases.
        n_clean: in how many of them nothing was found.
        specificity: mean over the cases, of voxels; NaN without any.
        false_positive_count: mean number of separate false findings.
        false_positive_ml, false_positive_px: mean volume of what was found, in ml or pixels; None where no case has
            that unit.
    """

    n: int
    n_clean: int
    specificity: float
    false_positive_count: float
    false_positive_ml: float | None = None
    false_positive_px: float | None = None


@dataclass(frozen=True, slots=True)
class WorstCase:
    """One of the worst cases of a column."""

    case: str
    value: float


@dataclass(frozen=True, slots=True)
class Outlier:
    """A case far from the others on the worse side; `robust_z` as in `medseg.evaluation.outliers`."""

    case: str
    value: float
    robust_z: float


@dataclass(frozen=True, slots=True)
class NotableCases:
    """The cases of a column to look at, worst first."""

    worst: tuple[WorstCase, ...] = ()
    outliers: tuple[Outlier, ...] = ()


@dataclass(frozen=True, slots=True)
class ReferenceModel:
    """What the model is compared with: the task's baseline, or a second observer.

    Args:
        n_cases: how many cases it has.
        labels: its own statistics.
        model_minus: label -> column -> the model's score less its own, over the cases that both scored.
    """

    n_cases: int
    labels: LabelStatistics
    model_minus: Mapping[str, Mapping[str, Comparison]]


@dataclass(frozen=True, slots=True)
class Subgroup:
    """The cases with one value in a column of the list of cases."""

    n_cases: int
    n_patients: int
    labels: LabelStatistics


@dataclass(frozen=True, slots=True)
class FrocCurve:
    """A FROC curve: sensitivity for lesions by false positives per case, and its score as in LUNA16."""

    score: float | None
    false_positives_per_case: tuple[float, ...]
    sensitivity: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Confusion:
    """`voxels[r][p]`: how often value r of the reference was predicted as value p; `values` and their `names`."""

    values: tuple[int, ...]
    names: tuple[str, ...]
    voxels: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Interval:
    """How intervals were computed; `note` says why there are none."""

    level: float
    method: str
    resamples: int
    seed: int
    min_patients: int
    note: str | None


@dataclass(frozen=True, eq=False)
class Summary(Mapping[str, Any]):
    """What an evaluation says about a data set.

    It is also a mapping with the content of `summary.json`: `summary["labels"]["lung"]["dice"]["mean"]` is
    `summary.labels["lung"]["dice"].mean`, but None where a number does not exist, which in the attributes is NaN.

    Args:
        format_version: of `summary.json`.
        complete: False where predictions were missing, or references left out.
        demonstration: why the scores say nothing about new patients; None where they do.
        task: name of the task, or None.
        leading: columns that the task's report shows first.
        n_cases, n_patients: how many.
        labels: statistics per label and column.
        absent: label -> the cases whose reference lacks it, where there are any.
        mean: column -> mean over the labels.
        mean_dice: the same of Dice; None where it was not asked for.
        miou: IoU of voxel counts pooled over the data set, mean over the labels without background.
        miou_case_mean: mean over cases of the mean IoU of the labels that the case's reference holds.
        miou_voc: as PASCAL VOC defines it, with background; None where it was not asked for, and then not in the JSON.
        notable: label -> column -> worst cases and outliers.
        others: name -> what the model is compared with.
        subgroups: column of the list of cases -> value -> its cases.
        froc: label -> FROC curve, for tasks that list candidates.
        confusion: which value was predicted as which.
        interval: how intervals were computed.
        options: metrics and conventions.
        label_values: label -> its integers; None where labels are named by their number.
        groups: case -> patient.
        reference_hashes: case -> hash of the reference's content.
        scored_labels: case -> the labels that were scored, for cases in which not all are annotated; not in
            `summary.json` where there are none.
        missing_predictions: cases whose prediction counts as empty.
        definitions: metric -> definition under these conventions.
        method: a paragraph for the methods section.
        findings: what is worth knowing about the input.
        versions: of what computed the numbers.

    Example:
        >>> from medseg.evaluation import evaluate
        >>> summary = evaluate("masks/", "references/").summary
        >>> summary["n_cases"] == summary.n_cases
        True
    """

    format_version: int
    complete: bool
    demonstration: str | None
    task: str | None
    leading: tuple[str, ...]
    n_cases: int
    n_patients: int
    labels: LabelStatistics
    absent: Mapping[str, AbsentLabel]
    mean: Mapping[str, float]
    mean_dice: float | None
    miou: float | None
    miou_case_mean: float | None
    miou_voc: float | None
    notable: Mapping[str, Mapping[str, NotableCases]]
    others: Mapping[str, ReferenceModel]
    subgroups: Mapping[str, Mapping[str, Subgroup]]
    froc: Mapping[str, FrocCurve]
    confusion: Confusion
    interval: Interval
    options: ScoreOptions
    label_values: Mapping[str, tuple[int, ...]] | None
    groups: Mapping[str, str]
    reference_hashes: Mapping[str, str]
    scored_labels: Mapping[str, tuple[str, ...]]
    missing_predictions: tuple[str, ...]
    definitions: Mapping[str, str]
    method: str
    findings: tuple[Finding, ...]
    versions: Mapping[str, str]

    @cached_property
    def record(self) -> dict[str, Any]:
        """The content of `summary.json`: text, numbers, lists, dictionaries and None."""
        plain: dict[str, Any] = {f.name: _plain(getattr(self, f.name)) for f in fields(self)}
        if self.miou_voc is None:
            del plain["miou_voc"]
        options = plain["options"]
        plain["options"] = {"metrics": options.pop("metrics"), **options}
        if not self.scored_labels:
            del plain["scored_labels"]
        plain["findings"] = [{"kind": f.kind, "message": f.message} for f in self.findings]
        return plain

    def __getitem__(self, key: str) -> Any:
        return self.record[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.record)

    def __len__(self) -> int:
        return len(self.record)


def _plain(value: Any) -> Any:
    """For JSON: numbers that do not exist are None, a unit that no case has is left out."""
    if is_dataclass(value):
        plain = {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
        optional = ("false_positive_ml", "false_positive_px") if isinstance(value, AbsentLabel) else ()
        return {name: v for name, v in plain.items() if v is not None or name not in optional}
    if isinstance(value, Mapping):
        return {name: _plain(v) for name, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
