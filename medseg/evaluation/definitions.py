"""What each number of an evaluation means, in words that can go into a paper."""

from __future__ import annotations

import platform
from importlib.metadata import version

import numpy as np

from medseg.evaluation.statistics import MIN_PATIENTS, RESAMPLES
from medseg.metrics.score import ScoreOptions

__all__ = ["TITLES", "definitions", "method_text", "versions"]

TITLES = {
    "dice": "Dice",
    "iou": "IoU",
    "hd95": "HD95 (mm)",
    "hd95_px": "HD95 (pixels)",
    "assd": "ASSD (mm)",
    "assd_px": "ASSD (pixels)",
    "nsd": "NSD",
}
"""Column headings."""

_HD95 = {
    "max_directed": "the larger of the two directed 95th percentiles",
    "pooled": "the 95th percentile of both directed sets of distances together",
}
_ASSD = {
    "pooled": "the mean distance over the surface voxels of both masks together",
    "mean": "the mean of the two directed average distances",
}


def definitions(options: ScoreOptions) -> dict[str, str]:
    """Metric -> definition, for the metrics and conventions asked for."""
    every = {
        "dice": "Dice coefficient, 2TP / (2TP + FP + FN) (Dice, Ecology 1945).",
        "iou": "Intersection over union, TP / (TP + FP + FN) (Jaccard, New Phytologist 1912).",
        "hd95": f"95th percentile Hausdorff distance: {_HD95[options.hd95]} (Huttenlocher et al., IEEE PAMI 1993).",
        "assd": f"Average symmetric surface distance: {_ASSD[options.assd]} (Heimann et al., IEEE TMI 2009).",
        "nsd": f"Normalised surface Dice: share of both surfaces' voxels within {options.tolerance_mm:g} mm of the "
        "other surface (Nikolov et al., 2018).",
    }
    found = {metric: every[metric] for metric in options.metrics}
    if any(m in found for m in ("hd95", "assd", "nsd")):
        found["surface"] = (
            "Surface voxels are mask voxels with a face neighbour (6 in 3D, 4 in 2D) outside the mask; each counts the "
            "same. Where the voxel spacing is not known, distances are in pixels (suffix _px) and NSD is left out."
        )
    found |= {
        "miou": "Mean over the labels, without background, of the IoU of voxel counts pooled over the data set.",
        "miou_case_mean": "Mean over cases of the mean IoU of the labels that the case's reference holds.",
        "empty masks": "Both masks empty: no score. One empty: Dice, IoU and NSD are 0, distances infinite. Means run "
        "over the cases whose reference holds the label; infinite distances are counted and enter the mean as the "
        "image diagonal. Cases whose reference lacks the label are scored apart: specificity TN / (TN + FP) of voxels, "
        "false-positive volume, and the number of separate false findings.",
        "interval": f"95% interval of the mean: BCa bootstrap over patients with small-sample expansion, {RESAMPLES} "
        f"resamples (Efron 1987, Hesterberg 2015); none below {MIN_PATIENTS} patients.",
    }
    return found


def method_text(options: ScoreOptions, n_cases: int, n_patients: int) -> str:
    """A paragraph for the methods section."""
    parts = [f"Segmentations of {n_cases} case(s) from {n_patients} patient(s) were compared with the reference."]
    if "dice" in options.metrics or "iou" in options.metrics:
        names = [
            n for m, n in (("dice", "Dice coefficient"), ("iou", "intersection over union")) if m in options.metrics
        ]
        parts.append(f"Overlap is given as {' and '.join(names)}.")
    surface = []
    if "hd95" in options.metrics:
        surface.append(f"the 95th percentile Hausdorff distance ({_HD95[options.hd95]})")
    if "assd" in options.metrics:
        surface.append(f"the average symmetric surface distance ({_ASSD[options.assd]})")
    if "nsd" in options.metrics:
        surface.append(f"the normalised surface Dice at {options.tolerance_mm:g} mm")
    if surface:
        parts.append(f"Agreement of surfaces is given as {', '.join(surface)}, all over surface voxels.")
    parts.append(
        "Means run over the cases whose reference holds the label; a label missed altogether scores 0 and its "
        "distances count as the image diagonal."
    )
    if n_patients >= MIN_PATIENTS:
        parts.append(
            f"95% intervals are from a BCa bootstrap over patients with small-sample expansion ({RESAMPLES} resamples)."
        )
    else:
        parts.append(f"No intervals are given: there are fewer than {MIN_PATIENTS} patients.")
    known = versions()
    parts.append(f"Computed with medseg {known['medseg']} (numpy {known['numpy']}, scipy {known['scipy']}).")
    return " ".join(parts)


def versions() -> dict[str, str]:
    """Versions of what computed the numbers."""
    from medseg import __version__

    return {
        "medseg": __version__,
        "numpy": np.__version__,
        "scipy": version("scipy"),
        "python": platform.python_version(),
    }
