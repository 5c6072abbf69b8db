"""Run-length codes of COCO and CVAT."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.errors import AnnotationError
from medseg.io.annotations.rle import counts_of, decode_columns, decode_rows, string_of, string_to_counts


def test_coco_counts_run_down_the_columns_and_begin_with_off():
    # 3 high, 2 wide: the last pixel of the first column and the first of the second.
    patch = decode_columns(np.array([2, 2, 2]), 2, 3, "here")
    np.testing.assert_array_equal(patch.on_box(0, 0, 3, 2), [[0, 1], [0, 0], [1, 0]])


def test_cvat_counts_run_along_the_rows():
    np.testing.assert_array_equal(decode_rows(np.array([0, 4, 1, 4]), 3, 3, "here"), [[1, 1, 1], [1, 0, 1], [1, 1, 1]])


def test_an_empty_mask_and_a_full_one():
    assert not decode_columns(np.array([6]), 2, 3, "here").mask.size
    assert decode_columns(np.array([0, 6]), 2, 3, "here").on_box(0, 0, 3, 2).all()


@pytest.mark.parametrize("counts", [[5], [7], [3, -1, 4], [10**9], [2**62, 2**62, 2**62, 2**62, 6], [0] * 100])
def test_counts_that_do_not_fit_are_refused(counts):
    with pytest.raises(AnnotationError, match="shape 3 has run lengths"):
        decode_columns(np.array(counts), 2, 3, "shape 3")
    with pytest.raises(AnnotationError, match="shape 3 has run lengths"):
        decode_rows(np.array(counts), 2, 3, "shape 3")


def test_the_compressed_text_by_hand():
    # 5 is one character ('0' + 5). 40 = 8 + 32 * 1: low five bits with the flag (8 + 32 + 48 = 'X'), then '1'.
    # The fourth count is the difference to the second: 3 - 40 = -37 = 27 - 64 -> 27 + 32 + 48 = 'k', -2 & 31 -> 'N'.
    assert string_of([5, 40, 2, 3]) == "5X12kN"
    assert string_to_counts("5X12kN", "here").tolist() == [5, 40, 2, 3]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools 2.0.11
def test_random_masks_agree_with_pycocotools():
    masks = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    for _ in range(200):
        height, width = rng.integers(1, 50, 2).tolist()
        mask = rng.random((height, width)) < rng.choice([0, 0.02, 0.5, 0.98, 1])
        theirs = masks.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
        counts = counts_of(mask.ravel(order="F"))
        assert string_of(counts) == theirs
        assert string_to_counts(theirs, "here").tolist() == counts
        patch = decode_columns(np.array(counts), width, height, "here")
        np.testing.assert_array_equal(patch.on_box(0, 0, height, width), mask)
        np.testing.assert_array_equal(decode_rows(np.array(counts_of(mask.ravel())), width, height, "here"), mask)


@pytest.mark.parametrize("text", ["", " ", "~", "X", "5oooooooooo1", "5Ä"])
def test_texts_that_are_no_run_lengths_are_refused(text):
    with pytest.raises(AnnotationError, match="shape 3"):
        string_to_counts(text, "shape 3")
