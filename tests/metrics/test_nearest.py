"""Nearest distances against all distances of all pairs, near and far, in thin and thick voxels."""

from __future__ import annotations

import numpy as np
import pytest
from metric_pairs import FEW_AND_ALL, mask_pair
from scipy.spatial.distance import cdist

from medseg.metrics import nearest, score_case
from medseg.metrics.nearest import nearest_distances

SPACINGS = [(1.0, 1.0, 1.0), (0.7, 0.7, 5.0), (5.0, 0.7, 0.7), (0.05, 1.0, 30.0), (2.0, 3.0)]


def all_pairs(points: np.ndarray, targets: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    return np.asarray(cdist(points * spacing, targets * spacing).min(axis=1))


def scattered(rng: np.random.Generator, shape: tuple[int, ...], n: int) -> np.ndarray:
    chosen = rng.choice(int(np.prod(shape)), n, replace=False)
    return np.stack(np.unravel_index(np.sort(chosen), shape), axis=1).astype(np.int32)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("targets", [1, 30, 3000])
def test_distances_are_those_of_all_pairs(spacing: tuple[float, ...], targets: int) -> None:
    rng = np.random.default_rng(targets)
    shape = (60, 30, 40) if len(spacing) == 3 else (150, 160)
    points, others = scattered(rng, shape, 2500), scattered(rng, shape, targets)
    assert nearest_distances(points, others, spacing) == pytest.approx(all_pairs(points, others, spacing), rel=1e-12)


@pytest.mark.parametrize("spacing", SPACINGS[:3])
def test_work_is_done_in_slabs_that_miss_nothing(spacing: tuple[float, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    points, others = scattered(rng, (200, 9, 9), 2500), scattered(rng, (200, 9, 9), 2500)
    monkeypatch.setattr(nearest, "_SLAB_VOXELS", 1)
    assert nearest_distances(points, others, spacing) == pytest.approx(all_pairs(points, others, spacing), rel=1e-12)


def test_far_targets_are_found_too() -> None:
    plane = np.stack(np.meshgrid([0], range(50), range(50), indexing="ij"), axis=-1).reshape(-1, 3).astype(np.int32)
    far = plane + np.array([70, 0, 0], np.int32)
    assert (nearest_distances(plane, far, (1.0, 1.0, 1.0)) == 70.0).all()
    assert (nearest_distances(far, plane, (1.0, 1.0, 1.0)) == 70.0).all()


@FEW_AND_ALL
def test_looking_around_gives_the_same_scores_as_a_tree(numbers: range, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [mask_pair(n) for n in numbers]
    for surface in ("voxel", "area"):
        scores = []
        for few in (1, 10**9):
            monkeypatch.setattr(nearest, "_FEW", few)
            metrics = ("hd", "hd95", "assd", "masd", "nsd")
            scores.append([score_case(p.pred, p.ref, p.spacing, (1,), metrics, surface=surface)[1] for p in pairs])
        for pair, around, tree in zip(pairs, *scores, strict=True):
            assert around == pytest.approx(tree, rel=1e-9, nan_ok=True), pair.number
