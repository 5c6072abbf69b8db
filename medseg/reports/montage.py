"""One picture of a mask on many slices, to be looked at where no program overlays masks: contours, sizes, a warning."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.reports.slices import spread_slices
from medseg.volume import Volume

__all__ = ["WARNING", "MontageLabel", "montage"]

WARNING = "research - not for diagnosis"
"""Burned into the picture, and again into each of its slices, which viewers may enlarge."""

_MOST_SLICES, _COLUMNS = 12, 4
# Pixels along the longer side of a slice; one alone is larger.
_SIDE, _ALONE = 384, 1024
_GAP = 4
_LARGE, _MIDDLE, _SMALL = 28, 18, 14
_LINE = 26
# Height of the letters for the patient's sides.
_MARK = 14
_MOST_LINES = 6
_ENTRY_WIDTH = 384
_BACKGROUND, _WHITE, _YELLOW, _RED, _PALE = (0, 0, 0), (255, 255, 255), (255, 220, 0), (255, 90, 60), (190, 190, 190)


@dataclass(frozen=True, slots=True)
class MontageLabel:
    """A label in the legend: its name, values and colour (RGB, 0 to 255), and what was measured, as a text."""

    name: str
    values: tuple[int, ...]
    colour: tuple[int, int, int]
    size: str = ""


def montage(
    image: Volume, mask: Volume, labels: Sequence[MontageLabel], heading: str, review: bool = False
) -> NDArray[np.uint8]:
    """Up to 12 slices with the contours of the labels, a legend with their sizes, and a warning.

    Args:
        image: on the mask's grid, with or without channels.
        mask: integers `(I, J[, K])`.
        labels: what the integers mean.
        heading: what made the mask, without anything about the patient.
        review: whether the picture says that a person should check the mask.

    Returns:
        `(rows, columns, 3)`, RGB; the same pixels for the same arguments.
    """
    from PIL import Image, ImageDraw

    slices = spread_slices(image, mask, {each.name: each.values for each in labels}, _MOST_SLICES)
    columns = min(len(slices), _COLUMNS)
    tiles = [_tile(each, labels, _SIDE if len(slices) > 1 else _ALONE) for each in slices]
    width, height = max(tile.width for tile in tiles) + _GAP, max(tile.height for tile in tiles) + _GAP
    entries = [each for each in labels if _is_there(mask, each)]
    per_line = max(1, max(columns * width, 2 * _ENTRY_WIDTH) // _ENTRY_WIDTH)
    lines = min(_MOST_LINES, math.ceil(len(entries) / per_line)) or 1
    top = 3 * _LINE + _GAP
    size = (max(columns * width, 2 * _ENTRY_WIDTH), top + math.ceil(len(tiles) / columns) * height + lines * _LINE)
    canvas = Image.new("RGB", size, _BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    draw.text((8, 4), WARNING.upper(), fill=_YELLOW, font=_font(_LARGE))
    if review:
        draw.text((8, 4 + _LINE + 8), "NEEDS REVIEW", fill=_RED, font=_font(_MIDDLE))
    draw.text((160 if review else 8, 4 + _LINE + 8), heading, fill=_WHITE, font=_font(_MIDDLE))
    for n, tile in enumerate(tiles):
        canvas.paste(tile, (n % columns * width, top + n // columns * height))
    _legend(draw, entries, per_line, lines, size[1] - lines * _LINE)
    return np.asarray(canvas, dtype=np.uint8)


def _is_there(mask: Volume, label: MontageLabel) -> bool:
    """Whether any voxel belongs to a label."""
    return any(bool((mask.array == value).any()) for value in label.values)


def _tile(shown: Any, labels: Sequence[MontageLabel], side: int) -> Any:
    """A slice with its contours, its place, and the warning."""
    from PIL import ImageDraw

    from medseg.reports.thumbnails import draw_slice

    tile = draw_slice(
        shown, side, [(shown.pred[each.name], "#{:02x}{:02x}{:02x}".format(*each.colour)) for each in labels]
    )
    draw = ImageDraw.Draw(tile)
    # Clear of the letters at the middle of the edges; black around them, as the image may be bright.
    outlined = {"font": _font(_SMALL), "stroke_width": 1, "stroke_fill": _BACKGROUND}
    draw.text((4, _MARK), shown.place, fill=_WHITE, **outlined)
    draw.text((4, tile.height - _MARK - _SMALL - 5), WARNING, fill=_YELLOW, **outlined)
    return tile


def _legend(draw: Any, entries: Sequence[MontageLabel], per_line: int, lines: int, top: int) -> None:
    if not entries:
        draw.text((8, top + 2), "nothing found", fill=_WHITE, font=_font(_MIDDLE))
        return
    room = per_line * lines
    shown = list(entries) if len(entries) <= room else list(entries[: room - 1])
    for n, each in enumerate(shown):
        x, y = n % per_line * _ENTRY_WIDTH + 8, top + n // per_line * _LINE
        draw.rectangle((x, y + 5, x + 14, y + 19), fill=each.colour)
        text = f"{each.name}  {each.size}".strip()
        while len(text) > 8 and draw.textlength(text, font=_font(_MIDDLE)) > _ENTRY_WIDTH - 36:
            text = f"{text[:-4]}..."
        draw.text((x + 22, y + 2), text, fill=_WHITE, font=_font(_MIDDLE))
    if len(shown) < len(entries):
        x, y = len(shown) % per_line * _ENTRY_WIDTH + 8, top + len(shown) // per_line * _LINE
        draw.text((x, y + 2), f"and {len(entries) - len(shown)} more labels", fill=_PALE, font=_font(_MIDDLE))


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)
