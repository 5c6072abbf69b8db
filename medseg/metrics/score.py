"""`score_case`: all scores of one case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medseg.errors import ConfigError, DatasetError, GeometryError
from medseg.labels import LabelScheme, label_table
from medseg.metrics.empty import empty_score
from medseg.metrics.label_maps import LabelMaps
from medseg.metrics.label_pair import LabelPair
from medseg.metrics.metric import Metric
from medseg.metrics.options import METRICS, ScoreOptions
from medseg.metrics.overlap import Overlap
from medseg.metrics.registry import ALL_METRICS

__all__ = ["METRICS", "ScoreOptions", "label_groups", "score_case", "score_maps"]

# The largest that a label map in a file can have.
_LARGEST_LABEL = (1 << 32) - 1


def score_case(
    pred: ArrayLike,
    ref: ArrayLike,
    spacing_mm: Sequence[float] | None = None,
    labels: Sequence[int] | Mapping[str, int | Sequence[int]] | LabelScheme | None = None,
    metrics: Sequence[str] = METRICS,
    tolerance_mm: float = 2.0,
    surface: str = "voxel",
    hd95: str = "max_directed",
    assd: str = "pooled",
    *,
    boundary: float | None = None,
    lesion_iou: float = 0.1,
    brats_dilation: int = 3,
    brats_min_mm3: float = 50.0,
) -> dict[Any, dict[str, float]]:
    """Scores of every label in one case.

    Args:
        pred: `(I, J, K)` or `(I, J)` label map: non-negative integers, or bool.
        ref: the reference, same shape.
        spacing_mm: distance of neighbouring voxels along each axis, in mm. Needed for "nsd" and what else is in mm by
            definition (`needs_mm`); without it "hd95" and "assd" come out in voxels.
        labels: the integers to score; or a scheme or mapping of names, whose regions count as labels; or None for
            every positive integer that occurs. Voxels whose reference is the scheme's `ignore` take part in nothing.
        metrics: any of `medseg.metrics.definitions.METRIC_INFO`, where each has its definition, source and unit.
        tolerance_mm: tolerance of NSD in mm; a distance equal to it counts as within.
        surface: "voxel": each surface voxel counts the same, as in MONAI. "area": by area, as in surface-distance.
        hd95: "max_directed" (larger of the two directed percentiles, as MONAI) or "pooled" (as medpy).
        assd: "pooled" (mean over both surfaces' voxels together, as MONAI) or "mean" (of the two directed means).
        boundary, lesion_iou, brats_dilation, brats_min_mm3: as in `ScoreOptions`.

    Returns:
        label -> metric -> score. Keys are the integers, or the scheme's names. Empty masks as
        `medseg.metrics.empty` says: both empty NaN, one empty 0 for overlaps and infinity for distances.

    Raises:
        ConfigError: for an unknown metric or convention, or NSD without a spacing.
        DatasetError: if an array does not hold non-negative integers.
        GeometryError: if the shapes differ or are not 2D or 3D, or the spacing does not fit them.

    Example:
        >>> pred, ref = np.zeros((2, 8, 8), int)
        >>> pred[2, 2], ref[2, 3] = 1, 1
        >>> score_case(pred, ref, spacing_mm=(1.0, 2.0), labels=(1,), metrics=("dice", "hd95", "nsd"))
        {1: {'dice': 0.0, 'hd95': 2.0, 'nsd': 1.0}}
    """
    options = ScoreOptions(
        tuple(metrics),
        tolerance_mm=tolerance_mm,
        surface=surface,
        hd95=hd95,
        assd=assd,
        boundary=boundary,
        lesion_iou=lesion_iou,
        brats_dilation=brats_dilation,
        brats_min_mm3=brats_min_mm3,
    )
    pred_array, ref_array = _label_map(pred, "the prediction"), _label_map(ref, "the reference")
    if pred_array.shape != ref_array.shape:
        raise GeometryError(
            f"the prediction has shape {pred_array.shape}, the reference {ref_array.shape}; they must be on one grid"
        )
    if ref_array.ndim not in (2, 3) or not ref_array.size:
        raise GeometryError(f"label maps must be 2D or 3D and hold voxels, found shape {ref_array.shape}")
    if spacing_mm is None:
        in_mm = [m for m in options.metrics if ALL_METRICS[m].needs_mm]
        if in_mm:
            raise ConfigError(
                f"{', '.join(in_mm)} needs spacing_mm=(...), being in mm by definition; where the spacing is not "
                "known, leave it out of metrics"
            )
        spacing_mm = (1.0,) * ref_array.ndim
    if len(spacing_mm) != ref_array.ndim or not all(np.isfinite(s) and s > 0 for s in spacing_mm):
        raise GeometryError(
            f"spacing_mm={tuple(spacing_mm)} does not fit shape {ref_array.shape}: one positive number per axis"
        )
    if options.of_probabilities:
        raise ConfigError(
            f"{', '.join(options.of_probabilities)} need probabilities: medseg.metrics.probabilistic has their scores"
        )
    if isinstance(labels, Mapping):
        labels = LabelScheme.from_mapping(*label_table(labels))
    if isinstance(labels, LabelScheme):
        ref_array = labels.with_one_ignored(ref_array)
    groups, ignore = label_groups(labels, pred_array, ref_array)
    maps = LabelMaps.of(pred_array, ref_array, spacing_mm, [v for each in groups.values() for v in each], ignore)
    return {label: score_maps(maps, values, options)[0] for label, values in groups.items()}


def score_maps(maps: LabelMaps, values: Sequence[int], options: ScoreOptions) -> tuple[dict[str, float], Overlap]:
    """One label's scores of its masks, and its voxel counts; `maps` as `LabelMaps.of` gives them."""
    pair = LabelPair(maps, tuple(values), options)
    return {name: _score(ALL_METRICS[name], pair) for name in options.of_masks}, pair.overlap


def _score(metric: Metric, pair: LabelPair) -> float:
    empty = empty_score(metric.empty, pair.overlap.in_pred == 0, pair.overlap.in_ref == 0)
    return float(metric.function(pair)) if empty is None else empty


def label_groups(
    labels: Sequence[int] | LabelScheme | None, *arrays: NDArray[Any]
) -> tuple[dict[Any, tuple[int, ...]], int | None]:
    """Key -> the integers that belong to it, and the ignored value.

    Raises:
        ConfigError: for no labels, or one that is not a positive integer.
    """
    if isinstance(labels, LabelScheme):
        return dict(zip(labels.names, labels.values, strict=True)), labels.ignore
    if labels is None:
        found = {int(v) for array in arrays for v in np.unique(array)} - {0}
        return {v: (v,) for v in sorted(found)}, None
    values = list(labels)
    if not values or any(isinstance(v, bool) or int(v) != v or v <= 0 for v in values):
        raise ConfigError(f"labels={tuple(values)} must name positive integers, e.g. (1, 2); 0 is the background")
    return {v: (int(v),) for v in values}, None


def _label_map(array: ArrayLike, name: str) -> NDArray[Any]:
    found = np.asarray(array)
    if found.dtype.kind not in "buif":
        raise DatasetError(f"{name} must be an array of integers, found {type(array).__name__} of {found.dtype}")
    if found.dtype.kind == "f":
        whole = found.astype(np.int64)
        if not np.array_equal(whole, found):
            raise DatasetError(
                f"{name} contains numbers that are not integers: label maps are needed, not probabilities"
            )
        exact = 2 << np.finfo(found.dtype).nmant
        if found.dtype.itemsize <= 4 and found.max(initial=0) >= exact:
            precision = "half" if found.dtype.itemsize == 2 else "single"
            raise DatasetError(
                f"{name} holds the label value {found.max():.0f} in {precision} precision, where neighbouring values "
                f"from {exact} on are the same; give an array of integers"
            )
        found = whole
    if found.size and (found.dtype.kind == "i" and int(found.min()) < 0):
        raise DatasetError(f"{name} holds negative values down to {int(found.min())}; labels are 0 and above")
    if found.size and found.dtype.itemsize > 2 and int(found.max()) > _LARGEST_LABEL:
        raise DatasetError(f"{name} holds values up to {int(found.max())}; this looks like an image, not a label map")
    return found
