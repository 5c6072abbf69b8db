"""Supervisely JSON of images: one file per image in `ann/`, classes in the project's `meta.json`.

Pixels are those of Supervisely's SDK (supervisely/geometry, 6.74): coordinates are pixel indices, polygons are filled
with OpenCV's `fillPoly`, which includes the outline; fractions are truncated. The holes ('interior') of a polygon are
filled together with 0 before it is painted, so the outline of a hole belongs to the hole. Rectangles reach from their
first to their last pixel, rounded. A bitmap is base64(zlib(PNG)) with its first pixel at 'origin' [x, y]. Objects come
in drawing order: later ones cover earlier ones.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.disk.atomic import write_text_atomic
from medseg.errors import AnnotationError, MedsegError
from medseg.io.annotations.labelme import base64_bytes, png_mask, png_of
from medseg.io.annotations.outlines import Part, parts, pixel_edges, pixel_indices
from medseg.io.annotations.polygons import check_points, opencv_polygon, strokes
from medseg.io.annotations.shapes import Annotated, Notes, Patch, Picture, Shape, check_size
from medseg.io.annotations.untrusted_fields import Json, load_document
from medseg.io.naming import natural_order

__all__ = ["is_supervisely", "supervisely_classes", "supervisely_picture", "write_supervisely"]

_IGNORED = ("point", "line", "graph", "cuboid", "cuboid_2d", "any", "alpha_mask", "oriented_bbox")
_STROKES = ("point", "line")
# A mask's PNG is small: even noise on 8192 x 8192 pixels stays below this; a zip bomb does not.
_MAX_PNG_BYTES = 2**26


def is_supervisely(document: Json) -> bool:
    """Whether this looks like the annotation of a Supervisely image."""
    return document.has("size") and document.has("objects")


def supervisely_classes(document: Json, path: Path, strokes: bool = False) -> list[str]:
    """The classes in the order of the project's meta.json or, without one, those that occur, sorted.

    Args:
        document: the annotation of an image.
        path: of its file.
        strokes: whether classes of lines and points count.
    """
    skipped = set(_IGNORED) - set(_STROKES if strokes else ())
    found = {o.at("classTitle").text() for o in document.at("objects").items() if _kind(o) not in skipped}
    # project/meta.json, project/dataset/ann/image.png.json
    for folder in list(path.absolute().parents)[:3]:
        if not (folder / "meta.json").is_file():
            continue
        try:
            meta = load_document(folder / "meta.json")
            names = [c.at("title").text() for c in meta.at("classes").items()] if isinstance(meta, Json) else []
        except MedsegError:
            continue
        if found <= set(names):
            return names
    return sorted(found, key=natural_order)


def supervisely_picture(document: Json, path: Path, thickness: int = 0) -> Picture:
    """The image with its objects, in file order; lines and points of `thickness` pixels, or skipped where it is 0.

    Raises:
        AnnotationError: if fields are missing or wrong, or the file annotates a video or volume.
    """
    for key, kind in (("framesCount", "video"), ("volumeMeta", "volume"), ("planes", "volume")):
        if document.has(key):
            raise AnnotationError(f"{path} annotates a Supervisely {kind}; only its image annotations can be read")
    size = document.at("size")
    width, height = size.at("width").integer(), size.at("height").integer()
    check_size(width, height, 0, str(path))
    notes = Notes(path)
    return Picture(
        path.name.removesuffix(".json"), width, height, 0, _shapes(document, width, height, notes, thickness), notes
    )


def _kind(item: Json) -> str:
    if item.has("geometryType"):
        return item.at("geometryType").text()
    # Older exports have no geometryType.
    return "bitmap" if item.has("bitmap") else "polygon"


def _shapes(document: Json, width: int, height: int, notes: Notes, thickness: int) -> Iterator[Shape]:
    for item in document.at("objects").items():
        kind = _kind(item)
        if kind in _STROKES and thickness:
            place = item.at("points").at("exterior")
            for patch in strokes(kind, place.points(), thickness, (width, height), place.where):
                yield Shape(item.at("classTitle").text(), patch)
            continue
        if kind in _IGNORED:
            notes.add("ignored_shapes", f"{kind}, which cannot be painted and is skipped")
            continue
        label = item.at("classTitle").text()
        if kind == "bitmap":
            yield Shape(label, _bitmap(item.at("bitmap"), width, height))
        elif kind == "polygon":
            yield Shape(label, _polygon(item.at("points"), width, height))
        elif kind == "rectangle":
            yield Shape(label, _rectangle(item.at("points").at("exterior"), width, height))
        else:
            item.at("geometryType").fail("polygon, bitmap, rectangle, line, point or another shape of Supervisely")


def _polygon(points: Json, width: int, height: int) -> Patch:
    exterior = points.at("exterior")
    outer = opencv_polygon([_filled_up(exterior.points())], width, height, exterior.where)
    interior = points.at("interior").items() if points.has("interior") else []
    if not interior or not outer.mask.size:
        return outer
    # The outlines of holes may extend beyond the exterior, because they only remove pixels.
    holes = opencv_polygon([_filled_up(ring.points()) for ring in interior], width, height, points.where)
    cut = holes.on_box(outer.top, outer.left, *outer.mask.shape)
    return Patch(outer.mask & ~cut, outer.top, outer.left)


def _filled_up(ring: NDArray[np.float64]) -> NDArray[np.float64]:
    # The SDK repeats the last point of a ring of 1 or 2 points.
    return np.concatenate([ring, np.repeat(ring[-1:], 3 - len(ring), axis=0)]) if 0 < len(ring) < 3 else ring


def _rectangle(field: Json, width: int, height: int) -> Patch:
    points = field.points()
    if len(points) != 2:
        raise AnnotationError(f"{field.where} has {len(points)} points; a rectangle has 2")
    check_points(points, width, height, field.where, 2)
    (left, top), (right, bottom) = np.rint([points.min(axis=0), points.max(axis=0)]).astype(int).tolist()
    low_x, low_y, high_x, high_y = max(left, 0), max(top, 0), min(right, width - 1), min(bottom, height - 1)
    if low_x > high_x or low_y > high_y:
        return Patch.empty()
    return Patch(np.ones((high_y - low_y + 1, high_x - low_x + 1), np.bool_), low_y, low_x)


def _bitmap(bitmap: Json, width: int, height: int) -> Patch:
    data, origin = bitmap.at("data"), bitmap.at("origin").integers().tolist()
    if len(origin) != 2:
        bitmap.at("origin").fail("[x, y]")
    left, top = origin
    check_points(np.array([[left, top]], np.float64), width, height, bitmap.where, 1)
    content = _unpacked(base64_bytes(data), data.where)
    return Patch.clipped(png_mask(content, data.where), top, left, height, width)


def _unpacked(packed: bytes, where: str) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(packed, _MAX_PNG_BYTES)
    except zlib.error:
        # The SDK also accepts a PNG that was not compressed.
        return packed
    if unpacker.unconsumed_tail:
        raise AnnotationError(f"{where} unpacks to more than {_MAX_PNG_BYTES} bytes; it is not a mask")
    return content


def write_supervisely(annotated: Annotated, path: Path) -> None:
    """Write a 2D label map as image annotation: a polygon with its holes per connected component.

    A component whose polygon would not give the same pixels back is written as a bitmap.

    Raises:
        WriteError: if the disk is full or permission is missing.
    """
    names = {value: name for name, value in annotated.classes.items()}
    rows = annotated.label_map.array.T
    document = {
        "description": "",
        "tags": [],
        "size": {"height": rows.shape[0], "width": rows.shape[1]},
        "objects": [_written(part, names[part.value]) for part in parts(rows)],
    }
    write_text_atomic(path, json.dumps(document, ensure_ascii=False, indent=2) + "\n")


def _written(part: Part, name: str) -> dict[str, Any]:
    rows, columns = part.mask.shape
    outer, *holes = pixel_edges(part.mask)
    points: dict[str, Any] = {
        "exterior": pixel_indices(outer),
        "interior": [pixel_indices(ring, hole=True) for ring in holes],
    }
    item: dict[str, Any] = {"description": "", "tags": [], "classTitle": name}
    if len(points["exterior"]) > 2:
        drawn = _polygon(Json(json.loads(json.dumps(points)), "the polygon"), columns, rows)
        if drawn.mask.shape == part.mask.shape and (drawn.mask == part.mask).all():
            exterior = [[x + part.left, y + part.top] for x, y in points["exterior"]]
            interior = [[[x + part.left, y + part.top] for x, y in ring] for ring in points["interior"]]
            return {**item, "geometryType": "polygon", "points": {"exterior": exterior, "interior": interior}}
    data = base64.b64encode(zlib.compress(png_of(part.mask))).decode("ascii")
    return {**item, "geometryType": "bitmap", "bitmap": {"data": data, "origin": [part.left, part.top]}}
