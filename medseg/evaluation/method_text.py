"""What each number of an evaluation means, in words that can go into a paper."""

from __future__ import annotations

import platform
from importlib.metadata import version

import numpy as np

from medseg.evaluation.outliers import OUTLIER_METHOD
from medseg.evaluation.statistics import MIN_PATIENTS, RESAMPLES
from medseg.metrics.options import ScoreOptions
from medseg.metrics.registry import ALL_METRICS

__all__ = ["INTERVAL_METHOD", "definitions", "method_text", "versions"]

INTERVAL_METHOD = "BCa bootstrap over patients with small-sample expansion"


def definitions(options: ScoreOptions) -> dict[str, str]:
    """Metric -> definition, for the metrics and conventions asked for."""
    found = {metric: options.define(metric) for metric in options.metrics}
    if any(ALL_METRICS[m].is_distance or ALL_METRICS[m].needs_mm for m in found):
        found["unknown spacing"] = (
            "Where the voxel spacing is not known, distances are in pixels (suffix _px), and what needs millimetres by "
            "definition is left out."
        )
    found |= {
        "miou": "Mean over the labels, without background, of the IoU of voxel counts pooled over the data set.",
        "miou_case_mean": "Mean over cases of the mean IoU of the labels that the case's reference holds.",
        "empty masks": "Both masks empty: no score. One empty: Dice, IoU and NSD are 0, distances infinite. Means run "
        "over the cases whose reference holds the label; infinite distances are counted and enter the mean as the "
        "image diagonal. Cases whose reference lacks the label are scored apart: specificity TN / (TN + FP) of voxels, "
        "false-positive volume, and the number of separate false findings.",
        "interval": f"95% interval of the mean: {INTERVAL_METHOD}, {RESAMPLES} resamples (Efron 1987, Hesterberg "
        f"2015); none below {MIN_PATIENTS} patients.",
        "outliers": f"{OUTLIER_METHOD}.",
    }
    return found


def method_text(options: ScoreOptions, n_cases: int, n_patients: int) -> str:
    """A paragraph for the methods section."""
    named = [f"{ALL_METRICS[m].title} ({_lower(options.define(m).rstrip('.'))})" for m in options.metrics]
    listed = "; ".join(named)
    parts = [
        f"Segmentations of {n_cases} case(s) from {n_patients} patient(s) were compared with the reference.",
        f"Given are {listed}.",
        "Means run over the cases whose reference holds the label; a label missed altogether scores 0 and its "
        "distances count as the image diagonal.",
    ]
    if n_patients >= MIN_PATIENTS:
        parts.append(f"95% intervals are from a {INTERVAL_METHOD} ({RESAMPLES} resamples).")
    else:
        parts.append(f"No intervals are given: there are fewer than {MIN_PATIENTS} patients.")
    known = versions()
    parts.append(f"Computed with medseg {known['medseg']} (numpy {known['numpy']}, scipy {known['scipy']}).")
    return " ".join(parts)


def _lower(text: str) -> str:
    """Without a capital first letter, unless it is a name such as 'IoU' or 'F1'."""
    plain = text.split()[0][1:].islower() and not text.startswith("Dice")
    return text[0].lower() + text[1:] if plain else text


def versions() -> dict[str, str]:
    """Versions of what computed the numbers."""
    from medseg.version import __version__

    return {
        "medseg": __version__,
        "numpy": np.__version__,
        "scipy": version("scipy"),
        "python": platform.python_version(),
    }
