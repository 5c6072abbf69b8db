"""Vessels: scores within the field of view, recall by calibre, length and width, on masks counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.labels import LabelScheme
from medseg.tasks import TaskCase, get_task
from medseg.tasks.calibre import recall_by_calibre
from medseg.tasks.field_of_view import field_of_view
from medseg.volume import Volume

VESSEL = LabelScheme.from_mapping({"vessel": 1})


def photograph(array, channels=0):
    return Volume(np.asarray(array), np.eye(4), channels=channels, spacing_known=False)


def retina(radius=40.0, size=100):
    i, j = np.mgrid[:size, :size]
    disc = np.hypot(i - size / 2, j - size / 2) < radius
    return disc, np.stack([np.where(disc, level, 3) for level in (170, 80, 30)]).astype(np.uint8)


def test_the_field_of_view_of_a_photograph_is_its_bright_disc() -> None:
    disc, picture = retina()
    picture[:, 30:34, 50] = 10  # a dark spot on the retina is retina
    found = field_of_view(photograph(picture, 3))
    assert found is not None and (found != disc).sum() <= 8


@pytest.mark.parametrize("picture", [np.full((3, 50, 50), 120), np.zeros((3, 50, 50))], ids=["cropped", "black"])
def test_a_picture_without_a_dark_frame_has_no_field_of_view(picture) -> None:
    assert field_of_view(photograph(picture, 3)) is None


def test_scores_within_the_field_of_view_by_hand() -> None:
    # 4 x 5 pixels of a 6 x 10 picture are in view; one false alarm lies within, one outside.
    pred, ref = np.zeros((2, 6, 10), np.uint8)
    ref[1, 0:4], pred[1, 1:4], pred[3, 2], pred[5, 9] = 1, 1, 1, 1
    fov = np.zeros((6, 10), bool)
    fov[0:4, 0:5] = True
    found = get_task("vessel").score(TaskCase(photograph(pred), photograph(ref), VESSEL, fov=fov)).values["vessel"]
    assert found["sensitivity_fov"] == 3 / 4
    assert found["specificity_fov"] == 15 / 16
    assert found["dice_fov"] == 6 / 8


def test_the_area_under_the_curve_by_hand() -> None:
    # Vessel 0.9 and 0.4, ground 0.5, 0.4 and, out of view, 1.0: of four pairs two are right and one is a tie.
    ref = photograph(np.array([[1, 1, 0, 0, 0]], np.uint8))
    probability = photograph(np.array([[0.9, 0.4, 0.5, 0.4, 1.0]]))
    fov = np.array([[True, True, True, True, False]])
    case = TaskCase(ref, ref, VESSEL, probabilities=probability, fov=fov)
    found = get_task("vessel").score(case).values["vessel"]
    assert found["auc"] == pytest.approx(2.5 / 4)
    assert found["brier"] == pytest.approx((0.1**2 + 0.6**2 + 0.5**2 + 0.4**2) / 4)


def test_ignored_pixels_are_neither_vessel_nor_ground() -> None:
    scheme = LabelScheme.from_mapping({"vessel": 1}, ignore=255)
    ref, pred = photograph(np.array([[1, 1, 0, 0, 255]], np.uint8)), photograph(np.array([[1, 1, 0, 0, 1]], np.uint8))
    probability = photograph(np.array([[0.9, 0.4, 0.5, 0.4, 1.0]]))
    for fov in (None, np.ones((1, 5), bool)):
        found = get_task("vessel").score(TaskCase(pred, ref, scheme, probabilities=probability, fov=fov))
        assert found.values["vessel"]["auc"] == pytest.approx(2.5 / 4)
    assert found.values["vessel"]["specificity_fov"] == 1.0


def test_an_estimated_field_of_view_is_told() -> None:
    disc, picture = retina()
    mask = photograph(disc[:, :] & (np.arange(100) == 50))
    case = TaskCase(mask, mask, VESSEL, image=photograph(picture, 3))
    result = get_task("vessel").score(case)
    assert [f.kind for f in result.findings] == ["fov_estimated"]
    assert result.values["vessel"]["specificity_fov"] == 1.0
    cropped = TaskCase(mask, mask, VESSEL, image=photograph(np.full((3, 100, 100), 90), 3))
    assert [f.kind for f in get_task("vessel").score(cropped).findings] == ["fov_not_found"]


def test_recall_is_told_by_calibre() -> None:
    ref = np.zeros((40, 30), bool)
    ref[5:35, 3], ref[5:35, 8:11], ref[5:35, 15:24] = True, True, True
    pred = ref.copy()
    pred[:, 3] = False
    pred[:20, 8:11] = False
    thin, middle, thick = recall_by_calibre(pred, ref, (1.0, 1.0), (2.0, 5.0))
    # The skeleton of a bar ends in its corners, which are thin themselves.
    assert 30 <= thin.voxels <= 33 and thin.recall == 0.0
    assert middle.recall == pytest.approx(0.5, abs=0.04)
    assert thick.recall == 1.0 and thick.high == np.inf


def test_calibre_is_in_millimetres_where_the_spacing_is_known() -> None:
    ref = np.zeros((9, 9, 30), bool)
    ref[3:6, 3:6] = True
    ranges = recall_by_calibre(ref, ref, (2.0, 2.0, 1.0), (3.0, 8.0))
    # Twice the 4 mm from the middle to the first voxel outside, less a voxel of 1 mm.
    assert [r.voxels > 0 for r in ranges] == [False, True, False] and ranges[1].recall == 1.0


def test_a_predicted_vessel_that_is_cut_short_is_measured_shorter() -> None:
    affine = np.diag([1.5, 1.5, 1.5, 1.0])
    i, j, _ = np.mgrid[:21, :21, :40]
    disc = np.hypot(i - 10, j - 10) <= 4
    ref = (disc & (np.arange(40) >= 2) & (np.arange(40) < 38)).astype(np.uint8)
    pred = (disc & (np.arange(40) >= 2) & (np.arange(40) < 28)).astype(np.uint8)
    result = get_task("vessel").score(TaskCase(Volume(pred, affine), Volume(ref, affine), VESSEL))
    found = result.values["vessel"]
    assert found["length_difference_mm"] == pytest.approx(-15.0, rel=0.03)
    assert found["mean_diameter_difference_mm"] == pytest.approx(0.0, abs=0.05)
    assert "dice_fov" not in found and not result.findings
    columns, rows = result.tables["centreline"]
    reference = dict(zip(columns, rows[1], strict=True))
    assert reference["of"] == "reference" and reference["unit"] == "mm"
    assert reference["length"] == pytest.approx(54.0, rel=0.03)
    assert reference["mean_diameter"] == pytest.approx(12.1, rel=0.05)


def test_a_case_without_vessels_has_no_measurements_and_no_error() -> None:
    empty = Volume(np.zeros((8, 8, 8), np.uint8), np.eye(4))
    result = get_task("vessel").score(TaskCase(empty, empty, VESSEL))
    assert all(np.isnan(v) for v in result.values["vessel"].values())
    assert result.tables["centreline"][1] == ()
