"""Slices are shown as radiologists hold them, with true proportions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from medseg.geometry import Reorientation
from medseg.reports.figures import label_colours, overlay_png
from medseg.reports.slices import pick_slice
from medseg.volume import Volume


def head() -> tuple[np.ndarray, np.ndarray]:
    """RAS array with a marker in the right front half of slice 4."""
    array = np.zeros((20, 24, 9), np.uint8)
    array[14:17, 18:21, 4] = 1
    return array, np.diag([1.0, 1.5, 2.0, 1.0])


@pytest.mark.parametrize(
    "codes", ["".join(c) for p in itertools.permutations(["RL", "AP", "SI"]) for c in [[a[1] for a in p]]]
)
def test_the_patients_right_is_on_the_left_in_every_axis_order(codes: str) -> None:
    array, affine = head()
    move = Reorientation.between(affine, codes)
    volume = Volume(np.ascontiguousarray(move.apply(array)), move.move_affine(affine, array.shape))
    shown = pick_slice(None, volume, volume, {"marker": (1,)})
    assert shown.marks == ("R", "L", "A", "P")
    assert shown.place.startswith("axial slice 5 of 9")
    rows, columns = np.nonzero(shown.ref["marker"])
    height, width = shown.ref["marker"].shape
    assert shown.aspect == pytest.approx(1.5)
    assert set(np.diff(np.unique(rows))) == set(np.diff(np.unique(columns))) == {1}
    # The marker lies right and in front: nearer to the left and upper edge of the whole slice.
    assert columns.mean() <= width / 2 and rows.mean() <= height / 2


def test_thick_slices_are_shown_in_the_plane_they_were_acquired_in() -> None:
    array = np.zeros((12, 30, 30), np.uint8)
    array[5, 10:20, 10:20] = 1
    volume = Volume(array, np.diag([6.0, 1.0, 1.0, 1.0]))
    shown = pick_slice(None, volume, volume, {"x": (1,)})
    assert shown.place.startswith("sagittal slice") and shown.marks == ("A", "P", "S", "I")


def test_photographs_keep_their_colours_and_have_no_marks() -> None:
    label = np.zeros((30, 20), np.uint8)
    label[3:6, 12:15] = 1
    colour = np.zeros((3, 30, 20), np.uint8)
    colour[0, 3:6, 12:15] = 255
    mask = Volume(label, np.eye(4), spacing_known=False)
    image = Volume(colour, np.eye(4), channels=3, spacing_known=False)
    shown = pick_slice(image, mask, mask, {"x": (1,)})
    assert shown.marks == ("", "", "", "") and shown.image is not None
    assert shown.image.shape == (*shown.ref["x"].shape, 3)
    assert (shown.image[..., 0] == shown.ref["x"]).all()


def test_the_worst_case_shows_the_slice_with_the_largest_difference() -> None:
    ref = np.zeros((16, 16, 10), np.uint8)
    ref[2:14, 2:14, 3] = 1
    ref[5:9, 5:9, 7] = 1
    pred = ref.copy()
    pred[:, :, 7] = 0
    r, p = (Volume(a, np.eye(4)) for a in (ref, pred))
    assert pick_slice(None, p, r, {"x": (1,)}).place.startswith("axial slice 4")
    assert pick_slice(None, p, r, {"x": (1,)}, by="difference").place.startswith("axial slice 8")


def test_empty_masks_can_be_drawn() -> None:
    empty = Volume(np.zeros((16, 16, 10), np.uint8), np.eye(4))
    assert overlay_png(pick_slice(None, empty, empty, {"x": (1,), "y": (2,)})).startswith(b"\x89PNG")


def test_labels_have_distinct_colours() -> None:
    colours = label_colours([str(n) for n in range(20)])
    assert len({c for pair in colours.values() for c in pair}) == 40
