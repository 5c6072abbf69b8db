"""Vessels: in retinal photographs (2D) and in CT or MR angiography (3D)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from medseg.labels import LabelScheme
from medseg.metrics.metric import Column
from medseg.metrics.probabilistic import score_probabilities
from medseg.metrics.registry import ALL_METRICS
from medseg.metrics.score import score_case
from medseg.tasks.calibre import recall_by_calibre
from medseg.tasks.centreline import Centreline, measure_centreline
from medseg.tasks.field_of_view import field_of_view
from medseg.tasks.task import Row, Task, TaskCase, TaskScores
from medseg.volume import Finding

__all__ = ["VESSEL", "score_vessels"]

# Diameters that separate thin from thick vessels. Retinal arterioles of photographs are 3 to 6 pixels wide.
_EDGES = {"mm": (2.0, 4.0, 8.0), "px": (3.0, 6.0, 12.0)}
_LENGTHS = {"length": "Length", "mean_diameter": "Mean diameter", "max_diameter": "Largest diameter"}
_FOV = ("dice", "sensitivity", "specificity")

_CALIBRE_COLUMNS = ("label", "from", "to", "unit", "skeleton_voxels", "recall")
_CENTRELINE_COLUMNS = ("label", "of", "length", "mean_diameter", "max_diameter", "unit", "max_at_voxel", "branches")


def score_vessels(case: TaskCase) -> TaskScores:
    """Retina: scores within the field of view. Everywhere: recall by calibre, length and diameters.

    The values are those of `VESSEL.columns`; in 2D, where probabilities are given, also their metrics over the field of
    view. The field of view is given or found in the image (`field_of_view`). Lengths are in mm, or in pixels where the
    spacing is not known.
    """
    unit = "mm" if case.ref.spacing_known else "px"
    spacing = case.ref.spacing_mm
    fov, findings = _fov(case)
    counted = case.counted(fov)
    values: dict[str, dict[str, float]] = {}
    calibres: list[Row] = []
    lines: list[Row] = []
    for label in case.scheme.names:
        pred, ref = case.masks(label)
        found = _within_fov(pred, ref, counted) if fov is not None and counted is not None else {}
        probability = case.probability(label)
        if probability is not None and case.ref.dims == 2:
            found |= score_probabilities(probability, ref, counted)
        scores = score_case(pred, ref, spacing, labels=(1,), metrics=("nsd",), tolerance_mm=max(spacing))
        found["nsd_1_voxel"] = scores[1]["nsd"]
        for part in recall_by_calibre(pred, ref, spacing, _EDGES[unit]):
            found[_recall_name(part.low, part.high, unit)] = part.recall
            high = part.high if math.isfinite(part.high) else ""
            calibres.append((label, part.low, high, unit, part.voxels, part.recall))
        measured = {"prediction": measure_centreline(pred, spacing), "reference": measure_centreline(ref, spacing)}
        for what in _LENGTHS:
            one, other = (getattr(m, what) if m is not None else math.nan for m in measured.values())
            found[f"{what}_difference_{unit}"] = one - other
        lines += [_centreline_row(label, of, m, unit) for of, m in measured.items() if m is not None]
        values[label] = found
    tables = {"calibre": (_CALIBRE_COLUMNS, tuple(calibres)), "centreline": (_CENTRELINE_COLUMNS, tuple(lines))}
    return TaskScores(values, tables, findings)


def _fov(case: TaskCase) -> tuple[NDArray[np.bool_] | None, tuple[Finding, ...]]:
    if case.ref.dims != 2:
        return case.fov, ()
    if case.fov is not None:
        return case.fov, ()
    # One channel may be a slice of anything; colour is a photograph.
    if case.image is None or case.image.channels < 3:
        return None, ()
    found = field_of_view(case.image)
    if found is None:
        message = "no round field of view was found in the image: scores run over the whole picture"
        return None, (Finding("fov_not_found", message),)
    message = f"the field of view was found in the image ({found.mean():.0%} of the picture); give --fov to set it"
    return found, (Finding("fov_estimated", message),)


def _within_fov(pred: NDArray[np.bool_], ref: NDArray[np.bool_], fov: NDArray[np.bool_]) -> dict[str, float]:
    hit, in_pred, in_ref = (int(np.count_nonzero(m & fov)) for m in (pred & ref, pred, ref))
    outside = int(np.count_nonzero(fov)) - in_ref
    clean = outside - (in_pred - hit)
    shares = (_ratio(2 * hit, in_pred + in_ref), _ratio(hit, in_ref), _ratio(clean, outside))
    return {f"{name}_fov": share for name, share in zip(_FOV, shares, strict=True)}


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _centreline_row(label: str, of: str, line: Centreline, unit: str) -> Row:
    where = " ".join(map(str, line.max_at))
    return (label, of, line.length, line.mean_diameter, line.max_diameter, unit, where, line.branches)


def _recall_name(low: float, high: float, unit: str) -> str:
    return f"recall_{low:g}_to_{high:g}_{unit}" if math.isfinite(high) else f"recall_from_{low:g}_{unit}"


def _columns() -> dict[str, Column]:
    found = {}
    for name in _FOV:
        metric = ALL_METRICS[name]
        found[f"{name}_fov"] = Column(
            f"{metric.title}, field of view",
            "",
            metric.better,
            f"{metric.title} within the field of view",
            metric.limits,
        )
    nsd = ALL_METRICS["nsd"]
    found["nsd_1_voxel"] = Column(
        "NSD, one voxel", "", nsd.better, "NSD at a tolerance of one voxel, the largest spacing", nsd.limits
    )
    for unit, shown in (("mm", "mm"), ("px", "pixels")):
        for low, high in zip((0.0, *_EDGES[unit]), (*_EDGES[unit], math.inf), strict=True):
            width = f"{low:g} to {high:g}" if math.isfinite(high) else f"from {low:g}"
            found[_recall_name(low, high, unit)] = Column(
                f"Recall, {width} {shown} wide",
                "",
                "higher",
                f"Share of the reference's skeleton that is found where the vessel is {width} {shown} wide",
                (0.0, 1.0),
            )
        for name, title in _LENGTHS.items():
            found[f"{name}_difference_{unit}"] = Column(
                f"{title} difference", shown, "zero", f"{title} of the centreline, prediction less reference"
            )
    return found


VESSEL = Task(
    name="vessel",
    labels=LabelScheme.from_mapping({"vessel": 1}),
    metrics=(
        "dice",
        "iou",
        "sensitivity",
        "specificity",
        "precision",
        "cldice",
        "skeleton_recall",
        "betti_error_0",
        "betti_error_1",
        "betti_error_2",
        "hd95",
        "assd",
        "nsd",
    ),
    leading=("cldice", "dice", "skeleton_recall"),
    tolerance_mm=1.0,
    columns=_columns(),
    score=score_vessels,
    baseline=None,
    # Thin vessels are few voxels: more patches hold some, and no blur or coarse sampling makes them vanish.
    defaults={
        "training.foreground_fraction": 0.5,
        "augmentation.blur_probability": 0.0,
        "augmentation.low_resolution_probability": 0.0,
    },
)
