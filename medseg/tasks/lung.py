"""Lungs in chest CT: each side, volumes, density."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import astuple

import numpy as np
from numpy.typing import NDArray

from medseg.labels import LabelScheme
from medseg.metrics.metric import Column
from medseg.metrics.registry import ALL_METRICS
from medseg.metrics.score import score_case
from medseg.tasks.density import density_findings, lung_density
from medseg.tasks.laterality import split_sides
from medseg.tasks.lung_threshold import lungs_by_threshold
from medseg.tasks.task import Row, Task, TaskCase, TaskScores
from medseg.volume import Finding

__all__ = ["LUNG", "score_lungs"]

Mask = NDArray[np.bool_]

_DENSITY_COLUMNS = ("label", "side", "of", "volume_ml", "mean_hu", "perc15_hu", "laa950_percent", "doubts")
_TOLERANCE_MM = 2.0


def score_lungs(case: TaskCase) -> TaskScores:
    """Each lung by itself, volumes in ml and, where the image is a CT, density measures.

    Sides are the labels' own where the scheme has a left and a right one; a label whose name holds 'lung', or the only
    one, is split (`split_sides`), prediction and reference each by itself.

    The values are those of `LUNG.columns`. The table `density` holds the density measures themselves, by side and of
    both lungs, in prediction and reference, and in `doubts` the kinds of the findings that make them doubtful
    (`density_findings`). In 2D and without a known spacing nothing is added.
    """
    if case.ref.dims != 3 or not case.ref.spacing_known:
        return TaskScores()
    values: dict[str, dict[str, float]] = {}
    rows: list[Row] = []
    findings: list[Finding] = []
    for label, pred, ref in _lungs(case):
        found: dict[str, float] = {}
        doubts = ""
        if case.image is not None and not case.image.channels:
            doubtful = density_findings(ref["both"], case.image.array, case.ref.affine)
            findings += [f for f in doubtful if f not in findings]
            doubts = " ".join(f.kind for f in doubtful)
            found |= _density_differences(case, pred["both"], ref["both"])
            for of, sides in (("prediction", pred), ("reference", ref)):
                rows += _density_rows(case, label, of, sides, doubts)
        if {"left", "right"} <= pred.keys() & ref.keys():
            for side in ("left", "right"):
                found |= _side_scores(case, side, pred[side], ref[side])
        elif ref["both"].any():
            message = "left and right lung cannot be separated in the prediction or the reference: no scores by side"
            findings.append(Finding("lung_sides_unknown", message))
        values[label] = found
    return TaskScores(values, {"density": (_DENSITY_COLUMNS, tuple(rows))} if rows else {}, tuple(findings))


def _lungs(case: TaskCase) -> list[tuple[str, dict[str, Mask], dict[str, Mask]]]:
    """Label to write under, and the masks of both, left and right of prediction and reference."""
    scheme = case.scheme
    if scheme.left_right:
        # The volume of both lungs is reported with the first label, as the pair has none of its own.
        left, right = (scheme.names[n] for n in scheme.left_right_pairs[0])
        pairs = zip(case.masks(left), case.masks(right), strict=True)
        pred, ref = ({"both": one | other, "left": one, "right": other} for one, other in pairs)
        return [(left, pred, ref)]
    names = [n for n in scheme.names if "lung" in n.lower()] or list(scheme.names[:1])
    return [(n, *(_split(mask, case.ref.affine) for mask in case.masks(n))) for n in names]  # type: ignore[misc]


def _split(mask: Mask, affine: NDArray[np.float64]) -> dict[str, Mask]:
    sides = split_sides(mask, affine)
    return {"both": mask} if sides is None else {"both": mask, "left": sides[0], "right": sides[1]}


def _voxel_ml(case: TaskCase) -> float:
    return abs(float(np.linalg.det(case.ref.affine[:3, :3]))) / 1000


def _side_scores(case: TaskCase, side: str, pred: Mask, ref: Mask) -> dict[str, float]:
    scores = score_case(
        pred, ref, case.ref.spacing_mm, labels=(1,), metrics=("dice", "nsd"), tolerance_mm=_TOLERANCE_MM
    )
    return {f"{metric}_{side}": value for metric, value in scores[1].items()} | {
        f"volume_ml_{side}_{of}": float(np.count_nonzero(mask)) * _voxel_ml(case)
        for of, mask in (("prediction", pred), ("reference", ref))
    }


def _density_differences(case: TaskCase, pred: Mask, ref: Mask) -> dict[str, float]:
    assert case.image is not None
    one, other = (lung_density(mask, case.image.array, _voxel_ml(case)) for mask in (pred, ref))
    names = ("mean_hu", "perc15_hu", "laa950_percent")
    if one is None or other is None:
        return {f"{name}_difference": math.nan for name in names}
    return {f"{name}_difference": getattr(one, name) - getattr(other, name) for name in names}


def _density_rows(case: TaskCase, label: str, of: str, sides: Mapping[str, Mask], doubts: str) -> list[Row]:
    assert case.image is not None
    measured = {side: lung_density(mask, case.image.array, _voxel_ml(case)) for side, mask in sides.items()}
    return [(label, side, of, *astuple(found), doubts) for side, found in measured.items() if found is not None]


def _side_columns(side: str) -> dict[str, Column]:
    lung = f"the {side} lung"
    dice, nsd = ALL_METRICS["dice"], ALL_METRICS["nsd"]
    return {
        f"dice_{side}": Column(f"Dice, {side} lung", "", dice.better, f"Dice of {lung}", dice.limits),
        f"nsd_{side}": Column(
            f"NSD, {side} lung", "", nsd.better, f"NSD of {lung} at {_TOLERANCE_MM:g} mm", nsd.limits
        ),
        **{
            f"volume_ml_{side}_{of}": Column(
                f"Volume, {side} lung, {of}", "ml", definition=f"Volume of {lung} in the {of}"
            )
            for of in ("prediction", "reference")
        },
    }


def _difference(title: str, unit: str, what: str) -> Column:
    return Column(
        f"{title} difference", unit, "zero", f"{what} over both lungs: that of the predicted mask less the reference's"
    )


LUNG = Task(
    name="lung",
    labels=LabelScheme.from_mapping({"lung": 1}),
    metrics=("dice", "iou", "nsd", "hd95", "assd", "volume_difference_ml", "volumetric_similarity"),
    # A threshold alone reaches a Dice of 0.98: models differ in their surfaces.
    leading=("nsd", "hd95", "dice"),
    tolerance_mm=_TOLERANCE_MM,
    columns={
        **_side_columns("left"),
        **_side_columns("right"),
        "mean_hu_difference": _difference("Mean density", "HU", "Mean density"),
        "perc15_hu_difference": _difference("Perc15", "HU", "15th percentile of the density"),
        "laa950_percent_difference": _difference("%LAA-950", "%", "Share of voxels below -950 HU"),
    },
    score=score_lungs,
    baseline=lungs_by_threshold,
    defaults={"data.window": "lung"},
)
