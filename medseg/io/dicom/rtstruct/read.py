"""A DICOM RT Structure Set (DICOM PS3.3 A.19) as a label map on the grid it was drawn on, read with pydicom only.

A voxel belongs to a region if its centre does; `combine` describes how contours combine, holes included. Contours are
assigned to slices by position only, because references to images are often wrong or missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import GeometryError, MedsegError
from medseg.io.dicom.grid import SeriesGrid
from medseg.io.dicom.labels import painted_regions
from medseg.io.dicom.loading import load_object, metadata_of, refusing_damage
from medseg.io.dicom.overlaps import Overlaps
from medseg.io.dicom.rtstruct.combine import Combination, combine
from medseg.io.dicom.rtstruct.rois import Contour, Roi, rois_of
from medseg.io.dicom.rtstruct.slice_planes import SlicePlanes, planes_of_grid, planes_of_volume
from medseg.volume import Finding, Volume

__all__ = ["read_rtstruct", "referenced_series"]

_STORAGE = "1.2.840.10008.5.1.4.1.1.481.3"
_WHAT = "an RT Structure Set"
# How far a contour may be off its slice without a finding: fraction of the slice spacing, and rounding.
_ALONG, _FLOOR_MM = 0.05, 0.01
# Coordinates are rounded to this fraction of a voxel, so that digits lost in decimal strings change nothing.
_FRACTION = 1024.0

Points = NDArray[np.float64]
# Slice -> contours in voxel indices (i, j).
_OnSlices = dict[int, list[Contour]]


@dataclass(frozen=True, slots=True, eq=False)
class _Grid:
    """The target: `shape` (I, J, K), `affine` RAS+, the planes of its slices, and the UID of its frame of reference."""

    shape: tuple[int, int, int]
    affine: Points
    planes: SlicePlanes
    frame_of_reference: str


def read_rtstruct(
    path: str | Path,
    like: Volume | SeriesGrid,
    *,
    strict: bool = False,
    values: Mapping[str, int] | None = None,
    keep_overlaps: bool = False,
) -> tuple[Volume, dict[str, int | tuple[int, ...]]]:
    """Read an RT Structure Set onto a grid.

    ROIs are painted in the order of the file, so the later of two overlapping ROIs is kept, with a finding 'overlap'
    (not for regions written by medseg, whose label map has a value for each combination). Other findings:
    'roi_left_out' (in another frame of reference, wholly off the grid, not parallel to its slices, or damaged),
    'roi_empty' (its contours contain no voxel centre), 'contours_repeated' (stored more than once), 'contours_cross'
    (united), 'contours_skipped' (points, open contours, fewer than 3 points), 'contours_outside' (off the grid, while
    others of the ROI are on it), 'contours_between_slices' (moved by up to half a slice spacing onto the nearest
    slice), 'contours_thinned' (several planes of contours for one slice: the nearest is used), 'contours_sparse' (only
    on every second slice or fewer: gaps are not filled), 'contours_clipped' (cut at the border of the image).

    Args:
        path: the file.
        like: the series it was drawn on: either its grid, with the exact position of each slice, or its volume.
        strict: refuse the file if any contour cannot be read, instead of leaving out its ROI.
        values: read only the ROIs with these names, and give them these values; of overlapping ones the largest value
            is kept. The file may contain none of them.
        keep_overlaps: give each combination of overlapping ROIs a value of its own, and each ROI all of its values.

    Returns:
        The label map on exactly the grid of `like`, 0 for background, and name -> value of each ROI that was read.
        Values are those that medseg wrote, otherwise 1 ... n in the order of the ROIs of the file.

    Raises:
        ReadError: if the file is damaged or not an RT Structure Set, or no ROI can be read.
        GeometryError: if the contours of every ROI are in another frame of reference, off the grid, or not parallel to
            its slices, or the grid has no position in the patient.

    Example:
        >>> label_map, values = read_rtstruct("lung_rtstruct.dcm", like=medseg.read("study/"))
        >>> label_map.shape, values
        ((65, 63, 40), {'lung': 1, 'tumour': 2})
    """
    path = Path(path)
    with refusing_damage(path, _WHAT):
        dataset = load_object(path, (_STORAGE,), _WHAT)
        grid = _grid(like, path)
        metadata = metadata_of(dataset, path)
        described = rois_of(dataset, path)
        if values is not None:
            chosen = [replace(roi, value=values[roi.name], region=()) for roi in described if roi.name in values]
            described = tuple(sorted(chosen, key=lambda roi: roi.value))
        rois, drawn, findings = _on_slices(described, grid, metadata.frame_of_reference_uid, path, strict)
        overlaps = Overlaps([roi.value for roi in rois]) if keep_overlaps else None
        array, noticed = _painted(rois, drawn, grid.shape, path, overlaps)
        if (isinstance(like, Volume) and like.dims == 2) or (isinstance(like, SeriesGrid) and like.planes == 1):
            array = array[:, :, 0]
        label_map = Volume(array, grid.affine, metadata=metadata, findings=(*findings, *noticed))
        if overlaps is not None and any(finding.kind == "overlap" for finding in noticed):
            regions = overlaps.regions(np.unique(array))
            return label_map, {roi.name: regions[roi.value] for roi in rois}
        if keep_overlaps and rois and all(roi.region for roi in rois):
            return label_map, {roi.name: roi.region for roi in rois}
        return label_map, {roi.name: roi.value for roi in rois}


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


def _on_slices(
    rois: Sequence[Roi], grid: _Grid, frame_of_reference: str, path: Path, strict: bool
) -> tuple[list[Roi], list[_OnSlices], list[Finding]]:
    """The ROIs that can be read, their contours on each slice, and the findings.

    Raises:
        ReadError, GeometryError: if a ROI cannot be read, and it is the only one with contours or `strict`.
    """
    kept: list[Roi] = []
    drawn: list[_OnSlices] = []
    findings: list[Finding] = []
    faults: list[MedsegError] = []
    for roi in rois:
        try:
            slices, noticed = _by_slice(roi, grid, roi.frame_of_reference or frame_of_reference, path, strict)
        except MedsegError as error:
            faults.append(error)
            reason = str(error).removeprefix(f"{path}: ")
            findings.append(Finding("roi_left_out", f"{roi.name!r} was left out: {reason}", (path.name,)))
        else:
            kept.append(roi)
            drawn.append(slices)
            findings += noticed
    if faults and (strict or not any(drawn)):
        raise faults[0]
    return kept, drawn, findings


def _painted(
    rois: Sequence[Roi],
    drawn: Sequence[_OnSlices],
    shape: tuple[int, int, int],
    path: Path,
    combinations: Overlaps | None,
) -> tuple[NDArray[Any], list[Finding]]:
    """The label map (I, J, K) and the findings."""
    tables = painted_regions([(roi.name, roi.region) for roi in rois])
    largest = max([*(roi.value for roi in rois), *(int(table.max()) for table in tables), 0])
    # Slices are contiguous, like those of a series.
    stack = np.zeros(shape[::-1], np.min_scalar_type(largest) if combinations is None else np.uint16)
    findings: list[Finding] = []
    overlaps: dict[str, int] = {}
    for n, (roi, slices) in enumerate(zip(rois, drawn, strict=True)):
        found: list[Combination] = []
        for k, contours in slices.items():
            planar = [each.points for each in contours if not each.is_exclusive]
            exclusive = [each.points for each in contours if each.is_exclusive]
            found.append(combine(planar, exclusive, shape[:2]))
            rows, mask = stack[k], found[-1].mask.T
            covered = 0 if tables else int(np.count_nonzero(rows[mask]))
            if covered:
                overlaps[roi.name] = overlaps.get(roi.name, 0) + covered
            if tables:
                rows[mask] = tables[n][rows[mask]]
            else:
                rows[mask] = roi.value if combinations is None else combinations.painted(rows[mask], roi.value)
        findings += [Finding(kind, f"{roi.name!r}: {text}", (path.name,)) for kind, text in _notes(found)]
    if overlaps:
        shown = ", ".join(f"{name!r} over {n} voxels of others" for name, n in list(overlaps.items())[:6])
        kept = "painted one after the other, so the last one is kept" if combinations is None else "all of each is kept"
        text = f"ROIs overlap: {shown}; {kept}"
        findings.append(Finding("overlap", text, (path.name,)))
    return stack.transpose(2, 1, 0), findings


def _notes(found: Sequence[Combination]) -> list[tuple[str, str]]:
    """What is worth telling about the contours of one ROI."""
    notes = []
    repeated = sum(each.repeated for each in found)
    if repeated:
        notes.append(
            ("contours_repeated", f"{repeated} contour(s) are stored more than once; identical ones were counted once")
        )
    crossing = [each.crossing for each in found if each.crossing]
    if crossing:
        text = f"{sum(crossing)} contours cross others on {len(crossing)} slice(s); they were united"
        notes.append(("contours_cross", text))
    if found and not any(each.mask.any() for each in found):
        notes.append(("roi_empty", "its contours contain no voxel centre, so it has no voxel"))
    return notes


def _grid(like: Volume | SeriesGrid, path: Path) -> _Grid:
    if not like.spacing_known:
        raise GeometryError(f"{path} gives contours in millimetres, but the given images have no known spacing")
    if isinstance(like, Volume):
        columns, rows, count = (*like.shape, 1)[:3]
        planes = planes_of_volume(like.affine, count)
        return _Grid((columns, rows, count), like.affine, planes, like.metadata.frame_of_reference_uid)
    first = like.slices[0]
    if not all(s.position and s.orientation for s in like.slices):
        raise GeometryError(f"{path} gives contours in patient coordinates, but {first.name} has no position there")
    shape = (first.columns, first.rows, like.planes)
    return _Grid(shape, like.affine, planes_of_grid(like), first.frame_of_reference_uid)


def _by_slice(
    roi: Roi, grid: _Grid, frame_of_reference: str, path: Path, strict: bool
) -> tuple[_OnSlices, list[Finding]]:
    """The contours of each slice in voxel indices (i, j), and the findings.

    Raises:
        ReadError: if the contours are damaged.
        GeometryError: if they are in another frame of reference or across the slices; if all of them, or with `strict`
            any, are off the grid.
    """
    if roi.fault is not None:
        raise roi.fault
    if roi.contours and grid.frame_of_reference and frame_of_reference not in ("", grid.frame_of_reference):
        raise GeometryError(
            f"{path}: {roi.name!r} was drawn in another frame of reference than the given images; read it onto the "
            "series that it refers to",
            kind="several_frames_of_reference",
        )
    noticed: list[tuple[str, str]] = [
        ("contours_skipped", f"{count} contour(s) {what} have no inside and were skipped")
        for what, count in roi.skipped
    ]
    planes = grid.planes
    places = planes.origins @ planes.normal
    exact = max(_FLOOR_MM, _ALONG * planes.step_mm)
    # Slice -> depth of a plane of contours -> its contours.
    drawn: dict[int, dict[float, list[Contour]]] = {}
    moved, clipped = 0.0, 0
    outside: list[str] = []
    for contour in roi.contours:
        depth = _depth(contour.points, roi, planes, path)
        k = int(np.argmin(np.abs(places - depth)))
        off = abs(float(places[k]) - depth)
        inside = np.round(planes.to_slice(k, contour.points) * _FRACTION) / _FRACTION
        reason = _off_grid(off, inside, grid)
        if reason:
            outside.append(reason)
            continue
        moved = max(moved, off)
        low, high = inside.min(axis=0), inside.max(axis=0)
        clipped += bool((low < -0.51).any() or (high > np.subtract(grid.shape[:2], 0.49)).any())
        layers = drawn.setdefault(k, {})
        layer = next((d for d in layers if abs(d - depth) <= exact), depth)
        layers.setdefault(layer, []).append(Contour(inside, contour.is_exclusive))
    if outside and (strict or not drawn):
        raise GeometryError(
            f"{path}: a contour of {roi.name!r} is {outside[0]}; read it onto the series it was drawn on",
            kind="contours_off_grid",
        )
    if outside:
        noticed.append(("contours_outside", f"{len(outside)} contour(s) were skipped, the first is {outside[0]}"))
    if moved > exact:
        noticed.append(
            ("contours_between_slices", f"contours were moved by up to {moved:.2f} mm onto the nearest slice")
        )
    thinned = sum(len(layers) - 1 for layers in drawn.values())
    if thinned:
        # Two layers are two outlines of the region, neither of which is a hole of the other.
        text = f"contours of {thinned} plane(s) were skipped, because others are nearer to the same slice"
        noticed.append(("contours_thinned", text))
    if len(drawn) > 1 and int(np.diff(sorted(drawn)).min()) > 1:
        text = f"contours are on {len(drawn)} slices, no two of them adjacent; the slices in between stay empty"
        noticed.append(("contours_sparse", text))
    if clipped:
        noticed.append(("contours_clipped", f"{clipped} contour(s) extend beyond the image and were cut at its border"))
    nearest = {k: layers[min(layers, key=lambda d: abs(d - places[k]))] for k, layers in drawn.items()}
    return nearest, [Finding(kind, f"{roi.name!r}: {text}", (path.name,)) for kind, text in noticed]


def _depth(points: Points, roi: Roi, planes: SlicePlanes, path: Path) -> float:
    """The position of a contour along the normal of the slices, in mm."""
    depths = points @ planes.normal
    depth = float(np.median(depths))
    if np.abs(depths - depth).max() > max(planes.step_mm / 2, _FLOOR_MM):
        raise GeometryError(
            f"{path}: a contour of {roi.name!r} spans {np.ptp(depths):.2f} mm across the slices, which are "
            f"{planes.step_mm:.2f} mm apart; expected contours in the planes of the slices: read it onto the series it "
            "was drawn on",
            kind="contours_off_grid",
        )
    return depth


def _off_grid(off: float, inside: Points, grid: _Grid) -> str:
    """Where a contour lies that reaches no voxel of the grid; '' for one that may.

    Args:
        off: distance to the nearest slice in mm.
        inside: (n, 2), the contour in voxel indices.
        grid: the target.
    """
    step = grid.planes.step_mm
    if off > max(step / 2, _FLOOR_MM) + 1e-6 * step:
        return f"{off:.2f} mm off the nearest slice, with slices {step:.2f} mm apart"
    columns, rows, _ = grid.shape
    if (inside.max(axis=0) < -0.5).any() or (inside.min(axis=0) > (columns - 0.5, rows - 0.5)).any():
        return f"outside the image of {columns} x {rows} voxels"
    return ""
