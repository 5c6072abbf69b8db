"""The properties of a DICOM series that decide whether a model can use it, from its headers."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from medseg.config import LONGEST_TEXT, SelectRule
from medseg.io.channel_names import kind_of_name, modality_of_kind
from medseg.io.dicom.series import Series
from medseg.io.dicom.slice import SliceHeader

__all__ = ["Candidate", "candidate_of", "misfit"]

_PROJECTIONS = ("MIP", "MINIP", "MAX_IP", "MIN_IP", "MAXIMUM", "MINIMUM", "PROJECTION IMAGE", "VRT", "VOLUME RENDERING")
_KNOWN_MODALITY_ONLY = ("ct", "pet", "mr")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A series and the properties that the selection compares.

    Args:
        series: the series.
        modality: DICOM Modality.
        orientation: 'axial', 'coronal', 'sagittal' or '' if the slices have no direction.
        slices: number of images.
        thickness_mm: the larger of SliceThickness and the distance between slices, because neither thick overlapping
            slices nor thin ones with gaps give thin slices. 0 if unknown.
        extent_mm: from the first to the last slice, including one slice spacing.
        has_contrast: whether the header names a contrast agent.
        kind: kind of image by the description, see `kind_of_name`.
        is_original: whether ImageType begins with ORIGINAL, or is missing.
        is_projection, is_localizer: by ImageType.
        description, body_part: for matching; never printed, because people write names into them.
        date: YYYYMMDD, '' if unknown; never printed.
    """

    series: Series
    modality: str
    orientation: str
    slices: int
    thickness_mm: float
    extent_mm: float
    has_contrast: bool
    kind: str
    is_original: bool
    is_projection: bool
    is_localizer: bool
    description: str
    body_part: str
    date: str

    @property
    def looks(self) -> str:
        """Modality, orientation, thickness and slices: 'CT, axial, 1.0 mm, 300 slices'."""
        thickness = f"{self.thickness_mm:.1f} mm" if self.thickness_mm else ""
        contrast = "contrast agent" if self.has_contrast else ""
        words = (self.modality, self.orientation, thickness, f"{self.slices} slices", contrast)
        return ", ".join(word for word in words if word)


def candidate_of(series: Series) -> Candidate:
    """The properties of a series, from its headers alone."""
    first = series.slices[0]
    orientation, spacing, extent = _geometry(series.slices)
    image_type = tuple(value.upper() for value in first.image_type)
    return Candidate(
        series=series,
        modality=first.modality,
        orientation=orientation,
        slices=len(series.slices),
        thickness_mm=max(spacing, first.thickness),
        extent_mm=extent or first.thickness,
        has_contrast=first.has_contrast,
        kind=kind_of_name(first.description, first.has_contrast),
        is_original=not image_type or (image_type[0] == "ORIGINAL" and "SECONDARY" not in image_type),
        is_projection=any(value in _PROJECTIONS for value in image_type),
        is_localizer=all(s.is_localizer for s in series.slices),
        description=first.description,
        body_part=first.body_part,
        date=first.date,
    )


def _geometry(slices: tuple[SliceHeader, ...]) -> tuple[str, float, float]:
    """Orientation, median distance between slices, and extent in mm along the normal."""
    direction = slices[0].orientation
    if len(direction) != 6:
        return "", 0.0, 0.0
    normal = np.cross(direction[:3], direction[3:])
    plane = ("sagittal", "coronal", "axial")[int(np.argmax(np.abs(normal)))]
    depths = np.sort([np.dot(normal, s.position) for s in slices if len(s.position) == 3])
    if len(depths) < 2:
        return plane, 0.0, 0.0
    spacing = float(np.median(np.diff(depths)))
    return plane, spacing, float(depths[-1] - depths[0]) + spacing


def misfit(found: Candidate, rule: SelectRule) -> str:
    """Why a series violates a rule, '' if it does not. Free text is matched but never quoted."""
    kind = kind_of_name(rule.name)
    wanted = rule.modality or modality_of_kind(kind)
    if wanted and found.modality.upper() != wanted.upper():
        return f"modality {found.modality or 'unknown'}, not {wanted}"
    if rule.orientation is not None and found.orientation != rule.orientation:
        return f"{found.orientation or 'no orientation'}, not {rule.orientation}"
    if rule.min_slices is not None and found.slices < rule.min_slices:
        return f"{found.slices} slices, fewer than {rule.min_slices}"
    if rule.thickness_mm is not None and not rule.thickness_mm[0] <= found.thickness_mm <= rule.thickness_mm[1]:
        return f"{found.thickness_mm:.1f} mm, not {rule.thickness_mm[0]:g} to {rule.thickness_mm[1]:g} mm"
    if rule.contrast is not None and found.has_contrast != rule.contrast:
        return f"{'a' if found.has_contrast else 'no'} contrast agent in the header"
    for name, pattern, text in (
        ("body part", rule.body_part, found.body_part),
        ("description", rule.description, found.description),
    ):
        if pattern is not None and re.search(pattern, text[:LONGEST_TEXT], re.IGNORECASE) is None:
            return f"its {name} does not match {pattern!r}"
    if not kind or kind in _KNOWN_MODALITY_ONLY:
        return ""
    # A custom pattern accepts series whose description implies no kind, but never one that implies another kind.
    if found.kind != kind and (found.kind not in ("", *_KNOWN_MODALITY_ONLY) or rule.description is None):
        return (
            f"its description says {found.kind}, not {kind}" if found.kind else f"its description does not say {kind}"
        )
    return ""
