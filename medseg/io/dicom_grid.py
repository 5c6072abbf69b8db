"""From the headers of a series to one regular grid, or a refusal that names files and positions.

Slices are ordered by their position along the normal (row x column cosines), never by InstanceNumber.
DICOM PS3.3 C.7.6.2.1.1 defines position and orientation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medseg.errors import GeometryError, ReadError
from medseg.geometry import flip_lps_ras
from medseg.io.dicom_headers import Series, SliceHeader
from medseg.volume import Finding

__all__ = ["SeriesGrid", "grid_of"]

# How far a slice may lie from its place on the regular grid: fractions of the slice and of the pixel spacing.
_ALONG, _ACROSS, _FLOOR_MM = 0.05, 0.1, 0.01


@dataclass(frozen=True, slots=True)
class SeriesGrid:
    """Slices in order along the normal, the affine (RAS+) of the array `[i, j, k]`, and what was noticed."""

    slices: tuple[SliceHeader, ...]
    affine: NDArray[np.float64]
    spacing_known: bool
    findings: tuple[Finding, ...]


def grid_of(series: Series) -> SeriesGrid:
    """The regular grid of a series.

    Raises:
        ReadError: colour or multi-frame images, a localizer among the slices, missing position tags.
        GeometryError: two patients, studies or frames of reference; slices of unequal size, spacing or orientation;
            repeated positions; missing or unevenly spaced slices; gantry tilt.
    """
    _check_images(series)
    _check_identity(series)
    if len(series.slices) == 1:
        return _single(series.slices[0])
    return _stack(series)


def _shown(slices: Sequence[SliceHeader], limit: int = 4) -> str:
    names = [s.path.name for s in slices]
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _place(series: Series) -> str:
    folders = {s.path.parent for s in series.slices}
    folder = folders.pop() if len(folders) == 1 else Path(*_common_parts([s.path for s in series.slices]))
    return f"series {series.uid or '(no UID)'} in {folder}"


def _common_parts(paths: Sequence[Path]) -> list[str]:
    parts = []
    for level in zip(*(p.parent.parts for p in paths), strict=False):
        if len(set(level)) > 1:
            break
        parts.append(level[0])
    return parts


def _check_images(series: Series) -> None:
    where = _place(series)
    frames = [s for s in series.slices if s.frames > 1]
    if frames:
        raise ReadError(
            f"{where}: {_shown(frames)} is a multi-frame image ({frames[0].frames} frames); expected one slice per "
            "file: convert it to NIfTI or single-frame DICOM first"
        )
    colour = [s for s in series.slices if s.samples > 1 or not s.photometric.startswith("MONOCHROME")]
    if colour:
        raise ReadError(
            f"{where}: {_shown(colour)} is a colour image ({colour[0].photometric or 'no photometric tag'}); expected "
            "grey levels: save it as PNG or TIFF"
        )
    tables = [s for s in series.slices if s.has_modality_lut]
    if tables:
        raise ReadError(f"{where}: {_shown(tables)} maps grey levels by a table (ModalityLUTSequence), not by a slope")
    scouts = [s for s in series.slices if "LOCALIZER" in s.image_type]
    if scouts and len(scouts) < len(series.slices):
        raise ReadError(f"{where}: {_shown(scouts)} is a localizer among the slices; move it out of the series")


def _check_identity(series: Series) -> None:
    # Identifiers are counted, never shown: messages end up in logs.
    checks: list[tuple[str, Callable[[SliceHeader], str]]] = [
        ("patients", lambda s: s.patient_id),
        ("studies", lambda s: s.study_instance_uid),
        ("frames of reference", lambda s: s.frame_of_reference_uid),
    ]
    for what, identifier in checks:
        found: dict[str, SliceHeader] = {}
        for each in series.slices:
            found.setdefault(identifier(each), each)
        if len(found) > 1:
            raise GeometryError(
                f"{_place(series)} mixes {len(found)} {what}: compare {_shown(list(found.values()))}; "
                "put them into separate folders"
            )


def _single(header: SliceHeader) -> SeriesGrid:
    findings = []
    if "LOCALIZER" in header.image_type:
        findings.append(Finding("localizer", "the image is a localizer (scout)", (header.path.name,)))
    affine = np.eye(4)
    spacing = header.pixel_spacing or header.detector_spacing
    if spacing and min(spacing) <= 0:
        raise ReadError(f"{header.path} has a pixel spacing of {spacing} mm; expected positive numbers")
    if not header.pixel_spacing and spacing:
        text = "only the spacing at the detector is known (ImagerPixelSpacing); sizes in the patient are smaller"
        findings.append(Finding("detector_spacing", text, (header.path.name,)))
    if spacing:
        affine = np.diag([spacing[1], spacing[0], header.thickness if header.thickness > 0 else 1.0, 1.0])
    if header.position and header.orientation:
        row, column, normal = _directions(header)
        affine[:3, :3] = np.stack([row, column, normal], axis=1) * np.diag(affine)[:3]
        affine[:3, 3] = header.position
    findings += _monochrome1([header])
    return SeriesGrid((header,), flip_lps_ras(affine), bool(spacing), tuple(findings))


def _directions(header: SliceHeader) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    row, column = np.array(header.orientation[:3]), np.array(header.orientation[3:])
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if not (np.allclose(lengths, 1.0, atol=1e-2) and abs(float(row @ column)) < 1e-2):
        raise ReadError(
            f"{header.path} has ImageOrientationPatient {header.orientation}; expected two unit vectors at right angles"
        )
    row = row / lengths[0]
    column = column - row * (row @ column)
    column = column / np.linalg.norm(column)
    return row, column, np.cross(row, column)


def _stack(series: Series) -> SeriesGrid:
    where = _place(series)
    lost = [s for s in series.slices if not (s.position and s.orientation and s.pixel_spacing)]
    if lost:
        raise ReadError(
            f"{where}: {_shown(lost)} lacks ImagePositionPatient, ImageOrientationPatient or PixelSpacing, so the "
            "order and place of the slices are not known"
        )
    first = series.slices[0]
    _check_alike(series, where)
    row, column, normal = _directions(first)
    along = np.array([s.position for s in series.slices]) @ normal
    order = np.argsort(along, kind="stable")
    slices = tuple(series.slices[n] for n in order)
    along = along[order]
    spacing = _even_spacing(slices, along, where)
    positions = np.array([s.position for s in slices])
    _check_tilt(slices, positions, along, normal, spacing, where)
    affine = np.eye(4)
    affine[:3, 0] = row * first.pixel_spacing[1]
    affine[:3, 1] = column * first.pixel_spacing[0]
    affine[:3, 2] = normal * spacing
    affine[:3, 3] = positions[0]
    return SeriesGrid(slices, flip_lps_ras(affine), True, tuple(_findings(slices, along, spacing)))


def _check_alike(series: Series, where: str) -> None:
    first = series.slices[0]
    checks: list[tuple[str, Callable[[SliceHeader], tuple[float, ...]], float]] = [
        ("image sizes (rows, columns)", lambda s: (s.rows, s.columns), 0.0),
        ("pixel spacings", lambda s: s.pixel_spacing, 1e-4),
        ("orientations", lambda s: s.orientation, 1e-3),
    ]
    for what, value, tolerance in checks:
        expected = np.array(value(first))
        other = next((s for s in series.slices if np.abs(np.array(value(s)) - expected).max() > tolerance), None)
        if other is not None:
            raise GeometryError(
                f"{where} mixes {what}: {value(first)} in {first.path.name}, {value(other)} in {other.path.name}; "
                "put each stack into a folder of its own"
            )
    if min(first.pixel_spacing) <= 0:
        raise ReadError(f"{where}: pixel spacing is {first.pixel_spacing} mm; expected positive numbers")


def _even_spacing(slices: Sequence[SliceHeader], along: NDArray[np.float64], where: str) -> float:
    steps = np.diff(along)
    usual = float(np.median(steps))
    repeated = np.flatnonzero(steps < max(_FLOOR_MM, _ALONG * usual))
    if repeated.size:
        n = int(repeated[0])
        raise GeometryError(
            f"{where} holds more than one slice at {repeated.size} position(s), e.g. at {along[n]:.3f} mm along the "
            f"normal: {_shown(slices[n : n + 2])}; several phases, echoes or copies? keep one of them per folder"
        )
    spacing = float(along[-1] - along[0]) / (len(slices) - 1)
    regular = along[0] + spacing * np.arange(len(slices))
    if np.abs(along - regular).max() > max(_FLOOR_MM, _ALONG * spacing):
        n = int(np.argmax(np.abs(steps - usual)))
        missing = round(float(steps[n]) / usual) - 1
        guess = f"; {missing} slice(s) seem to be missing there" if steps[n] > 1.5 * usual else ""
        raise GeometryError(
            f"{where} is not evenly spaced: steps of {steps.min():.3f} to {steps.max():.3f} mm (usually {usual:.3f}), "
            f"e.g. {steps[n]:.3f} mm from {along[n]:.3f} to {along[n + 1]:.3f} mm along the normal, between "
            f"{slices[n].path.name} and {slices[n + 1].path.name}{guess}; export the series again"
        )
    return spacing


def _check_tilt(
    slices: Sequence[SliceHeader],
    positions: NDArray[np.float64],
    along: NDArray[np.float64],
    normal: NDArray[np.float64],
    spacing: float,
    where: str,
) -> None:
    offset = positions - positions[0]
    aside = np.linalg.norm(offset - np.outer(along - along[0], normal), axis=1)
    n = int(np.argmax(aside))
    if aside[n] > max(_FLOOR_MM, _ACROSS * min(slices[0].pixel_spacing)):
        angle = np.degrees(np.arctan2(aside[n], along[n] - along[0]))
        raise GeometryError(
            f"{where} is sheared (gantry tilt): {slices[n].path.name} lies {aside[n]:.2f} mm aside of "
            f"{slices[0].path.name}, {angle:.1f} degrees off the normal; expected slices stacked along the normal: "
            "resample the series to a straight stack first"
        )


def _findings(slices: Sequence[SliceHeader], along: NDArray[np.float64], spacing: float) -> list[Finding]:
    findings = []
    regular = along[0] + spacing * np.arange(len(slices))
    apart = float(np.abs(along - regular).max())
    if apart > 0.01 * spacing:
        text = f"slices lie up to {apart:.3f} mm from their place on the regular grid of {spacing:.3f} mm"
        findings.append(Finding("uneven_slices", text))
    if len(slices) < 4:
        text = f"the series has only {len(slices)} slices; were all of them exported?"
        findings.append(Finding("few_slices", text, tuple(s.path.name for s in slices)))
    if all("LOCALIZER" in s.image_type for s in slices):
        findings.append(Finding("localizer", "the series is a localizer (scout)"))
    return findings + _monochrome1(slices)


def _monochrome1(slices: Sequence[SliceHeader]) -> list[Finding]:
    inverted = tuple(s.path.name for s in slices if s.photometric == "MONOCHROME1")
    text = "MONOCHROME1: meant to be shown inverted; values are kept as stored"
    return [Finding("monochrome1", text, inverted)] if inverted else []
