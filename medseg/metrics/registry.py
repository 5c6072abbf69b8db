"""From the name of a metric to the function that computes it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from medseg.metrics.boundary import boundary_iou
from medseg.metrics.label_maps import LabelMaps
from medseg.metrics.lesions import LesionMatch, match_lesions
from medseg.metrics.lesions_brats import BratsLesions, brats_lesions
from medseg.metrics.options import ScoreOptions
from medseg.metrics.overlap import Overlap
from medseg.metrics.surface import SurfaceDistances, surface_distances
from medseg.metrics.topology import Skeletons, betti_numbers

__all__ = ["SCORES", "LabelPair"]


@dataclass(frozen=True)
class LabelPair:
    """One label in prediction and reference; what several metrics need is computed once, on first use."""

    maps: LabelMaps
    values: tuple[int, ...]
    options: ScoreOptions

    @cached_property
    def overlap(self) -> Overlap:
        """Counts of voxels."""
        return self.maps.overlap(self.values)

    @cached_property
    def distances(self) -> SurfaceDistances:
        """Distances between the surfaces."""
        return surface_distances(self.maps, self.values, self.options.surface)

    @cached_property
    def skeletons(self) -> Skeletons:
        """Skeletons of both masks."""
        return Skeletons.of(*self.maps.box_masks(self.values), self.maps.file_spacing)

    @cached_property
    def betti_errors(self) -> tuple[int, ...]:
        """Differences of the Betti numbers."""
        pred, ref = (betti_numbers(mask) for mask in self.maps.box_masks(self.values))
        return tuple(abs(p - r) for p, r in zip(pred, ref, strict=True))

    @cached_property
    def lesions(self) -> LesionMatch:
        """Lesions matched by the options' IoU."""
        masks = self.maps.box_masks(self.values)
        return match_lesions(*masks, self.maps.file_spacing, self.options.lesion_iou)

    @cached_property
    def panoptic(self) -> LesionMatch:
        """Lesions matched as panoptic quality asks."""
        return match_lesions(*self.maps.box_masks(self.values), self.maps.file_spacing, math.nextafter(0.5, 1.0))

    @cached_property
    def brats(self) -> BratsLesions:
        """Lesions by the rule of BraTS 2023."""
        options = self.options
        masks = self.maps.box_masks(self.values)
        return brats_lesions(*masks, self.maps.file_spacing, options.brats_dilation, options.brats_min_mm3)

    def boundary_iou(self) -> float:
        """IoU of the bands inside both boundaries."""
        width = self.options.boundary or 0.02 * self.maps.diagonal
        return boundary_iou(*self.maps.box_masks(self.values), self.maps.file_spacing, width)


SCORES: dict[str, Callable[[LabelPair], float]] = {
    "dice": lambda pair: pair.overlap.dice,
    "iou": lambda pair: pair.overlap.iou,
    "sensitivity": lambda pair: pair.overlap.sensitivity,
    "precision": lambda pair: pair.overlap.precision,
    "specificity": lambda pair: pair.overlap.specificity,
    "volume_difference_ml": lambda pair: pair.overlap.volume_difference_ml(math.prod(pair.maps.spacing)),
    "volumetric_similarity": lambda pair: pair.overlap.volumetric_similarity,
    "hd": lambda pair: pair.distances.hd,
    "hd95": lambda pair: pair.distances.hd95(pair.options.hd95),
    "assd": lambda pair: pair.distances.assd(pair.options.assd),
    "masd": lambda pair: pair.distances.masd,
    "nsd": lambda pair: pair.distances.nsd(pair.options.tolerance_mm),
    "boundary_iou": lambda pair: pair.boundary_iou(),
    "cldice": lambda pair: pair.skeletons.cldice,
    "skeleton_recall": lambda pair: pair.skeletons.recall,
    "betti_error_0": lambda pair: pair.betti_errors[0],
    "betti_error_1": lambda pair: pair.betti_errors[1],
    "betti_error_2": lambda pair: pair.betti_errors[2],
    "lesion_dice": lambda pair: pair.lesions.dice,
    "lesion_f1": lambda pair: pair.lesions.f1,
    "lesion_sensitivity": lambda pair: pair.lesions.sensitivity,
    "lesion_precision": lambda pair: pair.lesions.precision,
    "lesion_false_positives": lambda pair: pair.lesions.false_positives,
    "pq": lambda pair: pair.panoptic.panoptic_quality,
    "sq": lambda pair: pair.panoptic.segmentation_quality,
    "rq": lambda pair: pair.panoptic.f1,
    "brats_lesion_dice": lambda pair: pair.brats.dice,
    "brats_lesion_hd95": lambda pair: pair.brats.hd95,
}
"""Name -> score of one label; names and definitions as in `medseg.metrics.definitions.METRIC_INFO`."""
