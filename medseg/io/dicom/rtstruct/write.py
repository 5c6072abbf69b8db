"""A label map as a DICOM RT Structure Set on its source series (DICOM PS3.3 A.19, C.8.8.5 to C.8.8.8), with pydicom.

Contours follow the edges of the voxels, 1/128 of a voxel inside, in the plane of each source slice. Holes are
connected to the outer contour by channels of no width (keyholes, C.8.8.6.3), which plastimatch, rt-utils and
dcmrtstruct2nii fill rightly; holes as separate contours are filled by plastimatch by default, and CLOSEDPLANAR_XOR is
ignored by most.

The transfer syntax is Implicit VR Little Endian: in explicit VR no contour may be longer than 64 KB.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import WriteError
from medseg.io.dicom.algorithm import Algorithm, derived_uid
from medseg.io.dicom.grid import SeriesGrid
from medseg.io.dicom.labels import COLOURS, MANUFACTURER, check_grid, check_labels, plain_text, value_text
from medseg.io.dicom.rtstruct.keyhole import trace_with_keyholes
from medseg.io.dicom.rtstruct.slice_planes import SlicePlanes, planes_of_grid
from medseg.io.dicom.seg.source import copy_patient_and_study, read_source_header, series_number, with_references
from medseg.io.dicom.slice import SliceHeader
from medseg.io.dicom.writing.saving import save_object
from medseg.labels import LabelScheme
from medseg.volume import Finding, Volume

if TYPE_CHECKING:
    from pydicom import Dataset

    from medseg.io.dicom.deidentify.profile import Deidentifier

__all__ = ["structure_set_of", "write_rtstruct"]

_STORAGE = "1.2.840.10008.5.1.4.1.1.481.3"
# The retired Detached Study Management: every program writes it, and the standard requires some class.
_STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"
_TOLERANCE_MM = 1e-2
_DECIMALS = 5
# With 5 decimals and a sign these still fit into the 16 characters of a decimal string.
_FARTHEST_MM = 1e7


@dataclass(frozen=True, slots=True)
class _Contour:
    """One contour on slice k: its number of points and its coordinates as text."""

    k: int
    points: int
    data: bytes


def write_rtstruct(
    label_map: Volume,
    path: Path,
    scheme: LabelScheme,
    source: SeriesGrid,
    algorithm: Algorithm,
    *,
    deidentifier: Deidentifier | None = None,
) -> tuple[Finding, ...]:
    """Write a label map as an RT Structure Set that refers to its source series.

    One ROI per label or region, in the order of the scheme; regions overlap. ROINumber is the label value, so that
    `read_rtstruct` restores the same integers. A label that does not occur becomes an ROI without contours whose
    description says 'segmented, none found'. The same inputs give the same bytes.

    Args:
        label_map: integers `(I, J, K)`, or `(I, J)` for a single slice, on the grid of `source`.
        path: the file to write; it appears complete or not at all.
        scheme: names and values of the labels.
        source: the series; its first file must still exist.
        algorithm: the model that made the label map.
        deidentifier: removes the patient's identity before anything is written.

    Returns:
        Findings about what the deidentifier could not remove; () without one.

    Raises:
        GeometryError: if the label map is not on the grid of the source.
        DatasetError: if it has a value that the scheme does not name.
        ReadError: if the first file of the source is missing or damaged.
        WriteError: if the disk is full, permission is missing, the values are not integers, or the source has no UIDs
            or no position in the patient.

    Example:
        >>> from medseg.io.dicom.grid import grid_of
        >>> from medseg.io.dicom.series import find_series
        >>> series = grid_of(find_series(Path("study/"))[0])
        >>> mask, scheme = medseg.read("masks/study.nii.gz"), LabelScheme.from_mapping({"lung": 1, "tumour": 2})
        >>> write_rtstruct(mask, Path("lung.dcm"), scheme, series, Algorithm("lung", "1.0", "9f2c"))
        ()
    """
    return save_object(structure_set_of(label_map, path, scheme, source, algorithm), Path(path), deidentifier)


def structure_set_of(
    label_map: Volume, path: Path, scheme: LabelScheme, source: SeriesGrid, algorithm: Algorithm
) -> Dataset:
    """The RT Structure Set of `write_rtstruct` in memory, with the patient's identity.

    Args:
        label_map, scheme, source, algorithm: see `write_rtstruct`.
        path: the file that it is for, named in errors.

    Raises:
        GeometryError, DatasetError, ReadError, WriteError: as `write_rtstruct`, but nothing about the disk.
    """
    path = Path(path)
    scheme = scheme.written
    source = with_references(source, path)
    _check_placed(source, path)
    check_grid(label_map, source, path)
    regions = _contours(label_map, scheme, planes_of_grid(source), path)
    header = read_source_header(source)
    import pydicom.config

    # Headers of the source may break value rules that do not affect our object.
    with pydicom.config.disable_value_validation():
        return _structure_set(regions, scheme, source, algorithm, header)


def _check_placed(source: SeriesGrid, path: Path) -> None:
    for header in source.slices:
        if not (header.position and header.orientation and source.spacing_known):
            raise WriteError(
                f"cannot write {path}: {header.path} has no position, orientation or pixel spacing, and contours are "
                "given in millimetres of the patient; write DICOM SEG or .nii.gz instead"
            )


def _contours(label_map: Volume, scheme: LabelScheme, planes: SlicePlanes, path: Path) -> list[list[_Contour]]:
    """The contours of each label, slice by slice."""
    array = label_map.array[..., None] if label_map.dims == 2 else label_map.array
    if array.dtype.kind not in "iub":
        raise WriteError(f"cannot write {path}: contours need integer labels, found {array.dtype}")
    regions: list[list[_Contour]] = [[] for _ in scheme.names]
    for k in range(array.shape[2]):
        # Transposed, because slices of a series are contiguous that way.
        rows = array[:, :, k].T
        low, high = int(rows.min()), int(rows.max())
        if low == high == 0:
            continue
        # Counting is fast but takes memory up to the largest value, which may be anything.
        found = np.flatnonzero(np.bincount(rows.ravel())) if low >= 0 and high < 1 << 16 else np.unique(rows)
        values = [int(v) for v in found]
        check_labels(values, scheme, path)
        for region, each in zip(regions, scheme.values, strict=True):
            here = [v for v in each if v in values]
            if here:
                mask = rows == here[0] if len(here) == 1 else np.isin(rows, here)
                region += [_contour(k, ring[:, ::-1], planes, path) for ring in trace_with_keyholes(mask)]
    return regions


def _contour(k: int, ring: NDArray[np.float64], planes: SlicePlanes, path: Path) -> _Contour:
    # Adding 0 turns -0 into 0.
    points = np.round(planes.to_patient(k, ring), _DECIMALS) + 0.0
    if not np.abs(points).max() < _FARTHEST_MM:
        raise WriteError(f"cannot write {path}: slice {k} is more than {_FARTHEST_MM:g} mm from the origin")
    text = "\\".join(["%.12g"] * points.size) % tuple(points.ravel().tolist())
    return _Contour(k, len(points), text.encode("ascii"))


def _structure_set(
    regions: list[list[_Contour]], scheme: LabelScheme, source: SeriesGrid, algorithm: Algorithm, header: Any
) -> Dataset:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ImplicitVRLittleEndian

    first = source.slices[0]
    frame = first.frame_of_reference_uid or derived_uid("frame", first.series_instance_uid)
    seeds = _seeds(regions, scheme, source, algorithm)
    target = Dataset()
    target.file_meta = FileMetaDataset()
    target.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    target.SOPClassUID = _STORAGE
    target.SOPInstanceUID = derived_uid("instance", *seeds)
    copy_patient_and_study(header, target, algorithm.made)
    target.StructureSetDate, target.StructureSetTime = target.ContentDate, target.ContentTime
    del target.ContentDate, target.ContentTime
    target.StudyInstanceUID = first.study_instance_uid
    target.Modality = "RTSTRUCT"
    target.SeriesInstanceUID = derived_uid("series", *seeds)
    target.SeriesNumber = series_number(header, str(target.SeriesInstanceUID))
    target.SeriesDescription = plain_text(algorithm.description)
    target.OperatorsName = ""
    target.FrameOfReferenceUID = frame
    target.PositionReferenceIndicator = header.get("PositionReferenceIndicator") or ""
    target.Manufacturer = MANUFACTURER
    target.ManufacturerModelName = plain_text(algorithm.name)
    target.DeviceSerialNumber = plain_text(algorithm.model_hash)
    target.SoftwareVersions = plain_text(algorithm.version)
    target.InstanceNumber = 1
    target.StructureSetLabel = plain_text(algorithm.name)[:16].strip()
    target.StructureSetName = plain_text(algorithm.name)
    # A map without a model is of unknown origin, and may be drawn by hand.
    kind, model = (
        ("automatic segmentation", f", model {algorithm.model_hash}") if algorithm.model_hash else ("labels", "")
    )
    options = f", options {algorithm.options}" if algorithm.options else ""
    found = "" if any(regions) else "segmented, none found; "
    found = f"NEEDS REVIEW: {found}" if algorithm.review else found
    description = f"{found}{kind} by {algorithm.name} {algorithm.version}{model}{options}"
    target.StructureSetDescription = re.sub(r"[\x00-\x1f\x7f]+", " ", description).strip()[:1024].strip()
    target.ReferencedFrameOfReferenceSequence = [_references(source, frame)]
    target.StructureSetROISequence = []
    target.ROIContourSequence = []
    target.RTROIObservationsSequence = []
    for n, (name, contours) in enumerate(zip(scheme.names, regions, strict=True)):
        roi = Dataset()
        roi.ROINumber = scheme.painted[n]
        roi.ReferencedFrameOfReferenceUID = frame
        roi.ROIName = plain_text(name)
        roi.ROIDescription = value_text(scheme, n, bool(contours))
        roi.ROIGenerationAlgorithm = "AUTOMATIC" if algorithm.model_hash else ""
        roi.ROIGenerationDescription = plain_text(f"{algorithm.name} {algorithm.version}")
        target.StructureSetROISequence.append(roi)
        target.ROIContourSequence.append(_roi_contours(scheme.painted[n], COLOURS[n % len(COLOURS)], contours, source))
        observation = Dataset()
        observation.ObservationNumber = n + 1
        observation.ReferencedROINumber = scheme.painted[n]
        # The clinical role of a region is not known.
        observation.RTROIInterpretedType = ""
        observation.ROIInterpreter = ""
        target.RTROIObservationsSequence.append(observation)
    target.ApprovalStatus = "UNAPPROVED"
    return target


def _seeds(
    regions: list[list[_Contour]], scheme: LabelScheme, source: SeriesGrid, algorithm: Algorithm
) -> tuple[str, ...]:
    """The texts to derive UIDs from: structure sets that differ in any of them are different objects."""
    content = hashlib.sha256()
    for contours in regions:
        content.update(f"{len(contours)};".encode())
        for each in contours:
            content.update(f"{each.k} {len(each.data)};".encode())
            content.update(each.data)
    return (
        "RTSTRUCT",
        *(f"{s.sop_instance_uid} {s.frame}" for s in source.slices),
        *algorithm.identity,
        *(repr((scheme.names, scheme.values)), content.hexdigest()),
    )


def _references(source: SeriesGrid, frame: str) -> Any:
    """The frame of reference with its study, series and instances."""
    from pydicom.dataset import Dataset

    first = source.slices[0]
    series = Dataset()
    series.SeriesInstanceUID = first.series_instance_uid
    instances = {s.sop_instance_uid: s for s in source.slices}
    series.ContourImageSequence = [_image(s) for s in instances.values()]
    study = Dataset()
    study.ReferencedSOPClassUID = _STUDY_CLASS
    study.ReferencedSOPInstanceUID = first.study_instance_uid
    study.RTReferencedSeriesSequence = [series]
    reference = Dataset()
    reference.FrameOfReferenceUID = frame
    reference.RTReferencedStudySequence = [study]
    return reference


def _image(header: SliceHeader) -> Any:
    from pydicom.dataset import Dataset

    item = Dataset()
    item.ReferencedSOPClassUID = header.sop_class_uid
    item.ReferencedSOPInstanceUID = header.sop_instance_uid
    return item


def _roi_contours(number: int, colour: Sequence[int], contours: Sequence[_Contour], source: SeriesGrid) -> Any:
    from pydicom.dataelem import RawDataElement
    from pydicom.dataset import Dataset
    from pydicom.tag import Tag

    item = Dataset()
    item.ReferencedROINumber = number
    item.ROIDisplayColor = list(colour)
    if not contours:
        return item
    # Encoded here, because pydicom takes microseconds per number and contours have millions.
    items = []
    for number, each in enumerate(contours, start=1):
        # Interpolated planes have no image of their own; the series as a whole is referenced above.
        image = b"" if source.places else _element(0x3006, 0x0016, _item(_image_reference(source.slices[each.k])))
        items.append(
            _item(
                image
                + _element(0x3006, 0x0042, b"CLOSED_PLANAR")
                + _element(0x3006, 0x0046, b"%d" % each.points)
                + _element(0x3006, 0x0048, b"%d" % number)
                + _element(0x3006, 0x0050, each.data)
            )
        )
    tag, value = Tag("ContourSequence"), b"".join(items)
    # Without a VR, as pydicom reads elements from files in implicit VR.
    item[tag] = RawDataElement(tag, None, len(value), value, 0, True, True)
    return item


def _image_reference(header: SliceHeader) -> bytes:
    frame = _element(0x0008, 0x1160, b"%d" % (header.frame + 1)) if header.frames > 1 else b""
    return (
        _element(0x0008, 0x1150, header.sop_class_uid.encode("ascii"), b"\0")
        + _element(0x0008, 0x1155, header.sop_instance_uid.encode("ascii"), b"\0")
        + frame
    )


def _element(group: int, element: int, value: bytes, padding: bytes = b" ") -> bytes:
    """A data element in Implicit VR Little Endian (DICOM PS3.5 7.1.3), padded to even length."""
    if len(value) % 2:
        value += padding
    return struct.pack("<HHL", group, element, len(value)) + value


def _item(value: bytes) -> bytes:
    return struct.pack("<HHL", 0xFFFE, 0xE000, len(value)) + value
