"""Lesions, their numbers, what matches, FROC: counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.labels import LabelScheme
from medseg.tasks import TaskCase, get_task
from medseg.tasks.froc import Candidate, find_candidates, froc, froc_score
from medseg.tasks.lesions import find_lesions, label_lesions
from medseg.volume import Volume

TUMOUR = LabelScheme.from_mapping({"tumour": 1})
AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])


def balls():
    """Three lesions of 27, 8 and 8 voxels."""
    mask = np.zeros((20, 20, 12), np.uint8)
    mask[2:5, 2:5, 2:5] = 1
    mask[10:12, 10:12, 7:9] = 1
    mask[16:18, 3:5, 1:3] = 1
    return mask


def test_lesions_are_numbered_by_size_then_from_below() -> None:
    numbers = label_lesions(balls() > 0, AFFINE)
    assert (numbers[3, 3, 3], numbers[16, 3, 1], numbers[10, 10, 7]) == (1, 2, 3)


def test_the_numbers_do_not_hang_on_the_order_of_the_axes() -> None:
    mask = balls() > 0
    turned = mask[::-1].transpose(2, 0, 1)
    affine = AFFINE[:, [2, 0, 1, 3]].copy()
    affine[:, 1] *= -1
    affine[0, 3] = mask.shape[0] - 1
    np.testing.assert_array_equal(label_lesions(turned, affine).transpose(1, 2, 0)[::-1], label_lesions(mask, AFFINE))


def test_a_lesion_has_volume_place_and_grey_value() -> None:
    mask = balls() > 0
    first = find_lesions(mask, AFFINE, np.arange(mask.size).reshape(mask.shape))[0]
    assert (first.voxels, first.volume_ml) == (27, pytest.approx(0.054))
    np.testing.assert_allclose(first.center_mm, (3, 3, 6))
    assert first.diameters.slice == 2 and first.diameters.long_mm == pytest.approx(np.hypot(3, 2))
    inside = np.arange(mask.size).reshape(mask.shape)[2:5, 2:5, 2:5]
    assert first.mean == pytest.approx(inside.mean()) and first.std == pytest.approx(inside.std())
    low, high = first.diameters.long_ends_mm
    assert np.linalg.norm(high - low) == pytest.approx(first.diameters.long_mm)
    np.testing.assert_allclose(first.diameters.long_ends_mm, first.diameters.long_ends * [1, 1, 2])


def test_two_parts_that_touch_by_a_corner_are_one_lesion() -> None:
    mask = np.zeros((6, 6, 6), bool)
    mask[1:3, 1:3, 1:3] = mask[3:5, 3:5, 3:5] = True
    assert label_lesions(mask, AFFINE).max() == 1


def test_the_table_of_lesions_says_what_was_found_and_what_was_not() -> None:
    ref, pred = balls(), np.zeros((20, 20, 12), np.uint8)
    pred[2:5, 2:5, 2:4] = 1  # two thirds of the first
    pred[15, 15, 10] = 1  # a false alarm
    result = get_task("tumor").score(TaskCase(Volume(pred, AFFINE), Volume(ref, AFFINE), TUMOUR))
    columns, rows = result.tables["lesions"]
    found = {row[1]: dict(zip(columns, row, strict=True)) for row in rows}
    assert list(found) == ["R1", "R2", "R3", "P1", "P2"]
    assert found["R1"]["matches"] == "P1" and found["R1"]["covered"] == pytest.approx(2 / 3)
    assert found["R2"]["matches"] == "" and found["P2"]["matches"] == "" and found["P1"]["covered"] == 1.0
    assert found["P1"]["volume"] == pytest.approx(0.036) and found["P1"]["volume_unit"] == "ml"
    values = result.values["tumour"]
    assert values["volume_ml_reference"] == pytest.approx(43 * 0.002)
    assert values["volume_ml_prediction"] == pytest.approx(19 * 0.002)
    assert values["long_axis_difference_mm"] == pytest.approx(0.0)
    small = result.tables["detection_by_size"][1][0]
    assert small == ("tumour", 0.0, 10.0, "mm", 3, 1)


def test_each_region_of_a_glioma_is_scored() -> None:
    # BraTS 2013: 1 necrosis, 2 oedema, 3 non-enhancing, 4 enhancing.
    scheme = LabelScheme.from_mapping({"WT": [1, 2, 3, 4], "TC": [1, 3, 4], "ET": [4]})
    ref = np.zeros((12, 12, 6), np.uint8)
    ref[2:10, 2:10, 2:5] = 2
    ref[4:8, 4:8, 3] = 3
    ref[5, 5, 3] = 4
    volume = Volume(ref, np.eye(4))
    values = get_task("tumor").score(TaskCase(volume, volume, scheme)).values
    assert [values[n]["volume_ml_reference"] for n in ("WT", "TC", "ET")] == pytest.approx([0.192, 0.016, 0.001])


def test_thick_slices_are_told() -> None:
    volume = Volume(balls(), np.diag([1.0, 1.0, 6.0, 1.0]))
    findings = get_task("tumor").score(TaskCase(volume, volume, TUMOUR)).findings
    assert [f.kind for f in findings] == ["thick_slices"] and "below 12 mm" in findings[0].message


def test_candidates_are_the_places_above_a_low_threshold() -> None:
    ref = balls() > 0
    probability = np.zeros(ref.shape)
    probability[3, 3, 3], probability[10, 10, 7], probability[18, 18, 10], probability[1, 15, 5] = 0.9, 0.3, 0.6, 0.05
    assert find_candidates(probability, ref, AFFINE) == (Candidate(0.9, 1), Candidate(0.6, 0), Candidate(0.3, 3))
    scores = get_task("tumor").score(
        TaskCase(Volume(ref.astype(np.uint8), AFFINE), Volume(ref.astype(np.uint8), AFFINE), TUMOUR,
                 probabilities=Volume(probability, AFFINE))
    )  # fmt: skip
    assert scores.tables["froc_candidates"][1][0] == ("tumour", 0.9, 1, 3)


def test_the_froc_curve_by_hand() -> None:
    cases = [[Candidate(0.9, 1), Candidate(0.7, 0), Candidate(0.7, 1)], [Candidate(0.8, 0), Candidate(0.5, 1)]]
    rates, sensitivity = froc(cases, [2, 1])
    np.testing.assert_allclose(rates, [0, 0, 0.5, 1.0, 1.0])
    np.testing.assert_allclose(sensitivity, [0, 1 / 3, 1 / 3, 1 / 3, 2 / 3])
    # At 1/8, 1/4 and 1/2 false positives per case one lesion of three, from 1 on two.
    assert froc_score(rates, sensitivity) == pytest.approx((3 * 1 / 3 + 4 * 2 / 3) / 7)


def test_slices_of_photographs_are_measured_in_pixels() -> None:
    mask = np.zeros((20, 20), np.uint8)
    mask[3:13, 5:9] = 1
    volume = Volume(mask, np.eye(4), spacing_known=False)
    result = get_task("tumor").score(TaskCase(volume, volume, TUMOUR))
    assert result.values["tumour"]["volume_px2_reference"] == 40
    assert result.tables["lesions"][1][0][7] == "px"
