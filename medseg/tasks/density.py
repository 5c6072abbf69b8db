"""Density of the lung in CT, and findings that make the numbers unreliable."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.tasks.diameters import axial_axis
from medseg.volume import Finding

__all__ = ["Density", "density_findings", "lung_density"]

# Slices thicker than this lower %LAA-950 by averaging (RSNA QIBA profile for lung density: 1 mm and below; Madani et
# al., Radiology 2007: 1.25 mm against 5 mm).
_THICK_MM = 2.0
# Blood measures 30 to 60 HU without contrast medium.
_CONTRAST_HU = 90.0
_EMPHYSEMA_HU = -950
# Beyond what lung tissue and its vessels have: not a chest CT, or not in Hounsfield units.
_POSSIBLE_HU = (-980.0, -300.0)


@dataclass(frozen=True, slots=True)
class Density:
    """Density measures of one lung, or of both.

    Args:
        volume_ml: volume of the mask.
        mean_hu: mean lung density.
        perc15_hu: 15th percentile of the density (Perc15; lower in emphysema; Parr et al., AJRCCM 2006).
        laa950_percent: share of voxels below -950 HU (%LAA-950; Gevenois et al., AJRCCM 1996), 0 to 100.
    """

    volume_ml: float
    mean_hu: float
    perc15_hu: float
    laa950_percent: float


def lung_density(mask: NDArray[np.bool_], image: NDArray[np.generic], voxel_ml: float) -> Density | None:
    """Density measures over a mask; None where it is empty.

    Args:
        mask: `(I, J, K)`.
        image: same shape, Hounsfield units.
        voxel_ml: volume of a voxel.

    Example:
        >>> image = np.array([[[-960, -900, -850, -800]]])
        >>> found = lung_density(np.ones((1, 1, 4), bool), image, 0.001)
        >>> found.mean_hu, found.laa950_percent
        (-877.5, 25.0)
    """
    values = image[mask].astype(np.float64)
    if not len(values):
        return None
    emphysema = 100 * float(np.count_nonzero(values < _EMPHYSEMA_HU)) / len(values)
    return Density(float(len(values) * voxel_ml), float(values.mean()), float(np.percentile(values, 15)), emphysema)


def density_findings(
    mask: NDArray[np.bool_], image: NDArray[np.generic], affine: NDArray[np.float64]
) -> tuple[Finding, ...]:
    """Why density measures and volumes of these lungs may not be comparable.

    `lung_thick_slices`: slices of more than 2 mm. `lung_contrast`: contrast medium, recognised by a median above 90 HU
    of what is neither fat nor air in the front half of the room between the lungs, where heart and large vessels lie.
    `lung_cut_apex`, `lung_cut_base`: the mask reaches the last or first slice. `lung_not_hu`: a mean outside the range
    of lungs.

    Args:
        mask: `(I, J, K)`, both lungs.
        image: same shape, Hounsfield units.
        affine: `(4, 4)`, voxel index to mm, RAS+.

    Returns:
        Findings, none where all is well or the mask is empty.
    """
    if not mask.any():
        return ()
    findings = []
    axis = axial_axis(affine)
    thickness = float(np.linalg.norm(affine[:3, axis]))
    if thickness > _THICK_MM:
        message = f"slices are {thickness:.3g} mm apart: Perc15 and %LAA-950 are comparable up to {_THICK_MM:g} mm"
        findings.append(Finding("lung_thick_slices", message))
    blood = _blood_hu(mask, image, affine)
    if blood is not None and blood > _CONTRAST_HU:
        message = f"contrast medium: the middle of the chest measures {blood:.0f} HU, which raises lung density"
        findings.append(Finding("lung_contrast", message))
    slices = np.asarray(mask.any(axis=tuple(a for a in range(3) if a != axis)))
    upwards = affine[2, axis] > 0
    for touched, kind, end in (
        (slices[-1 if upwards else 0], "lung_cut_apex", "upper"),
        (slices[0 if upwards else -1], "lung_cut_base", "lower"),
    ):
        if touched:
            message = f"the lungs reach the {end} edge of the image: volumes and densities are those of a part"
            findings.append(Finding(kind, message))
    mean = float(image[mask].mean())
    if not _POSSIBLE_HU[0] < mean < _POSSIBLE_HU[1]:
        message = f"a mean of {mean:.0f} HU is implausible for a lung: is this a CT in Hounsfield units?"
        findings.append(Finding("lung_not_hu", message))
    return tuple(findings)


def _blood_hu(mask: NDArray[np.bool_], image: NDArray[np.generic], affine: NDArray[np.float64]) -> float | None:
    """Median of what is denser than fat in the front half of the room between the lungs."""
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    left_right, front_back = (int(np.abs(directions[n]).argmax()) for n in (0, 1))
    (box,) = ndimage.find_objects(mask.astype(np.uint8))
    cut = list(box)
    width, depth = (box[a].stop - box[a].start for a in (left_right, front_back))
    cut[left_right] = slice(box[left_right].start + width * 3 // 8, box[left_right].stop - width * 3 // 8)
    middle = box[front_back].start + depth // 2
    to_front = directions[1, front_back] > 0
    cut[front_back] = slice(middle, box[front_back].stop) if to_front else slice(box[front_back].start, middle)
    values = image[tuple(cut)][~mask[tuple(cut)]]
    values = values[(values > 0) & (values < 600)]
    return float(np.median(values)) if len(values) >= 50 else None
