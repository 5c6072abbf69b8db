"""From a label map back to shapes: connected components, and outlines that paint exactly the same pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["Part", "parts", "pixel_edges", "pixel_indices"]

Mask = NDArray[np.bool_]
Ring = list[tuple[int, int]]

# Directions right, down, left, up as (x, y), and the pixel to the right of a step, relative to its first corner.
_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))
_RIGHT_HAND = ((0, 0), (-1, 0), (-1, -1), (0, -1))


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A connected component of one label (4-neighbours): `mask` is (rows, columns) at row `top`, column `left`."""

    value: int
    mask: Mask
    top: int
    left: int


def parts(rows: NDArray[np.integer]) -> Iterator[Part]:
    """The connected components of every label except 0, by value, then from top to bottom.

    Args:
        rows: (rows, columns), integers.
    """
    for value, box in enumerate(ndimage.find_objects(rows.astype(np.int32)), start=1):
        if box is None:
            continue
        labelled, _ = ndimage.label(rows[box] == value)
        top, left = box[0].start, box[1].start
        for n, (down, across) in enumerate(ndimage.find_objects(labelled), start=1):
            yield Part(value, labelled[down, across] == n, top + down.start, left + across.start)


def pixel_edges(mask: Mask) -> list[Ring]:
    """Outlines along the edges of the pixels: rings of corners (x, y), the outer one first, then the holes.

    Pixel (0, 0) reaches from 0 to 1. Components that meet in a corner stay separate there (4-neighbours).

    Args:
        mask: (rows, columns), one connected component.
    """
    padded = np.pad(mask, 1)
    # Each edge is walked with its pixel on the right: outer rings run clockwise on the screen.
    unused: dict[tuple[int, int], list[int]] = {}
    above, below = padded[:-1, 1:-1], padded[1:, 1:-1]
    before, after = padded[1:-1, :-1], padded[1:-1, 1:]
    walks = (
        (below & ~above, 0, 0),
        (before & ~after, 1, 0),
        (above & ~below, 2, 1),
        (after & ~before, 3, 1),
    )
    for edges, direction, back in walks:
        for y, x in np.argwhere(edges).tolist():
            start = (x + back, y) if direction in (0, 2) else (x, y + back)
            unused.setdefault(start, []).append(direction)
    rings = []
    for start in sorted(unused, key=lambda corner: (corner[1], corner[0])):
        while unused[start]:
            rings.append(_walk(start, unused))
    return sorted(rings, key=_doubled_area, reverse=True)


def _walk(start: tuple[int, int], unused: dict[tuple[int, int], list[int]]) -> Ring:
    ring: Ring = []
    corner, heading = start, -1
    while True:
        choices = unused[corner]
        # Two continuations where components meet in a corner: turning right stays with the same pixel.
        direction = choices[0] if len(choices) == 1 or (heading + 1) % 4 not in choices else (heading + 1) % 4
        choices.remove(direction)
        if direction != heading:
            ring.append(corner)
        heading = direction
        corner = (corner[0] + _STEPS[direction][0], corner[1] + _STEPS[direction][1])
        if corner == start and (not unused[corner] or (heading + 1) % 4 not in unused[corner]):
            return ring


def _doubled_area(ring: Ring) -> int:
    return sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(ring, ring[1:] + ring[:1], strict=True))


def pixel_indices(ring: Ring, hole: bool = False) -> Ring:
    """The same outline through the indices of the pixels along it, for tools that include the outline's pixels.

    Args:
        ring: corners from `pixel_edges`.
        hole: whether the ring is a hole; the outline then runs through the pixels of the hole, which it removes.
    """
    found: Ring = []
    for n, corner in enumerate(ring):
        follower = ring[(n + 1) % len(ring)]
        step = (int(np.sign(follower[0] - corner[0])), int(np.sign(follower[1] - corner[1])))
        # A hole's own pixels are on the left, which is the right of the direction before.
        dx, dy = _RIGHT_HAND[(_STEPS.index(step) + 3 * hole) % 4]
        first = (corner[0] + dx, corner[1] + dy)
        length = abs(follower[0] - corner[0]) + abs(follower[1] - corner[1])
        last = (first[0] + step[0] * (length - 1), first[1] + step[1] * (length - 1))
        for point in (first, last):
            if not found or found[-1] != point:
                found.append(point)
    if len(found) > 1 and found[0] == found[-1]:
        found.pop()
    return found
