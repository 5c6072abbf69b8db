"""Centrelines of tubes: branches of the skeleton, their length, and the diameter across them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.metrics.topology import skeleton_of
from medseg.tasks.sections import outside_image, section_diameters

__all__ = ["Centreline", "measure_centreline"]

Floats = NDArray[np.float64]

# The direction in which a branch ends is taken over this many voxels.
_END = 5
# Tenths of a voxel that are looked along at a time.
_PIECE = 256


@dataclass(frozen=True, slots=True)
class Centreline:
    """Measurements along the centreline of a mask, in the unit of the spacing.

    Args:
        length: of all branches together.
        mean_diameter: mean along the centreline; NaN where no section could be measured.
        max_diameter: the largest diameter; NaN likewise.
        max_at: voxel index of the section with the largest diameter.
        branches: number of branches.
    """

    length: float
    mean_diameter: float
    max_diameter: float
    max_at: tuple[int, ...]
    branches: int


def measure_centreline(mask: NDArray[np.bool_], spacing: tuple[float, ...]) -> Centreline | None:
    """Length and diameters of a vessel or a tree of vessels.

    The centreline is the skeleton (2D: Zhang and Suen, CACM 1984; 3D: Lee, Kashyap and Chu, CVGIP 1994), without spurs
    shorter than the vessel is wide, smoothed along each branch so that the voxels' stairs add nothing to its length,
    and continued from each free end to the vessel's surface. A closed ring is opened by one voxel;
    tunnels through a mask are branches, as they are to its Betti numbers; cavities in 3D are filled.

    A diameter is that of the circle with the area of the section perpendicular to the centreline (in 2D: the width
    there). Sections closer to a junction or a free end than the vessel is wide do not count.

    Args:
        mask: `(I, J)` or `(I, J, K)`.
        spacing: of the voxels, mm; axes are taken as perpendicular to each other.

    Returns:
        The measurements; None for an empty mask.

    Example:
        >>> mask = np.zeros((30, 11), bool)
        >>> mask[5:25, 3:8] = True
        >>> found = measure_centreline(mask, (1.0, 1.0))
        >>> round(found.length, 1), round(found.mean_diameter, 1)
        (20.2, 5.0)
    """
    if not mask.any():
        return None
    # Places times whole numbers would be whole numbers, and smoothing would cut them to such.
    spacing = tuple(float(s) for s in spacing)
    # EDT and sections look one voxel beyond the mask; outside the image nothing is known, and nothing is background.
    box = tuple(
        slice(max(0, s.start - 2), s.stop + 2)
        for s in ndimage.find_objects(mask.astype(np.uint8))[0]  # one object: its bounding box
    )
    start = np.array([s.start for s in box])
    # A cavity is noise to a vessel, but would turn the skeleton into a shell; a hole in a 2D mask is a loop of vessels.
    crop = np.asarray(ndimage.binary_fill_holes(mask[box])) if mask.ndim == 3 else mask[box]
    radius = _inscribed_radius(crop, spacing)
    points = np.argwhere(skeleton_of(crop))
    branches, ends = _branches(points, radius, spacing)
    lines = [
        _Line.of(points[branch], radius, spacing, free_start, free_stop, joined)
        for branch, (free_start, free_stop, joined) in zip(branches, ends, strict=True)
    ]
    # Added up part by part: another order would change the last digit.
    length = sum((part for line in lines for part in line.lengths(crop, spacing)), 0.0)
    sections = [found for line in lines if (found := line.sections()) is not None]
    if not sections:
        return Centreline(length, np.nan, np.nan, (), len(branches))
    places, samples, tangents, weight = (np.concatenate(each) for each in zip(*sections, strict=True))
    diameters = section_diameters(crop, spacing, samples, tangents, radius[tuple(places.T)])
    known = np.isfinite(diameters)
    if not known.any():
        return Centreline(length, np.nan, np.nan, (), len(branches))
    widest = int(np.nanargmax(diameters))
    return Centreline(
        length,
        float(np.average(diameters[known], weights=weight[known])),
        float(diameters[widest]),
        tuple(int(n) for n in places[widest] + start),
        len(branches),
    )


@dataclass(frozen=True, slots=True)
class _Line:
    """A branch as a smooth line.

    Args:
        places: `(n, dims)` voxels of the branch.
        line: `(n, dims)` the same points smoothed, in the unit of the spacing.
        along: `(n,)` length of the line up to each point.
        radius: median of the inscribed radius along the branch.
        free_start, free_stop: whether its ends are free.
        joined: whether it meets other branches.
    """

    places: NDArray[np.int64]
    line: Floats
    along: Floats
    radius: float
    free_start: bool
    free_stop: bool
    joined: bool

    @classmethod
    def of(
        cls,
        places: NDArray[np.int64],
        radius: Floats,
        spacing: tuple[float, ...],
        free_start: bool,
        free_stop: bool,
        joined: bool,
    ) -> _Line:
        local = radius[tuple(places.T)]
        line = _smooth(places * np.asarray(spacing), local, spacing)
        steps = np.linalg.norm(np.diff(line, axis=0), axis=1)
        along = np.concatenate([[0.0], np.cumsum(steps)])
        return cls(places, line, along, float(np.median(local)), free_start, free_stop, joined)

    def lengths(self, mask: NDArray[np.bool_], spacing: tuple[float, ...]) -> tuple[float, ...]:
        """Of the line, and of what continues it from its free ends to the surface of the mask."""
        line, long = self.line, float(self.along[-1])
        if len(line) == 1:
            return (long,)
        return (
            long,
            self.free_start * _to_surface(mask, spacing, line[0], line[0] - line[: _END + 1][-1]),
            self.free_stop * _to_surface(mask, spacing, line[-1], line[-1] - line[-_END - 1 :][0]),
        )

    def sections(self) -> tuple[NDArray[np.int64], Floats, Floats, Floats] | None:
        """Where sections are measured: voxels, points, tangents, and the length of line that each represents."""
        if len(self.line) < 3:
            return None
        # The width of a section is only that of the vessel away from where it ends or meets others.
        inside = (self.along >= self.radius) & (self.along <= self.along[-1] - self.radius)
        if not inside.any():
            if self.joined:
                return None
            inside = np.arange(len(self.along)) == len(self.along) // 2
        tangents, weights = np.gradient(self.line, axis=0), np.gradient(self.along)
        return self.places[inside], self.line[inside], np.asarray(tangents)[inside], np.asarray(weights)[inside]


def _inscribed_radius(mask: NDArray[np.bool_], spacing: tuple[float, ...]) -> Floats:
    if mask.all():
        return np.full(mask.shape, float(np.min(np.multiply(mask.shape, spacing))) / 2)
    return np.asarray(np.maximum(ndimage.distance_transform_edt(mask, sampling=spacing) - min(spacing) / 2, 0.0))


def _to_surface(mask: NDArray[np.bool_], spacing: tuple[float, ...], start: Floats, heading: Floats) -> float:
    """How far the mask goes on beyond the end of a centreline: thinning eats up to a radius of it."""
    step = min(spacing) / 10
    steps = int(float(np.linalg.norm(np.multiply(mask.shape, spacing))) / step)
    unit = heading / max(float(np.linalg.norm(heading)), 1e-12)
    # The surface is near: looking to the far end of the image at once would take most of a retina's time.
    for first in range(0, steps, _PIECE):
        reach = (np.arange(first, min(first + _PIECE, steps)) + 0.5) * step
        index = (start + reach[:, None] * unit).T / np.reshape(spacing, (-1, 1))
        share = ndimage.map_coordinates(mask.view(np.uint8), index, np.float32, order=1, mode="nearest")
        inside = (share >= 0.5) & ~outside_image(index, mask.shape)
        if not inside.all():
            return step * float(first + inside.argmin())
    return step * float(steps)


def _smooth(line: Floats, local: Floats, spacing: tuple[float, ...]) -> Floats:
    """A branch without its stairs; its ends stay where they are."""
    if len(line) < 3:
        return line
    sigma = max(2.0, 0.5 * float(np.median(local)) / min(spacing))
    margin = min(len(line) - 1, int(4 * sigma))
    # Point reflection at the ends keeps them in place and the line straight through them.
    padded = np.concatenate([2 * line[0] - line[margin:0:-1], line, 2 * line[-1] - line[-2 : -margin - 2 : -1]])
    smooth = ndimage.gaussian_filter1d(padded, sigma, axis=0, mode="nearest")
    return np.asarray(smooth[margin : margin + len(line)])


def _branches(
    points: NDArray[np.int64], radius: Floats, spacing: tuple[float, ...]
) -> tuple[list[list[int]], list[tuple[bool, bool, bool]]]:
    """Branches as rows of `points`, without spurs; of each whether its ends are free, and whether it meets others."""
    local = radius[tuple(points.T)]
    kept = np.arange(len(points))
    while True:
        tree, neighbours = _forest(points[kept], spacing)
        found = _walk(tree)
        degree = np.array([len(t) for t in tree])
        spurs = set()
        for branch in found:
            leaf = degree[branch[0]] == 1, degree[branch[-1]] == 1
            if leaf[0] == leaf[1]:
                continue
            body, at = (branch[:-1], branch[-1]) if leaf[0] else (branch[1:], branch[0])
            path = points[kept[branch]] * np.asarray(spacing)
            long = float(np.linalg.norm(np.diff(path, axis=0), axis=1).sum())
            if long < local[kept[at]]:
                spurs.update(body)
        if not spurs:
            break
        kept = np.delete(kept, sorted(spurs))
    ends = []
    for branch in found:
        free = [bool(degree[n] <= 1 and neighbours[n] <= 1) for n in (branch[0], branch[-1])]
        joined = bool(degree[branch[0]] > 2 or degree[branch[-1]] > 2)
        ends.append((free[0], free[1], joined))
    return [list(kept[branch]) for branch in found], ends


def _forest(points: NDArray[np.int64], spacing: tuple[float, ...]) -> tuple[list[list[int]], NDArray[np.int64]]:
    """Neighbours of each point in the shortest tree that joins touching voxels, and how many voxels each touches."""
    # Loaded here, as it takes a fifth of the start of a prediction.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import minimum_spanning_tree

    n = len(points)
    shape = points.max(axis=0) + 3
    flat = np.ravel_multi_index(tuple((points + 1).T), tuple(shape))
    order = np.argsort(flat)
    rows, columns, lengths = [], [], []
    for offset in np.ndindex(*(3,) * points.shape[1]):
        step = np.array(offset) - 1
        if tuple(step) <= (0,) * len(step):
            continue
        wanted = np.ravel_multi_index(tuple((points + 1 + step).T), tuple(shape))
        place = np.minimum(np.searchsorted(flat[order], wanted), n - 1)
        there = flat[order][place] == wanted
        rows.append(np.flatnonzero(there))
        columns.append(order[place[there]])
        lengths.append(np.full(int(there.sum()), float(np.linalg.norm(step * spacing))))
    row, column = np.concatenate(rows), np.concatenate(columns)
    touching = np.bincount(row, minlength=n) + np.bincount(column, minlength=n)
    graph = coo_array((np.concatenate(lengths), (row, column)), shape=(n, n)).tocsr()
    edges = minimum_spanning_tree(graph).tocoo()
    tree: list[list[int]] = [[] for _ in range(n)]
    for a, b in zip(edges.row.tolist(), edges.col.tolist(), strict=True):
        tree[a].append(b)
        tree[b].append(a)
    return tree, touching


def _walk(tree: list[list[int]]) -> list[list[int]]:
    """The paths between the points of a forest that are ends or forks."""
    branches = []
    for start, around in enumerate(tree):
        if not around:
            branches.append([start])
        if len(around) == 2:
            continue
        for second in around:
            path = [start, second]
            while len(tree[path[-1]]) == 2:
                a, b = tree[path[-1]]
                path.append(b if a == path[-2] else a)
            if path[0] < path[-1]:
                branches.append(path)
    return branches
