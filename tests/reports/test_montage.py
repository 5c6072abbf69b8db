"""The picture of a secondary capture: which slices it shows, where the contours lie, and that it warns."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.reports.montage import MontageLabel, montage
from medseg.reports.slices import spread_slices
from medseg.volume import Metadata, Volume
from medseg.windowing import window

ORANGE, BLUE = (230, 97, 0), (26, 133, 255)
# Pixels above the slices.
TOP = 82
THICK = np.diag([1.0, 1.0, 3.0, 1.0])


def _image(shape: tuple[int, ...], affine: np.ndarray = THICK, modality: str = "CT", value: float = 0.0) -> Volume:
    return Volume(np.full(shape, value, np.float32), affine, metadata=Metadata(modality=modality))


def _is(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (picture == np.array(colour, np.uint8)).all(axis=2)


def test_slices_run_from_the_head_down_and_show_where_each_label_covers_most() -> None:
    mask = np.zeros((20, 20, 60), np.uint8)
    mask[5:10, 5:10, 10:51] = 1
    mask[12:14, 12:14, 22] = 2
    mask[12:16, 12:16, 23] = 2
    affine = THICK.copy()
    affine[2, 3] = -100.0
    shown = spread_slices(_image(mask.shape, affine), Volume(mask, affine), {"a": (1,), "b": (2,)}, 5)
    places = [each.place for each in shown]
    # At equal steps these would be 51, 41, 31, 21, 11; the nearest gives way to the largest of the second label.
    assert places == [f"axial {n} of 60, z {3 * (n - 1) - 100:.1f} mm" for n in (51, 41, 31, 24, 11)]
    assert shown[3].pred["b"].sum() == 16
    assert shown[0].marks == ("R", "L", "A", "P")


def test_all_slices_share_one_frame_that_shows_at_least_half_of_the_slice() -> None:
    mask = np.zeros((100, 100, 10), np.uint8)
    mask[50, 40, 3], mask[52, 48, 6] = 1, 1
    shown = spread_slices(_image(mask.shape), Volume(mask, THICK), {"a": (1,)}, 12)
    (frame,) = {each.pred["a"].shape for each in shown}
    assert 50 <= min(frame) <= max(frame) <= 52
    assert [int(each.pred["a"].sum()) for each in shown] == [1, 0, 0, 1]


def test_a_mask_without_any_label_is_shown_on_slices_of_the_whole_image() -> None:
    mask = np.zeros((16, 16, 40), np.uint8)
    shown = spread_slices(_image(mask.shape), Volume(mask, THICK), {"a": (1,)}, 4)
    assert [each.place.partition(",")[0] for each in shown] == [f"axial {n} of 40" for n in (40, 27, 14, 1)]


@pytest.mark.parametrize(
    ("inside", "around", "far", "expected"),
    [
        (-850.0, 40.0, 40.0, "lung"),  # a lung
        (30.0, -850.0, 40.0, "lung"),  # a nodule in a lung
        (60.0, 40.0, -1000.0, "soft_tissue"),  # a liver, with air around the patient
        (40.0, -1000.0, -1000.0, "soft_tissue"),  # the whole body
    ],
)
def test_ct_is_shown_in_the_lung_window_where_labels_are_lung_or_lie_in_it(
    inside: float, around: float, far: float, expected: str
) -> None:
    mask = np.zeros((60, 60, 4), np.uint8)
    mask[28:32, 28:32, 1:3] = 1
    values = np.full(mask.shape, far, np.float32)
    values[18:42, 18:42] = around
    values[mask == 1] = inside
    image = Volume(values, THICK, metadata=Metadata(modality="CT"))
    shown = spread_slices(image, Volume(mask, THICK), {"a": (1,)}, 4)[0]
    (grey,) = np.unique(shown.image[shown.pred["a"]])
    assert grey == pytest.approx(float(window(np.array([inside]), expected)[0]))


def test_the_contour_lies_on_the_voxels_and_on_the_patients_side() -> None:
    """x grows to the patient's right, which is on the left of the picture; y to the front, which is on top."""
    mask = np.zeros((48, 48, 4), np.uint8)
    mask[30:36, 30:36, 1] = 1
    picture = montage(_image(mask.shape), Volume(mask, THICK), [MontageLabel("a", (1,), ORANGE)], "made by")
    tile = _is(picture, ORANGE)[TOP : TOP + 1024, :1024]
    rows, columns = np.flatnonzero(tile.any(axis=1)), np.flatnonzero(tile.any(axis=0))
    # A voxel is 1024 / 48 pixels: columns 12 to 18 of 48 from the left, rows 12 to 18 from the top.
    for found in (rows, columns):
        assert found[0] == pytest.approx(12 * 1024 / 48, abs=2)
        assert found[-1] == pytest.approx(18 * 1024 / 48, abs=2)
    # Only the border: the middle shows the image.
    assert not tile[300:330, 300:330].any()


def test_the_warning_stands_above_and_in_every_slice() -> None:
    mask = np.zeros((32, 32, 24), np.uint8)
    mask[8:20, 8:20, 2:22] = 1
    labels = [MontageLabel("a", (1,), ORANGE, "1.0 ml")]
    picture = montage(_image(mask.shape), Volume(mask, THICK), labels, "made by")
    yellow = _is(picture, (255, 220, 0))
    assert yellow[:40].any()
    assert picture.shape == (TOP + 3 * 388 + 26, 4 * 388, 3)
    for row in range(3):
        for column in range(4):
            top, left = TOP + row * 388, column * 388
            assert yellow[top + 330 : top + 384, left : left + 200].any(), (row, column)


def test_a_case_that_needs_review_and_one_without_anything_say_so_in_the_picture() -> None:
    mask = np.zeros((24, 24, 3), np.uint8)
    labels = [MontageLabel("a", (1,), ORANGE)]
    fine = montage(_image(mask.shape), Volume(mask, THICK), labels, "made by")
    doubtful = montage(_image(mask.shape), Volume(mask, THICK), labels, "made by", review=True)
    assert _is(doubtful, (255, 90, 60)).any()
    assert not _is(fine, (255, 90, 60)).any()
    # No contour and no entry, but a sentence, in the legend.
    assert not _is(fine, ORANGE).any()
    assert _is(fine, (255, 255, 255))[-26:].any()


def test_many_labels_end_in_a_count_and_two_labels_have_their_own_colours() -> None:
    mask = np.zeros((40, 40, 4), np.uint8)
    mask[2:38, 2:38, 1:3] = np.arange(36 * 36).reshape(36, 36, 1) % 100 + 1
    many = [MontageLabel(f"label {n}", (n,), (n, 0, 255 - n)) for n in range(1, 101)]
    few = [MontageLabel("a", (1, 3), ORANGE), MontageLabel("b", (2,), BLUE)]
    picture = montage(_image(mask.shape), Volume(mask, THICK), many, "made by")
    assert picture.shape[0] == TOP + 388 + 6 * 26
    mask[:] = 0
    mask[5:10, 5:10, 1], mask[20:30, 20:30, 1], mask[30:35, 5:10, 1] = 1, 2, 3
    both = montage(_image(mask.shape), Volume(mask, THICK), few, "made by")
    assert _is(both, ORANGE)[TOP:-26].sum() > 0
    assert _is(both, BLUE)[TOP:-26].sum() > 0


@pytest.mark.parametrize("colour", [False, True])
def test_a_single_image_is_shown_large_and_twice_the_same(colour: bool) -> None:
    array = np.zeros((3, 60, 40) if colour else (60, 40), np.uint8)
    array[..., 10:20] = 200
    image = Volume(array, np.eye(4), channels=3 * colour, spacing_known=False)
    mask = np.zeros((60, 40), np.uint8)
    mask[10:30, 10:30] = 1
    labels = [MontageLabel("a", (1,), ORANGE)]
    picture = montage(image, Volume(mask, np.eye(4), spacing_known=False), labels, "made by")
    again = montage(image, Volume(mask, np.eye(4), spacing_known=False), labels, "made by")
    np.testing.assert_array_equal(picture, again)
    assert max(picture.shape[:2]) >= 1024
    assert _is(picture, ORANGE).any()
