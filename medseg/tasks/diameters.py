"""Long and short axis of a lesion, as RECIST 1.1 measures them in an axial slice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["AxialDiameters", "axial_axis", "axial_diameters"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class AxialDiameters:
    """The longest diameter of a lesion within a slice, and the longest one perpendicular to it in the same slice.

    Args:
        long_mm, short_mm: lengths (in pixels where the affine is that of a photograph).
        axis, slice: the voxel axis that counts the slices, and the slice's index along it; (-1, 0) for a 2D mask.
        long_ends, short_ends: `(2, dims)` end points, voxel index (voxel centres are whole numbers).
        long_ends_mm, short_ends_mm: `(2, 3)` the same in mm, RAS+.
    """

    long_mm: float
    short_mm: float
    axis: int
    slice: int
    long_ends: Floats
    short_ends: Floats
    long_ends_mm: Floats
    short_ends_mm: Floats


def axial_axis(affine: NDArray[np.float64]) -> int:
    """The voxel axis that runs closest to head-foot: its slices are the most nearly axial ones.

    Example:
        >>> axial_axis(np.diag([1.0, 1.0, 3.0, 1.0]))
        2
    """
    unit = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return int(np.abs(unit[2]).argmax())


def axial_diameters(mask: NDArray[np.bool_], affine: NDArray[np.float64]) -> AxialDiameters | None:
    """Long and short axis of one lesion (Eisenhauer et al., RECIST 1.1, Eur J Cancer 2009).

    In every slice the voxels' outlines give a convex hull: its corners are the middles of voxel edges, so a single
    voxel is as long as it is wide and a digital disc as wide as the disc. The slice with the longest distance between
    two corners is taken (the first one, where several tie); the short axis is the longest chord of the same hull at a
    right angle to it. Slices are voxel slices, those of the axis closest to head-foot; of an oblique series they are
    measured as they lie. Where a lesion is bent, both axes may cross what is not lesion, as a ruler does.

    Args:
        mask: `(I, J)` or `(I, J, K)`, one lesion.
        affine: `(4, 4)`, voxel index to mm.

    Returns:
        The diameters; None for an empty mask.

    Example:
        >>> mask = np.zeros((20, 20, 3), bool)
        >>> mask[5:15, 8:12, 1] = True
        >>> found = axial_diameters(mask, np.diag([2.0, 2.0, 5.0, 1.0]))
        >>> round(found.long_mm, 2), round(found.short_mm, 2), found.slice
        (20.88, 8.35, 1)
    """
    if not mask.any():
        return None
    # Imported late, as it costs the start of every prediction a tenth of a second.
    from scipy.spatial import ConvexHull
    from scipy.spatial.distance import pdist, squareform

    axis = axial_axis(affine) if mask.ndim == 3 else -1
    plane = [a for a in range(mask.ndim) if a != axis]
    # Lengths in the slice's plane, right for sheared axes too.
    _, frame = np.linalg.qr(affine[:3, plane])
    best: tuple[float, int, Floats, Floats] | None = None
    for index in np.flatnonzero(mask.any(axis=tuple(plane))) if mask.ndim == 3 else [0]:
        outline = _outline(np.take(mask, index, axis=axis) if mask.ndim == 3 else mask)
        points = outline @ frame.T
        corners = ConvexHull(points).vertices  # in order around the hull
        apart = squareform(pdist(points[corners]))
        longest = float(apart.max())
        if best is None or longest > best[0] + 1e-9:
            pair = np.array(np.unravel_index(apart.argmax(), apart.shape))
            best = longest, int(index), points[corners], pair
    assert best is not None
    longest, index, hull, pair = best
    ends = hull[pair]
    short = _longest_chord(hull, ends)
    back = np.linalg.inv(frame).T
    voxels = [_in_volume(line @ back, plane, axis, index, mask.ndim) for line in (ends, short)]
    world = [_in_mm(line, affine) for line in voxels]
    short_mm = float(np.linalg.norm(short[1] - short[0]))
    return AxialDiameters(longest, short_mm, axis, index, voxels[0], voxels[1], world[0], world[1])


def _outline(mask: NDArray[np.bool_]) -> Floats:
    """Middles of the edges of those pixels of a slice that can be a corner of its hull: first and last of each row."""
    rows = np.flatnonzero(mask.any(axis=1))
    first = mask[rows].argmax(axis=1)
    last = mask.shape[1] - 1 - mask[rows, ::-1].argmax(axis=1)
    centres = np.concatenate([np.stack([rows, first], 1), np.stack([rows, last], 1)]).astype(np.float64)
    return np.concatenate([centres + step for step in ((0.5, 0.0), (-0.5, 0.0), (0.0, 0.5), (0.0, -0.5))])


def _longest_chord(hull: Floats, ends: Floats) -> Floats:
    """End points of the longest chord of a convex polygon at a right angle to a line."""
    along = (ends[1] - ends[0]) / np.linalg.norm(ends[1] - ends[0])
    across = np.array([-along[1], along[0]])
    place, height = (hull - ends[0]) @ along, (hull - ends[0]) @ across
    # Chord length is concave and piecewise linear along the line, so its maximum lies at a corner.
    nxt, nxt_height = np.roll(place, -1), np.roll(height, -1)
    low, high = np.minimum(place, nxt), np.maximum(place, nxt)
    at = place[:, None]
    crosses = (low <= at + 1e-9) & (at <= high + 1e-9)
    run = nxt - place
    share = np.clip((at - place) / np.where(run == 0, 1.0, run), 0.0, 1.0)
    level = height + share * (nxt_height - height)
    # An edge that lies along the chord reaches from one of its ends to the other.
    upper = np.where(run == 0, np.maximum(height, nxt_height), level)
    lower = np.where(run == 0, np.minimum(height, nxt_height), level)
    top = np.where(crosses, upper, -np.inf).max(axis=1)
    bottom = np.where(crosses, lower, np.inf).min(axis=1)
    n = int((top - bottom).argmax())
    chord = np.array([bottom[n], top[n]])[:, None] * across
    return np.asarray(ends[0] + place[n] * along + chord, dtype=np.float64)


def _in_volume(line: Floats, plane: list[int], axis: int, index: int, dims: int) -> Floats:
    full = np.full((2, dims), float(index))
    full[:, plane] = line
    return full


def _in_mm(line: Floats, affine: NDArray[np.float64]) -> Floats:
    index = np.zeros((2, 3))
    index[:, : line.shape[1]] = line
    return np.asarray(index @ affine[:3, :3].T + affine[:3, 3], dtype=np.float64)
