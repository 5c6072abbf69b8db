"""The thickness of labelled structures: known shapes have the thickness of geometry."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.preparation.label_thickness import measure_thickness

PLACES = np.indices((64, 64, 64)) - 31.5


def thickness(mask: np.ndarray, spacing: tuple[float, ...] | None = None) -> float:
    whole = tuple(slice(0, n) for n in mask.shape)
    return measure_thickness(mask.astype(np.uint8), spacing or (1.0,) * mask.ndim, {1: int(mask.sum())}, whole)[1]


@pytest.mark.parametrize("radius", [5, 10, 25])
def test_a_ball_is_as_thick_as_its_diameter(radius) -> None:
    assert thickness((PLACES**2).sum(axis=0) < radius**2) == pytest.approx(2 * radius, rel=0.04)


def test_a_ball_is_as_thick_on_thick_slices() -> None:
    i, j, k = PLACES
    ball = i**2 + j**2 + (3 * k) ** 2 < 25**2
    assert thickness(ball, (1.0, 1.0, 3.0)) == pytest.approx(50, rel=0.05)


def test_a_disc_is_as_thick_as_its_diameter_and_a_strip_as_twice_its_width() -> None:
    i, j = np.indices((200, 200)) - 99.5
    assert thickness(i**2 + j**2 < 40**2) == pytest.approx(80, rel=0.02)
    # Faces of a strip along the axes are its true border, which the factor for round things takes as too long.
    assert thickness(np.abs(i) < 4) == pytest.approx(2 * 8 * 4 / math.pi, rel=0.05)


def test_every_label_is_measured_by_itself_where_labels_touch() -> None:
    labels = np.zeros((20, 20, 20), np.uint16)
    labels[2:12, 2:12, 2:12] = 3
    labels[12:16, 2:12, 2:12] = 500
    whole = (slice(2, 16), slice(2, 12), slice(2, 12))
    found = measure_thickness(labels, (1, 1, 1), {3: 1000, 500: 400}, whole)
    # 2 * 3 * V / S * 1.5, with six faces of 100 and with two of 100 and four of 40.
    assert found == {3: pytest.approx(9 * 1000 / 600), 500: pytest.approx(9 * 400 / 360)}


def test_labels_that_are_not_asked_for_are_left_out() -> None:
    labels = np.zeros((9, 9, 9), np.uint8)
    labels[2:4, 2:4, 2:4], labels[6:8, 6:8, 6:8] = 1, 255
    assert set(measure_thickness(labels, (1, 1, 1), {1: 8}, (slice(0, 9),) * 3)) == {1}


@given(st.permutations([0, 1, 2]), st.integers(0, 2**32 - 1), st.floats(0.1, 10))
def test_thickness_follows_the_unit_and_no_order_of_axes(order, seed, unit) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((7, 6, 5)) < 0.4
    mask[3, 3, 3] = True
    spacing = (1.0, 2.0, 3.5)
    turned = thickness(mask.transpose(order), tuple(unit * spacing[axis] for axis in order))
    assert turned == pytest.approx(unit * thickness(mask, spacing), rel=1e-4)
