"""Boundary IoU on random masks against the definition, voxel by voxel."""

from __future__ import annotations

import numpy as np
import pytest
from metric_pairs import FEW_AND_ALL, mask_pair
from scipy.spatial.distance import cdist

from medseg.metrics import score_case


def band(mask: np.ndarray, spacing: tuple[float, ...], width: float) -> set[tuple[int, ...]]:
    """Voxels of the mask that have a voxel outside it within the width, or across a face."""
    padded = np.pad(mask, 1)
    inside, outside = np.argwhere(padded), np.argwhere(~padded)
    steps = cdist(inside, outside, "cityblock").min(axis=1)
    apart = cdist(inside * np.array(spacing), outside * np.array(spacing)).min(axis=1)
    return {tuple(v) for v in inside[(apart <= width) | (steps == 1)].tolist()}


@FEW_AND_ALL
def test_boundary_iou_is_that_of_its_definition(numbers: range) -> None:
    for pair in map(mask_pair, numbers):
        if not pair.both_hold_something:
            continue
        # The distance of all voxels to all others: a corner of the larger volumes is enough.
        corner = tuple(slice(0, 40 if pair.dims == 2 else 13) for _ in range(pair.dims))
        pred, ref = pair.pred[corner], pair.ref[corner]
        if not pred.any() or not ref.any():
            continue
        width = 1.7 + 0.01 * pair.number
        a, b = band(pred, pair.spacing, width), band(ref, pair.spacing, width)
        found = score_case(pred, ref, pair.spacing, (1,), ("boundary_iou",), boundary=width)[1]["boundary_iou"]
        assert found == pytest.approx(len(a & b) / len(a | b), abs=1e-12), pair.number


def test_the_usual_width_is_two_hundredths_of_the_diagonal() -> None:
    ref = np.zeros((60, 80), bool)
    ref[10:50, 10:70] = True
    pred = np.roll(ref, 1, axis=0)
    # 2% of the diagonal of 60 x 80 pixels of 2 mm, 200 mm, is 4 mm.
    by_default = score_case(pred, ref, (2.0, 2.0), (1,), ("boundary_iou",))
    assert by_default == score_case(pred, ref, (2.0, 2.0), (1,), ("boundary_iou",), boundary=4.0)
    assert by_default != score_case(pred, ref, (2.0, 2.0), (1,), ("boundary_iou",), boundary=3.9)
