"""Small pictures by Pillow, a hundred times faster than a plotting library: outlines and tints on a slice."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from medseg.reports.slices import SlicePicture

__all__ = ["FALSE_NEGATIVE", "FALSE_POSITIVE", "draw_slice", "encoded", "error_thumbnail"]

FALSE_POSITIVE, FALSE_NEGATIVE = "#ff5a3c", "#3c9dff"
"""Colours of an error map: predicted only, missed. Distinguishable with any colour vision."""

_TINT = 0.55
_SIDE = 260
Layer = tuple[NDArray[np.bool_], str]


def draw_slice(shown: SlicePicture, side: int, outlines: Sequence[Layer] = (), tints: Sequence[Layer] = ()) -> Any:
    """A slice as a `PIL.Image`, in true proportions, with letters for the patient's sides.

    Args:
        shown: the slice.
        side: pixels along its longer side.
        outlines: masks `(H, W)` whose border is drawn, with their colour.
        tints: masks that are covered by a transparent colour.
    """
    shape = next(iter(shown.ref.values())).shape
    grey = np.zeros(shape, np.float32) if shown.image is None else shown.image
    scale = side / max(shape[0] * shown.aspect, shape[1])
    size = (max(1, round(shape[1] * scale)), max(1, round(shape[0] * shown.aspect * scale)))
    smooth = Image.Resampling.BILINEAR
    pixels = np.array(Image.fromarray(np.uint8(np.round(grey * 255))).resize(size, smooth).convert("RGB"))
    for mask, colour in tints:
        where = _resized(mask, size)
        pixels[where] = np.uint8(np.round((1 - _TINT) * pixels[where] + _TINT * np.array(_rgb(colour))))
    for mask, colour in outlines:
        pixels[_outline(_resized(mask, size), 2 if side > _SIDE else 1)] = _rgb(colour)
    picture = Image.fromarray(pixels)
    draw = ImageDraw.Draw(picture)
    left, right, top, bottom = shown.marks
    middle = (size[0] // 2, size[1] // 2)
    for x, y, text in (
        (4, middle[1], left),
        (size[0] - 10, middle[1], right),
        (middle[0], 2, top),
        (middle[0], size[1] - 13, bottom),
    ):
        draw.text((x, y), text, fill=(255, 255, 255))
    return picture


def error_thumbnail(shown: SlicePicture, colours: dict[str, tuple[str, str]]) -> bytes:
    """WebP of two panels: contours of reference and prediction, and what was predicted too much or missed.

    Args:
        shown: a slice with both masks.
        colours: label -> colours of reference and prediction; of labels that the slice lacks, unused.
    """
    colours = {name: each for name, each in colours.items() if name in shown.ref}
    outlines = [(shown.ref[name], colour) for name, (colour, _) in colours.items()]
    outlines += [(shown.pred[name], colour) for name, (_, colour) in colours.items()]
    surplus = np.any([shown.pred[n] & ~shown.ref[n] for n in colours], axis=0)
    missed = np.any([shown.ref[n] & ~shown.pred[n] for n in colours], axis=0)
    left = draw_slice(shown, _SIDE, outlines)
    right = draw_slice(shown, _SIDE, (), [(surplus & ~missed, FALSE_POSITIVE), (missed, FALSE_NEGATIVE)])
    both = Image.new("RGB", (left.width + right.width + 4, left.height))
    both.paste(left, (0, 0))
    both.paste(right, (left.width + 4, 0))
    return encoded(both, "WEBP")


def encoded(picture: Any, kind: str) -> bytes:
    """The picture as PNG or WebP bytes; the same picture gives the same bytes."""
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **({"compress_level": 6} if kind == "PNG" else {"quality": 72, "method": 4}))
    return buffer.getvalue()


def _rgb(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def _resized(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    return np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))


def _outline(mask: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """The mask's pixels within `width` pixels of its border."""
    inner = np.pad(mask, width)
    for _ in range(width):
        inner = inner[1:-1, 1:-1] & inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
    return np.asarray(mask & ~inner)
