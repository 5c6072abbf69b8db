"""What each number of an evaluation means, in words that can go into a paper."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version

import numpy as np

from medseg.evaluation.outliers import OUTLIER_METHOD
from medseg.evaluation.paired import PERMUTATIONS
from medseg.evaluation.statistics import MIN_PATIENTS, RESAMPLES
from medseg.evaluation.voc import VOC_DEFINITION
from medseg.metrics.options import ScoreOptions
from medseg.metrics.registry import ALL_METRICS

__all__ = ["INTERVAL_METHOD", "comparison_text", "definitions", "method_text", "versions"]

INTERVAL_METHOD = "BCa bootstrap over patients with small-sample expansion"


def definitions(options: ScoreOptions, voc: bool = False) -> dict[str, str]:
    """Metric -> definition, for the metrics and conventions asked for; `voc` adds the mIoU of PASCAL VOC."""
    found = {metric: options.define(metric) for metric in options.metrics}
    if any(ALL_METRICS[m].is_distance or ALL_METRICS[m].needs_mm for m in found):
        found["unknown spacing"] = (
            "Where the voxel spacing is not known, distances are in pixels (suffix _px), and what needs millimetres by "
            "definition is left out."
        )
    found |= {
        "miou": "Mean over the labels, without background, of the IoU of voxel counts pooled over the data set.",
        "miou_case_mean": "Mean over cases of the mean IoU of the labels that the case's reference holds.",
        **({"miou_voc": VOC_DEFINITION} if voc else {}),
        "empty masks": "Both masks empty: no score. One empty: Dice, IoU and NSD are 0, distances infinite. Means run "
        "over the cases whose reference holds the label; infinite distances are counted and enter the mean as the "
        "image diagonal. Cases whose reference lacks the label are scored apart: specificity TN / (TN + FP) of voxels, "
        "false-positive volume, and the number of separate false findings.",
        "interval": f"95% interval of the mean: {INTERVAL_METHOD}, {RESAMPLES} resamples (Efron 1987, Hesterberg "
        f"2015); none below {MIN_PATIENTS} patients.",
        "outliers": f"{OUTLIER_METHOD}.",
    }
    return found


def method_text(options: ScoreOptions, n_cases: int, n_patients: int, voc: bool = False) -> str:
    """A paragraph for the methods section; `voc` adds the mIoU of PASCAL VOC."""
    named = [f"{ALL_METRICS[m].title} ({_lower(options.define(m).rstrip('.'))})" for m in options.metrics]
    listed = "; ".join(named)
    parts = [
        f"Segmentations of {n_cases} case(s) from {n_patients} patient(s) were compared with the reference.",
        f"Given are {listed}.",
        "Means run over the cases whose reference holds the label; a label missed altogether scores 0 and its "
        "distances count as the image diagonal.",
    ]
    if voc:
        parts.append(f"mIoU as in PASCAL VOC: {_lower(VOC_DEFINITION)}")
    if n_patients >= MIN_PATIENTS:
        parts.append(f"95% intervals are from a {INTERVAL_METHOD} ({RESAMPLES} resamples).")
    else:
        parts.append(f"No intervals are given: there are fewer than {MIN_PATIENTS} patients.")
    known = versions()
    parts.append(f"Computed with medseg {known['medseg']} (numpy {known['numpy']}, scipy {known['scipy']}).")
    return " ".join(parts)


def comparison_text(
    n_cases: int, n_patients: int, seeds: Mapping[str, Sequence[str]], margin: float | None = None
) -> str:
    """A paragraph on how models were compared.

    Args:
        n_cases, n_patients: that all models have.
        seeds: model -> its trainings.
        margin: of non-inferiority.
    """
    several = any(len(each) > 1 for each in seeds.values())
    parts = [f"{len(seeds)} models were compared on {n_cases} case(s) from {n_patients} patient(s)."]
    if several:
        counts = ", ".join(f"{name} with {len(each)}" for name, each in seeds.items())
        parts.append(f"Trainings with different seeds count as one model ({counts}), whose score is their mean.")
    parts.append("Scores of the same cases were compared pairwise, a patient's cases counting as their mean.")
    if several:
        parts.append(
            "Differences of means have 95% intervals from a BCa bootstrap that draws patients and seeds, each by "
            "themselves (the pigeonhole bootstrap of Owen, Annals of Applied Statistics 2007), scaled to the "
            "unbiased variance of the crossed design, with Student's t and Satterthwaite's degrees of freedom; a model "
            "with a single seed adds no variation of training."
        )
    else:
        parts.append(
            "Differences of means have 95% intervals from a BCa bootstrap over patients with small-sample expansion."
        )
    parts.append(
        "Tests are a paired sign-flip permutation test of the mean difference (all patterns up to 13 patients, else "
        f"{PERMUTATIONS} random ones) and Wilcoxon's signed-rank test (zeros by Pratt), two-sided, p values corrected "
        "by Holm over all pairs and labels of a metric."
    )
    if margin is not None:
        parts.append(
            f"A model counts as non-inferior to another where it is worse by less than {margin:g} with one-sided "
            "confidence of 97.5%, which is the worse end of the 95% interval of the difference (ICH E9, section "
            "3.3.2); this is not corrected for the number of comparisons."
        )
    parts.append(
        "Models are ranked per case, label and metric and placed by their mean rank; the stability of places is from "
        "1000 bootstrap samples of patients (Wiesenfarth et al., Scientific Reports 2021)."
    )
    if several:
        parts.append("Tests and ranking are of these trainings; they do not say what further seeds would give.")
    parts.append(f"No interval, test or stability is given below {MIN_PATIENTS} patients.")
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
