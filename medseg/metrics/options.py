"""Which metrics, by which convention."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from medseg.errors import ConfigError
from medseg.lookup import check_choice, nearest_hint
from medseg.metrics.definitions import ALL_INFO, METRIC_INFO, PROBABILITY_INFO

__all__ = ["METRICS", "ScoreOptions"]

METRICS = ("dice", "iou", "hd95", "assd", "nsd")
"""The metrics that are computed where none are named, in the order reports show them."""

_CHOICES = {"surface": ("voxel", "area"), "hd95": ("max_directed", "pooled"), "assd": ("pooled", "mean")}


@dataclass(frozen=True, slots=True)
class ScoreOptions:
    """Which metrics, by which convention.

    Args:
        metrics: names out of `medseg.metrics.definitions.ALL_INFO`.
        tolerance_mm: tolerance of NSD.
        surface: "voxel", every surface voxel counts the same; "area", by the area of the surface in each cell.
        hd95: "max_directed" or "pooled".
        assd: "pooled" or "mean".
        boundary: width of the band of boundary IoU, in the unit of the spacing; None is 2% of the image's diagonal.
        lesion_iou: IoU from which two lesions are one, for the lesion metrics; panoptic quality always takes 0.5.
        brats_dilation: voxels that reference lesions grow before they are told apart, for the BraTS metrics.
        brats_min_mm3: reference lesions of this volume or less do not count there.

    Raises:
        ConfigError: for an unknown metric or convention, or a number out of range.
    """

    metrics: tuple[str, ...] = METRICS
    tolerance_mm: float = 2.0
    surface: str = "voxel"
    hd95: str = "max_directed"
    assd: str = "pooled"
    boundary: float | None = None
    lesion_iou: float = 0.1
    brats_dilation: int = 3
    brats_min_mm3: float = 50.0

    def __post_init__(self) -> None:
        unknown = [m for m in self.metrics if m not in ALL_INFO]
        if unknown or not self.metrics:
            names = ", ".join(ALL_INFO)
            hint = nearest_hint(unknown[0], ALL_INFO) if unknown else ""
            wrong = ", ".join(map(repr, unknown)) or "(none given)"
            raise ConfigError(f"unknown metric {wrong}; there are {names}{hint}")
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

    @property
    def of_masks(self) -> tuple[str, ...]:
        """The metrics that need masks alone."""
        return tuple(m for m in self.metrics if m in METRIC_INFO)

    @property
    def of_probabilities(self) -> tuple[str, ...]:
        """The metrics that need probabilities."""
        return tuple(m for m in self.metrics if m in PROBABILITY_INFO)

    def fitting(self, dims: int, spacing_known: bool) -> ScoreOptions:
        """The same without the metrics that mean nothing in 2D, or where the spacing is not known.

        Args:
            dims: of the images, 2 or 3.
            spacing_known: whether millimetres are.

        Raises:
            ConfigError: if these are all that was asked for.
        """
        rest = tuple(m for m in self.metrics if dims == 3 or not ALL_INFO[m].needs_3d)
        if not rest:
            raise ConfigError(f"{', '.join(self.metrics)} mean nothing in 2D images; ask for other metrics")
        rest = tuple(m for m in rest if spacing_known or not ALL_INFO[m].needs_mm)
        if not rest:
            raise ConfigError(
                f"{', '.join(self.metrics)} need millimetres, and the spacing of these images is not known; "
                "ask for other metrics"
            )
        return replace(self, metrics=rest)

    def define(self, metric: str) -> str:
        """The metric's definition under these conventions: one sentence with its source, for a report or paper."""
        info = ALL_INFO[metric]
        words = {
            "hd95": {
                "max_directed": "the larger of the two directed 95th percentiles",
                "pooled": "the 95th percentile of both directed sets of distances together",
            }[self.hd95],
            "assd": {
                "pooled": "the mean distance over both surfaces together",
                "mean": "the mean of the two directed average distances",
            }[self.assd],
            "surface": {
                "voxel": "mask voxels with a face neighbour (6 in 3D, 4 in 2D) outside, each counting the same",
                "area": "cells between 2x2x2 (2D: 2x2) voxel centres, weighted by the surface's area (length) in them",
            }[self.surface],
            "tolerance": f"{self.tolerance_mm:g}",
            "boundary": "2% of the image's diagonal" if self.boundary is None else f"{self.boundary:g}",
            "lesion_iou": f"{self.lesion_iou:g}",
            "brats_dilation": str(self.brats_dilation),
            "brats_min": f"{self.brats_min_mm3:g}",
        }
        return f"{info.definition.format(**words)} ({info.source})."
