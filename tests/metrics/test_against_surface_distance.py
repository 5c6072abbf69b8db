"""Agreement with all measures of DeepMind's surface-distance on random masks, empty ones included."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest
from metric_pairs import FEW_AND_ALL, mask_pair

from medseg.metrics import score_case
from medseg.metrics.areas import cell_areas
from medseg.metrics.label_maps import LabelMaps
from medseg.metrics.surface import surface_distances

TOLERANCE = 2.0


@pytest.fixture
def peer() -> Iterator[ModuleType]:
    """The package as it runs with NumPy 2, which has dropped two names that it needs for empty masks."""
    with pytest.MonkeyPatch.context() as patch, pytest.warns(DeprecationWarning):
        for name, value in (("Inf", np.inf), ("NaN", np.nan)):
            patch.setattr(np, name, value, raising=False)
        import surface_distance.metrics

        blob = np.ones((2, 2), bool)
        surface_distance.metrics.compute_surface_distances(blob, blob, (1, 1))  # scipy.ndimage.filters warns
        yield surface_distance.metrics


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@FEW_AND_ALL
def test_scores_equal_those_of_surface_distance(numbers: range, peer: ModuleType) -> None:
    metrics = ("dice", "hd", "hd95", "assd", "masd", "nsd")
    for pair in map(mask_pair, numbers):
        distances = peer.compute_surface_distances(pair.ref, pair.pred, pair.spacing)
        found = score_case(pair.pred, pair.ref, pair.spacing, (1,), metrics, TOLERANCE, surface="area")[1]
        averages = peer.compute_average_surface_distance(distances)
        areas = distances["surfel_areas_gt"].sum(), distances["surfel_areas_pred"].sum()
        expected = {
            "dice": peer.compute_dice_coefficient(pair.ref, pair.pred),
            "hd": peer.compute_robust_hausdorff(distances, 100),
            "hd95": peer.compute_robust_hausdorff(distances, 95),
            "assd": np.average(averages, weights=areas) if all(areas) else math.inf,
            "masd": np.mean(averages) if all(areas) else math.inf,
            "nsd": peer.compute_surface_dice_at_tolerance(distances, TOLERANCE),
        }
        if not any(areas):
            # Two empty masks: it calls them infinitely far, here there is no distance to speak of.
            assert expected["hd95"] == math.inf
            expected |= dict.fromkeys(("hd", "hd95", "assd", "masd"), math.nan)
        assert found == pytest.approx(expected, abs=1e-5, rel=1e-9, nan_ok=True), pair.number


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@FEW_AND_ALL
def test_both_directions_equal_those_of_surface_distance(numbers: range, peer: ModuleType) -> None:
    for pair in map(mask_pair, numbers):
        if not pair.both_hold_something:
            continue
        theirs = peer.compute_surface_distances(pair.ref, pair.pred, pair.spacing)
        ours = surface_distances(LabelMaps.of(pair.pred, pair.ref, pair.spacing, (1,)), (1,), "area")
        both = ours.ref_to_pred, ours.pred_to_ref
        assert [d.mean for d in both] == pytest.approx(peer.compute_average_surface_distance(theirs), abs=1e-5)
        assert [1 - d.beyond(TOLERANCE) / d.total for d in both] == pytest.approx(
            peer.compute_surface_overlap_at_tolerance(theirs, TOLERANCE), abs=1e-5
        ), pair.number


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 1.3, 2.9)])
def test_surface_in_a_cell_equals_that_of_their_tables(spacing: tuple[float, ...]) -> None:
    from surface_distance import lookup_tables as theirs

    assert cell_areas(spacing) == pytest.approx(theirs.create_table_neighbour_code_to_surface_area(spacing))
    assert cell_areas(spacing[:2]) == pytest.approx(theirs.create_table_neighbour_code_to_contour_length(spacing[:2]))
