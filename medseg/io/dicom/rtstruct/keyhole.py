"""Contours with holes as keyhole contours (DICOM PS3.3 C.8.8.6.3): outer contour and holes in one line.

A channel of no width connects a hole to the contour on its left. It is walked twice, so it encloses nothing. It runs
inside the region, where programs that paint the outline do no harm, and beside the voxel centres, so that no program
has to decide on which side of it a centre lies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from medseg.io.dicom.rtstruct.contours import trace

__all__ = ["trace_with_keyholes"]

# Where a channel runs, in voxels from the row of centres. Exact in binary, so both ways along it are the same.
_BESIDE = 0.25
# How far inside the edges of the voxels the contours run. Programs that round corners to whole voxels (rt-utils) then
# find the voxels of the mask and not those beside it; in between no voxel centre lies.
_INSIDE = 1 / 128

Mask = NDArray[np.bool_]
Points = NDArray[np.float64]
_Point = tuple[float, float]
# The j of a channel, the i of its other end, and the hole there.
_Channel = tuple[float, float, int]


def trace_with_keyholes(mask: Mask) -> list[Points]:
    """The contours of a mask, one for each part, which includes the holes of that part.

    They run along the edges of its voxels, 1/128 of a voxel inside, so that none touches another or itself.

    Args:
        mask: (I, J).

    Returns:
        Arrays (n, 2) of (i, j), the first point not repeated. The voxel centres inside a contour by the even-odd rule
        are its part of the mask; no centre is inside two contours.

    Example:
        >>> mask = np.ones((3, 3), bool)
        >>> mask[1, 1] = False
        >>> [len(contour) for contour in trace_with_keyholes(mask)]
        [12]
    """
    rings = trace(mask)
    is_hole = [_area(ring) < 0 for ring in rings]
    inset = [_inside(ring) for ring in rings]
    if not any(is_hole):
        return inset
    owner = _owners(rings, mask.shape)
    # Ring -> edge -> the channels that end on it.
    channels: list[dict[int, list[_Channel]]] = [{} for _ in rings]
    starts = [0] * len(rings)
    for n in np.flatnonzero(is_hole).tolist():
        at, corner, row = _left_edge(rings[n])
        starts[n] = at
        passed = owner[:corner, row]
        other, edge = passed[np.flatnonzero(passed[:, 0] >= 0)[-1]].tolist()
        channels[other].setdefault(edge, []).append((row + _BESIDE, float(inset[n][at, 0]), n))
    outer = [n for n, inner in enumerate(is_hole) if not inner]
    return [np.array(list(_walk(n, inset, channels, starts))) for n in outer]


def _inside(ring: Points) -> Points:
    """The ring moved to its left, where the mask is, by a little."""
    before = np.sign(ring - np.roll(ring, 1, axis=0))
    after = np.roll(before, -1, axis=0)
    turns = before + after
    return ring + _INSIDE * np.stack([-turns[:, 1], turns[:, 0]], axis=1)


def _area(ring: Points) -> float:
    i, j = ring.T
    return float(i @ np.roll(j, -1) - np.roll(i, -1) @ j)


def _owners(rings: Sequence[Points], shape: tuple[int, ...]) -> NDArray[np.intp]:
    """(I + 1, J, 2): the ring and its edge that pass voxel (i, j) on its side towards smaller i; -1 without any."""
    owner = np.full((shape[0] + 1, shape[1], 2), -1, dtype=np.intp)
    start = np.concatenate(rings)
    end = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    sizes = [len(ring) for ring in rings]
    ring = np.repeat(np.arange(len(rings)), sizes)
    edge = np.concatenate([np.arange(size) for size in sizes])
    low = (np.minimum(start[:, 1], end[:, 1]) + 0.5).astype(np.intp)
    count = np.abs(end[:, 1] - start[:, 1]).astype(np.intp)
    each = np.repeat(np.arange(len(start)), count)
    row = low[each] + np.arange(len(each)) - np.repeat(np.cumsum(count) - count, count)
    corner = (start[each, 0] + 0.5).astype(np.intp)
    owner[corner, row, 0], owner[corner, row, 1] = ring[each], edge[each]
    return owner


def _left_edge(ring: Points) -> tuple[int, int, int]:
    """An edge of a hole at its smallest i: its number, the i of the voxels behind it, and its first row."""
    after = np.roll(ring, -1, axis=0)
    edge = int(np.flatnonzero((ring[:, 0] == ring[:, 0].min()) & (after[:, 0] == ring[:, 0]))[0])
    return edge, int(ring[edge, 0] + 0.5), int(min(ring[edge, 1], after[edge, 1]) + 0.5)


def _walk(
    outer: int, rings: Sequence[Points], channels: Sequence[dict[int, list[_Channel]]], starts: Sequence[int]
) -> Iterator[_Point]:
    """The points of a ring, with a detour through each channel that ends on it, and so on behind the channel."""
    # Not recursive, because a row of holes is a chain of channels.
    under_way = [_steps(rings[outer], channels[outer], 0)]
    while under_way:
        step = next(under_way[-1], None)
        if step is None:
            under_way.pop()
        elif isinstance(step, tuple):
            yield step
        else:
            under_way.append(_steps(rings[step], channels[step], starts[step] + 1))


def _steps(ring: Points, channels: dict[int, list[_Channel]], start: int) -> Iterator[_Point | int]:
    """The points of a ring from a corner on; in between the numbers of the holes to walk around.

    A hole is entered and left on the edge before the corner that its own walk starts from.
    """
    corners = ring.tolist()
    count = len(corners)
    for n in range(start, start + count):
        (i, j), (_, next_j) = corners[n % count], corners[(n + 1) % count]
        yield i, j
        for row, end, hole in sorted(channels.get(n % count, ()), reverse=next_j < j):
            yield i, row
            yield end, row
            yield hole
            yield end, row
            yield i, row
