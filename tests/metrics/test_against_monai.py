"""Agreement with MONAI on random masks, empty ones included: Dice, IoU, HD95, NSD, ASSD and shares of voxels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from metric_pairs import FEW_AND_ALL, mask_pair

from medseg.metrics import score_case

# MONAI and torch warn of empty masks and of NumPy's future.
pytestmark = pytest.mark.filterwarnings("ignore")


def monai_scores(
    pred: np.ndarray, ref: np.ndarray, spacing: tuple[float, ...], tolerance: float = 2.0
) -> dict[str, float]:
    """The five scores by MONAI's functions, reference first where they ask for it."""
    import torch
    from monai import metrics as monai

    p, r = (torch.from_numpy(m)[None, None] for m in (pred, ref))
    found = {
        "dice": monai.compute_dice(p, r),
        "iou": monai.compute_iou(p, r),
        "hd95": monai.compute_hausdorff_distance(p, r, include_background=True, percentile=95, spacing=spacing),
        "assd": monai.compute_average_surface_distance(p, r, include_background=True, symmetric=True, spacing=spacing),
        "nsd": monai.compute_surface_dice(p, r, [tolerance], include_background=True, spacing=spacing),
    }
    return {metric: float(value) for metric, value in found.items()}


def hd95_of_their_distances(pred: np.ndarray, ref: np.ndarray, spacing: tuple[float, ...]) -> float:
    """HD95 of MONAI's distances with the percentile in double precision: torch.quantile places it in single."""
    import torch
    from monai.metrics.utils import get_edge_surface_distance

    p, r = (torch.from_numpy(m).float() for m in (pred, ref))
    directed = get_edge_surface_distance(p, r, spacing=spacing, symmetric=True)[1]
    return max(float(np.percentile(d.double().numpy(), 95)) for d in directed)


@FEW_AND_ALL
def test_scores_equal_those_of_monai(numbers: range) -> None:
    compared = 0
    for pair in map(mask_pair, numbers):
        if not pair.both_hold_something:
            continue
        found = score_case(pair.pred, pair.ref, pair.spacing, (1,), tolerance_mm=2.0)[1]
        expected = monai_scores(pair.pred, pair.ref, pair.spacing)
        assert found["hd95"] == pytest.approx(expected["hd95"], abs=1e-3), pair.number
        expected["hd95"] = hd95_of_their_distances(pair.pred, pair.ref, pair.spacing)
        assert found == pytest.approx(expected, abs=1e-5, rel=1e-6), pair.number
        compared += 1
    assert compared >= 0.8 * len(numbers)


@FEW_AND_ALL
def test_shares_of_voxels_equal_those_of_monais_confusion_matrix(numbers: range) -> None:
    import torch
    from monai.metrics import compute_confusion_matrix_metric, get_confusion_matrix

    metrics = ("sensitivity", "precision", "specificity")
    for pair in map(mask_pair, numbers):
        if not pair.both_hold_something:
            continue
        matrix = get_confusion_matrix(*(torch.from_numpy(m)[None, None].float() for m in (pair.pred, pair.ref)))
        expected = {m: float(compute_confusion_matrix_metric(m, matrix)) for m in metrics}
        found = score_case(pair.pred, pair.ref, pair.spacing, (1,), metrics)[1]
        assert found == pytest.approx(expected, abs=1e-6), pair.number


def test_empty_masks_are_scored_otherwise_as_the_policy_says() -> None:
    empty, full = np.zeros((6, 6, 6), bool), np.zeros((6, 6, 6), bool)
    full[2:4, 2:4, 2:4] = True
    # (prediction, reference) -> ours and MONAI's; where they differ: a false finding scores 0, where MONAI leaves the
    # case out of the mean, and a missed or false mask is infinitely far by HD95, where MONAI leaves that out too.
    for pred, ref, ours, monai in (
        (empty, empty, dict.fromkeys(("dice", "iou", "hd95", "assd", "nsd"), math.nan), {}),
        (empty, full, {"dice": 0, "iou": 0, "hd95": math.inf, "assd": math.inf, "nsd": 0}, {"hd95": math.nan}),
        (
            full,
            empty,
            {"dice": 0, "iou": 0, "hd95": math.inf, "assd": math.inf, "nsd": 0},
            {"dice": math.nan, "iou": math.nan, "hd95": math.nan},
        ),
    ):
        assert score_case(pred, ref, (1, 1, 1), (1,))[1] == pytest.approx(ours, nan_ok=True)
        assert monai_scores(pred, ref, (1, 1, 1)) == pytest.approx(ours | monai, nan_ok=True)
