"""A spacing means the same whatever kind of number it is, and rounding of a spacing moves nothing across a border."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from medseg.augmentation import SpatialAugment
from medseg.metrics import ALL_METRICS, score_case
from medseg.metrics.areas import cell_areas
from medseg.metrics.boundary import boundary_iou
from medseg.metrics.lesions import match_lesions, sensitivity_by_size
from medseg.metrics.lesions_brats import brats_lesions
from medseg.metrics.nearest import nearest_distances
from medseg.metrics.topology import Skeletons
from medseg.nets.crf import CrfOptions, dense_crf
from medseg.preparation.net_needs import Needs, axis_strides, sides_for
from medseg.resampling import resample, resampled_shape
from medseg.tasks.calibre import recall_by_calibre
from medseg.tasks.centreline import measure_centreline
from medseg.tasks.diameters import axial_diameters
from medseg.tasks.lesions import find_lesions, label_lesions
from medseg.volume import Volume

SPACING = (1, 2, 3)


def _masks(seed=0):
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in (30, 22, 14)], indexing="ij"), -1)
    ref = np.linalg.norm((grid - (14, 10, 7)) * (0.5, 1.0, 1.5), axis=-1) < 6
    ref[3:6, 2:4, 2:4] = True
    # A bent tube.
    ref |= np.hypot(grid[..., 1] - 17 - 2 * np.sin(grid[..., 0] / 5), grid[..., 2] - 10) < 1.6
    return np.roll(ref, 1, 1) | (rng.random(ref.shape) < 0.002), ref


def _volume(spacing, array):
    return Volume(array.astype(np.float32), np.diag([*spacing, 1]))


PRED, REF = _masks()
POINTS = np.argwhere(PRED).astype(np.int32)
NEEDS = Needs(16, (2.6, 0.49), per_axis=True)
IMAGE = torch.arange(2 * 6 * 5 * 4, dtype=torch.float32).reshape(2, 6, 5, 4).sin()
MEASURED = {
    "centreline": lambda s: measure_centreline(REF, s),
    "calibre": lambda s: recall_by_calibre(PRED, REF, s, (2.0, 5.0)),
    "metrics by voxel": lambda s: score_case(PRED, REF, s, metrics=MASK_METRICS),
    "metrics by area": lambda s: score_case(PRED, REF, s, metrics=MASK_METRICS, surface="area"),
    "cell areas": lambda s: cell_areas(s).tolist(),
    "boundary": lambda s: boundary_iou(PRED, REF, s, 3),
    "lesions": lambda s: match_lesions(PRED, REF, s),
    "BraTS lesions": lambda s: brats_lesions(PRED, REF, s, 1, 1),
    "nearest": lambda s: nearest_distances(POINTS, np.argwhere(REF).astype(np.int32), tuple(s)).tolist(),
    "skeletons": lambda s: Skeletons.of(PRED, REF, s).recall,
    "lesion list": lambda s: find_lesions(REF, np.diag([*s, 1])),
    "lesion numbers": lambda s: label_lesions(REF, np.diag([*s, 1])).tolist(),
    "diameters": lambda s: axial_diameters(REF, np.diag([*s, 1])),
    "shape": lambda s: resampled_shape((30, 20, 10), s, (2, 2, 2)),
    "shape wanted": lambda s: resampled_shape((30, 20, 10), (2, 2, 2), s),
    "resampled": lambda s: resample(_volume((2, 2, 2), REF), tuple(s)).array.tolist(),
    "volume": lambda s: (_volume(s, REF).spacing_mm, _volume(s, REF).diagonal_mm),
    "strides": lambda s: axis_strides(NEEDS, tuple(s)),
    "sides": lambda s: sides_for(NEEDS, (30, 20, 10), tuple(s)),
    "elastic": lambda s: SpatialAugment(3, (32, 32, 16), s).draw(np.random.default_rng(0), (40, 40, 20)),
    "CRF": lambda s: dense_crf(IMAGE, IMAGE[:1], tuple(s), CrfOptions()).tolist(),
}
MASK_METRICS = tuple(name for name, metric in ALL_METRICS.items() if metric.needs == "masks")


@pytest.mark.parametrize("name", MEASURED)
def test_a_spacing_of_whole_numbers_measures_what_the_same_spacing_in_floats_does(name) -> None:
    measure = MEASURED[name]
    expected = repr(measure(tuple(float(s) for s in SPACING)))
    for spacing in (SPACING, np.array(SPACING), np.array(SPACING, np.int32), np.array(SPACING, np.float32)):
        assert repr(measure(spacing)) == expected


@pytest.mark.parametrize("spacing", [(0.7, 0.7, 0.7), (0.3, 0.3, 0.9), (1 / 3, 1 / 3, 1.1)])
def test_a_spacing_rounded_to_float32_as_in_files_moves_nothing_across_a_border(spacing) -> None:
    stored = tuple(float(np.float32(s)) for s in spacing)
    for multiple in (1, 2, 3):
        edges = (multiple * spacing[0],)
        assert [(r.voxels, r.recall) for r in recall_by_calibre(PRED, REF, stored, edges)] == [
            (r.voxels, r.recall) for r in recall_by_calibre(PRED, REF, spacing, edges)
        ]
        exact, rounded = (
            score_case(PRED, REF, s, metrics=("nsd",), tolerance_mm=edges[0])[1]["nsd"] for s in (spacing, stored)
        )
        assert exact == pytest.approx(rounded, abs=1e-12)


@pytest.mark.parametrize("voxels", range(1, 200, 7))
def test_a_lesion_of_exactly_a_limit_lies_on_the_same_side_of_it_whatever_rounding_does(voxels) -> None:
    for spacing in ((0.7, 0.7, 0.7), (0.1, 0.3, 0.7), (1 / 3, 0.9, 1.1)):
        volume = float(np.prod([s * 10 for s in spacing])) * voxels / 1000
        for used in (spacing, tuple(float(np.float32(s)) for s in spacing)):
            mask = np.zeros((voxels + 2, 3, 3), bool)
            mask[1:-1, 1, 1] = True
            rows = match_lesions(mask, mask, used).reference
            # A lesion on a border belongs to the upper bin; one of `min_mm3` does not count.
            assert [count for _, _, count, _ in sensitivity_by_size(rows, [volume / 1000])] == [0, 1]
            assert brats_lesions(mask, mask, used, 0, volume).lesion_dice == ()


def test_a_bar_of_n_voxels_has_a_calibre_of_n_voxels_at_any_spacing() -> None:
    for side in (0.1, 0.3, 0.7, 1 / 3):
        for width in (1, 3, 5, 7):
            mask = np.zeros((40, 15), bool)
            mask[2:38, 3 : 3 + width] = True
            middle = np.zeros_like(mask)
            middle[12:28] = True
            thin, thick = recall_by_calibre(mask, mask & middle, (side, side), (width * side,))
            assert thin.voxels == 0 or thick.voxels > thin.voxels
            assert thick.voxels >= 8 and math.isnan(thin.recall) == (thin.voxels == 0)
