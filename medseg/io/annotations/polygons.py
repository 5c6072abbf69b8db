"""The pixels that a polygon covers: the same geometry gives different pixels in different tools.

- `coco_polygon`: pycocotools' `rleFrPoly`, used by COCO and by CVAT's mask exports. Coordinates are continuous, pixel
    (0, 0) reaches from 0 to 1, and a pixel belongs to the polygon if its centre does: the square 1..4 has 3x3.
- `opencv_polygon`: OpenCV's `fillPoly`, used by Supervisely. Coordinates are pixel indices, and the pixels of the
    outline belong to the polygon: the square 1..4 has 4x4.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from medseg.errors import AnnotationError
from medseg.io.annotations.shapes import Patch

__all__ = ["check_points", "coco_polygon", "ellipse", "opencv_polygon", "strokes"]

Points = NDArray[np.float64]
Integers = NDArray[np.int64]

# An outline of 1.6 million pixels can only come from a damaged coordinate, never from drawing.
_MAX_OUTLINE = 2**23


def check_points(points: Points, width: int, height: int, where: str, least: int = 3) -> None:
    """Refuse outlines with too few points or far outside the image, as a damaged digit makes them.

    Raises:
        AnnotationError: naming the position in the file.
    """
    if len(points) < least:
        raise AnnotationError(f"{where} has {len(points)} points; expected at least {least}")
    limit = 4.0 * max(width, height) + 1000
    if np.abs(points).max() > limit:
        far = points[np.abs(points).max(axis=1).argmax()]
        raise AnnotationError(
            f"{where} has the point ({far[0]:g}, {far[1]:g}), far outside the image of {width} x {height}"
        )


def coco_polygon(points: Points, width: int, height: int, where: str) -> Patch:
    """The pixels that pycocotools gives a polygon (`rleFrPoly` in maskApi.c of cocoapi); self-crossings are even-odd.

    Args:
        points: (n, 2), x and y in pixels, the first pixel reaching from 0 to 1.
        width, height: size of the image in pixels.
        where: position in the file, for messages.

    Raises:
        AnnotationError: if there are fewer than 3 points, or the outline is too long or far outside.
    """
    check_points(points, width, height, where)
    # maskApi.c works on a grid five times as fine, on which pixel centres are integers.
    fine = np.trunc(5.0 * points + 0.5).astype(np.int64)
    start, end = fine, np.roll(fine, -1, axis=0)
    length = np.abs(end - start)
    wide = length[:, 0] >= length[:, 1]
    steps = length.max(axis=1)
    total = int(steps.sum()) + len(steps)
    if total > _MAX_OUTLINE:
        raise AnnotationError(f"{where} has an outline of {total // 5} pixels; at most {_MAX_OUTLINE // 5} can be read")
    flipped = np.where(wide, start[:, 0] > end[:, 0], start[:, 1] > end[:, 1])
    low, high = np.where(flipped[:, None], end, start), np.where(flipped[:, None], start, end)
    rise = np.where(wide, high[:, 1] - low[:, 1], high[:, 0] - low[:, 0]) / np.maximum(steps, 1)
    edge = np.repeat(np.arange(len(steps)), steps + 1)
    step = np.arange(total) - np.repeat(np.cumsum(steps + 1) - (steps + 1), steps + 1)
    along = np.where(flipped[edge], steps[edge] - step, step)
    major = along + np.where(wide, low[:, 0], low[:, 1])[edge]
    minor = np.trunc(np.where(wide, low[:, 1], low[:, 0])[edge] + rise[edge] * along + 0.5).astype(np.int64)
    x = np.where(wide[edge], major, minor)
    y = np.where(wide[edge], minor, major)
    # Where the outline steps from one fine column to the next, it crosses the line through a pixel's centre.
    moved = np.flatnonzero(x[1:] != x[:-1]) + 1
    column = (np.where(x[moved] < x[moved - 1], x[moved], x[moved] - 1) + 0.5) / 5.0 - 0.5
    row = np.ceil(np.clip((np.minimum(y[moved], y[moved - 1]) + 0.5) / 5.0 - 0.5, 0, height))
    kept = (np.floor(column) == column) & (column >= 0) & (column <= width - 1)
    return _between_crossings(column[kept].astype(np.int64), row[kept].astype(np.int64))


def strokes(kind: str, points: Points, thickness: int, size: tuple[int, int], where: str) -> Iterator[Patch]:
    """The pixels within half of `thickness` of a line through points, or of each single point.

    Args:
        kind: 'points' for single points, anything else for a line.
        points: (n, 2), x and y in pixels, the first pixel reaching from 0 to 1.
        thickness: in pixels.
        size: width and height of the image in pixels.
        where: position in the file, for messages.

    Raises:
        AnnotationError: if there is no point, or one lies far outside.
    """
    check_points(points, *size, where, 1)
    for part in points[:, None] if kind == "points" else [points]:
        yield _stroke(part, thickness, *size)


def _stroke(points: Points, thickness: int, width: int, height: int) -> Patch:
    margin = thickness / 2 + 1
    left, top = np.maximum(np.floor(points.min(axis=0) - margin), 0).astype(int)
    right, bottom = np.minimum(np.ceil(points.max(axis=0) + margin), (width, height)).astype(int)
    if left >= right or top >= bottom:
        return Patch.empty()
    mask = np.zeros((bottom - top, right - left), np.bool_)
    for start, end in zip(points, [*points[1:], points[-1]], strict=True):
        low = np.maximum(np.floor(np.minimum(start, end) - margin).astype(int) - (left, top), 0)
        high = np.maximum(np.ceil(np.maximum(start, end) + margin).astype(int) - (left, top), 0)
        part = mask[low[1] : high[1], low[0] : high[0]]
        y, x = np.indices(part.shape)
        centres = np.stack([x + low[0] + left, y + low[1] + top], axis=-1) + 0.5
        along = end - start
        share = np.clip(((centres - start) @ along) / max(float(along @ along), 1e-12), 0, 1)
        distance = np.linalg.norm(centres - start - share[..., None] * along, axis=-1)
        # A stroke of one pixel passes between centres, too.
        part |= distance <= max(thickness / 2, 0.71)
    return Patch(mask, int(top), int(left))


def _between_crossings(columns: Integers, rows: Integers) -> Patch:
    """In each column the pixels from every odd crossing down to the next one: crossings come in pairs."""
    if not len(columns):
        return Patch.empty()
    left, top = int(columns.min()), int(rows.min())
    counts = np.zeros((int(rows.max()) - top + 1, int(columns.max()) - left + 1), np.uint8)
    # Only the parity matters, so wrapping around at 256 is harmless.
    np.add.at(counts, (rows - top, columns - left), 1)
    return Patch(_odd(counts, axis=0)[:-1], top, left)


def _odd(counts: NDArray[np.uint8], axis: int) -> NDArray[np.bool_]:
    """Where the running sum is odd, in the memory of `counts`, because the image may be large."""
    np.cumsum(counts, axis=axis, dtype=np.uint8, out=counts)
    counts &= 1
    return counts.view(np.bool_)


def opencv_polygon(rings: list[Points], width: int, height: int, where: str) -> Patch:
    """The pixels that OpenCV's `fillPoly` gives rings filled together, even-odd, outlines included.

    Args:
        rings: each (n, 2), x and y as pixel indices; fractions are truncated.
        width, height: size of the image in pixels.
        where: position in the file, for messages.

    Raises:
        AnnotationError: if there are fewer than 3 points, or the outline is too long or far outside.
    """
    starts, ends = [], []
    for points in rings:
        check_points(points, width, height, where)
        whole = np.trunc(points).astype(np.int64)
        starts.append(whole)
        ends.append(np.roll(whole, -1, axis=0))
    start, end = np.concatenate(starts), np.concatenate(ends)
    x, y = _lines(start, end, where)
    low, high = np.maximum(start.min(axis=0), 0), np.minimum(start.max(axis=0), (width - 1, height - 1))
    if (low > high).any():
        return Patch.empty()
    mask = _centres_inside(start, end, low, high)
    seen = (x >= low[0]) & (x <= high[0]) & (y >= low[1]) & (y <= high[1])
    mask[y[seen] - low[1], x[seen] - low[0]] = True
    return Patch(mask, int(low[1]), int(low[0]))


def _lines(start: Integers, end: Integers, where: str) -> tuple[Integers, Integers]:
    """x and y of the pixels on 8-connected lines, as OpenCV's LineIterator draws them from left to right."""
    turned = start[:, 0] > end[:, 0]
    low, high = np.where(turned[:, None], end, start), np.where(turned[:, None], start, end)
    delta = high - low
    size = np.abs(delta)
    steep = size[:, 1] > size[:, 0]
    steps = size.max(axis=1)
    total = int(steps.sum()) + len(steps)
    if total > _MAX_OUTLINE:
        raise AnnotationError(f"{where} has an outline of {total} pixels; at most {_MAX_OUTLINE} can be read")
    edge = np.repeat(np.arange(len(steps)), steps + 1)
    step = np.arange(total) - np.repeat(np.cumsum(steps + 1) - (steps + 1), steps + 1)
    # Bresenham's error term in closed form; exactly half-way stays on the lower step.
    side = (2 * step * size.min(axis=1)[edge] + steps[edge] - 1) // np.maximum(2 * steps[edge], 1)
    upwards = np.sign(delta[:, 1])[edge]
    x = low[edge, 0] + np.where(steep[edge], side, step)
    y = low[edge, 1] + upwards * np.where(steep[edge], step, side)
    return x, y


def _centres_inside(start: Integers, end: Integers, low: Integers, high: Integers) -> NDArray[np.bool_]:
    """Pixels of the box `low`..`high` whose index point is inside the rings, even-odd."""
    columns, rows = (high - low + 1).tolist()
    counts = np.zeros((rows, columns + 1), np.uint8)
    sloped = start[:, 1] != end[:, 1]
    start, end = start[sloped], end[sloped]
    down = start[:, 1] < end[:, 1]
    upper, lower = np.where(down[:, None], start, end), np.where(down[:, None], end, start)
    # Half-open in y, so that a corner is crossed only once.
    first = np.clip(upper[:, 1], low[1], high[1] + 1)
    number = np.clip(lower[:, 1], low[1], high[1] + 1) - first
    edge = np.repeat(np.arange(len(number)), number)
    y = first[edge] + np.arange(int(number.sum())) - np.repeat(np.cumsum(number) - number, number)
    run, fall = lower - upper, (lower - upper)[edge, 1]
    x = upper[edge, 0] + np.ceil((y - upper[edge, 1]) * run[edge, 0] / np.maximum(fall, 1)).astype(np.int64)
    np.add.at(counts, (y - low[1], np.clip(x - low[0], 0, columns)), 1)
    return _odd(counts, axis=1)[:, :-1]


def ellipse(centre: tuple[int, int], radii: tuple[int, int], degrees: float, width: int, height: int) -> Patch:
    """The pixels that OpenCV's `ellipse` fills, except for single ones at the edge: a polygon of 4 to 72 corners.

    Args:
        centre: column and row of a pixel.
        radii: in pixels, before rotation.
        degrees: clockwise rotation on the screen.
        width, height: size of the image in pixels.
    """
    largest = max(radii)
    step = 90 if largest < 3 else 30 if largest < 10 else 18 if largest < 15 else 5
    # OpenCV rotates by whole degrees.
    turn, angles = np.radians(round(degrees)), np.radians(np.arange(0, 361, step))
    across, along = radii[0] * np.cos(angles), radii[1] * np.sin(angles)
    x = centre[0] + across * np.cos(turn) - along * np.sin(turn)
    y = centre[1] + across * np.sin(turn) + along * np.cos(turn)
    first, last = np.stack([x, y], axis=1)[:-1], np.stack([x, y], axis=1)[1:]
    wide = np.abs(last - first)[:, 0] > np.abs(last - first)[:, 1]
    turned = np.where(wide, first[:, 0] > last[:, 0], first[:, 1] > last[:, 1])
    start, end = np.where(turned[:, None], last, first), np.where(turned[:, None], first, last)
    size = np.where(wide, end[:, 0] - start[:, 0], end[:, 1] - start[:, 1])
    count = np.rint(size).astype(np.int64) + 1
    edge = np.repeat(np.arange(len(count)), count)
    steps = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
    outline = start[edge] + (end - start)[edge] / np.maximum(size, 1e-9)[edge, None] * steps[:, None]
    pixels = np.floor(np.concatenate([outline, first]) + 0.5).astype(np.int64)
    return _rows_between(pixels, width, height)


def _rows_between(pixels: Integers, width: int, height: int) -> Patch:
    """In each row the pixels from the first to the last of a convex outline, inside the image."""
    top, bottom = max(int(pixels[:, 1].min()), 0), min(int(pixels[:, 1].max()), height - 1)
    left, right = max(int(pixels[:, 0].min()), 0), min(int(pixels[:, 0].max()), width - 1)
    if top > bottom or left > right:
        return Patch.empty()
    pixels = pixels[(pixels[:, 1] >= top) & (pixels[:, 1] <= bottom)]
    low, high = np.full(bottom - top + 1, width), np.full(bottom - top + 1, -1)
    np.minimum.at(low, pixels[:, 1] - top, pixels[:, 0])
    np.maximum.at(high, pixels[:, 1] - top, pixels[:, 0])
    columns = np.arange(left, right + 1)
    return Patch((columns >= low[:, None]) & (columns <= high[:, None]), top, left)
