"""The ROIs of an RT Structure Set and their contours, as a file holds them (DICOM PS3.3 C.8.8.5 and C.8.8.6)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import ReadError
from medseg.io.dicom.elements import to_numbers
from medseg.io.dicom.labels import MANUFACTURER, described_values
from medseg.io.dicom.tags import tagged
from medseg.io.plausible import FARTHEST_MM

__all__ = ["Contour", "Roi", "rois_of"]

_EXCLUSIVE = "CLOSEDPLANAR_XOR"
# OsiriX names contours that it interpolated between drawn ones INTERPOLATED_PLANAR.
_CLOSED = frozenset({"CLOSED_PLANAR", _EXCLUSIVE, "INTERPOLATED_PLANAR"})
_LARGEST = 10**9

Points = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Contour:
    """A closed contour: `points` (n, 3) in LPS mm; `is_exclusive` for CLOSEDPLANAR_XOR."""

    points: Points
    is_exclusive: bool


@dataclass(frozen=True, slots=True, eq=False)
class Roi:
    """One region.

    Args:
        number: ROINumber.
        name: ROIName, made unique within the file.
        value: the integer it has in the label map.
        region: the values of a region that medseg wrote; () for everything else.
        frame_of_reference: UID, '' if unknown.
        contours: the closed ones.
        skipped: number of contours without an inside, by kind.
        fault: why its contours cannot be read; None if they can.
    """

    number: int
    name: str
    value: int
    region: tuple[int, ...]
    frame_of_reference: str
    contours: tuple[Contour, ...]
    skipped: tuple[tuple[str, int], ...]
    fault: ReadError | None = None


def rois_of(dataset: Any, path: Path) -> tuple[Roi, ...]:
    """The ROIs of an RT Structure Set, given as a pydicom Dataset, in the order of the file.

    Raises:
        ReadError: if there is no ROI at all, or two have the same number.
        ValueError, AttributeError: if the sequences are damaged.
    """
    from pydicom import Dataset

    drawn: dict[int, list[Any]] = {}
    for item in dataset.get("ROIContourSequence") or ():
        drawn.setdefault(_number("ReferencedROINumber", item), []).extend(item.get("ContourSequence") or ())
    described = {_number("ROINumber", item): item for item in dataset.get("StructureSetROISequence") or ()}
    numbers = [_number("ROINumber", item) for item in dataset.get("StructureSetROISequence") or ()]
    # Contours that the file draws without describing them are not lost.
    numbers += [number for number, contours in drawn.items() if number not in described and contours]
    if not numbers or len(set(numbers)) < len(numbers):
        raise ReadError(f"{path} describes the ROIs {numbers or 'none'}; expected at least one, each number once")
    items = [described.get(number) or Dataset() for number in numbers]
    names = [
        str(item.get("ROIName") or "").strip() or f"ROI {number}" for item, number in zip(items, numbers, strict=True)
    ]
    ours = str(dataset.get("Manufacturer", "")) == MANUFACTURER
    rois: list[Roi] = []
    for n, (number, item, name) in enumerate(zip(numbers, items, names, strict=True), start=1):
        region = described_values(str(item.get("ROIDescription") or ""))[1] if ours else ()
        contours, skipped, fault = _contours(drawn.get(number, ()), name, path)
        rois.append(
            Roi(
                number,
                f"{name} ({number})" if names.count(name) > 1 else name,
                number if ours else n,
                region,
                str(item.get("ReferencedFrameOfReferenceUID") or ""),
                contours,
                tuple(skipped.items()),
                fault,
            )
        )
    if len({r.value for r in rois}) < len(rois) or any(not 0 < r.value <= _LARGEST for r in rois):
        rois = [replace(r, value=n, region=()) for n, r in enumerate(rois, start=1)]
    return tuple(rois)


def _number(keyword: str, item: Any) -> int:
    return int(to_numbers(keyword, [item.get(keyword)])[0])


def _contours(
    items: Iterable[Any], name: str, path: Path
) -> tuple[tuple[Contour, ...], dict[str, int], ReadError | None]:
    """The closed contours of a ROI, the number of others by kind, and why they cannot be read, if so."""
    contours: list[Contour] = []
    skipped: dict[str, int] = {}
    for item in items:
        kind = str(item.get("ContourGeometricType") or "")
        try:
            points = _points(item, name, path)
        except ReadError as error:
            return (), {}, error
        if kind not in _CLOSED or len(points) < 3:
            what = f"{kind or 'of no type'}" if kind not in _CLOSED else "of fewer than 3 points"
            skipped[what] = skipped.get(what, 0) + 1
        else:
            contours.append(Contour(points, kind == _EXCLUSIVE))
    return tuple(contours), skipped, None


def _points(contour: Any, name: str, path: Path) -> Points:
    """(n, 3) LPS mm, parsed straight from the bytes, because pydicom takes microseconds per number."""
    from pydicom.dataelem import RawDataElement

    if "ContourData" not in contour:
        return np.empty((0, 3))
    element = contour.get_item("ContourData")
    value = element.value
    try:
        if isinstance(element, RawDataElement):
            value = bytes(value or b"").rstrip(b"\0 ")
            numbers = list(map(float, value.split(b"\\"))) if value else []
        else:
            numbers = [float(v) for v in np.atleast_1d(value)] if value is not None else []
        said = contour.get("NumberOfContourPoints")
        count = len(numbers) if said in (None, "") else 3 * int(said)
    except ValueError as error:
        tags = f"{tagged('ContourData')} or {tagged('NumberOfContourPoints')}"
        raise ReadError(
            f"{path}: a contour of {name!r} is damaged ({tags}: {error}); expected an RT Structure Set: export it again"
        ) from None
    if len(numbers) % 3 or count != len(numbers):
        raise ReadError(
            f"{path}: a contour of {name!r} has {len(numbers)} coordinates, but claims {said} points of 3 "
            f"({tagged('NumberOfContourPoints')}); export it again"
        )
    points = np.array(numbers, dtype=np.float64).reshape(-1, 3)
    if not np.isfinite(points).all():
        raise ReadError(
            f"{path}: a contour of {name!r} has coordinates that are not numbers ({tagged('ContourData')}); export "
            "it again"
        )
    if points.size and np.abs(points).max() > FARTHEST_MM:
        raise ReadError(
            f"{path}: a contour of {name!r} reaches {np.abs(points).max():g} mm from the origin "
            f"({tagged('ContourData')}); expected coordinates within {FARTHEST_MM:g} mm: export it again"
        )
    return points
