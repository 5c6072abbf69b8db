"""How the contours that one region has on a slice combine to voxels (DICOM PS3.3 C.8.8.6.3).

A contour is filled by the even-odd rule, which opens the hole of a keyhole contour: its channel is walked twice.
CLOSED_PLANAR contours are then compared in pairs. One that lies wholly inside another is a hole, one inside that an
island; one that is stored twice counts once; those that cross are united. The standard provides only keyholes for
CLOSED_PLANAR, but most programs write holes as inner contours, and some store a contour twice or a region in pieces.
CLOSEDPLANAR_XOR contours are combined by exclusive or.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medseg.io.dicom.rtstruct.contours import fill

__all__ = ["Combination", "combine"]

Mask = NDArray[np.bool_]
Points = NDArray[np.float64]
_Relation = Literal["same", "inside", "around", "apart", "crossing"]

# Boundaries this close, in voxels, touch: coordinates are often rounded to 0.01 mm.
_TOUCHING = 0.01
# Distances in memory at a time.
_MOST_DISTANCES = 2**20


@dataclass(frozen=True, slots=True)
class Combination:
    """The voxels of a region on one slice.

    Args:
        mask: (I, J).
        repeated: number of contours that were left out, because they are stored already.
        crossing: number of contours that cross others.
    """

    mask: Mask
    repeated: int
    crossing: int


@dataclass(frozen=True, slots=True)
class _Area:
    """A contour and the voxels inside it: `mask` begins at voxel `low`."""

    points: Points
    low: NDArray[np.intp]
    mask: Mask


def combine(planar: Sequence[Points], exclusive: Sequence[Points], shape: tuple[int, int]) -> Combination:
    """The voxels inside the contours of one region on one slice.

    A voxel belongs to the CLOSED_PLANAR contours if any of the innermost of them around its centre is not a hole. These
    are combined with CLOSEDPLANAR_XOR contours by exclusive or.

    Args:
        planar: CLOSED_PLANAR contours, arrays (n, 2) of (i, j) in voxel indices, finite.
        exclusive: CLOSEDPLANAR_XOR contours.
        shape: (I, J).

    Example:
        >>> square = np.array([[-0.5, -0.5], [1.5, -0.5], [1.5, 1.5], [-0.5, 1.5]])
        >>> int(combine([square, square[::-1]], [], (3, 3)).mask.sum())
        4
        >>> int(combine([], [square, square], (3, 3)).mask.sum())
        0
    """
    areas = [area for points in planar if (area := _area(points, shape)) is not None]
    # A contour is inside a larger one only, so those around it come first.
    areas.sort(key=lambda area: -abs(_signed_area(area.points)))
    kept: list[_Area] = []
    depths: list[int] = []
    inner: list[list[_Area]] = []
    crossing: set[int] = set()
    covered = np.zeros(shape, dtype=bool)
    for area in areas:
        around: list[int] = []
        crossed: list[int] = []
        # Most contours have no voxel in common with any other.
        is_alone = not (_part(covered, area) & area.mask).any()
        for n in () if is_alone else _meeting_boxes(area, kept):
            relation = _relation(area, kept[n])
            if relation == "same":
                break
            if relation == "inside":
                around.append(n)
            elif relation == "crossing":
                crossed.append(n)
        else:
            for n in around:
                inner[n].append(area)
            crossing.update(crossed, [len(kept)] if crossed else [])
            depths.append(1 + max((depths[n] for n in around), default=-1))
            kept.append(area)
            inner.append([])
            _part(covered, area)[...] |= area.mask
    mask = np.zeros(shape, dtype=bool)
    for area, depth, holes in zip(kept, depths, inner, strict=True):
        if depth % 2 == 0:
            _part(mask, area)[...] |= _without(area, holes)
    for points in exclusive:
        found = _area(points, shape)
        if found is not None:
            _part(mask, found)[...] ^= found.mask
    return Combination(mask, len(areas) - len(kept), len(crossing))


def _area(points: Points, shape: tuple[int, int]) -> _Area | None:
    """The contour with its voxels; None if it contains no voxel of the image."""
    points = _walked_once(points)
    low = np.ceil(np.clip(points.min(axis=0), 0, shape)).astype(np.intp)
    high = np.ceil(np.clip(points.max(axis=0), 0, shape)).astype(np.intp)
    if (low >= high).any():
        return None
    mask = fill([points - low], (int(high[0] - low[0]), int(high[1] - low[1])))
    return _Area(points, low, mask) if mask.any() else None


def _walked_once(points: Points) -> Points:
    """The contour without repeated points; if its points are listed twice, one round of it."""
    moved = (points != np.roll(points, 1, axis=0)).any(axis=1)
    kept = points[moved] if moved.any() else points[:1]
    half = len(kept) // 2
    if len(kept) % 2 == 0 and np.array_equal(kept[:half], kept[half:]):
        return kept[:half]
    return kept


def _signed_area(points: Points) -> float:
    i, j = (points - points[0]).T
    return float(i @ np.roll(j, -1) - np.roll(i, -1) @ j) / 2


def _meeting_boxes(area: _Area, others: Sequence[_Area]) -> list[int]:
    """The numbers of the others whose boxes of voxels meet that of the area."""
    low = np.array([other.low for other in others])
    high = low + np.array([other.mask.shape for other in others])
    return [int(n) for n in np.flatnonzero(((low < area.low + area.mask.shape) & (high > area.low)).all(axis=1))]


def _part(mask: Mask, area: _Area) -> Mask:
    """The view of the slice in which the voxels of an area lie."""
    (i, j), (width, height) = area.low, area.mask.shape
    return mask[i : i + width, j : j + height]


def _without(area: _Area, holes: Sequence[_Area]) -> Mask:
    mask = area.mask.copy() if holes else area.mask
    for hole in holes:
        own, theirs = _shared(area, hole)
        mask[own] &= ~hole.mask[theirs]
    return mask


def _shared(a: _Area, b: _Area) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The box of voxels that two areas have in common, as slices of either mask."""
    low = np.maximum(a.low, b.low)
    high = np.maximum(low, np.minimum(a.low + a.mask.shape, b.low + b.mask.shape))
    first, second = (
        (slice(low[0] - each.low[0], high[0] - each.low[0]), slice(low[1] - each.low[1], high[1] - each.low[1]))
        for each in (a, b)
    )
    return first, second


def _relation(a: _Area, b: _Area) -> _Relation:
    """How contour `a` lies to contour `b`; 'apart' also if they have no voxel in common, as both are painted then."""
    own, theirs = _shared(a, b)
    if not (a.mask[own] & b.mask[theirs]).any():
        return "apart"
    a_inside, a_outside = _sides(a.points, b.points)
    b_inside, b_outside = _sides(b.points, a.points)
    if (a_inside and a_outside) or (b_inside and b_outside):
        return "crossing"
    within, around = a_inside or b_outside, a_outside or b_inside
    if within != around:
        return "inside" if within else "around"
    # Both: outside each other but for less than touching; or two keyholes of one region with different channels.
    return "apart" if a_outside and b_outside else "same"


def _sides(line: Points, contour: Points) -> tuple[bool, bool]:
    """Whether any of a closed line lies inside a contour, and any outside, in either case by more than touching."""
    start, step = line, np.roll(line, -1, axis=0) - line
    low, high = contour.min(axis=0) - _TOUCHING, contour.max(axis=0) + _TOUCHING
    near = _boxes_meet(start, start + step, low, high)
    outside = not bool(near.all())
    start, step = start[near], step[near]
    edge, along = contour, np.roll(contour, -1, axis=0) - contour
    meets = _boxes_meet(edge, edge + along, line.min(axis=0) - _TOUCHING, line.max(axis=0) + _TOUCHING)
    pairs = _near_pairs(start, step, edge[meets], along[meets])
    if not len(pairs[0]):
        # Nothing of the contour is near the line, so all of it is on the same side as any point of it.
        inside = bool(len(start)) and bool(_is_inside(start[:1], contour)[0])
        return inside, outside or not inside
    middles = _middles_between_cuts(start, step, edge[meets], along[meets], pairs)
    inside = False
    each = max(1, _MOST_DISTANCES // len(contour))
    for begin in range(0, len(middles), each):
        some = middles[begin : begin + each]
        some = some[_distance(some, edge[meets], along[meets]) > _TOUCHING]
        within = _is_inside(some, contour)
        inside, outside = inside or bool(within.any()), outside or not bool(within.all())
        if inside and outside:
            break
    return inside, outside


def _boxes_meet(start: Points, end: Points, low: Points, high: Points) -> Mask:
    """(n,), which edges have a bounding box that meets the given one."""
    return np.asarray(((np.minimum(start, end) <= high) & (np.maximum(start, end) >= low)).all(axis=1))


def _near_pairs(start: Points, step: Points, edge: Points, along: Points) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The pairs (n, m) of edges whose bounding boxes meet."""
    end, edge_end = start + step, edge + along
    found = []
    each = max(1, _MOST_DISTANCES // max(1, len(edge)))
    for begin in range(0, len(start), each):
        part = slice(begin, begin + each)
        meet = np.ones((len(start[part]), len(edge)), dtype=bool)
        for axis in (0, 1):
            one, other = np.sort([start[part, axis], end[part, axis]], axis=0)
            low, high = np.sort([edge[:, axis], edge_end[:, axis]], axis=0)
            meet &= (one[:, None] <= high + _TOUCHING) & (other[:, None] >= low - _TOUCHING)
        found.append(np.argwhere(meet) + np.array([begin, 0]))
    pairs = np.concatenate(found) if found else np.empty((0, 2), np.intp)
    return pairs[:, 0], pairs[:, 1]


def _middles_between_cuts(
    start: Points, step: Points, edge: Points, along: Points, pairs: tuple[NDArray[np.intp], NDArray[np.intp]]
) -> Points:
    """(m, 2), the middle of every piece into which the edges of a contour cut other edges.

    No piece has parts on both sides of the contour by more than touching: edges are cut where edges of the contour
    cross them or end beside them.
    """
    n, m = pairs
    between = edge[m] - start[n]
    turn = step[n, 0] * along[m, 1] - step[n, 1] * along[m, 0]
    length = np.maximum((step[n] ** 2).sum(axis=1), np.finfo(float).tiny)
    crossing = (between[:, 0] * along[m, 1] - between[:, 1] * along[m, 0]) / np.where(turn == 0, np.inf, turn)
    beside = [((point - start[n]) * step[n]).sum(axis=1) / length for point in (edge[m], edge[m] + along[m])]
    numbers = np.concatenate([np.tile(np.arange(len(start)), 2), n, n, n])
    cuts = np.concatenate([np.repeat([0.0, 1.0], len(start)), np.clip([crossing, *beside], 0.0, 1.0).ravel()])
    order = np.lexsort((cuts, numbers))
    numbers, cuts = numbers[order], cuts[order]
    pieces = (numbers[1:] == numbers[:-1]) & (cuts[1:] > cuts[:-1])
    n, at = numbers[1:][pieces], ((cuts[1:] + cuts[:-1]) / 2)[pieces]
    return np.asarray(start[n] + step[n] * at[:, None])


def _distance(points: Points, edge: Points, along: Points) -> Points:
    """(n,), the distance of each point (n, 2) to the nearest edge."""
    x, y = (points[:, None, axis] - edge[None, :, axis] for axis in (0, 1))
    length = np.maximum((along**2).sum(axis=1), np.finfo(float).tiny)
    at = np.clip((x * along[:, 0] + y * along[:, 1]) / length, 0.0, 1.0)
    return np.asarray(np.sqrt(((x - at * along[:, 0]) ** 2 + (y - at * along[:, 1]) ** 2).min(axis=1)))


def _is_inside(points: Points, contour: Points) -> Mask:
    """(n,), which points are inside a contour by the even-odd rule."""
    end = np.roll(contour, -1, axis=0)
    x, y = points[:, :1], points[:, 1:]
    spans = (contour[:, 1] <= y) != (end[:, 1] <= y)
    height = np.where(contour[:, 1] == end[:, 1], 1.0, end[:, 1] - contour[:, 1])
    at = contour[:, 0] + (y - contour[:, 1]) * ((end[:, 0] - contour[:, 0]) / height)
    return np.asarray((spans & (at <= x)).sum(axis=1) % 2 == 1)
