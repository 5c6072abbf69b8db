"""Synthetic DICOM series, written by pydicom."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

STUDY, FRAME = "1.2.826.0.1.3680043.8.498.1", "1.2.826.0.1.3680043.8.498.2"
SERIES = "1.2.826.0.1.3680043.8.498.3"


def _slice(
    pixels: np.ndarray, position: np.ndarray, row: np.ndarray, column: np.ndarray, tags: dict[str, Any]
) -> Dataset:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = CTImageStorage
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = STUDY, SERIES, FRAME
    data.PatientID, data.PatientName, data.Modality = "p1", "Doe^Jane", "CT"
    data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    data.Rows, data.Columns = pixels.shape
    data.ImagePositionPatient = [f"{v:.6f}" for v in position]
    data.ImageOrientationPatient = [f"{v:.9f}" for v in (*row, *column)]
    data.PixelSpacing = [1.0, 1.0]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, int(pixels.dtype.kind == "i")
    data.RescaleSlope, data.RescaleIntercept = 1, 0
    data.PixelData = np.ascontiguousarray(pixels).tobytes()
    for name, value in tags.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    return data


@pytest.fixture
def write_series() -> Callable[..., list[Path]]:
    """write_series(folder, array (I, J, K), affine (LPS), seed=.., per_slice=f(k) -> tags, **tags) -> files by k.

    File names and InstanceNumbers are shuffled, so that neither reveals the order of the slices.
    """

    def write(
        folder: Path,
        array: np.ndarray,
        affine: np.ndarray,
        per_slice: Callable[[int], dict[str, Any]] = lambda k: {},
        seed: int = 0,
        **tags: Any,
    ) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        row, column = affine[:3, 0] / spacing[0], affine[:3, 1] / spacing[1]
        numbers = np.random.default_rng(seed).permutation(array.shape[2])
        files = []
        for k in range(array.shape[2]):
            position = affine[:3, 3] + k * affine[:3, 2]
            own = {
                "PixelSpacing": [f"{spacing[1]:.9g}", f"{spacing[0]:.9g}"],
                "SliceThickness": f"{spacing[2]:.9g}",
                "InstanceNumber": int(numbers[k]) + 1,
                **tags,
                **per_slice(k),
            }
            path = folder / f"IM{numbers[k]:04d}"
            pydicom.dcmwrite(path, _slice(array[:, :, k].T, position, row, column, own), enforce_file_format=True)
            files.append(path)
        return files

    return write


@pytest.fixture
def small_series(write_series: Callable[..., list[Path]], tmp_path: Path) -> Callable[..., Path]:
    """small_series(name, **as write_series) -> folder of six 5 x 4 slices, 2 mm apart."""

    def write(name: str = "study", slices: int = 6, **options: Any) -> Path:
        array = np.arange(5 * 4 * slices, dtype=np.int16).reshape(5, 4, slices)
        write_series(tmp_path / name, array, np.diag([0.5, 0.75, 2.0, 1.0]), **options)
        return tmp_path / name

    return write
