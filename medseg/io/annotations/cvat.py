"""CVAT XML 1.1: 'CVAT for images' (a label map per image) and 'CVAT for video' (tracks: a label map per video).

Pixels are those of CVAT's own mask exports (cvat/apps/dataset_manager with datumaro): polygons and boxes, rotated or
not, are painted with pycocotools' `rleFrPoly`; coordinates are continuous, with pixel (0, 0) reaching from 0 to 1. A
mask is run lengths along the rows of its box, background first. An ellipse's centre and radii are rounded to whole
pixels, then OpenCV's `ellipse` draws it as a polygon. Shapes are painted by `z_order`, equal ones in file order.
Polygons have no holes; masks can.

CVAT writes the interpolated shapes of a track into the file (`keyframe="0"`), so the object is absent from a frame
that its track does not list. A finding reports a track that stops without `outside="1"` and continues later (deleted
frames, or a file that another program reduced to its key frames).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medseg.errors import AnnotationError
from medseg.io.annotations.polygons import check_points, coco_polygon, ellipse, strokes
from medseg.io.annotations.rle import decode_rows
from medseg.io.annotations.shapes import Notes, Patch, Picture, Shape, check_size
from medseg.io.annotations.untrusted_fields import Xml, integer_of

__all__ = ["cvat_classes", "cvat_pictures", "is_cvat"]

_PAINTED = ("box", "polygon", "ellipse", "mask")
_STROKES = ("polyline", "points")
_IGNORED = (*_STROKES, "cuboid", "skeleton", "tag")


def is_cvat(document: Xml) -> bool:
    """Whether this looks like a CVAT file."""
    return document.tag == "annotations" and any(c.tag in ("meta", "image", "track") for c in document.children())


def cvat_classes(document: Xml, strokes: bool = False) -> list[str]:
    """The labels that the task declares, in its order, then undeclared ones that occur; `strokes`: of lines, too."""
    painted = _PAINTED + _STROKES if strokes else _PAINTED
    labels = document.element.iterfind("./meta//labels/label")
    # The points of a skeleton are declared as labels with a parent; they have no area.
    declared = [(label.findtext("name") or "").strip() for label in labels if label.find("parent") is None]
    shapes = [s for image in document.children("image") for s in image.children() if s.tag in painted]
    tracks = [t for t in document.children("track") if any(s.tag in painted for s in t.children())]
    return list(dict.fromkeys([*filter(None, declared), *(s.text("label") for s in [*shapes, *tracks])]))


def cvat_pictures(document: Xml, path: Path, thickness: int = 0) -> Iterator[Picture]:
    """The images in file order, or one picture per video; lines and points of `thickness` pixels, or skipped for 0.

    Raises:
        AnnotationError: if attributes are missing or wrong.
    """
    for image in document.children("image"):
        width, height = image.integer("width"), image.integer("height")
        check_size(width, height, 0, image.where)
        notes = Notes(path)
        drawn = [(s.text("label"), 0, s) for s in image.children() if _is_painted(s, notes, thickness)]
        yield Picture(image.text("name"), width, height, 0, _shapes(drawn, width, height, thickness), notes)
    tracks = document.children("track")
    videos = _videos(document)
    if document.children("image") and not tracks:
        return
    for video in videos:
        notes = Notes(path)
        check_size(video.width, video.height, len(video.frames), f"{path} ({video.name[:80]!r})")
        own = [t for t in tracks if len(videos) == 1 or t.text("task_id") == video.task]
        drawn = [entry for track in own for entry in _seen(track, video, notes, thickness)]
        shapes = _shapes(drawn, video.width, video.height, thickness)
        yield Picture(video.name, video.width, video.height, len(video.frames), shapes, notes)


def _is_painted(shape: Xml, notes: Notes, thickness: int) -> bool:
    if shape.tag in _PAINTED or (thickness and shape.tag in _STROKES):
        return True
    if shape.tag not in _IGNORED:
        raise AnnotationError(f"{shape.where} is not a shape of CVAT 1.1; expected {', '.join(_PAINTED + _IGNORED)}")
    notes.add("ignored_shapes", f"{shape.tag}, which has no area and is skipped")
    return False


def _shapes(drawn: Iterable[tuple[str, int, Xml]], width: int, height: int, thickness: int) -> Iterator[Shape]:
    for label, frame, shape in sorted(drawn, key=lambda entry: entry[2].integer("z_order", "0")):
        if shape.tag in _STROKES:
            for patch in strokes(shape.tag, _points(shape), thickness, (width, height), shape.where):
                yield Shape(label, patch, frame)
        else:
            yield Shape(label, _patch(shape, width, height), frame)


def _patch(shape: Xml, width: int, height: int) -> Patch:
    if shape.tag == "polygon":
        return coco_polygon(_points(shape), width, height, shape.where)
    if shape.tag == "box":
        low, high = [shape.number("xtl"), shape.number("ytl")], [shape.number("xbr"), shape.number("ybr")]
        corners = np.array([low, [high[0], low[1]], high, [low[0], high[1]]])
        return coco_polygon(_turned(corners, shape.number("rotation", "0")), width, height, shape.where)
    if shape.tag == "ellipse":
        numbers = np.array([[shape.number("cx"), shape.number("cy")], [shape.number("rx"), shape.number("ry")]])
        check_points(numbers, width, height, shape.where, 2)
        centre_x, centre_y, radius_x, radius_y = np.rint(numbers).astype(int).ravel().tolist()
        if min(radius_x, radius_y) < 0:
            raise AnnotationError(f"{shape.where} has a negative radius")
        degrees = shape.number("rotation", "0") % 360
        return ellipse((centre_x, centre_y), (radius_x, radius_y), degrees, width, height)
    left, top = shape.integer("left"), shape.integer("top")
    columns, rows = shape.integer("width"), shape.integer("height")
    check_size(columns, rows, 0, shape.where)
    check_points(np.array([[left, top]], np.float64), width, height, shape.where, 1)
    text = shape.text("rle")
    counts = np.array([integer_of(n, f"{shape.where}: rle") for n in text.split(",") if n.strip()], np.int64)
    return Patch.clipped(decode_rows(counts, columns, rows, shape.where), top, left, height, width)


def _points(shape: Xml) -> NDArray[np.float64]:
    pairs = [pair.split(",") for pair in shape.text("points").split(";") if pair.strip()]
    try:
        points = np.array([[float(x), float(y)] for x, y in pairs], np.float64).reshape(-1, 2)
    except ValueError:
        points = np.array([[math.nan, math.nan]])
    if not np.isfinite(points).all():
        raise AnnotationError(f"{shape.where}: points is {shape.text('points')[:40]!r}; expected x,y;x,y;...")
    return points


def _turned(corners: NDArray[np.float64], degrees: float) -> NDArray[np.float64]:
    """Rotated clockwise on the screen about the centre, as in CVAT's RotatedBoxesToPolygons."""
    if degrees == 0:
        return corners
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    middle = (corners[0] + corners[2]) / 2
    return np.asarray((corners - middle) @ np.array([[cos, sin], [-sin, cos]]) + middle)


@dataclass(frozen=True, slots=True)
class _Video:
    task: str
    name: str
    width: int
    height: int
    frames: range


def _videos(document: Xml) -> list[_Video]:
    """One per task in the file: its size, and the numbers of its frames."""
    tasks = [
        Xml(e, document.file)
        for place in ("task", "job", "project/tasks/task")
        for e in document.element.iterfind(f"./meta/{place}")
    ]
    found = []
    for task in tasks:
        if task.element.find("original_size") is None:
            continue
        width, height = _number(task, "original_size/width"), _number(task, "original_size/height")
        first = _number(task, "start_frame", "0")
        step = _step(task.find_text("frame_filter") or "", task)
        count = _number(task, "size")
        check_size(width, height, max(count, 1), task.where)
        source = document.find_text("meta/source") if len(tasks) == 1 else None
        name = source or task.find_text("source") or task.find_text("name") or "video"
        found.append(_Video(task.find_text("id") or "", name, width, height, range(first, first + count * step, step)))
    if not found and document.children("track"):
        raise AnnotationError(f"{document.file} lacks meta/task/original_size, so its tracks have no image size")
    return found


def _number(task: Xml, path: str, default: str | None = None) -> int:
    text = task.find_text(path) or default
    if text is None:
        raise AnnotationError(f"{task.where} lacks {path}; export the file again from CVAT")
    return integer_of(text, f"{task.where}: {path}")


def _step(frame_filter: str, task: Xml) -> int:
    if not frame_filter:
        return 1
    step = integer_of(frame_filter.removeprefix("step="), f"{task.where}: frame_filter")
    if step < 1:
        raise AnnotationError(f"{task.where}: frame_filter is {frame_filter[:40]!r}; expected step=N")
    return step


def _seen(track: Xml, video: _Video, notes: Notes, thickness: int) -> Iterator[tuple[str, int, Xml]]:
    """(label, slice, shape) of every frame in which a track shows its object."""
    label = track.text("label")
    expected: int | None = None
    for shape in sorted(track.children(), key=lambda s: s.integer("frame")):
        if not _is_painted(shape, notes, thickness):
            continue
        frame = shape.integer("frame")
        if expected is not None and frame > expected:
            what = f"track {track.text('id', '?')[:20]} ({label[:40]!r}) with frames it does not list, left empty there"
            notes.add("track_gap", what)
        outside = shape.integer("outside", "0") != 0
        expected = None if outside else frame + video.frames.step
        if outside:
            continue
        if frame not in video.frames:
            raise AnnotationError(
                f"{shape.where} is on frame {frame}, which the video ({len(video.frames)} frames from "
                f"{video.frames.start}, step {video.frames.step}) lacks"
            )
        yield label, video.frames.index(frame), shape
