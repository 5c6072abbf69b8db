"""A small picture of a mask on its image, fast enough to make for every case of a night."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from medseg.labels import LabelScheme
from medseg.reports.figures import label_colours
from medseg.reports.slices import pick_slice
from medseg.volume import Volume

__all__ = ["preview_png"]

# Pixels along the longer side.
_SIDE = 384


def preview_png(image: Volume, mask: Volume, scheme: LabelScheme) -> bytes:
    """PNG of the slice where the labels cover most, each outlined in its colour; radiological convention.

    Args:
        image: on the mask's grid, with or without channels.
        mask: integers `(I, J[, K])`.
        scheme: what they mean.

    Returns:
        The same bytes for the same image and mask.
    """
    from PIL import Image, ImageDraw

    labels = dict(zip(scheme.names, scheme.values, strict=True))
    shown = pick_slice(image if image.channels else image.with_array(image.array[None], channels=1), mask, mask, labels)
    grey = np.zeros((1, 1), np.float32) if shown.image is None else shown.image
    rows, columns = grey.shape[:2]
    scale = _SIDE / max(rows * shown.aspect, columns)
    size = (max(1, round(columns * scale)), max(1, round(rows * shown.aspect * scale)))
    picture = np.asarray(Image.fromarray(np.uint8(np.round(grey * 255))).resize(size, _SMOOTH).convert("RGB")).copy()
    for name, (_, colour) in zip(labels, label_colours(list(labels)).values(), strict=True):
        outline = _outline(np.asarray(Image.fromarray(shown.pred[name]).resize(size, _NEAREST)))
        picture[outline] = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    result = Image.fromarray(picture)
    draw = ImageDraw.Draw(result)
    left, right, top, bottom = shown.marks
    places = ((4, size[1] // 2, left), (size[0] - 10, size[1] // 2, right), (size[0] // 2, 2, top))
    for x, y, text in (*places, (size[0] // 2, size[1] - 13, bottom)):
        draw.text((x, y), text, fill=(255, 255, 255))
    buffer = io.BytesIO()
    result.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


_SMOOTH, _NEAREST = 2, 0  # PIL.Image.Resampling's BILINEAR and NEAREST


def _outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask's pixels within two pixels of its border."""
    inner = np.pad(mask, 2)
    for _ in range(2):
        inner = inner[1:-1, 1:-1] & inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
    return np.asarray(mask & ~inner)
