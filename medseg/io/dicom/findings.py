"""Findings about the slices of one DICOM volume that follow from their headers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from medseg.io.dicom.slice import SliceHeader, is_cine
from medseg.volume import Finding

__all__ = ["findings_of"]

_FEW = 4
_NOTES: tuple[tuple[str, Callable[[SliceHeader], bool], str], ...] = (
    (
        "monochrome1",
        lambda s: s.photometric == "MONOCHROME1",
        "MONOCHROME1: meant to be displayed inverted; values are kept as stored",
    ),
    ("colour", lambda s: s.is_colour, "colour image, converted to red, green and blue channels"),
    (
        "bit_depth",
        lambda s: s.samples > 1 and s.bits_stored > 8,
        "more than 8 bits per colour, of which the highest 8 are kept",
    ),
    ("lossy", lambda s: s.is_lossy, "compressed with loss, or by a method that may lose detail"),
    (
        "illegal_value",
        lambda s: bool(s.illegal),
        "position, orientation or spacing has more than the 16 characters that DICOM allows; read in full",
    ),
    (
        "detector_spacing",
        lambda s: bool(s.detector_spacing) and not s.pixel_spacing,
        "only the spacing at the detector is known (ImagerPixelSpacing); sizes in the patient are smaller",
    ),
    (
        "empty_modality_lut",
        lambda s: s.has_empty_lut,
        "the Modality LUT Sequence has no table, so it is read as if it were absent",
    ),
    ("modality_lut", lambda s: s.has_modality_lut, "values are mapped by a table (Modality LUT), not by a slope"),
)


def findings_of(slices: Sequence[SliceHeader]) -> list[Finding]:
    """The findings: colour, lossy compression, MONOCHROME1, over-long numbers, localizers, very few slices."""
    findings = []
    for kind, holds, text in _NOTES:
        files = tuple(s.name for s in slices if holds(s))
        if files:
            findings.append(Finding(kind, text, files))
    notes = {s.region_note: s.name for s in slices if s.region_note}
    findings += [Finding("region_spacing", note, (name,)) for note, name in notes.items()]
    if all(s.is_localizer for s in slices):
        findings.append(Finding("localizer", "the series is a localizer (scout)", tuple(s.name for s in slices)))
    if 1 < len(slices) < _FEW and not is_cine(slices):
        text = f"the series has only {len(slices)} slices; were all of them exported?"
        findings.append(Finding("few_slices", text, tuple(s.name for s in slices)))
    return findings
