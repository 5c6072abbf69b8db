"""The header of a classic single-frame image: the modules of CT, MR and Secondary Capture Image Storage.

DICOM PS3.3 A.3 (CT), A.4 (MR), A.8.1 (Secondary Capture). Required attributes whose value is unknown are empty:
nothing about a patient, a device or a date is invented.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom import Dataset

__all__ = ["SeriesIdentity", "header_of"]

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_CLASSES = {"CT": "1.2.840.10008.5.1.4.1.1.2", "MR": "1.2.840.10008.5.1.4.1.1.4"}
_PATIENT_AND_STUDY = [
    *("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "PatientAge", "PatientSize"),
    *("PatientWeight", "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence"),
    *("LongitudinalTemporalInformationModified", "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID"),
    *("AccessionNumber", "ReferringPhysicianName", "StudyDescription", "FrameOfReferenceUID"),
    *("PositionReferenceIndicator", "PatientPosition", "BodyPartExamined", "Laterality", "BurnedInAnnotation"),
    *("RecognizableVisualFeatures", "LossyImageCompression", "LossyImageCompressionRatio"),
    "LossyImageCompressionMethod",
]
_ACQUISITION = {
    "CT": {"KVP": "", "AcquisitionNumber": "", "RescaleType": "HU"},
    "MR": {
        "ScanningSequence": "RM",
        "SequenceVariant": "NONE",
        "ScanOptions": "",
        "MRAcquisitionType": "",
        "RepetitionTime": "",
        "EchoTime": "",
        "EchoTrainLength": "",
    },
}
# Copied from the source if present.
_MORE = {
    "MR": ["InversionTime", "FlipAngle", "MagneticFieldStrength"],
    "CT": ["ConvolutionKernel", "GantryDetectorTilt"],
}
# Attributes of type 2, and placeholders for an unknown patient.
_UNKNOWN = {
    "PatientName": "ANONYMOUS^",
    "PatientBirthDate": "",
    "PatientSex": "",
    "StudyDate": "",
    "StudyTime": "",
    "StudyID": "",
    "AccessionNumber": "",
    "ReferringPhysicianName": "",
    "PositionReferenceIndicator": "",
    "PatientPosition": "",
}


@dataclass(frozen=True, slots=True)
class SeriesIdentity:
    """Identifiers of a series to be written; the first three are used only if the source has none."""

    patient_id: str
    study_instance_uid: str
    frame_of_reference_uid: str
    series_instance_uid: str
    modality: str
    description: str


def header_of(identity: SeriesIdentity, source: Path | None, is_colour: bool) -> Dataset:
    """The attributes that all slices of a series share, except geometry and values.

    Args:
        identity: identifiers of the new series.
        source: a DICOM object of the source series, whose patient and study are copied.
        is_colour: True for RGB, which only Secondary Capture can be.
    """
    from pydicom import Dataset

    data = Dataset()
    data.SpecificCharacterSet = "ISO_IR 192"
    kind = identity.modality if identity.modality in _CLASSES and not is_colour else ""
    data.SOPClassUID = _CLASSES.get(kind, _SECONDARY_CAPTURE)
    data.ImageType = ["DERIVED", "SECONDARY", *({"CT": ["AXIAL"], "MR": ["OTHER"]}.get(kind, []))]
    values: dict[str, Any] = {
        **_UNKNOWN,
        "PatientID": identity.patient_id,
        "StudyInstanceUID": identity.study_instance_uid,
        "FrameOfReferenceUID": identity.frame_of_reference_uid,
        **_ACQUISITION.get(kind, {"ConversionType": "WSD", "PatientOrientation": ""}),
    }
    number = 1
    if source is not None:
        inherited = _inherited(
            source, [*_PATIENT_AND_STUDY, *_ACQUISITION.get(kind, {}), *_MORE.get(kind, []), "SeriesNumber"]
        )
        # Far above the numbers that scanners use.
        number = int(inherited.pop("SeriesNumber", None) or 0) + 1000
        # The values of a derived image may differ from its source's.
        inherited.pop("RescaleType", None)
        values.update(inherited)
    for name, value in values.items():
        setattr(data, name, value)
    if not values.get("BodyPartExamined"):
        # The body part may be one of a pair, and its side is unknown.
        data.Laterality = values.get("Laterality", "")
    if "InversionTime" in data and "IR" not in (data.get("ScanningSequence") or ""):
        del data.InversionTime
    data.Modality = identity.modality or "OT"
    data.SeriesInstanceUID, data.SeriesNumber = identity.series_instance_uid, number
    if identity.description:
        data.SeriesDescription = identity.description
    data.Manufacturer = data.ManufacturerModelName = "medseg"
    return data


def _inherited(source: Path, names: list[str]) -> dict[str, Any]:
    import pydicom

    found = pydicom.dcmread(source, stop_before_pixels=True, force=True)
    values = {}
    for name in names:
        if name in found:
            value = found[name].value
            # pydicom's person names keep the character set they were written in.
            values[name] = str(value) if found[name].VR == "PN" else value
    return {name: value for name, value in values.items() if value is not None}
