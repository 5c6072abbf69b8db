"""DICOM studies of several series."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

STUDY = "1.2.826.0.1.3680043.8.498.77"
PLANES = {"axial": (1, 0, 0, 0, 1, 0), "coronal": (1, 0, 0, 0, 0, -1), "sagittal": (0, 1, 0, 0, 0, -1)}


def write_series(
    folder: Path,
    number: int,
    slices: int = 12,
    spacing: float = 1.0,
    plane: str = "axial",
    value: int = 0,
    array: NDArray[np.int16] | None = None,
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0),
    **tags: Any,
) -> Path:
    """Write `<folder>/<number>/`: slices 1 mm x 1 mm, of `array` (I, J, K) or of noise about `value`."""
    place = folder / str(number)
    place.mkdir(parents=True, exist_ok=True)
    if array is None:
        array = np.random.default_rng(number).integers(0, 100, (6, 5, slices)).astype(np.int16) + np.int16(value)
    direction = np.array(PLANES[plane], float)
    normal = np.cross(direction[:3], direction[3:])
    for k in range(array.shape[2]):
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = CTImageStorage
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"{STUDY}.{number}.{k + 1}"
        data.StudyInstanceUID, data.SeriesInstanceUID = STUDY, f"{STUDY}.{number}"
        data.FrameOfReferenceUID = f"{STUDY}.99"
        data.PatientID, data.PatientName, data.Modality = "p1", "Doe^Jane", "CT"
        data.SeriesDescription, data.ImageType = f"series {number}", ["ORIGINAL", "PRIMARY", "AXIAL"]
        data.Rows, data.Columns = array.shape[1], array.shape[0]
        data.ImagePositionPatient = [float(v) for v in np.array(origin) + k * spacing * normal]
        data.ImageOrientationPatient = list(PLANES[plane])
        data.PixelSpacing, data.SliceThickness, data.InstanceNumber = [1.0, 1.0], spacing, k + 1
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation = 15, 1
        data.RescaleSlope, data.RescaleIntercept = 1, 0
        data.PixelData = np.ascontiguousarray(array[:, :, k].T).tobytes()
        for name, content in tags.items():
            setattr(data, name, content)
        pydicom.dcmwrite(place / f"{k:03d}", data, enforce_file_format=True)
    return place
