"""Scores of one case from its files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.errors import GeometryError
from medseg.evaluation.pairs import Pair
from medseg.geometry import describe, resample_like
from medseg.io.cases import LabelSource, read_label_map
from medseg.labels import LabelScheme
from medseg.metrics.overlap import LabelMaps, Overlap
from medseg.metrics.score import ScoreOptions, label_groups, score_maps
from medseg.preparation.straight import empty_volume, is_orthogonal, straight_grid
from medseg.volume import Volume

__all__ = ["CaseScores", "LabelScores", "read_pair", "score_pair"]


@dataclass(frozen=True, slots=True)
class LabelScores:
    """One label in one case: metric -> value by `score_case`'s names, voxel counts, separate false findings.

    `false_positives` counts the connected components of the prediction where the reference lacks the label, else None.
    """

    values: Mapping[str, float]
    overlap: Overlap
    false_positives: int | None = None


@dataclass(frozen=True, slots=True)
class CaseScores:
    """One case. `spacing` and `diagonal` are in mm, or in pixels where `spacing_known` is False."""

    case: str
    group: str
    labels: Mapping[str, LabelScores]
    spacing: tuple[float, ...]
    spacing_known: bool
    diagonal: float
    total: int
    pred_values: frozenset[int]
    ref_values: frozenset[int]

    @property
    def voxel_size(self) -> float:
        """Size of a voxel in ml, or 1 pixel."""
        return math.prod(self.spacing) / 1000.0 if self.spacing_known else 1.0


def score_pair(
    pair: Pair,
    scheme: LabelScheme | None,
    options: ScoreOptions,
    threshold: float | None = None,
    resample_prediction: bool = False,
) -> CaseScores:
    """Read one case and score it.

    Args:
        pair: the files.
        scheme: what the integers mean; None scores every integer that occurs, named by its number.
        options: metrics and conventions. NSD is left out where the spacing is not known.
        threshold: see `read_pair`.
        resample_prediction: see `read_pair`.

    Raises:
        ReadError, DatasetError, GeometryError: see `read_pair`.
    """
    pred, ref = _straightened(*read_pair(pair, threshold, resample_prediction))
    if not ref.spacing_known:
        options = options.without_tolerance()
    pred_values, ref_values = _values(pred.array), _values(ref.array)
    if scheme is None:
        groups: dict[Any, tuple[int, ...]] = {v: (v,) for v in sorted((pred_values | ref_values) - {0})}
        ignore = None
    else:
        groups, ignore = label_groups(scheme)
    known = [v for values in groups.values() for v in values]
    maps = LabelMaps.of(pred.array, ref.array, ref.spacing_mm, known, ignore)
    labels = {}
    for label, values in groups.items():
        scores, overlap = score_maps(maps, values, options)
        separate = _components(maps, values) if overlap.in_ref == 0 else None
        labels[str(label)] = LabelScores(scores, overlap, separate)
    return CaseScores(
        case=pair.case,
        group=pair.group,
        labels=labels,
        spacing=ref.spacing_mm,
        spacing_known=ref.spacing_known,
        diagonal=ref.diagonal_mm,
        total=maps.total,
        pred_values=pred_values,
        ref_values=ref_values,
    )


def _straightened(pred: Volume, ref: Volume) -> tuple[Volume, Volume]:
    """Both on a straight grid where theirs is sheared (gantry tilt): distances need axes at right angles."""
    if ref.dims != 3 or not ref.spacing_known or is_orthogonal(ref.affine, ref.shape):
        return pred, ref
    affine, shape = straight_grid(ref)
    grid = empty_volume(shape, affine)
    return resample_like(pred, grid, order=0), resample_like(ref, grid, order=0)


def read_pair(pair: Pair, threshold: float | None = None, resample_prediction: bool = False) -> tuple[Volume, Volume]:
    """Prediction and reference of a case, on one grid.

    Args:
        pair: the files.
        threshold: voxels above it become label 1; for 0/255 masks. A file of 0 and 1 is left as it is.
        resample_prediction: bring the prediction to the reference's grid (nearest) where the grids differ.

    Raises:
        ReadError: for a file that cannot be read.
        DatasetError: for a file that holds no label map.
        GeometryError: for grids that differ, with both printed.
    """
    ref, pred = (read_label_map([LabelSource(path)], threshold) for path in (pair.ref, pair.pred))
    if pred.same_geometry(ref, tolerance_mm=1e-2):
        return pred, ref
    if not resample_prediction:
        raise GeometryError(
            f"case {pair.case!r}: the prediction {pair.pred} and the reference {pair.ref} are not on one grid: "
            f"{describe(pred)} against {describe(ref)}; predict on the reference's image, or bring the prediction to "
            "the reference's grid with --resample-prediction (resample_prediction=True)"
        )
    return resample_like(pred, ref, order=0), ref


def _values(array: NDArray[Any]) -> frozenset[int]:
    if array.dtype.itemsize <= 2 and array.dtype.kind in "bu":
        # Counting is several times faster than sorting, slice by slice without a large copy.
        counts = np.zeros(1 << (8 * array.dtype.itemsize), dtype=np.int64)
        for part in array.transpose(np.argsort([-abs(s) for s in array.strides])):
            counts += np.bincount(part.ravel(), minlength=len(counts))
        return frozenset(int(v) for v in np.flatnonzero(counts))
    return frozenset(int(v) for v in np.unique(array))


def _components(maps: LabelMaps, values: Sequence[int]) -> int:
    """Connected pieces (corners touch) of the prediction."""
    first, last = maps.slices(values)
    if first == last:
        return 0
    mask = maps.masks(values, (slice(first, last),))[0]
    return int(ndimage.label(mask, np.ones((3,) * mask.ndim))[1])
