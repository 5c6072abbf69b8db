"""Every metric: title, unit, definition and source, in one place for reports and papers.

Which value an empty mask gets is written in `medseg.metrics.empty`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

__all__ = ["ALL_INFO", "METRIC_INFO", "PROBABILITY_INFO", "MetricInfo"]


@dataclass(frozen=True, slots=True)
class MetricInfo:
    """What a metric is.

    Args:
        title: column heading, without the unit.
        unit: "" for a share or a count, "mm" (pixels where the spacing is not known), or "ml".
        better: "higher", "lower", or "zero" for signed differences.
        definition: what is computed; names in braces are conventions that `ScoreOptions.define` fills in.
        source: where it is published.
        limits: smallest and largest value it can have.
        needs_mm: it means nothing where the spacing is not known.
        needs_3d: it means nothing in 2D.
    """

    title: str
    unit: str
    better: Literal["higher", "lower", "zero"]
    definition: str
    source: str
    limits: tuple[float, float] = (0.0, 1.0)
    needs_mm: bool = False
    needs_3d: bool = False


_TAHA = "Taha and Hanbury, BMC Medical Imaging 2015"
_CLDICE = "Shit et al., CVPR 2021"
_LESION = "lesions touch by a face, edge or corner and are matched one to one, most IoU in all, from IoU {lesion_iou}"
_BETTI = "foreground voxels touch by a corner (26 neighbours, 8 in 2D), background by a face (6, 4)"
_BRATS = "BraTS 2023, Saluja et al.; dilation {brats_dilation} voxels, lesions up to {brats_min} mm3 left out"
_KIRILLOV = "Kirillov et al., CVPR 2019"
_AMOUNT = (0.0, math.inf)


def _share(title: str, definition: str, source: str) -> MetricInfo:
    return MetricInfo(title, "", "higher", definition, source)


def _distance(title: str, definition: str, source: str) -> MetricInfo:
    return MetricInfo(title, "mm", "lower", definition, source, _AMOUNT)


def _count(title: str, definition: str, source: str) -> MetricInfo:
    return MetricInfo(title, "", "lower", definition, source, _AMOUNT)


METRIC_INFO: dict[str, MetricInfo] = {
    "dice": _share("Dice", "Dice coefficient, 2TP / (2TP + FP + FN)", "Dice, Ecology 1945"),
    "iou": _share("IoU", "Intersection over union, TP / (TP + FP + FN)", "Jaccard, New Phytologist 1912"),
    "sensitivity": _share("Sensitivity", "Share of the reference's voxels that are found, TP / (TP + FN)", _TAHA),
    "precision": _share("Precision", "Share of the found voxels that are right, TP / (TP + FP)", _TAHA),
    "specificity": _share(
        "Specificity", "Share of the voxels outside the reference that are left out, TN / (TN + FP)", _TAHA
    ),
    "volume_difference_ml": MetricInfo(
        "Volume difference",
        "ml",
        "zero",
        "Volume of the prediction less that of the reference, in ml (2D: one mm thick)",
        _TAHA,
        (-math.inf, math.inf),
        needs_mm=True,
    ),
    "volumetric_similarity": _share(
        "Volumetric similarity", "1 - |FN - FP| / (2TP + FP + FN), which knows volumes, not places", _TAHA
    ),
    "hd": _distance(
        "HD", "Hausdorff distance, the largest from either surface; surface: {surface}", "Huttenlocher et al., 1993"
    ),
    "hd95": _distance(
        "HD95",
        "95th percentile Hausdorff distance: {hd95}; surface: {surface}",
        "Huttenlocher et al., IEEE PAMI 1993",
    ),
    "assd": _distance(
        "ASSD", "Average symmetric surface distance: {assd}; surface: {surface}", "Heimann et al., IEEE TMI 2009"
    ),
    "masd": _distance(
        "MASD",
        "Mean average surface distance: mean of the two directed averages; surface: {surface}",
        "Maier-Hein, Reinke et al., Nature Methods 2024",
    ),
    "nsd": MetricInfo(
        "NSD",
        "",
        "higher",
        "Normalised surface Dice: share of both surfaces within {tolerance} mm of the other; surface: {surface}",
        "Nikolov et al., arXiv:1809.04430, 2018",
        needs_mm=True,
    ),
    "boundary_iou": _share(
        "Boundary IoU",
        "IoU of the voxels of either mask within {boundary} (mm; pixels without spacing) of a voxel outside it",
        "Cheng et al., CVPR 2021",
    ),
    "cldice": _share(
        "clDice", "Harmonic mean of the shares of either skeleton that lie inside the other mask", _CLDICE
    ),
    "skeleton_recall": _share(
        "Length recall",
        "Share of the length of the reference's skeleton that lies inside the prediction",
        "tree length detected, Zhang et al., Medical Image Analysis 2023 (ATM'22)",
    ),
    "betti_error_0": _count("Betti error 0", f"Difference of the numbers of components; {_BETTI}", _CLDICE),
    "betti_error_1": _count("Betti error 1", f"Difference of the numbers of loops (2D: holes); {_BETTI}", _CLDICE),
    "betti_error_2": MetricInfo(
        "Betti error 2",
        "",
        "lower",
        f"Difference of the numbers of cavities, in 3D; {_BETTI}",
        _CLDICE,
        _AMOUNT,
        needs_3d=True,
    ),
    "lesion_dice": _share(
        "Lesion Dice",
        f"Mean over the reference's lesions of the Dice with the matched one, 0 for a missed one; {_LESION}",
        "Maier-Hein, Reinke et al., Nature Methods 2024",
    ),
    "lesion_f1": _share("Lesion F1", f"2TP / (2TP + FP + FN) of lesions; {_LESION}", "Metrics Reloaded, 2024"),
    "lesion_sensitivity": _share(
        "Lesion sensitivity", f"Share of the reference's lesions that are found; {_LESION}", "Metrics Reloaded, 2024"
    ),
    "lesion_precision": _share(
        "Lesion precision", f"Share of the found lesions that are right; {_LESION}", "Metrics Reloaded, 2024"
    ),
    "lesion_false_positives": _count(
        "False lesions", f"Number of found lesions without a match, in a case; {_LESION}", "Metrics Reloaded, 2024"
    ),
    "pq": _share("PQ", "Panoptic quality, SQ x RQ, of lesions matched where IoU > 0.5", _KIRILLOV),
    "sq": _share("SQ", "Segmentation quality: mean IoU of lesions matched where IoU > 0.5", _KIRILLOV),
    "rq": _share("RQ", "Recognition quality: F1 of lesions matched where IoU > 0.5", _KIRILLOV),
    "brats_lesion_dice": MetricInfo(
        "Lesion-wise Dice (BraTS)",
        "",
        "higher",
        "Sum of the reference lesions' Dice, over their number and that of false lesions",
        _BRATS,
        needs_mm=True,
    ),
    "brats_lesion_hd95": MetricInfo(
        "Lesion-wise HD95 (BraTS)",
        "mm",
        "lower",
        "Sum of the reference lesions' HD95 by area, 374 mm for each missed or false one, over their number",
        _BRATS,
        _AMOUNT,
        needs_mm=True,
    ),
}
"""Metric of a mask -> what it is, in the order reports show them."""

PROBABILITY_INFO: dict[str, MetricInfo] = {
    "auc": _share("AUC", "Area under the ROC curve, ties counted half", "Hanley and McNeil, Radiology 1982"),
    "average_precision": _share(
        "Average precision", "Sum of precision times the gain in recall over all thresholds", "Davis and Goadrich, 2006"
    ),
    "brier": MetricInfo(
        "Brier", "", "lower", "Mean squared difference of probability and reference", "Brier, Monthly Weather Rev. 1950"
    ),
    "ece": MetricInfo(
        "ECE",
        "",
        "lower",
        "Expected calibration error of the foreground's probability, 15 bins of equal width",
        "Naeini et al., AAAI 2015",
    ),
}
"""The same for metrics of probabilities, `medseg.metrics.probabilistic`."""

ALL_INFO = METRIC_INFO | PROBABILITY_INFO
"""Both."""
