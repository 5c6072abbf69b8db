"""Topology on random masks against scikit-image's skeletons, labels and Euler numbers, and a graph of the skeleton."""

from __future__ import annotations

import math

import networkx as nx
import numpy as np
import pytest
from metric_pairs import FEW_AND_ALL, mask_pair
from skimage.measure import euler_number, label
from skimage.morphology import skeletonize

from medseg.metrics import score_case
from medseg.metrics.topology import betti_numbers, skeleton_of


def parts(mask: np.ndarray, corners: bool) -> int:
    return int(label(mask, connectivity=mask.ndim if corners else 1).max())


def betti_by_scikit_image(mask: np.ndarray) -> list[int]:
    """Parts, and what of the background is enclosed; in 3D the loops follow from scikit-image's Euler number."""
    components, enclosed = parts(mask, True), parts(~np.pad(mask, 1), False) - 1
    if mask.ndim == 2:
        assert components - enclosed == euler_number(mask, connectivity=2)
        return [components, enclosed, 0]
    return [components, components + enclosed - euler_number(mask, connectivity=3), enclosed]


def shares_inside(skeleton: np.ndarray, mask: np.ndarray) -> float:
    return float(np.count_nonzero(skeleton & mask) / np.count_nonzero(skeleton))


@FEW_AND_ALL
def test_betti_numbers_equal_those_of_scikit_image(numbers: range) -> None:
    for pair in map(mask_pair, numbers):
        expected = [betti_by_scikit_image(m) for m in (pair.pred, pair.ref)]
        assert [list(betti_numbers(m)) for m in (pair.pred, pair.ref)] == expected, pair.number
        metrics = ("betti_error_0", "betti_error_1", "betti_error_2")
        found = score_case(pair.pred, pair.ref, pair.spacing, (1,), metrics)[1]
        assert list(found.values()) == np.abs(np.subtract(*expected)).tolist()


@FEW_AND_ALL
def test_cldice_is_that_of_scikit_images_skeletons(numbers: range) -> None:
    same = compared = 0
    for pair in map(mask_pair, numbers):
        if not pair.both_hold_something:
            continue
        compared += 1
        thin = [skeletonize(m) for m in (pair.pred, pair.ref)]
        # Where thinning deletes a part, one voxel stands for it: the one difference, and then it only adds voxels.
        ours = [skeleton_of(m) for m in (pair.pred, pair.ref)]
        for mask, theirs, mine in zip((pair.pred, pair.ref), thin, ours, strict=True):
            parts_of = label(mask, connectivity=mask.ndim)
            lost = set(range(1, parts_of.max() + 1)) - set(parts_of[theirs].tolist())
            added = parts_of[mine & ~theirs].tolist()
            assert not (theirs & ~mine).any() and sorted(added) == sorted(lost), pair.number
        same += all((t == m).all() for t, m in zip(thin, ours, strict=True))
        precision, sensitivity = shares_inside(ours[0], pair.ref), shares_inside(ours[1], pair.pred)
        both = precision + sensitivity
        expected = 2 * precision * sensitivity / both if both else 0.0
        found = score_case(pair.pred, pair.ref, pair.spacing, (1,), ("cldice",))[1]["cldice"]
        assert found == pytest.approx(expected, abs=1e-12), pair.number
    assert same >= 0.4 * compared


@FEW_AND_ALL
def test_length_recall_is_that_of_the_skeletons_graph(numbers: range) -> None:
    for pair in map(mask_pair, numbers):
        if not pair.both_hold_something:
            continue
        graph = nx.Graph()
        voxels = [tuple(int(n) for n in v) for v in np.argwhere(skeleton_of(pair.ref))]
        graph.add_nodes_from(voxels)
        for i, one in enumerate(voxels):
            near = np.abs(np.subtract(voxels[:i], one)).max(axis=1) == 1 if i else []
            for other in np.flatnonzero(near):
                step = np.subtract(one, voxels[other]) * pair.spacing
                graph.add_edge(one, voxels[other], length=float(np.linalg.norm(step)))
        total = found_length = 0.0
        for one, other, length in graph.edges(data="length"):
            total += length
            found_length += length * (int(pair.pred[one]) + int(pair.pred[other])) / 2
        expected = found_length / total if total else float(np.mean([pair.pred[v] for v in voxels]))
        found = score_case(pair.pred, pair.ref, pair.spacing, (1,), ("skeleton_recall",))[1]["skeleton_recall"]
        assert found == pytest.approx(expected, abs=1e-9), pair.number


def test_deleted_blobs_keep_a_voxel_and_the_policy_holds_for_cldice() -> None:
    blob = np.zeros((6, 6, 6), bool)
    blob[2:4, 2:4, 2:4] = True
    assert not skeletonize(blob).any() and np.count_nonzero(skeleton_of(blob)) == 1
    assert score_case(blob, blob, (1, 1, 1), (1,), ("cldice", "skeleton_recall"))[1] == {
        "cldice": 1.0,
        "skeleton_recall": 1.0,
    }
    assert math.isnan(score_case(blob & False, blob & False, (1, 1, 1), (1,), ("cldice",))[1]["cldice"])
