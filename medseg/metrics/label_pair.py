"""One label in prediction and reference: what metrics of masks are computed from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from medseg.metrics.boundary import boundary_iou
from medseg.metrics.conventions import Conventions
from medseg.metrics.label_maps import LabelMaps
from medseg.metrics.lesions import LesionMatch, match_lesions, sensitivity_by_size
from medseg.metrics.lesions_brats import BratsLesions, brats_lesions
from medseg.metrics.overlap import Overlap
from medseg.metrics.surface import SurfaceDistances, surface_distances
from medseg.metrics.topology import Skeletons, betti_numbers

__all__ = ["SMALL_LESION_ML", "LabelPair"]

SMALL_LESION_ML = 0.5
"""About a ball of 10 mm diameter, the smallest lesion that RECIST 1.1 calls measurable."""


@dataclass(frozen=True)
class LabelPair:
    """One label in prediction and reference; what several metrics need is computed once, on first use.

    Args:
        maps: both label maps, as `LabelMaps.of` gives them.
        values: the integers that belong to the label.
        conventions: by which metrics are computed.
    """

    maps: LabelMaps
    values: tuple[int, ...]
    conventions: Conventions

    @cached_property
    def overlap(self) -> Overlap:
        """Counts of voxels."""
        return self.maps.overlap(self.values)

    @cached_property
    def distances(self) -> SurfaceDistances:
        """Distances between the surfaces."""
        return surface_distances(self.maps, self.values, self.conventions.surface)

    @cached_property
    def skeletons(self) -> Skeletons:
        """Skeletons of both masks."""
        return Skeletons.of(*self.maps.box_masks(self.values), self.maps.file_spacing)

    @cached_property
    def betti_errors(self) -> tuple[int, ...]:
        """Absolute differences of the Betti numbers: components, loops, cavities."""
        pred, ref = (betti_numbers(mask) for mask in self.maps.box_masks(self.values))
        return tuple(abs(p - r) for p, r in zip(pred, ref, strict=True))

    @cached_property
    def lesions(self) -> LesionMatch:
        """Lesions matched from the IoU that the conventions ask for."""
        masks = self.maps.box_masks(self.values)
        return match_lesions(*masks, self.maps.file_spacing, self.conventions.lesion_iou)

    @cached_property
    def panoptic(self) -> LesionMatch:
        """Lesions matched as panoptic quality asks."""
        return match_lesions(*self.maps.box_masks(self.values), self.maps.file_spacing, math.nextafter(0.5, 1.0))

    @cached_property
    def brats(self) -> BratsLesions:
        """Lesions by the rule of BraTS 2023."""
        asked = self.conventions
        masks = self.maps.box_masks(self.values)
        return brats_lesions(*masks, self.maps.file_spacing, asked.brats_dilation, asked.brats_min_mm3)

    @property
    def boundary_iou(self) -> float:
        """IoU of the bands inside both boundaries."""
        width = self.conventions.boundary or 0.02 * self.maps.diagonal
        return boundary_iou(*self.maps.box_masks(self.values), self.maps.file_spacing, width)

    @property
    def sensitivity_by_size(self) -> tuple[float, float]:
        """Share of the small and of the large reference lesions that are found; NaN where there are none."""
        small, large = sensitivity_by_size(self.lesions.rows, (SMALL_LESION_ML,))
        return small[3], large[3]
