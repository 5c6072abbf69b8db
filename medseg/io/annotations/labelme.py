"""Labelme JSON (5.x and 6.x): one file per image.

Pixels are those of Labelme's own exporter (`shape_to_mask` in labelme/utils/shape.py of 6.3.1): Pillow's `ImageDraw`,
which truncates coordinates and includes the outline. Labelme's coordinates are continuous, with pixel (0, 0) reaching
from 0 to 1, so truncation gives the pixel that contains the point: the polygon 1.5..4.5 covers the pixels 1 to 4. Later
shapes cover earlier ones (`shapes_to_label`). Mask shapes are PNGs placed by their box. A `group_id` joins shapes into
one object and changes no pixel.

Labelme's polygons have no holes: a hole is a shape on top with the label '_background_' (value 0), or a mask shape.
Lines and points have no area: Labelme would paint strokes 10 pixels wide, here they are skipped with a finding, unless
they are read as scribbles.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.disk.atomic import write_text_atomic
from medseg.errors import AnnotationError
from medseg.io.annotations.outlines import Part, parts, pixel_edges, pixel_indices
from medseg.io.annotations.polygons import check_points, strokes
from medseg.io.annotations.shapes import MAX_PIXELS, Annotated, Notes, Patch, Picture, Shape, check_size
from medseg.io.annotations.untrusted_fields import Json
from medseg.io.naming import natural_order

__all__ = ["base64_bytes", "is_labelme", "labelme_classes", "labelme_picture", "png_mask", "png_of", "write_labelme"]

_IGNORED = ("point", "points", "line", "linestrip")


def is_labelme(document: Json) -> bool:
    """Whether this looks like a Labelme file."""
    return document.has("shapes") and isinstance(document.value["shapes"], list) and "imagePath" in document.value


def labelme_classes(document: Json, strokes: bool = False) -> list[str]:
    """The labels that occur, sorted, because the file does not declare any; `strokes`: lines and points, too."""
    found = {s.at("label").text() for s in document.at("shapes").items() if strokes or _kind(s) not in _IGNORED}
    return sorted(found, key=natural_order)


def labelme_picture(document: Json, path: Path, thickness: int = 0) -> Picture:
    """The image with its shapes, in file order; lines and points of `thickness` pixels, or skipped where it is 0.

    Raises:
        AnnotationError: if fields are missing or wrong.
    """
    width, height = _size(document)
    check_size(width, height, 0, str(path))
    notes = Notes(path)
    name = document.at("imagePath").text().replace("\\", "/")
    return Picture(name, width, height, 0, _shapes(document, width, height, notes, thickness), notes)


def _size(document: Json) -> tuple[int, int]:
    if document.has("imageHeight") and document.has("imageWidth"):
        return document.at("imageWidth").integer(), document.at("imageHeight").integer()
    if not document.has("imageData"):
        raise AnnotationError(
            f"{document.where} has neither imageHeight and imageWidth nor imageData; save it again with a newer Labelme"
        )
    from PIL import Image

    data = document.at("imageData")
    content = base64_bytes(data)
    try:
        with _quietly(), Image.open(io.BytesIO(content)) as image:
            return image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise AnnotationError(f"{data.where} is not an image that can be opened; the file is damaged") from None


def _kind(shape: Json) -> str:
    return shape.at("shape_type").text() if shape.has("shape_type") else "polygon"


def _shapes(document: Json, width: int, height: int, notes: Notes, thickness: int) -> Iterator[Shape]:
    for shape in document.at("shapes").items():
        kind = _kind(shape)
        if kind in _IGNORED and thickness:
            place = shape.at("points")
            for patch in strokes(kind, place.points(), thickness, (width, height), place.where):
                yield Shape(shape.at("label").text(), patch)
            continue
        if kind in _IGNORED:
            notes.add("ignored_shapes", f"{kind}, which has no area and is skipped")
            continue
        label = shape.at("label").text()
        yield Shape(label, _mask(shape, width, height) if kind == "mask" else _drawn(shape, kind, width, height))


def _drawn(shape: Json, kind: str, width: int, height: int) -> Patch:
    place = shape.at("points")
    points = place.points()
    corners = {"circle": 2, "rectangle": 2, "oriented_rectangle": 4, "polygon": 0}.get(kind)
    if corners is None:
        shape.at("shape_type").fail("polygon, rectangle, oriented_rectangle, circle, mask, line, linestrip or point")
    if corners and len(points) != corners:
        raise AnnotationError(f"{place.where} has {len(points)} points; a {kind} has {corners}")
    check_points(points, width, height, place.where, corners or 3)
    if kind == "circle":
        radius = math.dist(points[0], points[1])
        points = np.array([points[0] - radius, points[0] + radius])
    elif kind == "rectangle":
        points = np.array([points.min(axis=0), points.max(axis=0)])
    return draw(kind, points, width, height)


def draw(kind: str, points: NDArray[np.float64], width: int, height: int) -> Patch:
    """The pixels that Pillow paints: a polygon, or the rectangle or ellipse (`circle`) between two corners."""
    from PIL import Image, ImageDraw

    whole = np.trunc(points).astype(np.int64)
    low = np.maximum(whole.min(axis=0), 0)
    high = np.minimum(whole.max(axis=0), (width - 1, height - 1))
    if (low > high).any():
        return Patch.empty()
    # A canvas of the shape's own size, shifted by whole pixels, gives the same pixels as the whole image.
    canvas = Image.new("L", tuple((high - low + 1).tolist()))
    pen = ImageDraw.Draw(canvas)
    moved = [(float(x), float(y)) for x, y in whole - low]
    if kind == "circle":
        pen.ellipse(moved, outline=1, fill=1)
    elif kind == "rectangle":
        pen.rectangle(moved, outline=1, fill=1)
    else:
        pen.polygon(moved, outline=1, fill=1)
    return Patch(np.asarray(canvas, np.bool_), int(low[1]), int(low[0]))


def _mask(shape: Json, width: int, height: int) -> Patch:
    place = shape.at("points")
    corners = place.points()
    if len(corners) != 2:
        raise AnnotationError(f"{place.where} has {len(corners)} points; a mask has 2, the corners of its box")
    check_points(corners, width, height, place.where, 2)
    field = shape.at("mask")
    pixels = png_mask(base64_bytes(field), field.where)
    (left, top), (right, bottom) = np.rint(corners).astype(int).tolist()
    if (corners == np.trunc(corners)).all():
        # Integer corners are the first and last pixel, both included.
        rows, columns = bottom - top + 1, right - left + 1
        if rows < 1 or columns < 1 or pixels.shape[0] < rows or pixels.shape[1] < columns:
            size = f"{pixels.shape[1]} x {pixels.shape[0]}"
            raise AnnotationError(f"{field.where} has {size} pixels; its box requires {columns} x {rows}")
        pixels = pixels[:rows, :columns]
    return Patch.clipped(pixels, top, left, height, width)


def base64_bytes(field: Json) -> bytes:
    """The bytes encoded in a base64 text.

    Raises:
        AnnotationError: if it is not base64 text, or truncated.
    """
    text = field.text()
    try:
        return base64.b64decode(text, validate=False)
    except (binascii.Error, ValueError):
        raise AnnotationError(f"{field.where} is not base64 text; the file is damaged") from None


def png_mask(content: bytes, where: str) -> NDArray[np.bool_]:
    """The nonzero pixels of a PNG (with alpha: the opaque ones), as (rows, columns).

    Raises:
        AnnotationError: if it is not a PNG, damaged, or too large.
    """
    from PIL import Image

    try:
        with _quietly(), Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise AnnotationError(f"{where} has {image.width} x {image.height} pixels; too many to read")
            if image.mode in ("RGBA", "LA"):
                return np.asarray(np.asarray(image.getchannel("A")) != 0)
            pixels = np.asarray(image)
    except AnnotationError:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise AnnotationError(f"{where} is not a PNG that can be opened ({error}); the file is damaged") from None
    return np.asarray(pixels.any(axis=2) if pixels.ndim == 3 else pixels != 0)


def _quietly() -> warnings.catch_warnings[None]:
    # Pillow warns about large images; their size is checked here.
    return warnings.catch_warnings(action="ignore")


def write_labelme(annotated: Annotated, path: Path) -> None:
    """Write a 2D label map: a polygon per connected component, a mask shape if it has holes.

    Raises:
        WriteError: if the disk is full or permission is missing.
    """
    names = {value: name for name, value in annotated.classes.items()}
    rows = annotated.label_map.array.T
    document = {
        "version": "6.3.1",
        "flags": {},
        "shapes": [_written(part, names[part.value]) for part in parts(rows)],
        "imagePath": annotated.image_name,
        "imageData": None,
        "imageHeight": rows.shape[0],
        "imageWidth": rows.shape[1],
    }
    write_text_atomic(path, json.dumps(document, ensure_ascii=False, indent=2) + "\n")


def _written(part: Part, name: str) -> dict[str, Any]:
    rows, columns = part.mask.shape
    box = [[part.left, part.top], [part.left + columns - 1, part.top + rows - 1]]
    shape: dict[str, Any] = {"label": name, "points": box, "group_id": None, "description": ""}
    rings = pixel_edges(part.mask)
    # Labelme shows a point at the centre of a pixel as inside it.
    points = [[x + 0.5, y + 0.5] for x, y in pixel_indices(rings[0])]
    if len(rings) == 1 and len(points) > 2:
        drawn = draw("polygon", np.array(points), columns, rows)
        if drawn.mask.shape == part.mask.shape and (drawn.mask == part.mask).all():
            outline = [[x + part.left, y + part.top] for x, y in points]
            return {**shape, "points": outline, "shape_type": "polygon", "flags": {}, "mask": None}
    return {**shape, "shape_type": "mask", "flags": {}, "mask": base64.b64encode(png_of(part.mask)).decode("ascii")}


def png_of(mask: NDArray[np.bool_]) -> bytes:
    """A mask as a PNG of 1 bit per pixel, the same bytes on every run."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, format="PNG")
    return buffer.getvalue()
