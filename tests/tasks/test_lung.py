"""Lungs: sides, density and the threshold, on blocks counted by hand, phantoms and a real chest CT."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.io import read
from medseg.labels import LabelScheme
from medseg.phantoms import make_phantom
from medseg.tasks import TaskCase, get_task
from medseg.tasks.density import density_findings, lung_density
from medseg.tasks.laterality import split_sides
from medseg.tasks.lung_threshold import lungs_by_threshold
from medseg.volume import Volume

LUNG = LabelScheme.from_mapping({"lung": 1})
SIDES = LabelScheme.from_mapping({"left_lung": 2, "right_lung": 3})


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def blocks(joined=False):
    """Two lungs along i, the first 6 wide, the second 7; RAS, so the first is the left one."""
    mask = np.zeros((24, 10, 10), bool)
    mask[3:9, 2:8, 1:9], mask[14:21, 2:8, 1:9] = True, True
    if joined:
        mask[9:14, 4, 4] = True
    return mask


@pytest.mark.parametrize("joined", [False, True], ids=["apart", "touching"])
def test_left_is_the_patients_left_however_the_axes_lie(joined) -> None:
    mask = blocks(joined)
    left, right = split_sides(mask, np.eye(4))
    assert left[3:9].sum() == 6 * 6 * 8 and not left[14:].any() and right[14:].sum() == 7 * 6 * 8
    np.testing.assert_array_equal(left | right, mask)
    mirrored = split_sides(mask[::-1], np.diag([-1.0, 1.0, 1.0, 1.0]))
    np.testing.assert_array_equal(mirrored[0][::-1].any((1, 2))[3:9], True)
    turned = split_sides(mask.transpose(1, 2, 0), np.eye(4)[:, [1, 2, 0, 3]])
    np.testing.assert_array_equal(turned[0].transpose(2, 0, 1)[14:].any(), False)


def test_one_lung_alone_has_no_side_and_nothing_neither() -> None:
    mask = blocks()
    mask[14:] = False
    assert split_sides(mask, np.eye(4)) is None
    assert split_sides(np.zeros((4, 4, 4), bool), np.eye(4)) is None


def test_a_lung_in_two_storeys_is_not_two_lungs() -> None:
    mask = np.zeros((10, 10, 20), bool)
    mask[2:8, 2:8, 1:9], mask[2:8, 2:8, 11:19] = True, True
    assert split_sides(mask, np.eye(4)) is None


def test_density_by_hand() -> None:
    image = np.full((10, 10, 1), -880)
    image[0] = -980
    found = lung_density(np.ones(image.shape, bool), image, 0.01)
    assert found is not None
    assert (found.volume_ml, found.mean_hu, found.laa950_percent) == pytest.approx((1.0, -890.0, 10.0))
    assert found.perc15_hu == -880.0
    assert lung_density(np.zeros(image.shape, bool), image, 0.01) is None


def chest(slice_mm=1.0, blood=45.0, lung=-860.0):
    mask = blocks()
    image = np.where(mask, lung, blood)
    return mask, image, np.diag([1.0, 1.0, slice_mm, 1.0])


def kinds(mask, image, affine):
    return [f.kind for f in density_findings(mask, image, affine)]


def test_a_plain_thin_and_whole_chest_raises_no_doubt() -> None:
    assert kinds(*chest()) == []


def test_each_doubt_is_told() -> None:
    assert kinds(*chest(slice_mm=2.5)) == ["lung_thick_slices"]
    assert kinds(*chest(blood=180.0)) == ["lung_contrast"]
    assert kinds(*chest(lung=120.0)) == ["lung_not_hu"]
    mask, image, affine = chest()
    mask[3:9, 2:8, 9] = True
    assert kinds(mask, image, affine) == ["lung_cut_apex"]
    assert kinds(mask[:, :, ::-1], image[:, :, ::-1], affine) == ["lung_cut_base"]
    assert kinds(mask[:, :, ::-1], image[:, :, ::-1], np.diag([1.0, 1.0, -1.0, 1.0])) == ["lung_cut_apex"]


def test_a_case_is_scored_by_side_with_volumes_and_densities() -> None:
    mask, image, affine = chest(slice_mm=2.5)
    pred = mask.copy()
    pred[3] = False  # one of the left lung's six slices is missed
    masks = [Volume(m.astype(np.uint8), affine) for m in (pred, mask)]
    case = TaskCase(*masks, LUNG, Volume(image, affine))
    result = get_task("lung").score(case)
    found = result.values["lung"]
    assert found["dice_left"] == pytest.approx(2 * 5 / 11) and found["dice_right"] == 1.0
    assert found["volume_ml_left_prediction"] == pytest.approx(5 * 6 * 8 * 0.0025)
    assert found["volume_ml_right_reference"] == pytest.approx(7 * 6 * 8 * 0.0025)
    assert found["mean_hu_difference"] == pytest.approx(0.0)
    assert [f.kind for f in result.findings] == ["lung_thick_slices"]
    columns, rows = result.tables["density"]
    assert [row[1:3] for row in rows][:3] == [(s, "prediction") for s in ("both", "left", "right")]
    assert dict(zip(columns, rows[3], strict=True))["doubts"] == "lung_thick_slices"


def test_labels_that_name_their_side_need_no_splitting() -> None:
    mask, _, affine = chest()
    ref = np.zeros(mask.shape, np.uint8)
    ref[3:9, 2:8, 1:9], ref[14:21, 2:8, 1:9] = 2, 3
    # The prediction swaps the sides: no voxel of a side is right.
    pred = np.where(ref == 2, 3, np.where(ref == 3, 2, 0)).astype(np.uint8)
    found = get_task("lung").score(TaskCase(Volume(pred, affine), Volume(ref, affine), SIDES)).values["left_lung"]
    assert (found["dice_left"], found["dice_right"]) == (0.0, 0.0)
    assert "mean_hu_difference" not in found


def test_a_prediction_without_two_lungs_is_told() -> None:
    mask, image, affine = chest()
    empty = Volume(np.zeros(mask.shape, np.uint8), affine)
    case = TaskCase(empty, empty.with_array(mask.astype(np.uint8)), LUNG, empty.with_array(image))
    result = get_task("lung").score(case)
    assert "lung_sides_unknown" in [f.kind for f in result.findings] and "dice_left" not in result.values["lung"]


def test_pictures_add_nothing() -> None:
    picture = Volume(np.ones((8, 8), np.uint8), np.eye(4), spacing_known=False)
    assert get_task("lung").score(TaskCase(picture, picture, LUNG)).values == {}


@pytest.mark.parametrize("seed", [1, 2, 100])
def test_the_threshold_finds_the_lungs_of_a_phantom(seed) -> None:
    image, labels = make_phantom(seed)
    found = lungs_by_threshold(image, LUNG) > 0
    assert dice(found, labels.array == 1) > 0.97
    sides = lungs_by_threshold(image, SIDES)
    truth = split_sides(labels.array > 0, image.affine)
    assert dice(sides == 2, truth[0]) > 0.95 and dice(sides == 3, truth[1]) > 0.95


def test_the_threshold_finds_the_lungs_of_a_whole_chest(data_folder) -> None:
    image, ref = (read(data_folder / "lung_ct_cip" / f"{name}.nrrd") for name in ("ct-64", "wholeLung-64"))
    assert dice(lungs_by_threshold(image, LUNG) > 0, ref.array > 0) > 0.975


def test_the_sides_of_a_chest_are_those_of_its_label_map(data_folder) -> None:
    lobes, ref = (read(data_folder / "lung_ct_cip" / f"{name}.nrrd") for name in ("lm-64", "wholeLung-64"))
    left, right = split_sides(ref.array > 0, ref.affine)
    region = lobes.array.astype(int) & 255  # 9 to 11 left, 12 to 14 right
    assert dice(left, np.isin(region, (9, 10, 11))) > 0.999 and dice(right, np.isin(region, (12, 13, 14))) > 0.999
