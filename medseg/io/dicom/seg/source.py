"""The attributes that a segmentation copies from its source series: patient, study, planes and references.

Real headers lack attributes and break value rules, so every copied value is checked: identifiers and names are kept,
a malformed date or code is omitted. Attribute types are those of DICOM PS3.3 A.51 (Segmentation).
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from medseg.errors import ReadError, WriteError
from medseg.geometry import flip_lps_ras
from medseg.io.dicom.grid import SeriesGrid
from medseg.io.dicom.headers import SliceHeader
from medseg.io.library_errors import refuse_own_fault

__all__ = [
    "copy_patient_and_study",
    "planes_of",
    "read_source_header",
    "refer_to",
    "series_number",
    "with_references",
]

# Type 2: must be present, but may be empty.
_REQUIRED = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
)
_OPTIONAL = (
    "IssuerOfPatientID",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "StudyDescription",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "ClinicalTrialSponsorName",
    "ClinicalTrialProtocolID",
    "ClinicalTrialProtocolName",
    "ClinicalTrialSiteID",
    "ClinicalTrialSiteName",
    "ClinicalTrialSubjectID",
    "ClinicalTrialSubjectReadingID",
    "ClinicalTrialTimePointID",
)
_FORMS = {
    "DA": r"\d{8}",
    "TM": r"\d\d(\d\d(\d\d(\.\d{1,6})?)?)?",
    "AS": r"\d{3}[DWMY]",
    "DS": r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?",
    "CS": r"[A-Z0-9 _]{1,16}",
}
# A segmentation requires a date; this sentinel means 'unknown'.
_NO_DATE, _NO_TIME = "19000101", "000000"
# Objects on one series that get different numbers, as far as six digits go.
_SERIES = 900
# A slice counts as the image of a plane if it is this close, in units of the slice spacing.
_SAME_PLACE = 1e-3


def read_source_header(grid: SeriesGrid) -> Any:
    """The whole header (a pydicom Dataset without pixels) of the first file of a series.

    Raises:
        ReadError: if the file is missing or damaged.
    """
    import pydicom

    path = grid.slices[0].path
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        header.decode()
        return header
    except OSError as error:
        raise ReadError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception as error:
        refuse_own_fault(error)
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ReadError(f"{path} has a damaged DICOM header ({reason}); export it again") from None


def series_number(source: Any, series_uid: str) -> int:
    """A SeriesNumber for an object on a source series, given as a pydicom Dataset.

    It is the source's number plus thousands that depend on the object's own SeriesInstanceUID: listed after the source
    where lists are ordered by number, the same on every run, and another one for another model.
    """
    number = str(source.get("SeriesNumber", ""))
    thousands = 1 + int(hashlib.sha256(series_uid.encode()).hexdigest(), 16) % _SERIES
    return 1000 * thousands + (int(number) if number.isdigit() and len(number) < 7 else 0)


def copy_patient_and_study(source: Any, target: Any, made: datetime | None = None) -> None:
    """Set the patient, study and content date of `target` from `source`, both pydicom Datasets.

    Date and time of the content are the study's, so that writing an object twice gives the same bytes, unless
    `made` gives another one.
    """
    target.SpecificCharacterSet = "ISO_IR 192"
    for keyword in _REQUIRED:
        setattr(target, keyword, _clean(source, keyword) or "")
    for keyword in _OPTIONAL:
        value = _clean(source, keyword)
        if value:
            setattr(target, keyword, value)
    if target.PatientSex not in ("M", "F", "O", ""):
        target.PatientSex = ""
    if target.get("PatientIdentityRemoved") == "YES" and "DeidentificationMethod" not in target:
        codes = source.get("DeidentificationMethodCodeSequence")
        if codes:
            target.DeidentificationMethodCodeSequence = codes
        else:
            target.DeidentificationMethod = "as in the source images"
    # Trial attributes are only valid together: sponsor, protocol and subject.
    if not all(k in target for k in ("ClinicalTrialSponsorName", "ClinicalTrialProtocolID")) or not (
        "ClinicalTrialSubjectID" in target or "ClinicalTrialSubjectReadingID" in target
    ):
        for keyword in _OPTIONAL:
            if keyword.startswith("ClinicalTrial") and keyword in target:
                delattr(target, keyword)
    elif "ClinicalTrialSponsorName" in target:
        for keyword in ("ProtocolName", "SiteID", "SiteName"):
            if f"ClinicalTrial{keyword}" not in target:
                setattr(target, f"ClinicalTrial{keyword}", "")
    pairs = [(f"{event}Date", f"{event}Time") for event in ("Study", "Series", "Acquisition", "Content")]
    date, time = next(((d, t) for d, t in pairs if _clean(source, d)), ("", ""))
    target.ContentDate = (_clean(source, date) if date else None) or _NO_DATE
    target.ContentTime = (_clean(source, time) if time else None) or _NO_TIME
    if made is not None:
        target.ContentDate, target.ContentTime = made.strftime("%Y%m%d"), made.strftime("%H%M%S")


def _clean(source: Any, keyword: str) -> Any:
    """The value, or None if it is absent, empty or malformed."""
    element = source.get_item(keyword) and source[keyword]
    if element is None or element.VM > 1 or element.value in (None, ""):
        return None
    form = _FORMS.get(element.VR)
    text = str(element.value).strip()
    if element.VR in ("DA", "TM"):
        # Forms of the ACR-NEMA standard, which still occur.
        text = text.replace("." if element.VR == "DA" else ":", "")
    if form is None:
        return element.value if text else None
    return text if re.fullmatch(form, text) else None


def with_references(grid: SeriesGrid, path: Path) -> SeriesGrid:
    """The grid, with all the UIDs that a DICOM object needs to refer to its slices.

    Some exports blank the UIDs of class and instance; the file meta information still contains both.

    Raises:
        WriteError: if a slice lacks the UID of its class, instance, series or study.
    """
    slices = tuple(
        header if header.sop_class_uid and header.sop_instance_uid else _named_by_file(header) for header in grid.slices
    )
    for header in slices:
        wanted = {
            "SOPClassUID": header.sop_class_uid,
            "SOPInstanceUID": header.sop_instance_uid,
            "SeriesInstanceUID": header.series_instance_uid,
            "StudyInstanceUID": header.study_instance_uid,
        }
        lost = [name for name, value in wanted.items() if not value]
        if lost:
            raise WriteError(
                f"cannot write {path}: {header.path} has no {' and no '.join(lost)}, which a DICOM object must refer "
                "to; write .nii.gz instead"
            )
    return replace(grid, slices=slices)


def _named_by_file(header: SliceHeader) -> SliceHeader:
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        meta = pydicom.dcmread(header.path, specific_tags=[], stop_before_pixels=True).file_meta
    except (OSError, InvalidDicomError):
        return header
    return replace(
        header,
        sop_class_uid=header.sop_class_uid or str(meta.get("MediaStorageSOPClassUID", "")),
        sop_instance_uid=header.sop_instance_uid or str(meta.get("MediaStorageSOPInstanceUID", "")),
    )


def planes_of(grid: SeriesGrid, indices: Sequence[int]) -> list[Any]:
    """One clean single-frame header (pydicom Dataset) per plane of the grid, independent of the files' own headers.

    Their SOPInstanceUIDs are placeholders, which `refer_to` replaces.
    """
    from pydicom.dataset import Dataset
    from pydicom.uid import CTImageStorage, SecondaryCaptureImageStorage
    from pydicom.valuerep import DSfloat

    first = grid.slices[0]
    placed = bool(first.position and first.orientation)
    lps = flip_lps_ras(grid.affine)

    def decimal(values: Sequence[float]) -> list[DSfloat]:
        return [DSfloat(v, auto_format=True) for v in values]

    planes = []
    for n in indices:
        # An interpolated grid has planes of its own.
        header = first if grid.places else grid.slices[n]
        position = tuple(lps[:3, 3] + n * lps[:3, 2]) if grid.places else header.position
        plane = Dataset()
        plane.SOPClassUID = CTImageStorage if placed else SecondaryCaptureImageStorage
        plane.SOPInstanceUID = _placeholder(n)
        plane.SeriesInstanceUID, plane.StudyInstanceUID = header.series_instance_uid, header.study_instance_uid
        plane.Modality = header.modality
        plane.Rows, plane.Columns = header.rows, header.columns
        plane.PatientID = plane.PatientName = plane.PatientBirthDate = plane.PatientSex = ""
        plane.StudyID = plane.StudyDate = plane.StudyTime = plane.AccessionNumber = ""
        if grid.spacing_known:
            plane.PixelSpacing = decimal(header.pixel_spacing or header.detector_spacing)
        if placed:
            plane.FrameOfReferenceUID = header.frame_of_reference_uid or "2.25.0"
            plane.ImagePositionPatient = decimal(position)
            # One orientation for all: the grid has accepted small differences between slices.
            plane.ImageOrientationPatient = decimal(first.orientation)
            plane.SliceThickness = decimal([header.thickness])[0] if header.thickness > 0 else None
        planes.append(plane)
    return planes


def _placeholder(n: int) -> str:
    return f"2.25.{n + 1}"


def refer_to(grid: SeriesGrid, target: Any) -> None:
    """Replace the placeholders in `target`, a segmentation made from `planes_of`, by references to the real instances.

    Args:
        grid: the source series.
        target: the segmentation's Dataset, changed in place.
    """
    from pydicom.dataset import Dataset

    planes = {_placeholder(n): n for n in range(grid.planes)}
    for item in target.PerFrameFunctionalGroupsSequence:
        for derivation in item.get("DerivationImageSequence", ()):
            (reference,) = derivation.SourceImageSequence
            plane = planes.get(str(reference.ReferencedSOPInstanceUID))
            # Segments share the references to a slice, so some are done already.
            if plane is not None:
                derivation.SourceImageSequence = _references(grid, plane, reference)
    instances: dict[str, Any] = {}
    for header in grid.slices:
        if header.sop_instance_uid not in instances:
            instance = Dataset()
            instance.ReferencedSOPClassUID = header.sop_class_uid
            instance.ReferencedSOPInstanceUID = header.sop_instance_uid
            instances[header.sop_instance_uid] = instance
    series = Dataset()
    series.SeriesInstanceUID = grid.slices[0].series_instance_uid
    series.ReferencedInstanceSequence = list(instances.values())
    target.ReferencedSeriesSequence = [series]
    # The root attribute is for single-frame images; here each frame names its own source.
    if "SourceImageSequence" in target:
        del target.SourceImageSequence


def _references(grid: SeriesGrid, plane: int, template: Any) -> list[Any]:
    """References to the image of a plane, or to the two that it was interpolated between."""
    sources = [plane]
    if grid.places:
        places = np.array(grid.places)
        before, behind = np.flatnonzero(places < plane + _SAME_PLACE), np.flatnonzero(places > plane - _SAME_PLACE)
        sources = sorted({*before[-1:].tolist(), *behind[:1].tolist()})
    result = []
    for n in sources:
        header = grid.slices[n]
        reference = template if len(sources) == 1 else copy.deepcopy(template)
        reference.ReferencedSOPClassUID = header.sop_class_uid
        reference.ReferencedSOPInstanceUID = header.sop_instance_uid
        if header.frames > 1:
            reference.ReferencedFrameNumber = header.frame + 1
        if len(sources) > 1:
            reference.SpatialLocationsPreserved = "NO"
        result.append(reference)
    return result
