"""From the headers of a series to one grid, or to an error that names the files and positions in the way.

Slices are ordered by their position along the normal (row x column cosines), never by InstanceNumber, and the slice
spacing is computed from positions, never from SliceThickness. DICOM PS3.3 C.7.6.2.1.1 defines position and orientation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from medseg.errors import GeometryError, ReadError
from medseg.geometry import flip_lps_ras
from medseg.io.dicom.findings import findings_of
from medseg.io.dicom.frame_checks import check_frames
from medseg.io.dicom.series import Series
from medseg.io.dicom.slice import SliceHeader, is_cine, shown
from medseg.io.dicom.tags import impossible, tagged
from medseg.io.plausible import MOST_PLANES, affine_fault
from medseg.lookup import check_choice
from medseg.volume import Finding

__all__ = ["Irregular", "SeriesGrid", "check_irregular", "grid_of"]

# What to do with missing or unevenly spaced slices.
Irregular = Literal["error", "resample", "allow"]
# How far a slice may be from its place on the regular grid: along the normal a fraction of the slice spacing; within
# the plane a fraction of a pixel, limited to what rounding of positions can explain.
_ALONG, _ACROSS, _ASIDE_MM = 0.05, 0.1, 0.1
_STEEPEST_DEGREES = 45.0

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SeriesGrid:
    """The grid of a series.

    Args:
        slices: in order along the normal.
        affine: (4, 4), RAS+, of the array `[i, j, k]`.
        spacing_known: whether the file gives the size of a pixel.
        findings: irregularities that were accepted.
        places: index of each slice along axis k, if the array has to be interpolated between slices; () if slice n is
            plane n.
        planes: length of axis k.
    """

    slices: tuple[SliceHeader, ...]
    affine: Vector
    spacing_known: bool
    findings: tuple[Finding, ...]
    places: tuple[float, ...]
    planes: int


def check_irregular(irregular: str) -> None:
    """Refuse an unknown policy.

    Raises:
        ConfigError: for anything but 'error', 'resample' and 'allow'.
    """
    check_choice("irregular", irregular, get_args(Irregular))


def grid_of(series: Series, irregular: Irregular = "error") -> SeriesGrid:
    """The grid of a series.

    A gantry tilt gives a sheared affine and a finding.

    Args:
        series: frames of one volume, from `find_series`.
        irregular: what to do with missing or unevenly spaced slices. 'error' refuses them, 'resample' interpolates
            onto a regular grid, 'allow' treats the slices as evenly spaced; the last two add a finding.

    Raises:
        ReadError: missing position tags, mosaics, impossible values (see `frame_checks`).
        GeometryError: two patients, studies or frames of reference; slices of unequal size, spacing or orientation;
            repeated positions; missing or unevenly spaced slices; slices that do not lie on one line.
    """
    check_irregular(irregular)
    _check_identity(series)
    mosaics = [s for s in series.slices if "MOSAIC" in s.image_type or s.tiles > 1]
    if mosaics:
        maker = f"UIH grid of {mosaics[0].tiles}" if mosaics[0].tiles > 1 else "Siemens mosaic"
        raise ReadError(
            f"{_place(series)}: {shown(mosaics)} tiles many slices into one image ({maker}), which medseg does not "
            "split; convert the study to enhanced multi-frame or NIfTI first",
            kind="mosaic",
            files=_names(mosaics),
        )
    if len(series.slices) == 1 or is_cine(series.slices):
        return _single(series)
    return _stack(series, irregular)


def _place(series: Series) -> str:
    folders = {s.path.parent for s in series.slices}
    folder = folders.pop() if len(folders) == 1 else Path(*_common_parts([s.path for s in series.slices]))
    return f"series {series.key or '(no UID)'} in {folder}"


def _common_parts(paths: Sequence[Path]) -> list[str]:
    parts = []
    for level in zip(*(p.parent.parts for p in paths), strict=False):
        if len(set(level)) > 1:
            break
        parts.append(level[0])
    return parts


def _names(slices: Sequence[SliceHeader]) -> tuple[str, ...]:
    return tuple(s.name for s in slices)


def _check_identity(series: Series) -> None:
    # Identifiers are counted but never shown, because messages end up in logs.
    checks: list[tuple[str, str, Callable[[SliceHeader], str]]] = [
        ("several_patients", "patients", lambda s: s.patient_id),
        ("several_studies", "studies", lambda s: s.study_instance_uid),
        ("several_frames_of_reference", "frames of reference", lambda s: s.frame_of_reference_uid),
    ]
    for kind, what, identifier in checks:
        found: dict[str, SliceHeader] = {}
        for each in series.slices:
            found.setdefault(identifier(each), each)
        if len(found) > 1:
            unsaid = " (some say none)" if "" in found else ""
            raise GeometryError(
                f"{_place(series)} mixes {len(found)} {what}{unsaid}: compare {shown(list(found.values()))}; "
                "put them into separate folders",
                kind=kind,
                files=_names(list(found.values())),
            )


def _single(series: Series) -> SeriesGrid:
    """The grid of one image, or of the frames of a cine, whose last axis is time."""
    slices = tuple(sorted(series.slices, key=lambda s: s.frame))
    header = slices[0]
    affine = np.eye(4)
    check_frames(slices)
    spacing = header.pixel_spacing or header.detector_spacing
    if spacing:
        affine = np.diag([spacing[1], spacing[0], header.thickness if header.thickness > 0 else 1.0, 1.0])
    if header.position and header.orientation:
        row, column, normal = _directions(header)
        affine[:3, :3] = np.stack([row, column, normal], axis=1) * np.diag(affine)[:3]
        affine[:3, 3] = header.position
    _check_affine(affine, (header.columns, header.rows), series)
    findings = (*series.findings, *findings_of(slices))
    count = len(slices)
    if count > 1:
        text = f"{count} frames without positions are read as a cine: its third axis is time, its spacing no length"
        findings = (*findings, Finding("cine", text, (header.path.name,)))
    # Distances along a time axis are not lengths.
    known = bool(spacing) and count == 1
    return SeriesGrid(slices, flip_lps_ras(affine), known, findings, (), count)


def _check_affine(affine: Vector, shape: tuple[int, ...], series: Series) -> None:
    if fault := affine_fault(affine, shape):
        tags = " and ".join(tagged(keyword) for keyword in ("PixelSpacing", "ImagePositionPatient"))
        raise GeometryError(
            f"{_place(series)} has, by {tags} of {shown(series.slices)}, {fault}: export it again",
            kind="impossible_value",
            files=_names(series.slices),
        )


def _directions(header: SliceHeader) -> tuple[Vector, Vector, Vector]:
    row, column = np.array(header.orientation[:3]), np.array(header.orientation[3:])
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if not (np.allclose(lengths, 1.0, atol=1e-2) and abs(float(row @ column)) < 1e-2):
        fault = impossible("ImageOrientationPatient", header.orientation, "two unit vectors at right angles")
        raise ReadError(f"{header.path} has {fault}: export it again", kind="impossible_value", files=(header.name,))
    row = row / lengths[0]
    column = column - row * (row @ column)
    column = column / np.linalg.norm(column)
    return row, column, np.cross(row, column)


def _stack(series: Series, irregular: Irregular) -> SeriesGrid:
    where = _place(series)
    lost = [s for s in series.slices if not (s.position and s.orientation and s.pixel_spacing)]
    if lost:
        raise ReadError(
            f"{where}: no ImagePositionPatient, ImageOrientationPatient or PixelSpacing in {shown(lost)}, so the order "
            "and position of the slices are unknown",
            kind="no_position",
            files=_names(lost),
        )
    check_frames(series.slices)
    first = series.slices[0]
    _check_alike(series, where)
    row, column, normal = _directions(first)
    along = np.array([s.position for s in series.slices]) @ normal
    order = np.argsort(along, kind="stable")
    slices = tuple(series.slices[n] for n in order)
    along = along[order]
    _check_repeated(slices, along, where)
    usual, uneven = _unevenness(slices, along, where, irregular)
    planes = len(slices)
    places: tuple[float, ...] = ()
    if irregular == "resample" and any(f.kind in ("missing_slices", "uneven_spacing") for f in uneven):
        planes = round(float(along[-1] - along[0]) / usual) + 1
        if planes > MOST_PLANES:
            raise GeometryError(
                f"{where} reaches from {along[0]:.3f} to {along[-1]:.3f} mm along the normal, which takes {planes} "
                f"slices {usual:.3f} mm apart; expected at most {MOST_PLANES}: remove outlying slices, such as "
                f"{slices[0].name} or {slices[-1].name} ({tagged('ImagePositionPatient')})",
                kind="impossible_value",
                files=_names((slices[0], slices[-1])),
            )
        places = tuple(float(p) for p in (along - along[0]) / (along[-1] - along[0]) * (planes - 1))
    positions = np.array([s.position for s in slices])
    step, tilt = _step(slices, positions, along, normal, where)
    affine = np.eye(4)
    affine[:3, 0] = row * first.pixel_spacing[1]
    affine[:3, 1] = column * first.pixel_spacing[0]
    affine[:3, 2] = step / (planes - 1)
    affine[:3, 3] = positions[0]
    _check_affine(affine, (first.columns, first.rows, planes), series)
    findings = (*series.findings, *uneven, *tilt, *findings_of(slices))
    if all(s.runs_backwards for s in slices) and not places:
        # Nuclear medicine states the direction of its frames, which ITK keeps.
        slices = slices[::-1]
        affine[:3, 3], affine[:3, 2] = positions[-1], -affine[:3, 2]
    return SeriesGrid(slices, flip_lps_ras(affine), True, findings, places, planes)


def _check_alike(series: Series, where: str) -> None:
    first = series.slices[0]
    checks: list[tuple[str, Callable[[SliceHeader], tuple[float, ...]], float]] = [
        ("image sizes (rows, columns)", lambda s: (s.rows, s.columns), 0.0),
        ("pixel spacings", lambda s: s.pixel_spacing, 1e-4),
        ("orientations", lambda s: s.orientation, 1e-3),
        ("grey and colour images (samples per pixel)", lambda s: (s.samples, s.is_colour), 0.0),
    ]
    for what, value, tolerance in checks:
        values = np.array([value(s) for s in series.slices], dtype=float)
        middle = np.median(values, axis=0)
        outliers = [s for s, v in zip(series.slices, values, strict=True) if np.abs(v - middle).max() > tolerance]
        if outliers:
            usual = next(s for s in series.slices if s not in outliers) if len(outliers) < len(series.slices) else first
            raise GeometryError(
                f"{where} mixes {what}: {value(usual)} in {usual.name}, {value(outliers[0])} in {shown(outliers)}; "
                "put each stack into a folder of its own",
                kind="mixed_slices",
                files=_names(outliers),
            )


def _check_repeated(slices: Sequence[SliceHeader], along: Vector, where: str) -> None:
    steps = np.diff(along)
    repeated = np.flatnonzero(steps < max(slices[0].rounding_mm, _ALONG * float(np.median(steps))))
    if repeated.size:
        n = int(repeated[0])
        doubled = [slices[m] for m in sorted({*repeated, *(repeated + 1)})]
        raise GeometryError(
            f"{where} holds different images at {repeated.size} position(s), e.g. at {along[n]:.3f} mm along the "
            f"normal: {shown(slices[n : n + 2])}; no tag separates them into volumes: keep one per position",
            kind="duplicate_slices",
            files=_names(doubled),
        )


def _unevenness(
    slices: Sequence[SliceHeader], along: Vector, where: str, irregular: Irregular
) -> tuple[float, list[Finding]]:
    """The distance between slices, and findings about its irregularities."""
    steps = np.diff(along)
    # The lower of two middle steps: with a gap among two steps, the mean of both is the distance of no slices.
    usual = float(np.sort(steps)[(len(steps) - 1) // 2])
    spacing = float(along[-1] - along[0]) / (len(slices) - 1)
    apart = float(np.abs(along - along[0] - spacing * np.arange(len(slices))).max())
    floor = slices[0].rounding_mm
    if apart <= max(floor, _ALONG * spacing):
        if apart <= 0.01 * spacing:
            return spacing, []
        text = f"slices are up to {apart:.3f} mm away from the regular grid of {spacing:.3f} mm"
        return spacing, [Finding("spacing_jitter", text)]
    multiples = np.rint(steps / usual)
    whole = np.abs(steps - multiples * usual).max() <= max(floor, 2 * _ALONG * usual)
    uneven = np.flatnonzero(multiples > 1 if whole else np.abs(steps - usual) > max(floor, _ALONG * usual))
    gaps = ", ".join(
        f"{steps[n]:.3f} mm from {along[n]:.3f} to {along[n + 1]:.3f} mm between {slices[n].name} and "
        f"{slices[n + 1].name}"
        for n in uneven[:3]
    ) + (f" and {len(uneven) - 3} more" if len(uneven) > 3 else "")
    if whole:
        kind, lacking = "missing_slices", int((multiples - 1).sum())
        text = f"{lacking} slice(s) missing: the usual step is {usual:.3f} mm, but {gaps} along the normal"
    else:
        kind = "uneven_spacing"
        text = (
            f"unevenly spaced slices: steps of {steps.min():.3f} to {steps.max():.3f} mm (usually {usual:.3f}), e.g. "
            f"{gaps} along the normal"
        )
    files = _names([slices[m] for m in sorted({*uneven, *(uneven + 1)})])
    if irregular == "error":
        hint = (
            "export it again, or read it with irregular='resample' (interpolate) or 'allow' (treat as even), "
            "--irregular on the command line"
        )
        raise GeometryError(f"{where} has {text}; {hint}", kind=kind, files=files)
    done = "interpolated onto a regular grid" if irregular == "resample" else "treated as evenly spaced"
    return usual, [Finding(kind, f"{text}; {done}", files)]


def _step(
    slices: Sequence[SliceHeader], positions: Vector, along: Vector, normal: Vector, where: str
) -> tuple[Vector, list[Finding]]:
    """The vector from the first slice to the last: along the normal, or oblique to it because of a gantry tilt."""
    way = positions[-1] - positions[0]
    lateral = positions - positions[0] - np.outer(along - along[0], normal)
    tolerance = max(slices[0].rounding_mm, min(_ASIDE_MM, _ACROSS * min(slices[0].pixel_spacing)))
    if np.linalg.norm(lateral, axis=1).max() <= tolerance:
        return normal * float(along[-1] - along[0]), []
    fraction = (along - along[0]) / (along[-1] - along[0])
    off_line = np.linalg.norm(lateral - np.outer(fraction, lateral[-1]), axis=1)
    aside = float(np.linalg.norm(lateral[-1]))
    angle = float(np.degrees(np.arctan2(aside, along[-1] - along[0])))
    n = int(np.argmax(off_line))
    if off_line[n] > tolerance or angle > _STEEPEST_DEGREES:
        raise GeometryError(
            f"{where} is not a straight stack: {slices[n].name} is {off_line[n]:.2f} mm away from the line from "
            f"{slices[0].name} to {slices[-1].name}, which is {angle:.1f} degrees off the normal; export it again",
            kind="scattered_slices",
            files=(slices[n].name,),
        )
    text = (
        f"gantry tilt: the slices are shifted by {aside:.2f} mm from {slices[0].name} to {slices[-1].name}, "
        f"{angle:.1f} degrees off their normal; the affine is sheared"
    )
    return way, [Finding("gantry_tilt", text, _names(slices))]
