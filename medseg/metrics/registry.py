"""Every metric of the package, one record each: `medseg evaluate --metrics` takes any of these names."""

from __future__ import annotations

import math
from collections.abc import Callable

from medseg.metrics.label_pair import SMALL_LESION_ML, LabelPair
from medseg.metrics.metric import Metric
from medseg.metrics.probability_counts import BINS, ProbabilityCounts

__all__ = ["ALL_METRICS", "METRIC_INFO", "PROBABILITY_INFO"]

_TAHA = "Taha and Hanbury, BMC Medical Imaging 2015"
_CLDICE = "Shit et al., CVPR 2021"
_RELOADED = "Maier-Hein, Reinke et al., Nature Methods 2024"
_LESION = "lesions touch by a face, edge or corner and are matched one to one, most IoU in all, from IoU {lesion_iou}"
_BETTI = "foreground voxels touch by a corner (26 neighbours, 8 in 2D), background by a face (6, 4)"
_BRATS = "BraTS 2023, Saluja et al."
_BRATS_RULE = "lesions dilated by {brats_dilation} voxels to separate them, those up to {brats_min_mm3} mm3 left out"
_KIRILLOV = "Kirillov et al., CVPR 2019"
_SHARE = (0.0, 1.0)
_AMOUNT = (0.0, math.inf)


def _share(title: str, definition: str, source: str, function: Callable[[LabelPair], float]) -> Metric:
    return Metric(title=title, better="higher", definition=definition, source=source, limits=_SHARE, function=function)


def _distance(title: str, definition: str, source: str, function: Callable[[LabelPair], float]) -> Metric:
    return Metric(
        title=title,
        unit="mm",
        better="lower",
        definition=definition,
        source=source,
        limits=_AMOUNT,
        decimals=2,
        function=function,
        empty="distance",
    )


def _count(
    title: str, definition: str, source: str, function: Callable[[LabelPair], float], needs_3d: bool = False
) -> Metric:
    return Metric(
        title=title,
        better="lower",
        definition=definition,
        source=source,
        limits=_AMOUNT,
        function=function,
        empty="amount",
        needs_3d=needs_3d,
    )


def _by_size(title: str, which: str, function: Callable[[LabelPair], float]) -> Metric:
    return Metric(
        title=title,
        better="higher",
        definition=f"Share of the reference's lesions {which} {SMALL_LESION_ML:g} ml that are found; {_LESION}",
        source=_RELOADED,
        limits=_SHARE,
        function=function,
        empty="formula",
        needs_mm=True,
        needs_3d=True,
    )


_OF_MASKS: dict[str, Metric] = {
    "dice": _share(
        "Dice", "Dice coefficient, 2TP / (2TP + FP + FN)", "Dice, Ecology 1945", lambda pair: pair.overlap.dice
    ),
    "iou": _share(
        "IoU",
        "Intersection over union, TP / (TP + FP + FN)",
        "Jaccard, New Phytologist 1912",
        lambda pair: pair.overlap.iou,
    ),
    "sensitivity": _share(
        "Sensitivity",
        "Share of the reference's voxels that are found, TP / (TP + FN)",
        _TAHA,
        lambda pair: pair.overlap.sensitivity,
    ),
    "precision": _share(
        "Precision",
        "Share of the found voxels that are right, TP / (TP + FP)",
        _TAHA,
        lambda pair: pair.overlap.precision,
    ),
    "specificity": Metric(
        title="Specificity",
        better="higher",
        definition="Share of the voxels outside the reference that are left out, TN / (TN + FP)",
        source=_TAHA,
        limits=_SHARE,
        function=lambda pair: pair.overlap.specificity,
        empty="formula",
    ),
    "volume_difference_ml": Metric(
        title="Volume difference",
        unit="ml",
        better="zero",
        definition="Volume of the prediction less that of the reference, in ml (2D: one mm thick)",
        source=_TAHA,
        function=lambda pair: pair.overlap.volume_difference_ml(math.prod(pair.maps.spacing)),
        empty="amount",
        needs_mm=True,
    ),
    "volumetric_similarity": _share(
        "Volumetric similarity",
        "1 - |FN - FP| / (2TP + FP + FN), which knows volumes, not places",
        _TAHA,
        lambda pair: pair.overlap.volumetric_similarity,
    ),
    "hd": _distance(
        "HD",
        "Hausdorff distance, the largest from either surface; surface: {surface}",
        "Huttenlocher et al., 1993",
        lambda pair: pair.distances.hd,
    ),
    "hd95": _distance(
        "HD95",
        "95th percentile Hausdorff distance: {hd95}; surface: {surface}",
        "Huttenlocher et al., IEEE PAMI 1993",
        lambda pair: pair.distances.hd95(pair.conventions.hd95),
    ),
    "assd": _distance(
        "ASSD",
        "Average symmetric surface distance: {assd}; surface: {surface}",
        "Heimann et al., IEEE TMI 2009",
        lambda pair: pair.distances.assd(pair.conventions.assd),
    ),
    "masd": _distance(
        "MASD",
        "Mean average surface distance: mean of the two directed averages; surface: {surface}",
        _RELOADED,
        lambda pair: pair.distances.masd,
    ),
    "nsd": Metric(
        title="NSD",
        better="higher",
        definition="Normalised surface Dice: share of both surfaces within {tolerance_mm} mm of the other; "
        "surface: {surface}",
        source="Nikolov et al., arXiv:1809.04430, 2018",
        limits=_SHARE,
        function=lambda pair: pair.distances.nsd(pair.conventions.tolerance_mm),
        needs_mm=True,
    ),
    "boundary_iou": _share(
        "Boundary IoU",
        "IoU of the voxels of either mask within {boundary} (mm; pixels without spacing) of a voxel outside it",
        "Cheng et al., CVPR 2021",
        lambda pair: pair.boundary_iou,
    ),
    "cldice": _share(
        "clDice",
        "Harmonic mean of the shares of either skeleton that lie inside the other mask",
        _CLDICE,
        lambda pair: pair.skeletons.cldice,
    ),
    "skeleton_recall": _share(
        "Length recall",
        "Share of the length of the reference's skeleton that lies inside the prediction",
        "tree length detected, Zhang et al., Medical Image Analysis 2023 (ATM'22)",
        lambda pair: pair.skeletons.recall,
    ),
    "betti_error_0": _count(
        "Betti error 0",
        f"Difference of the numbers of components; {_BETTI}",
        _CLDICE,
        lambda pair: pair.betti_errors[0],
    ),
    "betti_error_1": _count(
        "Betti error 1",
        f"Difference of the numbers of loops (2D: holes); {_BETTI}",
        _CLDICE,
        lambda pair: pair.betti_errors[1],
    ),
    "betti_error_2": _count(
        "Betti error 2",
        f"Difference of the numbers of cavities, in 3D; {_BETTI}",
        _CLDICE,
        lambda pair: pair.betti_errors[2],
        needs_3d=True,
    ),
    "lesion_dice": _share(
        "Lesion Dice",
        f"Mean over the reference's lesions of the Dice with the matched one, 0 for a missed one; {_LESION}",
        _RELOADED,
        lambda pair: pair.lesions.dice,
    ),
    "lesion_f1": _share(
        "Lesion F1",
        f"2TP / (2TP + FP + FN) of lesions; {_LESION}",
        "Metrics Reloaded, 2024",
        lambda pair: pair.lesions.f1,
    ),
    "lesion_sensitivity": _share(
        "Lesion sensitivity",
        f"Share of the reference's lesions that are found; {_LESION}",
        "Metrics Reloaded, 2024",
        lambda pair: pair.lesions.sensitivity,
    ),
    "lesion_sensitivity_small": _by_size(
        "Sensitivity, small lesions", "below", lambda pair: pair.sensitivity_by_size[0]
    ),
    "lesion_sensitivity_large": _by_size(
        "Sensitivity, large lesions", "of at least", lambda pair: pair.sensitivity_by_size[1]
    ),
    "lesion_precision": _share(
        "Lesion precision",
        f"Share of the found lesions that are right; {_LESION}",
        "Metrics Reloaded, 2024",
        lambda pair: pair.lesions.precision,
    ),
    "lesion_false_positives": _count(
        "False lesions",
        f"Number of found lesions without a match, in a case; {_LESION}",
        "Metrics Reloaded, 2024",
        lambda pair: pair.lesions.false_positives,
    ),
    "pq": _share(
        "PQ",
        "Panoptic quality, SQ x RQ, of lesions matched where IoU > 0.5",
        _KIRILLOV,
        lambda pair: pair.panoptic.panoptic_quality,
    ),
    "sq": _share(
        "SQ",
        "Segmentation quality: mean IoU of lesions matched where IoU > 0.5",
        _KIRILLOV,
        lambda pair: pair.panoptic.segmentation_quality,
    ),
    "rq": _share(
        "RQ", "Recognition quality: F1 of lesions matched where IoU > 0.5", _KIRILLOV, lambda pair: pair.panoptic.f1
    ),
    "brats_lesion_dice": Metric(
        title="Lesion-wise Dice (BraTS)",
        better="higher",
        definition=f"Sum of the reference lesions' Dice, over their number and that of false lesions; {_BRATS_RULE}",
        source=_BRATS,
        limits=_SHARE,
        function=lambda pair: pair.brats.dice,
        empty="formula",
        needs_mm=True,
    ),
    "brats_lesion_hd95": Metric(
        title="Lesion-wise HD95 (BraTS)",
        unit="mm",
        better="lower",
        definition="Sum of the reference lesions' HD95 by area, 374 mm for each missed or false one, over their "
        f"number; {_BRATS_RULE}",
        source=_BRATS,
        limits=_AMOUNT,
        function=lambda pair: pair.brats.hd95,
        empty="formula",
        needs_mm=True,
    ),
}


def _of_probabilities(
    title: str, definition: str, source: str, function: Callable[[ProbabilityCounts], float], errors: bool = False
) -> Metric:
    return Metric(
        title=title,
        better="lower" if errors else "higher",
        definition=definition,
        source=source,
        limits=_SHARE,
        function=function,
        empty="formula",
        needs="probabilities",
    )


ALL_METRICS: dict[str, Metric] = _OF_MASKS | {
    "auc": _of_probabilities(
        "AUC",
        "Area under the ROC curve, ties counted half",
        "Hanley and McNeil, Radiology 1982",
        lambda counts: counts.auc,
    ),
    "average_precision": _of_probabilities(
        "Average precision",
        "Sum of precision times the gain in recall over all thresholds",
        "Davis and Goadrich, 2006",
        lambda counts: counts.average_precision,
    ),
    "brier": _of_probabilities(
        "Brier",
        "Mean squared difference of probability and reference",
        "Brier, Monthly Weather Rev. 1950",
        lambda counts: counts.brier,
        errors=True,
    ),
    "ece": _of_probabilities(
        "ECE",
        f"Expected calibration error of the foreground's probability, {BINS} bins of equal width",
        "Naeini et al., AAAI 2015",
        lambda counts: counts.ece,
        errors=True,
    ),
}
"""Name -> metric, in the order reports show them."""

METRIC_INFO: dict[str, Metric] = {name: m for name, m in ALL_METRICS.items() if m.needs == "masks"}
"""Those that compare masks: what `medseg.metrics.score_case` takes."""

PROBABILITY_INFO: dict[str, Metric] = {name: m for name, m in ALL_METRICS.items() if m.needs == "probabilities"}
"""Those that compare probabilities with a mask: what `medseg.metrics.score_probabilities` takes."""
