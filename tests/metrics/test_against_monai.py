"""Agreement with MONAI on random blobs, with and without empty masks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from medseg.metrics import score_case

pytestmark = pytest.mark.filterwarnings("ignore")


def blobs(seed: int, dims: int) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(12, 26, dims))
    spacing = tuple(float(s) for s in rng.uniform(0.5, 3.0, dims))
    field = ndimage.gaussian_filter(rng.standard_normal(shape), 2.0)
    other = field + 0.4 * field.std() * ndimage.gaussian_filter(rng.standard_normal(shape), 1.0) / 0.3
    level = field.std() * rng.uniform(0.2, 1.0)
    return other > level, field > level, spacing


@pytest.mark.parametrize("dims", [2, 3])
def test_scores_equal_those_of_monai(dims: int) -> None:
    import torch
    from monai.metrics import (
        compute_average_surface_distance,
        compute_dice,
        compute_hausdorff_distance,
        compute_iou,
        compute_surface_dice,
    )

    compared = 0
    for seed in range(25):
        pred, ref, spacing = blobs(seed, dims)
        if not pred.any() or not ref.any():
            continue
        p, r = (torch.from_numpy(m)[None, None] for m in (pred, ref))
        expected = {
            "dice": compute_dice(p, r),
            "iou": compute_iou(p, r),
            "hd95": compute_hausdorff_distance(p, r, include_background=True, percentile=95, spacing=spacing),
            "assd": compute_average_surface_distance(p, r, include_background=True, symmetric=True, spacing=spacing),
            "nsd": compute_surface_dice(p, r, class_thresholds=[2.0], include_background=True, spacing=spacing),
        }
        found = score_case(pred, ref, spacing, (1,), tolerance_mm=2.0)[1]
        for metric, value in expected.items():
            assert found[metric] == pytest.approx(float(value), abs=1e-5), (seed, metric)
        compared += 1
    assert compared >= 20


def test_where_empty_masks_are_scored_otherwise_than_in_monai() -> None:
    import torch
    from monai.metrics import compute_dice

    empty, full = np.zeros((6, 6, 6), bool), np.ones((6, 6, 6), bool)
    p, r = (torch.from_numpy(m)[None, None] for m in (full, empty))
    # MONAI leaves a case out (NaN) where the reference is empty; here a false finding scores 0.
    assert math.isnan(float(compute_dice(p, r)))
    assert score_case(full, empty, (1, 1, 1), (1,), ("dice",))[1]["dice"] == 0.0
