"""Scores of one case from its files."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.evaluation.confusion import case_confusion
from medseg.evaluation.pairs import Pair
from medseg.evaluation.reading import CaseFiles, read_case, read_pair
from medseg.labels import LabelScheme
from medseg.metrics.label_maps import LabelMaps
from medseg.metrics.overlap import Overlap
from medseg.metrics.probabilistic import score_probabilities
from medseg.metrics.score import ScoreOptions, label_groups, score_maps
from medseg.tasks import Table, Task, TaskCase, TaskScores
from medseg.volume import Finding

__all__ = ["BASELINE", "SECOND_REFERENCE", "CaseScores", "LabelScores", "Scoring", "read_pair", "score_pair"]

BASELINE = "baseline"
SECOND_REFERENCE = "second reference"


@dataclass(frozen=True, slots=True)
class LabelScores:
    """One label in one case: name -> value of its metrics and of what the task measures, and voxel counts.

    `false_positives` counts the connected components of the prediction where the reference lacks the label, else None.
    """

    values: Mapping[str, float]
    overlap: Overlap
    false_positives: int | None = None


@dataclass(frozen=True, slots=True)
class CaseScores:
    """One case. `spacing` and `diagonal` are in mm, or in pixels where `spacing_known` is False.

    Args:
        others: what stands beside the model: "baseline" and "second reference" -> label -> scores.
        tables: what the task lists in the case, by name.
        findings: what is worth knowing about the case's files and measures.
        ref_hash: of the reference's shape and values, whatever file they come from.
        subgroups: column of the list of cases -> value.
        confusion: (value in the reference, value in the prediction) -> voxels.
    """

    case: str
    group: str
    labels: Mapping[str, LabelScores]
    spacing: tuple[float, ...]
    spacing_known: bool
    diagonal: float
    total: int
    pred_values: frozenset[int]
    ref_values: frozenset[int]
    others: Mapping[str, Mapping[str, LabelScores]] = field(default_factory=dict)
    tables: Mapping[str, Table] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    ref_hash: str = ""
    subgroups: Mapping[str, str] = field(default_factory=dict)
    confusion: Mapping[tuple[int, int], int] = field(default_factory=dict)

    @property
    def voxel_size(self) -> float:
        """Size of a voxel in ml, or 1 pixel."""
        return math.prod(self.spacing) / 1000.0 if self.spacing_known else 1.0


@dataclass(frozen=True, slots=True)
class Scoring:
    """How every case of an evaluation is scored.

    Args:
        scheme: what the integers mean; None scores every integer that occurs, named by its number.
        options: metrics and conventions. What means nothing in 2D, or where the spacing is not known, is left out.
            Metrics of probabilities need a scheme.
        task: adds its measures and its baseline; it needs a scheme.
        threshold, resample_prediction: see `read_pair`.
        void: value of the reference that takes part in nothing where there is no scheme; a scheme says it itself.
    """

    scheme: LabelScheme | None
    options: ScoreOptions
    task: Task | None = None
    threshold: float | None = None
    resample_prediction: bool = False
    void: int | None = None


def score_pair(pair: Pair, scoring: Scoring) -> CaseScores:
    """Read one case and score it.

    Raises:
        ReadError, DatasetError, GeometryError: see `read_case`.
    """
    task = scoring.task
    files = read_case(
        pair, scoring.scheme, scoring.threshold, scoring.resample_prediction, with_images=task is not None
    )
    pred, ref = files.pred, files.ref
    options = scoring.options.fitting(ref.dims, ref.spacing_known)
    pred_values, ref_values = _values(pred.array), _values(ref.array)
    if scoring.scheme is None:
        ref_values -= {scoring.void}
    groups, ignore = _groups(scoring.scheme, pred_values | ref_values, scoring.void)
    labels, maps = _label_scores(pred.array, files, groups, ignore, options)
    extra = TaskScores()
    if scoring.scheme is not None:
        case = TaskCase(pred, ref, scoring.scheme, files.image, files.probabilities, files.fov)
        if options.of_probabilities:
            labels = _with_values(labels, _probability_scores(case, options.of_probabilities))
        if task is not None:
            extra = task.score(case)
            labels = _with_values(labels, extra.values)
    others = {}
    if task is not None and task.baseline is not None and scoring.scheme is not None and files.image is not None:
        painted = task.baseline(files.image, scoring.scheme)
        if painted is None:
            message = "the task's baseline is left out: it needs a CT in Hounsfield units, and the image is not one"
            extra = replace(extra, findings=(*extra.findings, Finding("no_baseline", message)))
        else:
            others[BASELINE] = _label_scores(painted, files, groups, ignore, options)[0]
    if files.second is not None:
        others[SECOND_REFERENCE] = _label_scores(files.second.array, files, groups, ignore, options)[0]
    return CaseScores(
        case=pair.case,
        group=pair.group,
        labels=labels,
        spacing=ref.spacing_mm,
        spacing_known=ref.spacing_known,
        diagonal=ref.diagonal_mm,
        total=maps.total,
        pred_values=pred_values,
        ref_values=ref_values,
        others=others,
        tables=extra.tables,
        findings=(*files.findings, *extra.findings),
        ref_hash=_content_hash(ref.array),
        subgroups=pair.subgroups,
        confusion=case_confusion(maps),
    )


def _groups(
    scheme: LabelScheme | None, found: frozenset[int], void: int | None
) -> tuple[Mapping[Any, tuple[int, ...]], int | None]:
    if scheme is None:
        return {v: (v,) for v in sorted(found - {0, void})}, void
    return label_groups(scheme)


def _label_scores(
    pred: NDArray[Any],
    files: CaseFiles,
    groups: Mapping[Any, tuple[int, ...]],
    ignore: int | None,
    options: ScoreOptions,
) -> tuple[dict[str, LabelScores], LabelMaps]:
    """Every label's scores of one mask against the reference, and both side by side."""
    known = [v for values in groups.values() for v in values]
    maps = LabelMaps.of(pred, files.ref.array, files.ref.spacing_mm, known, ignore)
    labels = {}
    for label, values in groups.items():
        scores, overlap = score_maps(maps, values, options)
        separate = _components(maps, values) if overlap.in_ref == 0 else None
        labels[str(label)] = LabelScores(scores, overlap, separate)
    return labels, maps


def _with_values(labels: Mapping[str, LabelScores], more: Mapping[str, Mapping[str, float]]) -> dict[str, LabelScores]:
    return {name: replace(found, values={**found.values, **more.get(name, {})}) for name, found in labels.items()}


def _probability_scores(case: TaskCase, metrics: Sequence[str]) -> dict[str, dict[str, float]]:
    """Of every label, over the field of view that was given; nothing for a case without probabilities."""
    counted = case.counted(case.fov)
    values = {}
    for label in case.scheme.names:
        probability = case.probability(label)
        if probability is not None:
            values[label] = score_probabilities(probability, case.scheme.mask(case.ref.array, label), counted, metrics)
    return values


def _values(array: NDArray[Any]) -> frozenset[int]:
    if array.dtype.itemsize <= 2 and array.dtype.kind in "bu":
        # Counting is several times faster than sorting, slice by slice without a large copy.
        counts = np.zeros(1 << (8 * array.dtype.itemsize), dtype=np.int64)
        for part in array.transpose(np.argsort([-abs(s) for s in array.strides])):
            counts += np.bincount(part.ravel(), minlength=len(counts))
        return frozenset(int(v) for v in np.flatnonzero(counts))
    return frozenset(int(v) for v in np.unique(array))


def _content_hash(array: NDArray[Any]) -> str:
    """The same for the same label map in any type and memory order, slice by slice without a large copy."""
    digest = hashlib.blake2b(repr(array.shape).encode(), digest_size=16)
    small = np.uint8 if int(array.max(initial=0)) < 256 else np.uint32
    for part in array.T:
        digest.update(np.ascontiguousarray(part, dtype=small).data)
    return digest.hexdigest()


def _components(maps: LabelMaps, values: Sequence[int]) -> int:
    """Connected pieces (corners touch) of the prediction."""
    first, last = maps.slices(values)
    if first == last:
        return 0
    mask = maps.masks(values, (slice(first, last),))[0]
    return int(ndimage.label(mask, np.ones((3,) * mask.ndim))[1])
