"""Every metric of a mask against values worked out by hand, with the working beside them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from medseg.metrics import METRIC_INFO, score_case


def mask(*rows: str) -> np.ndarray:
    """A 2D mask as it is drawn: `#` belongs to it; the first axis points down."""
    return np.array([[c == "#" for c in row] for row in rows])


def voxels(*places: tuple[int, ...], shape: tuple[int, ...] = (8, 8, 8)) -> np.ndarray:
    """A mask of single voxels."""
    found = np.zeros(shape, bool)
    found[tuple(np.transpose(places))] = True
    return found


@dataclass(frozen=True)
class Case:
    """Two masks, spacing and conventions, and what comes out."""

    pred: np.ndarray
    ref: np.ndarray
    spacing: tuple[float, ...]
    expected: dict[str, float]
    options: dict[str, Any] = field(default_factory=dict)


CASES = {
    # 512 voxels, one each, 2 steps of 1.5 mm apart. Lesions of 1.5 mm3 count only where the least volume is 0; a
    # lesion grown by three steps reaches the found one, which is therefore not false.
    "two voxels three millimetres apart": Case(
        voxels((3, 3, 3)),
        voxels((3, 3, 5)),
        (1.0, 1.0, 1.5),
        {
            "dice": 0,
            "iou": 0,
            "sensitivity": 0,
            "precision": 0,
            "specificity": 510 / 511,
            "volume_difference_ml": 0,
            "volumetric_similarity": 1,
            "hd": 3,
            "hd95": 3,
            "assd": 3,
            "masd": 3,
            "nsd": 0,
            "boundary_iou": 0,
            "cldice": 0,
            "skeleton_recall": 0,
            "betti_error_0": 0,
            "betti_error_1": 0,
            "betti_error_2": 0,
            "lesion_dice": 0,
            "lesion_f1": 0,
            "lesion_sensitivity": 0,
            "lesion_precision": 0,
            "lesion_false_positives": 1,
            "pq": 0,
            "sq": 0,
            "rq": 0,
            "brats_lesion_dice": 0,
            "brats_lesion_hd95": 3,
        },
        {"brats_min_mm3": 0.0},
    ),
    # By area: the surface of a voxel lies in the 8 cells at its corners, a share of 1/8 each. Of either voxel's, 4 lie
    # one step (1.5 mm) from the other's nearest and 4 two steps.
    "two voxels apart, by area": Case(
        voxels((3, 3, 3)),
        voxels((3, 3, 5)),
        (1.0, 1.0, 1.5),
        {"hd": 3, "hd95": 3, "assd": 2.25, "masd": 2.25, "nsd": 0.5},
        {"surface": "area"},
    ),
    "a distance equal to the tolerance is within it": Case(
        voxels((3, 3, 3)), voxels((3, 3, 5)), (1.0, 1.0, 0.7), {"nsd": 1}, {"tolerance_mm": 1.4}
    ),
    # TP 2, FP 4, FN 2 of 40 pixels of 0.5 x 2 mm, 1 mm thick. Every pixel is on the surface. Steps of 2 mm:
    # pred to ref 0 0 1 2 3 4, ref to pred 2 1 0 0. Percentiles: 4.75 of 0..5 -> 3.75, 2.85 of 0..3 -> 1.85.
    "lines that overlap": Case(
        mask("..........", "...######.", "..........", ".........."),
        mask("..........", ".####.....", "..........", ".........."),
        (0.5, 2.0),
        {
            "dice": 2 * 2 / 10,
            "iou": 2 / 8,
            "sensitivity": 2 / 4,
            "precision": 2 / 6,
            "specificity": 32 / 36,
            "volume_difference_ml": 2 * 0.001,
            "volumetric_similarity": 1 - 2 / 10,
            "hd": 4 * 2,
            "hd95": 3.75 * 2,
            "assd": (10 + 3) / 10 * 2,
            "masd": (10 / 6 + 3 / 4) / 2 * 2,
            "nsd": 8 / 10,
            "boundary_iou": 2 / 8,
        },
        {"tolerance_mm": 4.0},
    ),
    # Both directions together: 0 0 0 0 1 1 2 2 3 4, of which 8.55 of 0..9 -> 3.55.
    "lines that overlap, pooled": Case(
        mask("..........", "...######.", ".........."),
        mask("..........", ".####.....", ".........."),
        (0.5, 2.0),
        {"hd95": 3.55 * 2, "assd": (10 / 6 + 3 / 4) / 2 * 2},
        {"hd95": "pooled", "assd": "mean"},
    ),
    # By length, pixels of 1 x 1: the outline of a row of 4 runs through 5 columns of 2 cells. Those at the ends hold
    # half a diagonal each, those between 1: per column sqrt(2), 2, 2, 2, sqrt(2). Shifted by one pixel, the last
    # column of either lies 1 away, a share of sqrt(2) / (6 + 2 sqrt(2)) = 0.16 of it; 95% is reached there.
    "a row shifted by a pixel, by length": Case(
        mask(".......", "..####.", "......."),
        mask(".......", ".####..", "......."),
        (1.0, 1.0),
        {
            "hd": 1,
            "hd95": 1,
            "assd": math.sqrt(2) / (6 + 2 * math.sqrt(2)),
            "masd": math.sqrt(2) / (6 + 2 * math.sqrt(2)),
            "nsd": 1 - math.sqrt(2) / (6 + 2 * math.sqrt(2)),
        },
        {"surface": "area", "tolerance_mm": 0.5},
    ),
    # Bands one pixel wide are frames of 20 pixels. They share the upper and lower rows but for one pixel each: 10.
    "squares of 6 x 6 shifted by one pixel": Case(
        np.pad(np.ones((6, 6), bool), ((1, 1), (2, 1))),
        np.pad(np.ones((6, 6), bool), ((1, 1), (1, 2))),
        (1.0, 1.0),
        {"boundary_iou": 10 / 30},
        {"boundary": 1.0},
    ),
    # Bands two pixels wide are the square without its inner 2 x 2: 32 pixels. The squares share 5 pixels in each row;
    # in the two middle rows the inner pixels 4, 5 of one and 3, 4 of the other leave 2 of them: 4 x 5 + 2 x 2.
    "squares of 6 x 6 with bands of two pixels": Case(
        np.pad(np.ones((6, 6), bool), ((1, 1), (2, 1))),
        np.pad(np.ones((6, 6), bool), ((1, 1), (1, 2))),
        (1.0, 1.0),
        {"boundary_iou": 24 / (32 + 32 - 24)},
        {"boundary": 2.0},
    ),
    # A line is its own skeleton: 4 of the prediction's 8 pixels, 4 of the reference's 6. The reference is 5 steps
    # long, of which each pixel holds a half to either neighbour: 1 + 1 + 1 + 1/2 are found.
    "lines and their skeletons": Case(
        mask("............", "...########.", "............"),
        mask("............", ".######.....", "............"),
        (1.0, 3.0),
        {"cldice": 2 * (4 / 8) * (4 / 6) / (4 / 8 + 4 / 6), "skeleton_recall": 3.5 / 5},
    ),
    # The reference goes two steps of 4 mm down and two of 5 mm (4 down, 3 across). Found are its end, which holds half
    # a step, and the next pixel, which holds two halves.
    "length counts, not pixels": Case(
        mask("#....", "#....", ".....", ".....", "....."),
        mask("#....", "#....", "#....", ".#...", "..#.."),
        (4.0, 3.0),
        {"skeleton_recall": (2 + 4) / (4 + 4 + 5 + 5)},
    ),
    # Reference: 1 part with 1 hole. Prediction: four pixels that touch by their corners are 1 part; the pixel between
    # them touches the outside by corners only, which background does not cross: 1 hole; and a part more.
    "parts and holes in 2D": Case(
        mask(".#...#", "#.#...", ".#....", "......"),
        mask("###...", "#.#...", "###...", "......"),
        (1.0, 1.0),
        {"betti_error_0": 1, "betti_error_1": 0, "betti_error_2": 0},
    ),
    "a hole that is filled": Case(
        np.ones((3, 3), bool),
        mask("###", "#.#", "###"),
        (1.0, 1.0),
        {"betti_error_0": 0, "betti_error_1": 1, "betti_error_2": 0},
    ),
    # A hollow cube: 1 part, no loop, 1 cavity. A flat ring beside three voxels: 4 parts, 1 loop, no cavity.
    "a hollow cube against a ring": Case(
        np.pad(mask("###", "#.#", "###")[None], ((1, 1), (0, 0), (0, 6)))
        | voxels((0, 0, 8), (2, 2, 8), (2, 0, 6), shape=(3, 3, 9)),
        np.pad(~np.pad(np.ones((1, 1, 1), bool), 1), ((0, 0), (0, 0), (0, 6))),
        (1.0, 1.0, 1.0),
        {"betti_error_0": 3, "betti_error_1": 1, "betti_error_2": 1},
    ),
    # Found: 3 of 4 pixels and one beside (IoU 3/5, Dice 6/8). Missed: one pixel. False: another.
    "a lesion found, one missed, one false": Case(
        mask("......", ".####.", "......", "......", ".....#"),
        mask("......", "####..", "......", "......", ".#...."),
        (1.0, 1.0),
        {
            "lesion_dice": (6 / 8 + 0) / 2,
            "lesion_f1": 2 / (2 + 1 + 1),
            "lesion_sensitivity": 1 / 2,
            "lesion_precision": 1 / 2,
            "lesion_false_positives": 1,
            "sq": 3 / 5,
            "rq": 1 / 2,
            "pq": 3 / 10,
        },
    ),
    # Voxels of 0.1 ml. Of the reference's lesions of 6 and 5 voxels (the border, 0.5 ml, counts as large) the first is
    # found, of those of 1 and 2 voxels the first.
    "lesions by their volume": Case(
        voxels(*((1, 1, k) for k in range(1, 6)), (7, 1, 1), shape=(10, 10, 10)),
        voxels(
            *((1, 1, k) for k in range(1, 7)),
            *((4, 4, k) for k in range(1, 6)),
            (7, 1, 1),
            *((7, 7, k) for k in (1, 2)),
            shape=(10, 10, 10),
        ),
        (10.0, 10.0, 1.0),
        {"lesion_sensitivity_small": 1 / 2, "lesion_sensitivity_large": 1 / 2, "lesion_sensitivity": 2 / 4},
    ),
    # IoU 2/6: enough for the lesion scores, not for panoptic quality.
    "a lesion found by a third": Case(
        mask("......", "..####", "......"),
        mask("......", "####..", "......"),
        (1.0, 1.0),
        {"lesion_dice": 4 / 8, "lesion_f1": 1, "lesion_false_positives": 0, "sq": 0, "rq": 0, "pq": 0},
    ),
    # Half of each of two lesions: IoU 1/2 is not more than 1/2. One found lesion serves one only.
    "one found lesion over two": Case(
        mask("........", ".######.", "........"),
        mask("........", ".##..##.", "........"),
        (1.0, 1.0),
        {"lesion_dice": 0.5 * (2 * 2 / 8), "lesion_f1": 2 / 3, "lesion_sensitivity": 1 / 2, "lesion_precision": 1},
    ),
    # Steps of 1 mm. First lesion: 4 voxels, found shifted by one: Dice 6/8. Its surface (by area) lies in 5 layers of
    # 4 cells, the end ones sqrt(3)/8 each, the others 1/sqrt(2): the layer that is 1 mm off is 8% of it, so HD95 is
    # 1 mm. Second: missed. The false one is more than three steps from all.
    "BraTS: a lesion found, one missed, one false": Case(
        voxels(*((2, 2, k) for k in (2, 3, 4, 5)), (20, 20, 20), shape=(24, 24, 24)),
        voxels(*((2, 2, k) for k in (1, 2, 3, 4)), (2, 20, 20), shape=(24, 24, 24)),
        (1.0, 1.0, 1.0),
        {"brats_lesion_dice": (6 / 8 + 0) / 3, "brats_lesion_hd95": (1 + 374 + 374) / 3},
        {"brats_min_mm3": 0.0},
    ),
    # Lesions of 2 voxels with 2 between them grow into one at one step each; the found voxel is one of its 4.
    "BraTS: lesions that grow together are one": Case(
        voxels((3, 3, 1)),
        voxels((3, 3, 1), (3, 3, 2), (3, 3, 5), (3, 3, 6)),
        (1.0, 1.0, 1.0),
        {"brats_lesion_dice": 2 / 5},
        {"brats_min_mm3": 0.0, "brats_dilation": 1},
    ),
    # 4 voxels of 10 mm3 do not count where more than 40 mm3 are asked for, and what lies on them is not false.
    "BraTS: a small lesion does not count": Case(
        voxels(*((2, 2, k) for k in (2, 3, 4, 5)), *((12, 12, k) for k in range(2, 8)), shape=(16, 16, 16)),
        voxels(*((2, 2, k) for k in (1, 2, 3, 4)), *((12, 12, k) for k in range(2, 8)), shape=(16, 16, 16)),
        (2.0, 5.0, 1.0),
        {"brats_lesion_dice": 1, "brats_lesion_hd95": 0},
        {"brats_min_mm3": 40.0},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_scores_are_those_worked_out_by_hand(name: str) -> None:
    case = CASES[name]
    found = score_case(case.pred, case.ref, case.spacing, (1,), tuple(case.expected), **case.options)[1]
    assert found == pytest.approx(case.expected, rel=1e-12, abs=1e-12)


def test_every_metric_has_a_case_where_it_is_neither_0_nor_1() -> None:
    values: dict[str, set[float]] = {}
    for case in CASES.values():
        for metric, value in case.expected.items():
            values.setdefault(metric, set()).add(value)
    assert set(values) == set(METRIC_INFO)
    counts = {"betti_error_1", "betti_error_2", "lesion_false_positives"}
    assert {metric for metric, found in values.items() if not found - {0.0, 1.0}} <= counts


@pytest.mark.parametrize("metric", METRIC_INFO)
def test_equal_masks_have_the_best_score(metric: str) -> None:
    ref = np.zeros((12, 12, 12), bool)
    ref[2:7, 2:7, 2:7] = ref[9:11, 9:11, 3:8] = True
    found = score_case(ref, ref, (1.0, 2.0, 3.0), (1,), (metric,))[1][metric]
    assert found == (1.0 if METRIC_INFO[metric].better == "higher" else 0.0)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("metric", METRIC_INFO)
def test_empty_masks_have_the_score_that_the_policy_says(metric: str, dims: int) -> None:
    empty = np.zeros((10,) * dims, bool)
    full = empty.copy()
    full[(slice(3, 7),) * dims] = True
    score = {
        (in_pred, in_ref): score_case(p, r, (1.0,) * dims, (1,), (metric,))[1][metric]
        for in_pred, p in (("empty", empty), ("full", full))
        for in_ref, r in (("empty", empty), ("full", full))
    }
    both, missed, false = score["empty", "empty"], score["empty", "full"], score["full", "empty"]
    size = 4**dims
    if METRIC_INFO[metric].is_distance:
        assert math.isnan(both) and missed == false == math.inf
    elif metric == "specificity":
        # Every voxel is outside an empty reference, so its formula always has a value.
        assert (both, missed, false) == (1.0, 1.0, pytest.approx(1.0 - size / 10**dims))
    elif metric == "volume_difference_ml":
        assert (both, missed, false) == (0.0, -size / 1000, size / 1000)
    elif METRIC_INFO[metric].empty == "amount":
        counted = {"betti_error_0": (1, 1), "lesion_false_positives": (0, 1)}.get(metric, (0, 0))
        assert both == 0.0 and (missed, false) == counted
    elif metric.startswith("lesion_sensitivity_"):
        # The cube has 64 mm3: where the reference holds no lesion of a size, there is no sensitivity to it.
        assert math.isnan(both) and math.isnan(false)
        assert missed == 0.0 if metric.endswith("small") else math.isnan(missed)
    elif metric.startswith("brats"):
        # In 2D the square of 16 mm3 is too small to count when it is missed.
        best, worst = (1.0, 0.0) if metric == "brats_lesion_dice" else (0.0, 374.0)
        assert math.isnan(both) and false == worst
        assert missed == (worst if dims == 3 else best)
    else:
        assert math.isnan(both) and missed == false == 0.0


@pytest.mark.parametrize("metric", METRIC_INFO)
def test_lengths_and_volumes_follow_the_unit_and_shares_do_not(metric: str) -> None:
    rng = np.random.default_rng(3)
    pred, ref = (np.pad(rng.random((6, 6, 6)) > 0.6, 2) for _ in range(2))
    once = score_case(pred, ref, (1.0, 1.5, 2.0), (1,), (metric,), 2.0, boundary=2.0)[1][metric]
    twice = score_case(pred, ref, (2.0, 3.0, 4.0), (1,), (metric,), 4.0, boundary=4.0, brats_min_mm3=400.0)[1][metric]
    # The penalty is in mm, the border between small and large lesions in ml: neither follows.
    if metric in ("brats_lesion_hd95", "lesion_sensitivity_small", "lesion_sensitivity_large"):
        return
    factor = {"mm": 2.0, "ml": 8.0, "": 1.0}[METRIC_INFO[metric].unit]
    assert twice == pytest.approx(factor * once, rel=1e-9)
