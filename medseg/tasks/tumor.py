"""Tumours: lesions, or nested regions of one (BraTS: whole tumour, tumour core, enhancing tumour)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.metrics.metric import Column
from medseg.metrics.rounding import is_below
from medseg.tasks.froc import CANDIDATES_TABLE, find_candidates
from medseg.tasks.lesions import Lesion, find_lesions, label_lesions
from medseg.tasks.task import Row, Task, TaskCase, TaskScores
from medseg.volume import Finding, Volume

__all__ = ["TUMOR", "score_tumors"]

# Long axes below 10 mm are not measurable by RECIST 1.1; above 30 mm a lung nodule is a mass (Fleischner Society 2008).
_SIZES_MM = (10.0, 30.0)

_LESION_COLUMNS = (
    "label",
    "lesion",
    "of",
    "volume",
    "volume_unit",
    "long",
    "short",
    "unit",
    "slice",
    "long_ends_voxel",
    "short_ends_voxel",
    "long_ends_mm",
    "short_ends_mm",
    "center_mm",
    "matches",
    "covered",
)
_CANDIDATE_COLUMNS = ("label", "confidence", "hits_lesion", "reference_lesions")
_SIZE_COLUMNS = ("label", "long_from", "long_to", "unit", "reference_lesions", "found")


def score_tumors(case: TaskCase) -> TaskScores:
    """Every lesion of prediction and reference with volume and RECIST axes, what it matches, detection by size.

    The values are those of `TUMOR.columns`.

    Tables: `lesions` (ids are P1, P2, ... and R1, R2, ..., largest first; `matches` are the lesions of the other mask
    that it touches; `covered` the share of it that the other mask holds), `detection_by_size`, and, with
    probabilities, `froc_candidates` for `medseg.tasks.froc.froc`.
    """
    known = case.ref.spacing_known
    unit = "mm" if known else "px"
    volume_unit = "ml" if known and case.ref.dims == 3 else "mm2" if known else "px2" if case.ref.dims == 2 else "px3"
    values: dict[str, dict[str, float]] = {}
    lesions: list[Row] = []
    sizes: list[Row] = []
    candidates: list[Row] = []
    for label in case.scheme.names:
        pred, ref = case.masks(label)
        found, true = find_lesions(pred, case.ref.affine), find_lesions(ref, case.ref.affine)
        scale = 1000.0 if volume_unit == "px3" else 1.0
        values[label] = {
            f"volume_{volume_unit}_prediction": scale * sum(each.volume_ml for each in found),
            f"volume_{volume_unit}_reference": scale * sum(each.volume_ml for each in true),
            f"long_axis_difference_{unit}": _longest(found) - _longest(true),
            f"sum_of_axes_difference_{unit}": _sum(found) - _sum(true),
        }
        numbers = {
            "P": label_lesions(pred, case.ref.affine),
            "R": label_lesions(ref, case.ref.affine),
        }
        for own, other, each in (("R", "P", true), ("P", "R", found)):
            for lesion, box in zip(each, ndimage.find_objects(numbers[own]), strict=True):
                touched = numbers[other][box][numbers[own][box] == lesion.number]
                row = _lesion_row(label, own, lesion, touched, other, scale, volume_unit, unit)
                lesions.append(row)
        hit = {n for n in np.unique(numbers["R"][pred]).tolist() if n}
        sizes += _by_size(label, true, hit, unit)
        probability = case.probability(label)
        if probability is not None:
            candidates += [
                (label, c.confidence, c.lesion or "", len(true))
                for c in find_candidates(probability, ref, case.ref.affine)
            ] or [(label, "", "", len(true))]
    tables = {"lesions": (_LESION_COLUMNS, tuple(lesions)), "detection_by_size": (_SIZE_COLUMNS, tuple(sizes))}
    if candidates:
        tables[CANDIDATES_TABLE] = (_CANDIDATE_COLUMNS, tuple(candidates))
    return TaskScores(values, tables, _findings(case.ref))


def _findings(ref: Volume) -> tuple[Finding, ...]:
    if ref.dims != 3:
        return ()
    thickness = max(ref.spacing_mm)
    if not ref.spacing_known or thickness <= 5:
        return ()
    # RECIST 1.1: with slices thicker than 5 mm the smallest measurable lesion is twice the thickness.
    message = (
        f"voxels are {thickness:.3g} mm long: by RECIST 1.1 lesions below {2 * thickness:.3g} mm are not measurable"
    )
    return (Finding("thick_slices", message),)


def _lesion_row(
    label: str,
    own: str,
    lesion: Lesion,
    touched: NDArray[np.int32],
    other: str,
    scale: float,
    volume_unit: str,
    unit: str,
) -> Row:
    matches = [f"{other}{n}" for n in np.unique(touched).tolist() if n]
    axes = lesion.diameters
    return (
        label,
        f"{own}{lesion.number}",
        "reference" if own == "R" else "prediction",
        lesion.volume_ml * scale,
        volume_unit,
        axes.long_mm,
        axes.short_mm,
        unit,
        axes.slice if axes.axis >= 0 else "",
        _points(axes.long_ends),
        _points(axes.short_ends),
        _points(axes.long_ends_mm),
        _points(axes.short_ends_mm),
        _points(lesion.center_mm[None]),
        " ".join(matches),
        float(np.count_nonzero(touched)) / lesion.voxels,
    )


def _points(points: NDArray[np.float64]) -> str:
    return "; ".join(" ".join(f"{x:.2f}" for x in point) for point in points)


def _longest(lesions: tuple[Lesion, ...]) -> float:
    return max((each.diameters.long_mm for each in lesions), default=math.nan)


def _sum(lesions: tuple[Lesion, ...]) -> float:
    return sum(each.diameters.long_mm for each in lesions)


def _by_size(label: str, lesions: tuple[Lesion, ...], hit: set[int], unit: str) -> list[Row]:
    rows: list[Row] = []
    for low, high in zip((0.0, *_SIZES_MM), (*_SIZES_MM, math.inf), strict=True):
        here = [
            each.number
            for each in lesions
            if is_below(each.diameters.long_mm, high) and not is_below(each.diameters.long_mm, low)
        ]
        found = sum(n in hit for n in here)
        rows.append((label, low, high if math.isfinite(high) else "", unit, len(here), found))
    return rows


def _columns() -> dict[str, Column]:
    """In every unit that a case may have: ml and mm in 3D, mm2 in 2D, pixels where the spacing is not known."""
    found = {}
    for unit, shown in (("ml", "ml"), ("mm2", "mm\N{SUPERSCRIPT TWO}"), ("px2", "pixels"), ("px3", "voxels")):
        for of in ("prediction", "reference"):
            found[f"volume_{unit}_{of}"] = Column(
                f"{'Volume' if unit in ('ml', 'px3') else 'Area'}, {of}",
                shown,
                definition=f"Size of all lesions in the {of}",
            )
    for unit, shown in (("mm", "mm"), ("px", "pixels")):
        found[f"long_axis_difference_{unit}"] = Column(
            "Long axis difference",
            shown,
            "zero",
            "Longest axis (RECIST 1.1) of the case, prediction less reference",
        )
        found[f"sum_of_axes_difference_{unit}"] = Column(
            "Sum of long axes, difference", shown, "zero", "Sum of the lesions' long axes, prediction less reference"
        )
    return found


TUMOR = Task(
    name="tumor",
    # 3 is non-enhancing tumour in BraTS 2013, unused in 2017 to 2021, enhancing tumour in 2023: the data set says.
    labels=None,
    metrics=(
        "dice",
        "iou",
        "sensitivity",
        "precision",
        "hd95",
        "assd",
        "nsd",
        "volume_difference_ml",
        "lesion_dice",
        "lesion_f1",
    ),
    leading=("dice", "lesion_f1", "hd95"),
    tolerance_mm=2.0,
    columns=_columns(),
    score=score_tumors,
    baseline=None,
    # A tumour is a small part of its image: half of the patches hold some of it.
    defaults={"training.foreground_fraction": 0.5},
)
