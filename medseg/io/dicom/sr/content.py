"""The content of a measurement report: DICOM PS3.16 TID 1500, with a group of TID 1411 or TID 1501 for each label.

Codes are those of PS3.16: CID 7472 (volume), CID 7470 (axes), CID 7464 (mean, standard deviation), CID 6147 (RECIST).
Only the request for a review has a private code, as the standard has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from medseg.io.dicom.algorithm import Algorithm, derived_uid
from medseg.io.dicom.coded_terms import ABNORMAL, STRUCTURE, Code, SegmentTerm, term_for
from medseg.io.dicom.labels import MANUFACTURER, plain_text
from medseg.io.dicom.slice import SliceHeader

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["PRIVATE_SCHEME", "Measured", "report_content"]

PRIVATE_SCHEME = "99MEDSEG"
_REVIEW = Code("REVIEW", "Review by a person", PRIVATE_SCHEME)
_NEEDED = Code("NEEDS_REVIEW", "Needs review", PRIVATE_SCHEME)
_PRESENCE = Code("705057003", "Presence")
_ABSENT, _PRESENT = Code("2667000", "Absent"), Code("52101004", "Present")
_BODY = Code("123037004", "Body structure")
_VOLUME = Code("118565006", "Volume")
_LONG, _SHORT = Code("103339001", "Long axis"), Code("103340004", "Short axis")
_MEAN, _SD = Code("373098007", "Mean"), Code("386136009", "Standard Deviation")
_SUM_OF_VOXELS = Code("126030", "Sum of segmented voxel method for volume", "DCM")
_RECIST = Code("126081", "RECIST 1.1", "DCM")
_ATTENUATION = Code("112031", "Attenuation Coefficient", "DCM")
_MR_SIGNAL = Code("110852", "MR signal intensity", "DCM")
_MM3, _MM = Code("mm3", "cubic millimeter", "UCUM"), Code("mm", "millimeter", "UCUM")
_HU, _NO_UNITS = Code("[hnsf'U]", "Hounsfield unit", "UCUM"), Code("1", "no units", "UCUM")
# CID 100, Quantitative Diagnostic Imaging Procedures.
_PROCEDURES = {
    "CT": Code("25045-6", "CT unspecified body region", "LN"),
    "MR": Code("25056-3", "MRI unspecified body region", "LN"),
    "NM": Code("49118-3", "NM unspecified body region", "LN"),
    "PT": Code("44136-0", "PET unspecified body region", "LN"),
    **dict.fromkeys(("CR", "DX", "XA", "RF"), Code("43468-8", "XR unspecified body region", "LN")),
}
_ANY_PROCEDURE = Code("363679005", "Imaging procedure")
_STATEMENT = "research use, not for diagnosis"


class Measured(Protocol):
    """One label as it was measured; None where a value is not defined."""

    @property
    def label(self) -> str: ...
    @property
    def voxels(self) -> int: ...
    @property
    def volume_ml(self) -> float | None: ...
    @property
    def long_axis_mm(self) -> float | None: ...
    @property
    def short_axis_mm(self) -> float | None: ...
    @property
    def mean(self) -> float | None: ...
    @property
    def sd(self) -> float | None: ...
    @property
    def unit(self) -> str: ...


def report_content(
    measured: Sequence[Measured],
    images: Sequence[SliceHeader],
    algorithm: Algorithm,
    instance_uid: str,
    segmentation: Dataset | None,
) -> Any:
    """highdicom's MeasurementReport.

    Args:
        measured: the labels, in the order of the segments.
        images: the slices of the source series.
        algorithm: the model that made the segmentation.
        instance_uid: of the report; UIDs inside are derived from it where no segmentation has them.
        segmentation: the DICOM Segmentation whose segments were measured; None to refer to the images alone.
    """
    from highdicom.sr import (
        DeviceObserverIdentifyingAttributes,
        MeasurementReport,
        ObservationContext,
        ObserverContext,
    )
    from pydicom.sr.codedict import codes

    device = DeviceObserverIdentifyingAttributes(
        uid=derived_uid("device", algorithm.name, algorithm.version, algorithm.model_hash),
        name=plain_text(algorithm.name),
        manufacturer_name=MANUFACTURER,
        model_name=plain_text(algorithm.name),
        serial_number=plain_text(algorithm.model_hash),
    )
    observer = ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)
    return MeasurementReport(
        observation_context=ObservationContext(observer_device_context=observer),
        procedure_reported=_coded(_PROCEDURES.get(images[0].modality, _ANY_PROCEDURE)),
        imaging_measurements=[
            _group(each, n, images, algorithm, instance_uid, segmentation) for n, each in enumerate(measured)
        ],
        title=codes.DCM.ImagingMeasurementReport,
    )


def _group(
    each: Measured,
    n: int,
    images: Sequence[SliceHeader],
    algorithm: Algorithm,
    instance_uid: str,
    segmentation: Dataset | None,
) -> Any:
    """The measurement group of the n-th label."""
    from highdicom import sr

    segment = None if segmentation is None else segmentation.SegmentSequence[n]
    uid = derived_uid("tracking", instance_uid, str(n)) if segment is None else str(segment.TrackingUID)
    term = term_for(each.label)
    shared: dict[str, Any] = {
        "tracking_identifier": sr.TrackingIdentifier(uid=uid, identifier=plain_text(each.label)),
        "finding_category": _coded(term.category),
        "finding_type": _coded(term.type),
        "finding_sites": _sites(term),
        "algorithm_id": sr.AlgorithmIdentification(
            name=plain_text(algorithm.name),
            version=plain_text(algorithm.version),
            parameters=[
                f"model_hash={algorithm.model_hash}",
                *([f"options={algorithm.options}"] if algorithm.options else []),
                _STATEMENT,
            ],
        ),
        "measurements": _measurements(each, images[0].modality),
        "qualitative_evaluations": _evaluations(each, algorithm),
    }
    if segmentation is not None and segment is not None:
        return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            referenced_segment=sr.ReferencedSegment(
                sop_class_uid=segmentation.SOPClassUID,
                sop_instance_uid=segmentation.SOPInstanceUID,
                segment_number=int(segment.SegmentNumber),
                source_series=sr.SourceSeriesForSegmentation(images[0].series_instance_uid),
            ),
            **shared,
        )
    instances = {header.sop_instance_uid: header for header in images}
    return sr.MeasurementsAndQualitativeEvaluations(
        source_images=[
            sr.SourceImageForMeasurementGroup(
                referenced_sop_class_uid=header.sop_class_uid, referenced_sop_instance_uid=header.sop_instance_uid
            )
            for header in instances.values()
        ],
        **shared,
    )


def _sites(term: SegmentTerm) -> list[Any] | None:
    """Where the finding is: the organ of a lesion or vessel, or the structure itself; with its side."""
    from highdicom.sr import FindingSite

    place = term.region or (term.type if term.category == STRUCTURE else None)
    if place is None and term.side is not None:
        # A side cannot stand alone.
        place = _BODY if term.category == ABNORMAL else term.type
    if place is None:
        return None
    return [FindingSite(anatomic_location=_coded(place), laterality=_coded(term.side) if term.side else None)]


def _measurements(each: Measured, modality: str) -> list[Any]:
    """What is defined of volume, axes, mean and standard deviation."""
    grey = (_ATTENUATION, _HU) if each.unit == "HU" else (_MR_SIGNAL, _NO_UNITS) if modality == "MR" else None
    found = []
    if each.volume_ml is not None:
        # Measured to a tenth of a cubic millimetre.
        found.append(_number(_VOLUME, round(1000 * each.volume_ml, 1), _MM3, method=_SUM_OF_VOXELS))
    for name, length in ((_LONG, each.long_axis_mm), (_SHORT, each.short_axis_mm)):
        if length is not None:
            found.append(_number(name, length, _MM, method=_RECIST))
    for derivation, value in ((_MEAN, each.mean), (_SD, each.sd)):
        if value is not None and grey is not None:
            found.append(_number(grey[0], value, grey[1], derivation=derivation))
    return found


def _evaluations(each: Measured, algorithm: Algorithm) -> list[Any]:
    from highdicom.sr import QualitativeEvaluation

    answers = [(_PRESENCE, _PRESENT if each.voxels else _ABSENT)]
    if algorithm.review:
        answers.append((_REVIEW, _NEEDED))
    return [QualitativeEvaluation(name=_coded(name), value=_coded(value)) for name, value in answers]


def _number(name: Code, value: float, unit: Code, **how: Code) -> Any:
    from highdicom.sr import Measurement

    return Measurement(
        name=_coded(name), value=value, unit=_coded(unit), **{key: _coded(code) for key, code in how.items()}
    )


def _coded(code: Code) -> Any:
    from highdicom.sr import CodedConcept

    return CodedConcept(code.value, code.scheme, code.meaning)
