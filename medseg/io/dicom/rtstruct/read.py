"""A DICOM RT Structure Set (DICOM PS3.3 A.19) as a label map on the grid it was drawn on, read with pydicom only.

A voxel belongs to a region if its centre is inside an odd number of the contours of its slice, so holes are correct
whether they are separate contours (what most programs write, CLOSED_PLANAR or CLOSEDPLANAR_XOR) or connected by a
keyhole. Contours are assigned to slices by position only, because references to images are often wrong or missing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import GeometryError, ReadError
from medseg.io.dicom.elements import to_numbers
from medseg.io.dicom.grid import SeriesGrid
from medseg.io.dicom.labels import MANUFACTURER, described_values, painted_regions
from medseg.io.dicom.loading import load_object, metadata_of, refusing_damage
from medseg.io.dicom.rtstruct.contours import fill
from medseg.io.dicom.rtstruct.slice_planes import SlicePlanes, planes_of_grid, planes_of_volume
from medseg.io.dicom.tags import tagged
from medseg.io.plausible import FARTHEST_MM
from medseg.volume import Finding, Metadata, Volume

__all__ = ["read_rtstruct", "referenced_series"]

_STORAGE = "1.2.840.10008.5.1.4.1.1.481.3"
_WHAT = "an RT Structure Set"
# OsiriX names contours that it interpolated between drawn ones so.
_CLOSED = frozenset({"CLOSED_PLANAR", "CLOSEDPLANAR_XOR", "INTERPOLATED_PLANAR"})
# How far a contour may be off its slice without a finding: fraction of the slice spacing, and rounding.
_ALONG, _FLOOR_MM = 0.05, 0.01
# Coordinates are rounded to this fraction of a voxel, so that digits lost in decimal strings change nothing.
_FRACTION = 1024.0
_LARGEST = 10**9

Points = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class _Roi:
    """One ROI: `region` has the values of a region that medseg wrote; `contours` are (n, 3) LPS mm; `skipped` counts
    those without an inside, by kind.
    """

    number: int
    name: str
    value: int
    region: tuple[int, ...]
    frame_of_reference: str
    contours: tuple[Points, ...]
    skipped: tuple[tuple[str, int], ...]


def read_rtstruct(path: str | Path, like: Volume | SeriesGrid) -> tuple[Volume, dict[str, int]]:
    """Read an RT Structure Set onto a grid.

    ROIs are painted in the order of the file, so the later of two overlapping ROIs is kept, with a finding 'overlap'
    (not for regions written by medseg, whose label map has a value for each combination). Other findings:
    'contours_skipped' (points, open contours, fewer than 3 points), 'contours_between_slices' (moved by up to half a
    slice spacing onto the nearest slice), 'contours_thinned' (several planes of contours for one slice: the nearest is
    used), 'contours_sparse' (only on every second slice or fewer: gaps are not filled), 'contours_clipped' (outside the
    image).

    Args:
        path: the file.
        like: the series it was drawn on: either its grid, with the exact position of each slice, or its volume.

    Returns:
        The label map on exactly the grid of `like`, 0 for background, and name -> value. Values are those that medseg
        wrote, otherwise 1 ... n in the order of the ROIs.

    Raises:
        ReadError: if the file is damaged or not an RT Structure Set.
        GeometryError: if contours are in another frame of reference, off the grid, or not parallel to its slices, or
            the grid has no position in the patient.

    Example:
        >>> label_map, values = read_rtstruct("lung_rtstruct.dcm", like=medseg.read("study/"))
        >>> label_map.shape, values
        ((65, 63, 40), {'lung': 1, 'tumour': 2})
    """
    path = Path(path)
    with refusing_damage(path, _WHAT):
        dataset = load_object(path, (_STORAGE,), _WHAT)
        rois = _rois(dataset, path)
        return _painted(rois, like, path, metadata_of(dataset, path)), {r.name: r.value for r in rois}


def referenced_series(path: str | Path) -> tuple[str, ...]:
    """SeriesInstanceUIDs of the images that an RT Structure Set refers to; () if it refers to none.

    Raises:
        ReadError: if the file is damaged or not an RT Structure Set.
    """
    path = Path(path)
    with refusing_damage(path, _WHAT):
        frames = load_object(path, (_STORAGE,), _WHAT).get("ReferencedFrameOfReferenceSequence") or ()
        studies = [study for frame in frames for study in frame.get("RTReferencedStudySequence") or ()]
        series = [each for study in studies for each in study.get("RTReferencedSeriesSequence") or ()]
        return tuple(dict.fromkeys(str(each.SeriesInstanceUID) for each in series if each.get("SeriesInstanceUID")))


def _rois(dataset: Any, path: Path) -> tuple[_Roi, ...]:
    drawn: dict[int, Any] = {}
    for item in dataset.get("ROIContourSequence") or ():
        drawn.setdefault(int(to_numbers("ReferencedROINumber", [item.ReferencedROINumber])[0]), item)
    described = dataset.get("StructureSetROISequence") or ()
    names = [str(item.get("ROIName") or "").strip() or f"ROI {item.ROINumber}" for item in described]
    ours = str(dataset.get("Manufacturer", "")) == MANUFACTURER
    rois = []
    for n, (item, name) in enumerate(zip(described, names, strict=True), start=1):
        number = int(to_numbers("ROINumber", [item.ROINumber])[0])
        region = described_values(str(item.get("ROIDescription") or ""))[1] if ours else ()
        contours: list[Points] = []
        skipped: dict[str, int] = {}
        for contour in (drawn[number].get("ContourSequence") or ()) if number in drawn else ():
            kind = str(contour.get("ContourGeometricType") or "")
            points = _points(contour, name, path)
            if kind not in _CLOSED or len(points) < 3:
                what = f"{kind or 'of no type'}" if kind not in _CLOSED else "of fewer than 3 points"
                skipped[what] = skipped.get(what, 0) + 1
            else:
                contours.append(points)
        rois.append(
            _Roi(
                number,
                f"{name} ({number})" if names.count(name) > 1 else name,
                number if ours else n,
                region,
                str(item.get("ReferencedFrameOfReferenceUID") or ""),
                tuple(contours),
                tuple(skipped.items()),
            )
        )
    numbers = [r.number for r in rois]
    if not rois or len(set(numbers)) < len(numbers):
        raise ReadError(f"{path} describes the ROIs {numbers or 'none'}; expected at least one, each number once")
    if len({r.value for r in rois}) < len(rois) or any(not 0 < r.value <= _LARGEST for r in rois):
        rois = [replace(r, value=n, region=()) for n, r in enumerate(rois, start=1)]
    return tuple(rois)


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
        raise ValueError(f"{tags} of a contour of {name!r}: {error}") from None
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


def _painted(rois: tuple[_Roi, ...], like: Volume | SeriesGrid, path: Path, metadata: Metadata) -> Volume:
    shape, affine, planes, frame = _grid(like, path)
    for roi in rois:
        theirs = roi.frame_of_reference or metadata.frame_of_reference_uid
        if roi.contours and frame and theirs and theirs != frame:
            raise GeometryError(
                f"{path}: {roi.name!r} was drawn in another frame of reference than the given images; read it onto the "
                "series that it refers to",
                kind="several_frames_of_reference",
            )
    tables = painted_regions([(r.name, r.region) for r in rois])
    largest = max(*(r.value for r in rois), *(int(table.max()) for table in tables), 0)
    # Slices are contiguous, like those of a series.
    stack = np.zeros(shape[::-1], np.min_scalar_type(largest))
    findings: list[Finding] = []
    overlaps: dict[str, int] = {}
    for n, roi in enumerate(rois):
        slices, noticed = _by_slice(roi, planes, shape[:2], path)
        findings += noticed
        for k, contours in slices.items():
            rows = stack[k]
            mask = fill(contours, shape[:2]).T
            covered = 0 if tables else int(np.count_nonzero(rows[mask]))
            if covered:
                overlaps[roi.name] = overlaps.get(roi.name, 0) + covered
            rows[mask] = tables[n][rows[mask]] if tables else roi.value
    if overlaps:
        shown = ", ".join(f"{name!r} over {n} voxels of others" for name, n in list(overlaps.items())[:6])
        text = f"ROIs overlap: {shown}; painted in the order of the file, so the last one is kept"
        findings.append(Finding("overlap", text, (path.name,)))
    array = stack.transpose(2, 1, 0)
    if (isinstance(like, Volume) and like.dims == 2) or (isinstance(like, SeriesGrid) and like.planes == 1):
        array = array[:, :, 0]
    return Volume(array, affine, metadata=metadata, findings=tuple(findings))


def _grid(like: Volume | SeriesGrid, path: Path) -> tuple[tuple[int, int, int], Points, SlicePlanes, str]:
    """Shape, affine, slices and frame of reference of the target grid."""
    if not like.spacing_known:
        raise GeometryError(f"{path} gives contours in millimetres, but the given images have no known spacing")
    if isinstance(like, Volume):
        columns, rows, count = (*like.shape, 1)[:3]
        planes = planes_of_volume(like.affine, count)
        return (columns, rows, count), like.affine, planes, like.metadata.frame_of_reference_uid
    first = like.slices[0]
    if not all(s.position and s.orientation for s in like.slices):
        raise GeometryError(f"{path} gives contours in patient coordinates, but {first.name} has no position there")
    return (first.columns, first.rows, like.planes), like.affine, planes_of_grid(like), first.frame_of_reference_uid


def _by_slice(
    roi: _Roi, planes: SlicePlanes, shape: tuple[int, int], path: Path
) -> tuple[dict[int, list[Points]], list[Finding]]:
    """The contours of each slice in voxel indices (i, j), and the findings."""
    noticed: list[tuple[str, str]] = [
        ("contours_skipped", f"{count} contour(s) {what} have no inside and were skipped")
        for what, count in roi.skipped
    ]
    normal, half = planes.normal, planes.step_mm / 2
    places = planes.origins @ normal
    exact = max(_FLOOR_MM, _ALONG * planes.step_mm)
    # Slice -> depth of a plane of contours -> its contours.
    drawn: dict[int, dict[float, list[Points]]] = {}
    moved, clipped = 0.0, 0
    for points in roi.contours:
        depths = points @ normal
        depth = float(np.median(depths))
        if np.abs(depths - depth).max() > max(half, exact):
            raise GeometryError(
                f"{path}: a contour of {roi.name!r} spans {np.ptp(depths):.2f} mm across the slices, which are "
                f"{planes.step_mm:.2f} mm apart; expected contours in the planes of the slices: read it onto the "
                "series it was drawn on",
                kind="contours_off_grid",
            )
        k = int(np.argmin(np.abs(places - depth)))
        off = abs(float(places[k]) - depth)
        if off > max(half, exact) + 1e-6 * planes.step_mm:
            raise GeometryError(
                f"{path}: a contour of {roi.name!r} is {off:.2f} mm off the nearest slice, with slices "
                f"{planes.step_mm:.2f} mm apart; read it onto the series it was drawn on",
                kind="contours_off_grid",
            )
        moved = max(moved, off)
        inside = np.round(planes.to_slice(k, points) * _FRACTION) / _FRACTION
        low, high = inside.min(axis=0), inside.max(axis=0)
        if (high < -0.5).any() or (low > np.subtract(shape, 0.5)).any():
            raise GeometryError(
                f"{path}: a contour of {roi.name!r} is outside the image of {shape[0]} x {shape[1]} voxels; read it "
                "onto the series it was drawn on",
                kind="contours_off_grid",
            )
        clipped += bool((low < -0.51).any() or (high > np.subtract(shape, 0.49)).any())
        layers = drawn.setdefault(k, {})
        layer = next((d for d in layers if abs(d - depth) <= exact), depth)
        layers.setdefault(layer, []).append(inside)
    if moved > exact:
        noticed.append(
            ("contours_between_slices", f"contours were moved by up to {moved:.2f} mm onto the nearest slice")
        )
    thinned = sum(len(layers) - 1 for layers in drawn.values())
    if thinned:
        # Two layers filled together by the even-odd rule would cancel each other out.
        text = f"contours of {thinned} plane(s) were skipped, because others are nearer to the same slice"
        noticed.append(("contours_thinned", text))
    if len(drawn) > 1 and int(np.diff(sorted(drawn)).min()) > 1:
        text = f"contours are on {len(drawn)} slices, no two of them adjacent; the slices in between stay empty"
        noticed.append(("contours_sparse", text))
    if clipped:
        noticed.append(("contours_clipped", f"{clipped} contour(s) extend beyond the image and were cut at its border"))
    nearest = {k: layers[min(layers, key=lambda d: abs(d - places[k]))] for k, layers in drawn.items()}
    return nearest, [Finding(kind, f"{roi.name!r}: {text}", (path.name,)) for kind, text in noticed]
