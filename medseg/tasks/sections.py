"""Sections of a tube perpendicular to its centreline."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["outside_image", "section_diameters"]

Floats = NDArray[np.float64]

# A section is looked at up to this multiple of the inscribed radius: enough for an ellipse of 1 : 2.5.
_REACH = 2.5
_MOST = 4000


def section_diameters(
    mask: NDArray[np.bool_], spacing: tuple[float, ...], points: Floats, tangents: Floats, radii: Floats
) -> Floats:
    """Diameter of the circle with the area of each section (2D: its width), in the unit of the spacing.

    Args:
        mask: `(I, J)` or `(I, J, K)`.
        spacing: of the voxels.
        points: `(n, dims)`, where to cut, voxel index times spacing.
        tangents: `(n, dims)`, directions perpendicular to the cuts, of any length.
        radii: `(n,)` inscribed radius at each point; a section is followed up to 2.5 times as far.

    Returns:
        `(n,)`; NaN where a point lies outside the mask, where a section leaves the image or
        goes on further than is looked, and for all but some 4,000
        evenly chosen points where there are more.
    """
    field = mask.astype(np.float32)
    step = min(spacing) / (4 if mask.ndim == 2 else 2)
    result = np.full(len(points), np.nan)
    for n in range(0, len(points), max(1, len(points) // _MOST)):
        size = int(np.ceil((_REACH * radii[n] + 2 * min(spacing)) / step))
        # Half a step off, so that no sample falls on the edge between two voxels.
        offsets = (np.arange(-size, size) + 0.5) * step
        axes = _perpendicular(tangents[n])
        grid = np.meshgrid(*(offsets,) * len(axes), indexing="ij")
        place = points[n].reshape(-1, *(1,) * len(axes)) + np.tensordot(axes.T, np.stack(grid), axes=1)
        index = place / np.reshape(spacing, (-1, *(1,) * len(axes)))
        inside = ndimage.map_coordinates(field, index, order=1, mode="nearest") >= 0.5
        parts, _ = ndimage.label(inside)
        here = parts[(size,) * len(axes)]
        if not here:
            continue
        section = parts == here
        # One that goes on beyond what is looked at has run into another vessel.
        if any(np.take(section, (0, -1), axis=a).any() for a in range(section.ndim)):
            continue
        if outside_image(index, mask.shape)[section].any():
            continue
        size_mm = float(section.sum()) * step ** len(axes)
        result[n] = size_mm if mask.ndim == 2 else 2 * np.sqrt(size_mm / np.pi)
    return result


def outside_image(index: Floats, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Which of the points `(dims, ...)`, in voxels, lie beyond the outer edges of an image."""
    last = np.reshape(np.asarray(shape) - 0.5, (-1, *(1,) * (index.ndim - 1)))
    return np.asarray(((index < -0.5) | (index > last)).any(axis=0))


def _perpendicular(tangent: Floats) -> Floats:
    """One unit vector (2D) or two (3D), as rows, perpendicular to the tangent."""
    unit = tangent / max(float(np.linalg.norm(tangent)), 1e-12)
    if len(unit) == 2:
        return np.array([[-unit[1], unit[0]]])
    first = np.cross(unit, np.eye(3)[np.abs(unit).argmin()])
    first /= np.linalg.norm(first)
    return np.array([first, np.cross(unit, first)])
