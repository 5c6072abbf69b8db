"""The conventions by which metrics are computed, where the literature knows several."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medseg.errors import ConfigError
from medseg.lookup import check_choice

__all__ = ["Conventions"]

_CHOICES = {
    "surface": {
        "voxel": "mask voxels with a face neighbour (6 in 3D, 4 in 2D) outside, each counting the same",
        "area": "cells between 2x2x2 (2D: 2x2) voxel centres, weighted by the surface's area (length) in them",
    },
    "hd95": {
        "max_directed": "the larger of the two directed 95th percentiles",
        "pooled": "the 95th percentile of both directed sets of distances together",
    },
    "assd": {
        "pooled": "the mean distance over both surfaces together",
        "mean": "the mean of the two directed average distances",
    },
}
"""Convention -> its choices, and what each means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conventions:
    """How metrics are computed.

    Args:
        tolerance_mm: tolerance of NSD.
        surface: "voxel", every surface voxel counts the same; "area", by the area of the surface in each cell.
        hd95: "max_directed" or "pooled".
        assd: "pooled" or "mean".
        boundary: width of the band of boundary IoU, in the unit of the spacing; None is 2% of the image's diagonal.
        lesion_iou: IoU from which two lesions match, for the lesion metrics; panoptic quality always takes 0.5.
        brats_dilation: voxels that reference lesions are dilated by before they are separated, for the BraTS metrics.
        brats_min_mm3: reference lesions of this volume or less do not count there.

    Raises:
        ConfigError: for an unknown convention, or a number out of range.
    """

    tolerance_mm: float = 2.0
    surface: str = "voxel"
    hd95: str = "max_directed"
    assd: str = "pooled"
    boundary: float | None = None
    lesion_iou: float = 0.1
    brats_dilation: int = 3
    brats_min_mm3: float = 50.0

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            check_choice(name, getattr(self, name), choices)
        if not (np.isfinite(self.tolerance_mm) and self.tolerance_mm > 0):
            raise ConfigError(f"tolerance_mm is {self.tolerance_mm}; it must be a positive number of millimetres")
        if self.boundary is not None and not (np.isfinite(self.boundary) and self.boundary > 0):
            raise ConfigError(f"boundary is {self.boundary}; it must be a positive width, or None for 2% of the image")
        if not 0 < self.lesion_iou < 1:
            raise ConfigError(f"lesion_iou is {self.lesion_iou}; it must lie between 0 and 1")
        if self.brats_dilation < 0 or not self.brats_min_mm3 >= 0:
            raise ConfigError(
                f"brats_dilation={self.brats_dilation} and brats_min_mm3={self.brats_min_mm3} must not be negative"
            )

    def in_words(self, name: str) -> str:
        """The value of a convention as it stands in a definition."""
        value = getattr(self, name)
        if name in _CHOICES:
            return _CHOICES[name][value]
        if name == "boundary" and value is None:
            return "2% of the image's diagonal"
        return f"{value:g}"
