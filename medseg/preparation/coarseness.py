"""How coarse a grid a network may see: as fine as the images, unless a patch would then show too little of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from medseg.labels import LabelScheme
from medseg.preparation.fingerprint import Fingerprint

__all__ = ["coarser_spacing", "thinnest_of"]

# Voxels that the thinnest label keeps across its thickness: a ball of 20 voxels, each of them wholly in or out, comes
# back to its own grid with a Dice of 0.977 or more.
VOXELS_ACROSS = 20.0
# Resampling by less gains nothing that would be worth its blur.
WORTH_RESAMPLING = 1.3


def thinnest_of(fingerprint: Fingerprint, scheme: LabelScheme) -> float | None:
    """Thickness of the thinnest label, in mm, or in pixels where no spacing is known; the median over the cases.

    A region is as thick as the thickest of the values that it unites. None where nothing was measured.
    """
    of_labels = []
    for values in scheme.values:
        of_cases = [
            max(case.thickness_mm[v] for v in values if v in case.thickness_mm)
            for case in fingerprint.cases
            if any(v in case.thickness_mm for v in values)
        ]
        if of_cases:
            of_labels.append(float(np.median(of_cases)))
    return min(of_labels, default=None)


def coarser_spacing(
    shape: Sequence[float], spacing: Sequence[float], reach: float | None, thinnest: float | None, voxels: float
) -> tuple[float, ...]:
    """The spacing of a grid on which a patch of so many voxels shows what there is to see, no coarser than needed.

    Axes that are coarser already keep their spacing. The grid stays so fine that the thinnest label is 20 voxels thick,
    whatever a patch then shows.

    Args:
        shape: voxels per axis of the images.
        spacing: per axis.
        reach: how long a patch need be, in the unit of the spacing; None: unknown.
        thinnest: thickness of the thinnest label, likewise.
        voxels: of a patch.

    Returns:
        Per axis; `spacing` itself where that is fine enough, or where nothing was measured.

    Example:
        >>> coarser_spacing((512, 512), (1.0, 1.0), reach=1400.0, thinnest=230.0, voxels=256 * 256)
        (2.0, 2.0)
        >>> coarser_spacing((512, 512), (1.0, 1.0), reach=60.0, thinnest=8.0, voxels=256 * 256)
        (1.0, 1.0)
    """
    if reach is None or thinnest is None:
        return tuple(spacing)
    shown = [min(n * s, reach) for n, s in zip(shape, spacing, strict=True)]
    fine, coarse = min(spacing), max(thinnest / VOXELS_ACROSS, min(spacing))
    if _voxels(shown, spacing, coarse) < voxels:
        for _ in range(40):
            middle = math.sqrt(fine * coarse)
            fine, coarse = (middle, coarse) if _voxels(shown, spacing, middle) > voxels else (fine, middle)
    wanted = float(f"{coarse:.2g}")
    return tuple(wanted if wanted >= WORTH_RESAMPLING * s else s for s in spacing)


def _voxels(extent: Sequence[float], spacing: Sequence[float], least: float) -> float:
    return math.prod(length / max(s, least) for length, s in zip(extent, spacing, strict=True))
