"""Boxes around labels: read from a table, annotations or label maps, checked against the images, and made log-odds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.errors import ConfigError, DatasetError
from medseg.io.annotations import case_names, read_annotations
from medseg.io.case_table import read_case_table
from medseg.io.formats import is_there
from medseg.io.naming import composed
from medseg.labels import LabelScheme
from medseg.lookup import nearest_hint

__all__ = ["Box", "BoxSource", "box_odds", "boxes_in", "read_boxes"]

AXES = ("i", "j", "k")
# Log-odds at the centre of a box; they are 0 on the ellipsoid that touches its sides.
CENTRE = 6.0


@dataclass(frozen=True, slots=True)
class Box:
    """A box of a label: voxels from `start` up to `stop`, which is not in it; `where` it is given, for messages."""

    label: str
    start: tuple[int, ...]
    stop: tuple[int, ...]
    where: str = ""


@dataclass(frozen=True, slots=True)
class BoxSource:
    """Boxes of all cases, as a file gives them.

    Args:
        path: of the file.
        boxes: case -> boxes whose coordinates the file states.
        painted: case -> label map of filled boxes, `[i, j]` or `[i, j, k]`, as annotation tools give them.
    """

    path: Path
    boxes: Mapping[str, Sequence[Box]]
    painted: Mapping[str, NDArray[np.integer]]

    def of(self, case: str, shape: tuple[int, ...], scheme: LabelScheme) -> list[Box]:
        """The boxes of a case, all of them inside its image.

        Raises:
            DatasetError: a box that reaches out of the image, or annotations of an image of another shape.
        """
        if case in self.painted:
            array = self.painted[case]
            if array.shape != shape:
                raise DatasetError(
                    f"{self.path}: the boxes of case {case} are of an image of {array.shape} pixels, but its image has "
                    f"{shape}; check which image they were drawn on"
                )
            return boxes_in(array, scheme)
        found = list(self.boxes.get(case, ()))
        for box in found:
            _check_inside(box, shape, case)
        return found


def read_boxes(path: Path, cases: Sequence[str], scheme: LabelScheme) -> BoxSource:
    """Read a CSV, or annotations of Labelme, CVAT, Supervisely or COCO.

    Args:
        path: a .csv file, an annotation file, or a folder of these.
        cases: names of all cases.
        scheme: of the labels.

    Raises:
        ConfigError: no such file.
        DatasetError: a missing column, a case or label that is not known, or a number that is none.
        AnnotationError: damaged annotations, or shapes that cover no pixel of their image.
    """
    if not is_there(path):
        raise ConfigError(f"the boxes {path} do not exist; give a CSV, or an annotation file or folder")
    known = {composed(name): name for name in cases}
    if path.is_dir() or path.suffix.lower() in (".json", ".xml"):
        return BoxSource(path, {}, _painted(path, known, scheme))
    return BoxSource(path, _listed(path, known, scheme), {})


def boxes_in(array: NDArray[np.integer], scheme: LabelScheme) -> list[Box]:
    """The boxes that a label map shows, each a connected component of one label.

    A component of a volume that does not fill its box is taken for boxes drawn slice by slice along the last axis.

    Example:
        >>> labels = np.zeros((6, 6), np.uint8)
        >>> labels[1:4, 2:5] = 1
        >>> [(box.start, box.stop) for box in boxes_in(labels, LabelScheme.from_mapping({"lesion": 1}))]
        [((1, 2), (4, 5))]
    """
    found = []
    for name, value in zip(scheme.names, scheme.painted, strict=True):
        numbers, _ = ndimage.label(array == value)
        for number, place in enumerate(ndimage.find_objects(numbers), start=1):
            mask = numbers[place] == number
            start, stop = tuple(s.start for s in place), tuple(s.stop for s in place)
            if mask.ndim == 2 or mask.all():
                found.append(Box(name, start, stop))
                continue
            for k in range(mask.shape[2]):
                for each in ndimage.find_objects(ndimage.label(mask[..., k])[0]):
                    low = (*(s.start + o for s, o in zip(each, start, strict=False)), start[2] + k)
                    high = (*(s.stop + o for s, o in zip(each, start, strict=False)), start[2] + k + 1)
                    found.append(Box(name, low, high))
    return found


def box_odds(
    boxes: Sequence[Box], shape: Sequence[int], names: Sequence[str]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Log-odds of each label against background from its boxes alone, and where it may be.

    A label most likely fills the ellipsoid that touches the sides of its box; outside of all its boxes it cannot be.

    Returns:
        `(labels, I, J[, K])` float32 and bool.
    """
    odds = np.full((len(names), *shape), -CENTRE, np.float32)
    allowed = np.zeros((len(names), *shape), np.bool_)
    for box in boxes:
        place = tuple(slice(a, b) for a, b in zip(box.start, box.stop, strict=True))
        squares = np.zeros([b - a for a, b in zip(box.start, box.stop, strict=True)])
        for axis, n in enumerate(squares.shape):
            along = ((np.arange(n) - (n - 1) / 2) / (n / 2)) ** 2
            squares = squares + along.reshape([-1 if a == axis else 1 for a in range(squares.ndim)])
        label = names.index(box.label)
        inside = odds[label][place]
        np.maximum(inside, CENTRE * (1 - np.sqrt(squares)), out=inside)
        allowed[label][place] = True
    return odds, allowed


def _check_inside(box: Box, shape: tuple[int, ...], case: str) -> None:
    if len(box.start) != len(shape):
        raise DatasetError(
            f"{box.where}: the box of {box.label!r} has {len(box.start)} axes, but the image of case {case} has "
            f"{len(shape)}; "
            + (
                "give k_min and k_max, the same for a box in one slice"
                if len(shape) == 3
                else "leave out k_min and k_max"
            )
        )
    for axis, low, high, n in zip(AXES, box.start, box.stop, shape, strict=False):
        if low < 0 or high > n:
            raise DatasetError(
                f"{box.where}: the box of {box.label!r} in case {case} reaches from {axis} = {low} to {high - 1}, but "
                f"the image has {axis} = 0 to {n - 1}; correct the box"
            )


def _listed(path: Path, known: Mapping[str, str], scheme: LabelScheme) -> dict[str, list[Box]]:
    table = read_case_table(path)
    needed = [f"{axis}_{end}" for axis in AXES for end in ("min", "max")]
    columns = {name.casefold(): name for name in table.others}
    missing = [name for name in ("case", "label") if name not in table.columns]
    missing += [name for name in needed[:4] if name not in columns]
    if missing:
        raise DatasetError(
            f"{path} has no column {missing[0]}; expected case, label, {', '.join(needed[:4])}, and in volumes "
            f"{', '.join(needed[4:])}: the first and last voxel of each box, counted from 0"
        )
    axes = AXES if all(name in columns for name in needed) else AXES[:2]
    found: dict[str, list[Box]] = {}
    for line, row in table.rows:
        where = f"{path} line {line}"
        name = known.get(composed(row["case"]))
        if name is None:
            raise DatasetError(f"{where}: there is no case {row['case'][:120]!r}{nearest_hint(row['case'], known)}")
        if row["label"] not in scheme.names:
            raise DatasetError(
                f"{where}: {row['label'][:120]!r} is not a label of data.labels ({', '.join(scheme.names)})"
                f"{nearest_hint(row['label'], scheme.names)}"
            )
        ends = [[_number(row[columns[f"{axis}_{end}"]], where) for end in ("min", "max")] for axis in axes]
        low, high = tuple(each[0] for each in ends), tuple(each[1] + 1 for each in ends)
        if any(a >= b for a, b in zip(low, high, strict=True)):
            raise DatasetError(f"{where}: a maximum is below its minimum; correct the box")
        found.setdefault(name, []).append(Box(row["label"], low, high, where))
    return found


def _number(cell: str, where: str) -> int:
    try:
        value = float(cell)
    except ValueError:
        value = float("nan")
    if not value.is_integer() or abs(value) > 1e9:
        raise DatasetError(f"{where} holds {cell[:60]!r}; expected the whole number of a voxel, counted from 0")
    return int(value)


def _painted(path: Path, known: Mapping[str, str], scheme: LabelScheme) -> dict[str, NDArray[np.integer]]:
    classes = dict(zip(scheme.names, scheme.painted, strict=True))
    found = {}
    annotated = read_annotations(path, classes)
    for name, each in zip(case_names(annotated), annotated, strict=True):
        outside = next((f for f in each.findings if f.kind == "empty_shapes"), None)
        if outside is not None:
            raise DatasetError(f"{path}, image {each.image_name}: {outside.message}; correct these boxes")
        if composed(name) not in known:
            raise DatasetError(f"{path}: there is no case {name!r}{nearest_hint(name, known)}")
        found[known[composed(name)]] = each.label_map.array
    return found
