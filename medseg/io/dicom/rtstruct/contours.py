"""From masks to closed contours along the edges of their voxels and back; the round trip is exact.

Coordinates are voxel indices: voxel (i, j) extends from i - 0.5 to i + 0.5, and its centre has integer coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["fill", "trace"]

Mask = NDArray[np.bool_]
Points = NDArray[np.float64]

# Number of crossings in memory: 100 MB, whatever a damaged file contains.
_MOST_CROSSINGS = 2**21


def trace(mask: Mask) -> list[Points]:
    """The contours of a mask along the edges of its voxels: only corners, the first point not repeated.

    Each component and each hole has a contour of its own. Where voxels meet diagonally, contours turn around the voxels
    of the mask: there they may touch each other or themselves, but none crosses, and a hole that meets the outside in a
    corner is not a hole. Outer contours have a positive area in (i, j), holes a negative one, so the sum
    of the areas is the number of voxels.

    Args:
        mask: (I, J).

    Returns:
        Arrays (n, 2) of (i, j), all of them half-integers, in order of their first corners.

    Example:
        >>> trace(np.array([[True]]))[0].tolist()
        [[-0.5, 0.5], [-0.5, -0.5], [0.5, -0.5], [0.5, 0.5]]
    """
    filled_i, filled_j = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not filled_i.size:
        return []
    low = np.array([filled_i[0], filled_j[0]])
    box = np.pad(mask[low[0] : filled_i[-1] + 1, low[1] : filled_j[-1] + 1], 1)
    # The four voxels around a corner, before and after it along i and j.
    before_before, before_behind, behind_before, behind_behind = box[:-1, :-1], box[:-1, 1:], box[1:, :-1], box[1:, 1:]
    single = before_before ^ before_behind ^ behind_before ^ behind_behind
    crossed = (before_before == behind_behind) & (before_behind == behind_before) & (before_before != before_behind)
    corner_i, corner_j = np.nonzero(single | crossed)
    doubled = crossed[corner_i, corner_j]
    # Two contours pass where voxels meet diagonally, so such a corner counts twice.
    copies = 1 + doubled.astype(np.intp)
    corner_i, corner_j, doubled = (np.repeat(a, copies) for a in (corner_i, corner_j, doubled))
    follower = _followers(corner_i, corner_j, doubled, behind_behind[corner_i, corner_j])
    starts = np.arange(0, len(corner_i), 2)
    # The mask is on the same side of every contour.
    starts += behind_behind[corner_i[starts], corner_j[starts]]
    points = np.stack([corner_i, corner_j], axis=1) + (low - 0.5)
    return [points[walk] for walk in _walks(starts.tolist(), follower)]


def _followers(corner_i: NDArray[np.intp], corner_j: NDArray[np.intp], doubled: Mask, behind: Mask) -> list[int]:
    """For each corner the one at the other end of its edge along i.

    Corners are ordered by i, then j. On every grid line an edge connects corners 2n and 2n + 1, so these share an edge
    along j; sorted by j, then i, they share an edge along i.
    """
    # The first of two copies has the edge towards smaller j. It has the one towards smaller i too if the voxel
    # between the two belongs to the mask, for then both are edges of that voxel.
    second = np.zeros(len(doubled), dtype=np.intp)
    pairs = np.flatnonzero(doubled)[1::2]
    second[pairs] = 1
    turned = second ^ (doubled & ~behind)
    order = np.lexsort((turned, corner_i, corner_j))
    follower = np.empty(len(order), dtype=np.intp)
    follower[order[0::2]], follower[order[1::2]] = order[1::2], order[0::2]
    return list(follower.tolist())


def _walks(starts: Sequence[int], follower: Sequence[int]) -> list[list[int]]:
    """Closed walks over all corners, alternating between edges along j and along i."""
    seen = bytearray(len(follower))
    walks = []
    for start in starts:
        if seen[start]:
            continue
        walk = []
        corner = start
        while not seen[corner]:
            other = corner ^ 1
            seen[corner] = seen[other] = 1
            walk.append(corner)
            walk.append(other)
            corner = follower[other]
        walks.append(walk)
    return walks


def fill(contours: Sequence[NDArray[Any]], shape: tuple[int, int]) -> Mask:
    """The voxels whose centres are inside an odd number of contours (even-odd rule), so inner contours make holes.

    A contour through a voxel centre includes that voxel if the contour bounds its inside at smaller i or j, and
    excludes it at larger: half-open, so that contours with a common edge neither share a voxel nor leave a gap.

    Args:
        contours: arrays (n, 2) of (i, j) in voxel indices, finite; the last point is connected to the first.
        shape: (I, J).

    Returns:
        bool (I, J).

    Example:
        >>> fill([np.array([[-0.5, -0.5], [1.5, -0.5], [1.5, 0.5], [-0.5, 0.5]])], (3, 2)).astype(int).tolist()
        [[1, 0], [1, 0], [0, 0]]
    """
    mask = np.zeros(shape, dtype=bool)
    kept = [np.asarray(c, dtype=np.float64) for c in contours if len(c) > 2]
    if not kept:
        return mask
    # Only the bounding box of the contours is processed.
    reach = np.concatenate([[c.min(axis=0), c.max(axis=0)] for c in kept])
    near = np.ceil(np.clip(reach.min(axis=0), 0, shape)).astype(np.intp)
    far = np.ceil(np.clip(reach.max(axis=0), 0, shape)).astype(np.intp)
    if (near >= far).any():
        return mask
    inside = _even_odd([c - near for c in kept], int(far[0] - near[0]), int(far[1] - near[1]))
    mask[near[0] : far[0], near[1] : far[1]] = inside.T
    return mask


def _even_odd(contours: Sequence[Points], columns: int, rows: int) -> Mask:
    """Bool (rows, columns): which integer points i < columns, j < rows are inside."""
    start = np.concatenate(contours)
    end = np.concatenate([np.roll(c, -1, axis=0) for c in contours])
    # The same arithmetic for an edge in either direction, so that edges walked twice cancel out exactly.
    upward = start[:, 1] <= end[:, 1]
    low, high = np.where(upward[:, None], start, end), np.where(upward[:, None], end, start)
    first = np.ceil(np.clip(low[:, 1], 0, rows)).astype(np.intp)
    count = np.ceil(np.clip(high[:, 1], 0, rows)).astype(np.intp) - first
    crossing = count > 0
    low, high, first, count = low[crossing], high[crossing], first[crossing], count[crossing]
    slope = (high[:, 0] - low[:, 0]) / (high[:, 1] - low[:, 1])
    # One extra column for edges to the right of the image.
    odd = np.zeros((rows, columns + 1), dtype=bool)
    total = np.cumsum(count)
    begin = 0
    while begin < len(count):
        stop = max(begin + 1, int(np.searchsorted(total, total[begin] + _MOST_CROSSINGS)))
        each = count[begin:stop]
        edge = np.repeat(np.arange(begin, stop), each)
        row = first[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(each) - each, each)
        at = low[edge, 0] + (row - low[edge, 1]) * slope[edge]
        column = np.ceil(np.clip(at, 0, columns)).astype(np.intp)
        odd ^= (np.bincount(row * (columns + 1) + column, minlength=odd.size) & 1).astype(bool).reshape(odd.shape)
        begin = stop
    return np.logical_xor.accumulate(odd[:, :columns], axis=1)
