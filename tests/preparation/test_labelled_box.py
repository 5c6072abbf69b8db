"""The box around labels, and what is found of labels within it, whatever the order of memory."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from medseg.preparation.fingerprint import count_labels, labelled_box
from medseg.preparation.label_losses import LabelLoss, label_losses

ORDERS = ("C", "F")


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("shape", [(9, 7), (8, 9, 10)])
def test_the_box_is_that_of_scipy(order, shape) -> None:
    rng = np.random.default_rng(3)
    for share in (0.01, 0.05, 0.9):
        labels = np.asarray(rng.integers(1, 4, shape) * (rng.random(shape) < share), np.uint8, order=order)
        labels[(0,) * len(shape)] = 0
        if labels.any():
            assert labelled_box(labels) == ndimage.find_objects((labels > 0).view(np.uint8))[0]


def test_without_labels_the_box_is_empty_and_nothing_is_lost() -> None:
    labels = np.zeros((4, 6), np.uint8)
    assert labels[labelled_box(labels)].size == 0
    assert label_losses(labels, labels[::2, ::2], None) == {}


@pytest.mark.parametrize("order", ORDERS)
def test_labels_are_counted_alike_in_any_order_of_memory(order) -> None:
    labels = np.asarray([[0, 5, 5], [2, 0, 5]], np.uint8, order=order)
    values, counts = count_labels(labels.T)
    assert (values.tolist(), counts.tolist()) == ([0, 2, 5], [2, 1, 3])


@pytest.mark.parametrize("scale", [1, 100_000])
@pytest.mark.parametrize("background", [0, 1])
def test_losses_do_not_depend_on_how_large_the_values_are_nor_on_background(scale, background) -> None:
    native = np.full((6, 8), 2 * scale, np.uint32)
    native[1, 1] = scale
    if background:
        native = np.pad(native, 2)
    found = label_losses(native, native[::2, ::2], None)
    assert found[scale] == LabelLoss(kept=0.0, components=1, vanished=1)
    assert 2 * scale not in found
