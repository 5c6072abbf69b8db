"""From drawn shapes to a label map: masks painted in order, and classes mapped to values in a table.

A reader returns one `Picture` per image, whose shapes come in painting order, each already a mask of the pixels it
covers. Which pixels those are depends on the tool, and is documented in its reader.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medseg.errors import AnnotationError, ConfigError
from medseg.volume import Finding, Metadata, Volume

__all__ = [
    "MAX_PIXELS",
    "Annotated",
    "ClassTable",
    "Notes",
    "Patch",
    "Picture",
    "Scribbles",
    "Shape",
    "check_size",
    "paint",
]

Mask = NDArray[np.bool_]

# 16384 x 16384: above every photograph and slice, below what a typing error or a damaged digit gives.
MAX_PIXELS = 2**28
_MAX_STACK = 2**30
# Shapes may overlap, but a file that paints thousands of full images was made to block its reader.
_MAX_PAINTED = 2**32
_TILE = 512
# Names that tools use for "no class": the mask exports of CVAT and Labelme paint them with 0.
_BACKGROUND = frozenset({"background", "_background_", "__background__"})


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """A mask of part of an image: `mask` is (rows, columns), with its first pixel at row `top`, column `left`."""

    mask: Mask
    top: int
    left: int

    @classmethod
    def empty(cls) -> Patch:
        """A patch without pixels."""
        return cls(np.zeros((0, 0), np.bool_), 0, 0)

    @classmethod
    def clipped(cls, mask: Mask, top: int, left: int, height: int, width: int) -> Patch:
        """The part of a mask inside an image of `height` x `width`."""
        first_row, first_column = max(-top, 0), max(-left, 0)
        last_row, last_column = min(mask.shape[0], height - top), min(mask.shape[1], width - left)
        if first_row >= last_row or first_column >= last_column:
            return cls.empty()
        return cls(mask[first_row:last_row, first_column:last_column], top + first_row, left + first_column)

    def on_box(self, top: int, left: int, rows: int, columns: int) -> Mask:
        """The mask within a box of the image: (rows, columns)."""
        seen = np.zeros((rows, columns), np.bool_)
        moved = Patch.clipped(self.mask, self.top - top, self.left - left, rows, columns)
        height, width = moved.mask.shape
        seen[moved.top : moved.top + height, moved.left : moved.left + width] = moved.mask
        return seen


@dataclass(frozen=True, slots=True)
class Scribbles:
    """How strokes become label maps: lines and points `width` pixels wide, and `undrawn` wherever no shape lies."""

    width: int
    undrawn: int = 255


@dataclass(frozen=True, slots=True)
class Shape:
    """One drawn object: its class, its pixels and, in a video, its frame."""

    label: str
    patch: Patch
    frame: int = 0


@dataclass(frozen=True, slots=True)
class Picture:
    """An image or video as the tool describes it. `frames` is 0 for a 2D image; `shapes` can be read only once."""

    name: str
    width: int
    height: int
    frames: int
    shapes: Iterator[Shape]
    notes: Notes
    ordered: bool = True


class Notes:
    """Collects what a reader skips, by kind, so that a thousand points become one finding."""

    __slots__ = ("_counts", "_file")

    def __init__(self, file: Path) -> None:
        self._file = str(file)
        self._counts: dict[tuple[str, str], int] = {}

    def add(self, kind: str, what: str) -> None:
        """Count one more of `what`."""
        self._counts[kind, what] = self._counts.get((kind, what), 0) + 1

    def findings(self) -> tuple[Finding, ...]:
        """One finding per kind and text, with the number of occurrences."""
        return tuple(Finding(kind, f"{n} x {what}", (self._file,)) for (kind, what), n in self._counts.items())


@dataclass(frozen=True, slots=True)
class Annotated:
    """A label map made from annotations.

    Args:
        label_map: `[i = x, j = y]`, or `[i, j, frame]` for a video; uint8, or uint16 if a value exceeds 255; identity
            affine, spacing unknown.
        classes: name -> value, for every class of the file, in the order of the values.
        image_name: the annotated image or video as the file names it; never use it as a path unchecked.
    """

    label_map: Volume
    classes: Mapping[str, int]
    image_name: str

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was skipped or is ambiguous."""
        return self.label_map.findings


@dataclass(frozen=True, slots=True)
class ClassTable:
    """Class name -> label value.

    Example:
        >>> ClassTable.numbered(["tumour", "liver", "background"]).values
        {'tumour': 1, 'liver': 2, 'background': 0}
    """

    values: dict[str, int]

    @classmethod
    def of(cls, classes: Mapping[str, int]) -> ClassTable:
        """The user's own table.

        Raises:
            ConfigError: if a value is not an integer from 0 to 65535.
        """
        for name, value in classes.items():
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value <= 65535:
                raise ConfigError(f"class {name!r} has value {value!r}; expected an integer from 0 to 65535")
        return cls({name: int(value) for name, value in classes.items()})

    @classmethod
    def numbered(cls, names: Iterable[str], source: str = "the annotation") -> ClassTable:
        """Values 1, 2, ... in the order of the names; 'background' and Labelme's '_background_' are 0.

        Raises:
            AnnotationError: if there are more than 65535 classes.
        """
        unique = dict.fromkeys(names)
        painted = [name for name in unique if name.casefold() not in _BACKGROUND]
        if len(painted) > 65535:
            raise AnnotationError(f"{source} names {len(painted)} classes; a label map can have 65535")
        numbers = {name: n for n, name in enumerate(painted, start=1)}
        return cls({name: numbers.get(name, 0) for name in unique})

    def value(self, name: str, source: str) -> int:
        """The value of a class.

        Raises:
            AnnotationError: naming class and file, if the table lacks it.
        """
        if name not in self.values and name.casefold() in _BACKGROUND:
            return 0
        if name not in self.values:
            known = ", ".join(f"{n}: {v}" for n, v in list(self.values.items())[:12])
            raise AnnotationError(
                f"{source} contains the class {name[:80]!r}, which is not among the given classes ({known}); "
                "add it with a value, 0 to paint it as background"
            )
        return self.values[name]

    @property
    def dtype(self) -> type[np.uint8] | type[np.uint16]:
        """uint8, or uint16 if a value exceeds 255."""
        return np.uint8 if max(self.values.values(), default=0) < 256 else np.uint16

    def ordered(self) -> dict[str, int]:
        """The table in the order of its values."""
        return dict(sorted(self.values.items(), key=lambda item: item[1]))


def check_size(width: int, height: int, frames: int, source: str) -> None:
    """Refuse image sizes that are not positive or beyond `MAX_PIXELS`.

    Raises:
        AnnotationError: naming the file and the size.
    """
    text = f"{width} x {height}" + (f" with {frames} frames" if frames else "")
    if width < 1 or height < 1 or frames < 0:
        raise AnnotationError(f"{source} gives an image size of {text}; expected positive numbers")
    if width * height > MAX_PIXELS or width * height * max(frames, 1) > _MAX_STACK:
        limit = f"{MAX_PIXELS} pixels" + (f" a frame and {_MAX_STACK} together" if frames else "")
        raise AnnotationError(f"{source} gives an image size of {text}; at most {limit} can be read")


def _lay(mask: Mask, value: int, region: NDArray[np.integer], count: bool, undrawn: int) -> int:
    """Set `region` to `value` inside the mask; returns how many pixels of other classes are covered, if counted."""
    covered = 0
    # Tiles bound the memory of the comparisons, and masks stored column by column stay in the cache.
    for top in range(0, mask.shape[0], _TILE):
        for left in range(0, mask.shape[1], _TILE):
            seen = mask[top : top + _TILE, left : left + _TILE]
            part = region[top : top + _TILE, left : left + _TILE]
            if count:
                covered += int(np.count_nonzero((part != undrawn) & (part != value) & seen))
            np.copyto(part, value, where=seen)
    return covered


def paint(picture: Picture, table: ClassTable, path: Path, undrawn: int = 0) -> Annotated:
    """The label map of a picture: later shapes cover earlier ones.

    Args:
        picture: its shapes.
        table: the value of each class.
        path: of the file, for messages.
        undrawn: value of pixels that no shape covers.

    Raises:
        AnnotationError: if the size is impossible, the table lacks a class, or a shape is damaged.
    """
    source = f"{path} ({picture.name[:80]!r})"
    check_size(picture.width, picture.height, picture.frames, source)
    dtype = table.dtype if undrawn < 256 else np.uint16
    canvas = np.full((max(picture.frames, 1), picture.height, picture.width), undrawn, dtype)
    painted = covered = 0
    for shape in picture.shapes:
        value = table.value(shape.label, source)
        patch = shape.patch
        rows, columns = patch.mask.shape
        painted += patch.mask.size
        if painted > _MAX_PAINTED:
            raise AnnotationError(f"{source} contains shapes of more than {_MAX_PAINTED} pixels together; split it")
        region = canvas[shape.frame, patch.top : patch.top + rows, patch.left : patch.left + columns]
        covered += _lay(patch.mask, value, region, count=not picture.ordered, undrawn=undrawn)
        if not patch.mask.any():
            picture.notes.add("empty_shapes", f"{shape.label[:80]!r}, which covers no pixel of the image")
    findings = picture.notes.findings()
    if covered:
        text = f"shapes of different classes share {covered} pixels, and the format has no order: the later one is kept"
        findings = (*findings, Finding("overlap", text, (str(path),)))
    array = canvas.transpose(2, 1, 0) if picture.frames else canvas[0].T
    volume = Volume(array, np.eye(4), metadata=Metadata(source=str(path)), findings=findings, spacing_known=False)
    return Annotated(volume, table.ordered(), picture.name)
