"""A damaged file on which a real decoder raises TypeError is told as that file's fault; a mistake of ours is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels.utils import pixel_array
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

import medseg
from medseg.errors import ReadError
from medseg.faults import is_fault_of_a_file
from medseg.io.dicom import pixels
from medseg.io.dicom.objects import object_kind, read_object
from medseg.io.dicom.seg import read


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    """A colour image whose PhotometricInterpretation has two values, which pydicom's decoder does not foresee."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = "1.2.826.0.1.3680043.8.498.5.1"
    data.StudyInstanceUID, data.SeriesInstanceUID = "1.2.826.0.1.3680043.8.498.5", "1.2.826.0.1.3680043.8.498.6"
    data.PatientID, data.Modality = "p1", "OT"
    data.Rows, data.Columns, data.SamplesPerPixel, data.PlanarConfiguration = 4, 5, 3, 0
    data.PhotometricInterpretation = ["RGB", "RGB"]
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    data.PixelData = np.arange(60, dtype=np.uint8).tobytes()
    pydicom.dcmwrite(tmp_path / "photo.dcm", data, enforce_file_format=True)
    return tmp_path / "photo.dcm"


def test_what_a_real_decoder_trips_over_names_the_file(photograph):
    with pytest.raises(TypeError, match="unhashable"):
        pixel_array(pydicom.dcmread(photograph))
    with pytest.raises(ReadError, match=r"photo\.dcm cannot be decoded \(unhashable"):
        medseg.read(photograph)


def test_a_mistake_of_ours_beside_the_decoder_goes_through(photograph, monkeypatch):
    data = pydicom.dcmread(photograph)
    data.PhotometricInterpretation = "RGB"
    data.save_as(photograph)
    assert medseg.read(photograph).channels == 3

    def planted(*_: object) -> None:
        raise TypeError("planted")

    monkeypatch.setattr(pixels, "_by_pydicom", planted)
    with pytest.raises(TypeError, match="planted") as caught:
        medseg.read(photograph)
    assert not is_fault_of_a_file(caught.value)


def test_a_mistake_of_ours_in_a_reader_of_objects_goes_through(data_folder, monkeypatch):
    path = next(path for path in sorted((data_folder / "dicom_seg").rglob("*.dcm")) if object_kind(path) == "dicom-seg")
    assert read_object(path)[0].array.any()

    def planted(*_: object) -> None:
        raise TypeError("planted")

    monkeypatch.setattr(read, "segments_of", planted)
    with pytest.raises(TypeError, match="planted"):
        read_object(path)
