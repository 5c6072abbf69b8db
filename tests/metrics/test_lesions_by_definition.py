"""Lesion scores on random masks against the published definitions, written out plainly.

Outside the suite the same 300 pairs go through panoptica (benchmarks/lesions.py), and went through the steps of the
BraTS 2023 code; what differs is in the docstrings of `medseg.metrics.lesions` and `medseg.metrics.lesions_brats`.
"""

from __future__ import annotations

import math
from types import ModuleType

import networkx as nx
import numpy as np
import pytest
from metric_pairs import FEW_AND_ALL, MaskPair, mask_pair
from scipy import ndimage
from skimage.measure import label

from medseg.metrics import score_case
from medseg.metrics.lesions import match_lesions, sensitivity_by_size
from medseg.metrics.lesions_brats import PENALTY_MM, brats_lesions

Lesions = list[np.ndarray]


def lesions_of(mask: np.ndarray) -> Lesions:
    parts = label(mask, connectivity=mask.ndim)
    return [parts == n for n in range(1, parts.max() + 1)]


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.count_nonzero(a & b) / np.count_nonzero(a | b))


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b)))


def overlaps(pair: MaskPair) -> dict[tuple[int, int], float]:
    """(reference lesion, predicted lesion) -> IoU, of those that overlap."""
    refs, preds = lesions_of(pair.ref), lesions_of(pair.pred)
    return {(i, j): iou(r, p) for i, r in enumerate(refs) for j, p in enumerate(preds) if (r & p).any()}


@FEW_AND_ALL
def test_panoptic_quality_is_that_of_kirillov(numbers: range) -> None:
    for pair in map(mask_pair, numbers):
        if not pair.both_hold_something:
            continue
        matched = [value for value in overlaps(pair).values() if value > 0.5]
        n = label(pair.ref, connectivity=pair.dims).max() + label(pair.pred, connectivity=pair.dims).max()
        expected = {
            "pq": sum(matched) / (n / 2),
            "sq": np.mean(matched) if matched else 0.0,
            "rq": len(matched) * 2 / n,
        }
        found = score_case(pair.pred, pair.ref, pair.spacing, (1,), ("pq", "sq", "rq"))[1]
        assert found == pytest.approx(expected, abs=1e-12), pair.number


@FEW_AND_ALL
def test_lesions_are_matched_so_that_the_sum_of_their_iou_is_largest(numbers: range) -> None:
    for pair in map(mask_pair, numbers):
        graph = nx.Graph()
        graph.add_weighted_edges_from((("r", i), ("p", j), v) for (i, j), v in overlaps(pair).items() if v >= 0.1)
        best = sum(graph.edges[edge]["weight"] for edge in nx.max_weight_matching(graph))
        match = match_lesions(pair.pred, pair.ref, pair.spacing, 0.1)
        assert sum(row.iou for row in match.reference) == pytest.approx(best, abs=1e-9), pair.number
        partners = [row.matched for row in match.reference if row.matched is not None]
        assert len(set(partners)) == len(partners) == match.true_positives
        for row in match.reference:
            if row.matched is not None:
                other = match.prediction[row.matched - 1]
                assert (other.matched, other.iou, other.dice) == (row.number, row.iou, row.dice) and row.iou >= 0.1
                assert row.dice == pytest.approx(2 * row.iou / (1 + row.iou))


@FEW_AND_ALL
def test_lesion_scores_follow_from_the_matched_lesions(numbers: range) -> None:
    metrics = (
        "lesion_dice",
        "lesion_f1",
        "lesion_sensitivity",
        "lesion_precision",
        "lesion_false_positives",
    )
    for pair in map(mask_pair, numbers):
        refs, preds = lesions_of(pair.ref), lesions_of(pair.pred)
        match = match_lesions(pair.pred, pair.ref, pair.spacing, 0.1)
        voxels = math.prod(pair.spacing) / 1000
        for rows, lesions in ((match.reference, refs), (match.prediction, preds)):
            sizes = sorted((np.count_nonzero(m) for m in lesions), reverse=True)
            assert [row.voxels for row in rows] == sizes
            assert [row.volume_ml for row in rows] == pytest.approx([s * voxels for s in sizes])
        if not refs or not preds:
            continue
        hits = [row.dice for row in match.reference if row.matched is not None]
        expected = (
            sum(hits) / len(refs),
            2 * len(hits) / (len(refs) + len(preds)),
            len(hits) / len(refs),
            len(hits) / len(preds),
            len(preds) - len(hits),
        )
        found = score_case(pair.pred, pair.ref, pair.spacing, (1,), metrics)[1]
        assert tuple(found.values()) == pytest.approx(expected), pair.number


def grown(mask: np.ndarray, steps: int) -> np.ndarray:
    """Every voxel that as many moves, along one or two axes at a time, lead to."""
    for _ in range(steps):
        padded = np.pad(mask, 1)
        moves = [m for m in np.ndindex(*(3,) * mask.ndim) if np.count_nonzero(np.array(m) != 1) <= 2]
        inner = [tuple(slice(o, o + n) for o, n in zip(m, mask.shape, strict=True)) for m in moves]
        mask = np.any([padded[place] for place in inner], axis=0)
    return mask


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """surface-distance with NumPy 2, for the distances as BraTS takes them."""
    monkeypatch.setattr(np, "Inf", np.inf, raising=False)
    import surface_distance.metrics

    return surface_distance.metrics


def brats_by_definition(pair: MaskPair, dilation: int, min_mm3: float, peer: ModuleType) -> dict[str, float] | None:
    refs, preds = label(grown(pair.ref, dilation), connectivity=pair.dims), lesions_of(pair.pred)
    dices, distances, met = [], [], set()
    for n in range(1, refs.max() + 1):
        lesion = (refs == n) & pair.ref
        near = grown(lesion, dilation)
        touching = [k for k, p in enumerate(preds) if (p & near).any()]
        met.update(touching)
        if np.count_nonzero(lesion) * math.prod(pair.spacing) <= min_mm3:
            continue
        mine = np.any([preds[k] for k in touching], axis=0) if touching else np.zeros_like(lesion)
        dices.append(dice(lesion, mine))
        apart = peer.compute_robust_hausdorff(peer.compute_surface_distances(lesion, mine, pair.spacing), 95)
        distances.append(PENALTY_MM if math.isinf(apart) else apart)
    false = len(preds) - len(met)
    n = len(dices) + false
    if not n:
        return None
    return {
        "brats_lesion_dice": sum(dices) / n,
        "brats_lesion_hd95": (sum(distances) + false * PENALTY_MM) / n,
    }


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@FEW_AND_ALL
def test_brats_scores_are_those_of_its_rule(numbers: range, peer: ModuleType) -> None:
    compared = 0
    for pair in map(mask_pair, numbers):
        dilation, least = ((3, 50.0), (1, 50.0), (1, 2.0))[pair.number % 3]
        options = {"brats_dilation": dilation, "brats_min_mm3": least}
        metrics = ("brats_lesion_dice", "brats_lesion_hd95")
        found = score_case(pair.pred, pair.ref, pair.spacing, (1,), metrics, **options)[1]
        expected = brats_by_definition(pair, dilation, least, peer)
        if expected is None:
            # BraTS: 1 and 0 mm. Here so too where there are lesions, all too small to count; else there is no score.
            best = {"brats_lesion_dice": 1.0, "brats_lesion_hd95": 0.0}
            assert found == best if pair.ref.any() else all(math.isnan(v) for v in found.values())
            continue
        assert found == pytest.approx(expected, abs=1e-5), pair.number
        compared += 1
    assert compared >= 0.7 * len(numbers)


def test_sensitivity_by_size_by_hand() -> None:
    # Squares of 1, 4 and 9 pixels of 1 mm3; the largest and the smallest are found.
    ref = np.zeros((9, 12), bool)
    ref[1, 1] = ref[4:6, 1:3] = ref[4:7, 6:9] = True
    pred = ref.copy()
    pred[4:6, 1:3] = False
    rows = match_lesions(pred, ref, (1.0, 1.0)).rows
    found = sensitivity_by_size(rows, (0.002, 0.009, 0.5))
    assert found[:3] == [(0.0, 0.002, 1, 1.0), (0.002, 0.009, 1, 0.0), (0.009, 0.5, 1, 1.0)]
    assert found[3][2] == 0 and math.isnan(found[3][3])


def test_brats_growth_goes_along_two_axes_at_a_time() -> None:
    dot = np.zeros((7, 7, 7), bool)
    dot[3, 3, 3] = True
    assert (grown(dot, 2) == ndimage.binary_dilation(dot, ndimage.generate_binary_structure(3, 2), 2)).all()
    far = np.zeros_like(dot)
    far[4, 4, 4] = True
    # One step does not reach the voxel over a corner, two do.
    assert brats_lesions(far, dot, (1, 1, 1), 1, 0.0).false_positives == 1
    assert brats_lesions(far, dot, (1, 1, 1), 2, 0.0).false_positives == 0
