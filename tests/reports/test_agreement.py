from __future__ import annotations

import numpy as np
import pytest

from medseg.reports.agreement import agreement_of, agreement_png, size_png

PNG = b"\x89PNG"


def test_limits_of_agreement_are_hand_computed() -> None:
    # Differences 1, 2, 3: mean 2, SD 1.
    found = agreement_of([11.0, 22.0, 33.0], [10.0, 20.0, 30.0])
    assert (found.bias, found.n) == (2.0, 3)
    assert (found.low, found.high) == pytest.approx((2 - 1.96, 2 + 1.96))


def test_a_prediction_that_is_always_too_large_by_the_same_amount_has_no_spread() -> None:
    found = agreement_of(np.arange(5) + 2.0, np.arange(5.0))
    assert found.bias == found.low == found.high == 2.0


def test_the_plots_are_the_same_bytes_for_the_same_numbers() -> None:
    sizes = {"a": [(1.0, 1.1), (2.0, 2.3), (3.0, 2.9)], "b": [(5.0, 5.0), (6.0, 7.0), (8.0, 7.5)]}
    assert agreement_png(sizes, "ml").startswith(PNG) and agreement_png(sizes, "ml") == agreement_png(sizes, "ml")
    points = {"a": [(1.0, 0.8), (2.0, 0.9)]}
    assert size_png(points, "ml").startswith(PNG) and size_png(points, "ml") == size_png(points, "ml")
