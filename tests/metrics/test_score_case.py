"""Scores of one case, computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import cdist

from medseg.errors import ConfigError, DatasetError, GeometryError
from medseg.labels import LabelScheme
from medseg.metrics import METRICS, score_case
from medseg.metrics.options import ScoreOptions


def two_voxels(distance_voxels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    pred, ref = np.zeros((2, 8, 8, 8), np.uint8)
    pred[3, 3, 3], ref[3, 3, 3 + distance_voxels] = 1, 1
    return pred, ref


def test_two_voxels_two_millimetres_apart() -> None:
    scores = score_case(*two_voxels(), spacing_mm=(1.0, 1.0, 2.0), labels=(1,), tolerance_mm=1.0)
    assert scores == {1: {"dice": 0.0, "iou": 0.0, "hd95": 2.0, "assd": 2.0, "nsd": 0.0}}


def test_a_distance_equal_to_the_tolerance_is_within_it() -> None:
    for spacing, steps in ((2.0, 1), (0.1, 4), (0.7, 3)):
        scores = score_case(*two_voxels(steps), (1, 1, spacing), (1,), ("nsd",), tolerance_mm=steps * spacing)
        assert scores[1]["nsd"] == 1.0


def test_dice_and_iou_of_half_overlapping_boxes() -> None:
    pred, ref = np.zeros((2, 10, 10), np.uint8)
    pred[0:4, 0:4], ref[2:6, 0:4] = 1, 1
    scores = score_case(pred, ref, (1.0, 1.0), (1,), ("dice", "iou"))
    assert scores[1] == {"dice": 0.5, "iou": pytest.approx(8 / 24)}


def test_equal_masks_score_perfectly() -> None:
    mask = np.zeros((9, 9, 9), np.uint8)
    mask[2:7, 1:8, 3:6] = 3
    assert score_case(mask, mask, (1, 2, 3), (3,))[3] == {"dice": 1, "iou": 1, "hd95": 0, "assd": 0, "nsd": 1}


def test_a_line_beside_a_line_in_2d() -> None:
    # Reference: 4 pixels of row 2; prediction: the first 2 of row 4. Distances: 2, 2 there; 2, 2, sqrt 5, sqrt 8 back.
    pred, ref = np.zeros((2, 8, 8), np.uint8)
    ref[2, 1:5], pred[4, 1:3] = 1, 1
    back = np.array([2, 2, math.sqrt(5), math.sqrt(8)])
    both = np.concatenate([[2, 2], back])
    found = score_case(pred, ref, (1, 1), (1,), tolerance_mm=2.0)[1]
    assert found["hd95"] == pytest.approx(np.percentile(back, 95))
    assert found["assd"] == pytest.approx(both.mean())
    assert found["nsd"] == pytest.approx(4 / 6)
    pooled = score_case(pred, ref, (1, 1), (1,), ("hd95", "assd"), hd95="pooled", assd="mean")[1]
    assert pooled["hd95"] == pytest.approx(np.percentile(both, 95))
    assert pooled["assd"] == pytest.approx((2 + back.mean()) / 2)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_every_score_equals_the_plain_definition(dims: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape, spacing = (17, 14, 12)[:dims], (0.7, 1.3, 2.9)[:dims]
    pred, ref = (ndimage.gaussian_filter(rng.standard_normal(shape), 1.5) > 0.05 for _ in range(2))
    found = score_case(pred, ref, spacing, (1,), tolerance_mm=1.5)[1]

    def surface(mask: np.ndarray) -> np.ndarray:
        return np.argwhere(mask & ~ndimage.binary_erosion(mask)) * spacing

    apart = cdist(surface(pred), surface(ref))
    there, back = apart.min(axis=1), apart.min(axis=0)
    both = np.concatenate([there, back])
    assert found["dice"] == pytest.approx(2 * (pred & ref).sum() / (pred.sum() + ref.sum()))
    assert found["hd95"] == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)))
    assert found["assd"] == pytest.approx(both.mean())
    assert found["nsd"] == pytest.approx((both <= 1.5).mean())


@pytest.mark.parametrize(
    ("in_pred", "in_ref", "overlap", "distance"),
    [(False, False, math.nan, math.nan), (True, False, 0.0, math.inf), (False, True, 0.0, math.inf)],
)
def test_empty_masks(in_pred: bool, in_ref: bool, overlap: float, distance: float) -> None:
    pred, ref = np.zeros((2, 6, 6, 6), np.uint8)
    pred[2, 2, 2], ref[4, 4, 4] = in_pred, in_ref
    found = score_case(pred, ref, (1, 1, 1), (1,))[1]
    for metric in ("dice", "iou", "nsd"):
        assert found[metric] == pytest.approx(overlap, nan_ok=True)
    for metric in ("hd95", "assd"):
        assert found[metric] == pytest.approx(distance, nan_ok=True)


def test_regions_are_scored_as_unions_of_their_values() -> None:
    scheme = LabelScheme.from_mapping({"WT": [1, 2, 4], "TC": [1, 4], "ET": [4]})
    pred, ref = np.zeros((2, 8, 8, 8), np.uint8)
    ref[1:5, 1:5, 1:5], pred[1:5, 1:5, 1:5] = 2, 1
    ref[2, 2, 2], pred[2, 2, 2] = 4, 4
    found = score_case(pred, ref, (1, 1, 1), scheme)
    assert found["WT"]["dice"] == 1.0 and found["ET"]["dice"] == 1.0
    assert found["TC"]["dice"] == pytest.approx(2 / 65)
    assert found["WT"] == {"dice": 1, "iou": 1, "hd95": 0, "assd": 0, "nsd": 1}


def test_ignored_voxels_take_part_in_no_score() -> None:
    scheme = LabelScheme.from_mapping({"lung": 1}, ignore=255)
    ref = np.zeros((10, 10), np.uint8)
    ref[2:5, 2:5] = 1
    pred = ref.copy()
    ref[7:, :] = 255
    pred[8:, 3:6] = 1
    assert score_case(pred, ref, (1, 1), scheme)["lung"] == {"dice": 1, "iou": 1, "hd95": 0, "assd": 0, "nsd": 1}


def test_memory_order_type_and_padding_change_nothing() -> None:
    rng = np.random.default_rng(5)
    pred, ref = (np.digitize(ndimage.gaussian_filter(rng.standard_normal((18, 20, 16)), 2), (0.05, 0.1)) for _ in "ab")
    expected = score_case(pred, ref, (1, 2, 3), (1, 2))
    assert all(math.isfinite(v) and v > 0 for scores in expected.values() for v in scores.values())
    variants = [
        (np.asfortranarray(pred), np.asfortranarray(ref)),
        (pred.astype(np.uint16), np.asfortranarray(ref.astype(np.int16))),
        (pred.astype(np.float32), ref.astype(np.uint8)),
        (np.pad(pred, 3), np.pad(ref, 3)),
        (pred[::-1, :, ::-1], ref[::-1, :, ::-1]),
    ]
    for p, r in variants:
        for label, scores in score_case(p, r, (1, 2, 3), (1, 2)).items():
            assert scores == pytest.approx(expected[label], rel=1e-12)


def test_large_label_codes_and_slabs_of_a_larger_volume() -> None:
    pred, ref = np.zeros((2, 40, 300, 300), np.uint16)
    ref[3:37, 20:280, 20:280], pred[3:37, 21:281, 20:280] = 4105, 4105
    found = score_case(pred, ref, (1, 1.5, 1), labels=(4105, 9))
    assert found[4105]["dice"] == pytest.approx(259 / 260)
    assert found[4105]["hd95"] <= 1.5 and found[4105]["nsd"] == 1.0
    assert math.isnan(found[9]["dice"])


def test_labels_by_default_are_all_that_occur() -> None:
    pred, ref = np.array([[0, 1, 3]]), np.array([[0, 1, 2]])
    assert list(score_case(pred, ref, metrics=("dice",))) == [1, 2, 3]
    assert list(score_case(pred, ref, labels={"liver": 1}, metrics=("iou",))) == ["liver"]


def test_without_spacing_distances_are_in_voxels_and_nsd_is_refused() -> None:
    assert score_case(*two_voxels(3), labels=(1,), metrics=("hd95",))[1]["hd95"] == 3.0
    with pytest.raises(ConfigError, match="needs spacing_mm"):
        score_case(*two_voxels(), labels=(1,))


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"pred": np.zeros((3, 3), int)}, GeometryError, r"\(3, 3\).*\(4, 4\)"),
        ({"spacing_mm": (1, 1, 1)}, GeometryError, "one positive number per axis"),
        ({"spacing_mm": (1, 0)}, GeometryError, "one positive number per axis"),
        ({"pred": np.full((4, 4), 0.5)}, DatasetError, "not integers"),
        ({"pred": np.full((4, 4), -1)}, DatasetError, "negative"),
        ({"pred": np.full((4, 4), "a")}, DatasetError, "array of integers"),
        ({"pred": np.full((4, 4), 1 << 32)}, DatasetError, "looks like an image"),
        ({"pred": np.full((4, 4), 2.0**24, np.float32)}, DatasetError, "16777216 in single precision.*integers"),
        ({"ref": np.full((4, 4), 2048, np.float16)}, DatasetError, "2048 in half precision.*integers"),
        ({"metrics": ("dicee",)}, ConfigError, "dicee"),
        ({"metrics": ()}, ConfigError, "none given"),
        ({"metrics": ("dice", "auc")}, ConfigError, "auc need probabilities"),
        ({"hd95": "median"}, ConfigError, "max_directed"),
        ({"surface": "volume"}, ConfigError, "voxel"),
        ({"tolerance_mm": 0}, ConfigError, "positive"),
        ({"labels": (0,)}, ConfigError, "positive integers"),
    ],
)
def test_wrong_input_is_refused_in_one_line(arguments: dict, error: type[Exception], words: str) -> None:
    given = {"pred": np.zeros((4, 4), int), "ref": np.zeros((4, 4), int), "spacing_mm": (1, 1), "labels": (1,)}
    with pytest.raises(error, match=words) as raised:
        score_case(**(given | arguments))
    assert "\n" not in str(raised.value)


def test_metrics_are_given_in_the_order_asked() -> None:
    asked = tuple(reversed(METRICS))
    assert tuple(score_case(*two_voxels(), (1, 1, 1), (1,), asked)[1]) == asked


def test_metrics_that_mean_nothing_for_an_image_are_left_out_or_refused() -> None:
    asked = ScoreOptions(("dice", "betti_error_2", "nsd", "auc"))
    assert asked.of_masks == ("dice", "betti_error_2", "nsd") and asked.of_probabilities == ("auc",)
    assert asked.fitting(3, True) == asked
    assert asked.fitting(2, True).metrics == ("dice", "nsd", "auc")
    assert asked.fitting(3, False).metrics == ("dice", "betti_error_2", "auc")
    with pytest.raises(ConfigError, match="betti_error_2 mean nothing in 2D"):
        ScoreOptions(("betti_error_2",)).fitting(2, True)
    with pytest.raises(ConfigError, match="nsd, betti_error_2 need millimetres"):
        ScoreOptions(("nsd", "betti_error_2")).fitting(2, False)
