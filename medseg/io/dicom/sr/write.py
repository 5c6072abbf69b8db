"""Measurements of labels as a DICOM Comprehensive SR (PS3.3 A.35.3, PS3.16 TID 1500), with highdicom.

The same inputs give the same bytes: UIDs are derived from the source instances, the model, the measurements and the
segmentation, and dates are the study's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.io.dicom.algorithm import Algorithm, derived_uid
from medseg.io.dicom.grid import SeriesGrid
from medseg.io.dicom.labels import MANUFACTURER, plain_text
from medseg.io.dicom.seg.source import copy_patient_and_study, read_source_header, series_number, with_references
from medseg.io.dicom.sr.content import Measured, report_content
from medseg.io.dicom.writing.saving import save_object
from medseg.volume import Finding

if TYPE_CHECKING:
    from pydicom import Dataset

    from medseg.io.dicom.deidentify.profile import Deidentifier

__all__ = ["OWN_TEXTS", "measurement_report_of", "write_measurement_report"]

OWN_TEXTS = ("ContentSequence", "SeriesDescription")
"""What the deidentifier may keep of a report, because no text in it comes from the patient's images."""


def write_measurement_report(
    measured: Sequence[Measured],
    path: Path,
    source: SeriesGrid,
    algorithm: Algorithm,
    *,
    segmentation: Dataset | None = None,
    deidentifier: Deidentifier | None = None,
) -> tuple[Finding, ...]:
    """Write measurements of labels as a Structured Report that other programs can calculate with.

    One measurement group per label, also for those that do not occur: volume in mm3, long and short axis in mm
    (RECIST 1.1), mean and standard deviation in Hounsfield units (CT) or of the MR signal, what was found and on which
    side, and whether a person should check it. The report is preliminary and unverified.

    Args:
        measured: one per label; with a segmentation in the order of its segments.
        path: the file to write; it appears complete or not at all.
        source: the measured series; its first file must still exist.
        algorithm: the model that made the masks.
        segmentation: the DICOM Segmentation whose segments were measured, from `segmentation_of`; the report refers to
            them and repeats their tracking UIDs. None to refer to the images alone.
        deidentifier: removes the patient's identity before anything is written.

    Returns:
        Findings about what the deidentifier could not remove; () without one.

    Raises:
        ReadError: if the first file of the source is missing or damaged.
        WriteError: if the disk is full, permission is missing, or the source has no UIDs.

    Example:
        >>> from medseg.io.dicom.grid import grid_of
        >>> from medseg.io.dicom.series import find_series
        >>> from medseg.labels import LabelScheme
        >>> from medseg.studies.measurements import measure
        >>> series, image = grid_of(find_series(Path("study/"))[0]), medseg.read("study/")
        >>> mask, scheme = medseg.read("masks/study.nii.gz"), LabelScheme.from_mapping({"lung": 1, "tumour": 2})
        >>> model = Algorithm("lung", "1.0", "9f2c")
        >>> write_measurement_report(measure(mask, scheme, image), Path("lung.sr.dcm"), series, model)
        ()
    """
    target = measurement_report_of(measured, path, source, algorithm, segmentation)
    return save_object(target, Path(path), deidentifier, OWN_TEXTS)


def measurement_report_of(
    measured: Sequence[Measured],
    path: Path,
    source: SeriesGrid,
    algorithm: Algorithm,
    segmentation: Dataset | None = None,
) -> Dataset:
    """The report of `write_measurement_report` in memory, with the patient's identity.

    Args:
        measured, source, algorithm, segmentation: see `write_measurement_report`.
        path: the file that it is for, named in errors.

    Raises:
        ReadError, WriteError: as `write_measurement_report`, but nothing about the disk.
    """
    from highdicom.sr import ComprehensiveSR
    from pydicom.config import disable_value_validation

    source = with_references(source, Path(path))
    instance = derived_uid("instance", *_seeds(measured, source, algorithm, segmentation))
    # Headers of the source may break value rules that do not affect our object.
    with disable_value_validation():
        header = read_source_header(source)
        target = ComprehensiveSR(
            evidence=_evidence(source, segmentation),
            content=report_content(measured, source.slices, algorithm, instance, segmentation),
            series_instance_uid=derived_uid("series", instance),
            series_number=series_number(header, derived_uid("series", instance)),
            sop_instance_uid=instance,
            instance_number=1,
            manufacturer=MANUFACTURER,
            is_complete=True,
            is_final=False,
            is_verified=False,
        )
        copy_patient_and_study(header, target, algorithm.made)
        target.SeriesDescription = plain_text(algorithm.describes("measurements"))
        target.ManufacturerModelName = plain_text(algorithm.name)
        target.DeviceSerialNumber = plain_text(algorithm.model_hash)
        target.SoftwareVersions = plain_text(algorithm.version)
        for keyword in ("InstanceCreationDate", "InstanceCreationTime", "ContributingEquipmentSequence"):
            if keyword in target:
                delattr(target, keyword)
    return target


def _seeds(
    measured: Sequence[Measured], source: SeriesGrid, algorithm: Algorithm, segmentation: Dataset | None
) -> tuple[str, ...]:
    """The texts to derive UIDs from: reports that differ in any of them are different objects."""
    return (
        "SR",
        *(f"{s.sop_instance_uid} {s.frame}" for s in source.slices),
        *algorithm.identity,
        "" if segmentation is None else str(segmentation.SOPInstanceUID),
        *(
            repr((m.label, m.voxels, m.volume_ml, m.long_axis_mm, m.short_axis_mm, m.mean, m.sd, m.unit))
            for m in measured
        ),
    )


def _evidence(source: SeriesGrid, segmentation: Dataset | None) -> list[Any]:
    """Stand-ins of the images and the segmentation, with the attributes that highdicom reads."""
    from pydicom import Dataset

    found = [(s.sop_class_uid, s.sop_instance_uid, s.series_instance_uid) for s in source.slices]
    if segmentation is not None:
        found.append((segmentation.SOPClassUID, segmentation.SOPInstanceUID, segmentation.SeriesInstanceUID))
    evidence = []
    for sop_class, instance, series in dict.fromkeys(found):
        item = Dataset()
        item.SOPClassUID, item.SOPInstanceUID, item.SeriesInstanceUID = sop_class, instance, series
        item.StudyInstanceUID = source.slices[0].study_instance_uid
        item.PatientID = item.PatientName = item.PatientBirthDate = item.PatientSex = ""
        item.StudyID = item.StudyDate = item.StudyTime = item.AccessionNumber = ""
        evidence.append(item)
    return evidence
