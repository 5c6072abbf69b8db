"""A picture of a result as a Secondary Capture Image (DICOM PS3.3 A.8.1), which every viewer shows."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import WriteError
from medseg.io.dicom.algorithm import Algorithm, derived_uid
from medseg.io.dicom.grid import SeriesGrid
from medseg.io.dicom.labels import MANUFACTURER, plain_text
from medseg.io.dicom.seg.source import copy_patient_and_study, read_source_header, series_number, with_references
from medseg.io.dicom.writing.saving import save_object
from medseg.volume import Finding

if TYPE_CHECKING:
    from pydicom import Dataset

    from medseg.io.dicom.deidentify.profile import Deidentifier

__all__ = ["OWN_TEXTS", "capture_of", "write_capture"]

OWN_TEXTS = ("SeriesDescription",)
"""What the deidentifier may keep of a capture, because it does not come from the patient's images."""

_STORAGE = "1.2.840.10008.5.1.4.1.1.7"
_LARGEST_SIDE = 65535


def write_capture(
    pixels: NDArray[np.uint8],
    path: Path,
    source: SeriesGrid,
    algorithm: Algorithm,
    deidentifier: Deidentifier | None = None,
) -> tuple[Finding, ...]:
    """Write a picture of a result into the study of its series; the same inputs give the same bytes.

    Args:
        pixels: `(rows, columns, 3)`, RGB. It must not show who the patient is.
        path: the file to write; it appears complete or not at all.
        source: the series; its first file must still exist.
        algorithm: the model that made the result.
        deidentifier: removes the patient's identity before anything is written.

    Returns:
        Findings about what the deidentifier could not remove; () without one.

    Raises:
        ReadError: if the first file of the source is missing or damaged.
        WriteError: if the disk is full, permission is missing, the picture is not RGB, or the source has no UIDs.

    Example:
        >>> from medseg.io.dicom.grid import grid_of
        >>> from medseg.io.dicom.series import find_series
        >>> series = grid_of(find_series(Path("study/"))[0])
        >>> write_capture(np.zeros((64, 64, 3), np.uint8), Path("x.capture.dcm"), series, Algorithm("lung", "1.0", ""))
        ()
    """
    return save_object(capture_of(pixels, path, source, algorithm), Path(path), deidentifier, OWN_TEXTS)


def capture_of(pixels: NDArray[np.uint8], path: Path, source: SeriesGrid, algorithm: Algorithm) -> Dataset:
    """The capture of `write_capture` in memory, with the patient's identity.

    Args:
        pixels, source, algorithm: see `write_capture`.
        path: the file that it is for, named in errors.

    Raises:
        ReadError, WriteError: as `write_capture`, but nothing about the disk.
    """
    from pydicom.config import disable_value_validation
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or max(pixels.shape) > _LARGEST_SIDE:
        raise WriteError(f"cannot write {path}: a capture is RGB in bytes, found {pixels.dtype} of {pixels.shape}")
    source = with_references(source, Path(path))
    seeds = _seeds(pixels, source, algorithm)
    first = source.slices[0]
    target = Dataset()
    target.file_meta = FileMetaDataset()
    target.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    # Headers of the source may break value rules that do not affect our object.
    with disable_value_validation():
        header = read_source_header(source)
        copy_patient_and_study(header, target, algorithm.made)
        target.SOPClassUID, target.SOPInstanceUID = _STORAGE, derived_uid("instance", *seeds)
        target.StudyInstanceUID = first.study_instance_uid
        target.SeriesInstanceUID = derived_uid("series", *seeds)
        target.SeriesNumber = series_number(header, str(target.SeriesInstanceUID))
        target.SeriesDescription = plain_text(algorithm.describes("contours"))
        target.InstanceNumber = 1
        target.Modality = "OT"
        # Workstation, as opposed to a scanned film.
        target.ConversionType = "WSD"
        target.ImageType = ["DERIVED", "SECONDARY"]
        target.PatientOrientation = target.Laterality = ""
        target.Manufacturer = target.SecondaryCaptureDeviceManufacturer = MANUFACTURER
        target.ManufacturerModelName = plain_text(algorithm.name)
        target.DeviceSerialNumber = plain_text(algorithm.model_hash)
        target.SoftwareVersions = plain_text(algorithm.version)
        # What is burned in identifies nobody, unless the images do (C.7.6.1.1.4).
        target.BurnedInAnnotation = "YES" if header.get("BurnedInAnnotation") == "YES" else "NO"
        if header.get("LossyImageCompression") == "01":
            target.LossyImageCompression = "01"
        target.SourceImageSequence = _sources(source)
        _put_pixels(target, pixels)
    return target


def _seeds(pixels: NDArray[np.uint8], source: SeriesGrid, algorithm: Algorithm) -> tuple[str, ...]:
    """The texts to derive UIDs from: captures that differ in any of them are different objects."""
    content = hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()
    slices = (f"{s.sop_instance_uid} {s.frame}" for s in source.slices)
    return ("SC", *slices, *algorithm.identity, repr(pixels.shape), content)


def _sources(source: SeriesGrid) -> Any:
    from pydicom.dataset import Dataset

    items = []
    for sop_class, instance in dict.fromkeys((s.sop_class_uid, s.sop_instance_uid) for s in source.slices):
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, instance
        items.append(item)
    return items


def _put_pixels(target: Dataset, pixels: NDArray[np.uint8]) -> None:
    target.SamplesPerPixel, target.PhotometricInterpretation, target.PlanarConfiguration = 3, "RGB", 0
    target.Rows, target.Columns = pixels.shape[:2]
    target.BitsAllocated, target.BitsStored, target.HighBit, target.PixelRepresentation = 8, 8, 7, 0
    content = np.ascontiguousarray(pixels).tobytes()
    target.PixelData = content + b"\0" * (len(content) % 2)
