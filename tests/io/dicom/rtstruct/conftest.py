"""A series, and a structure set written on it."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from seg_cases import FRAME, MODEL, SCHEME, grid_in, volume_on

from medseg.io.dicom.rtstruct.write import write_rtstruct


@pytest.fixture
def study(tmp_path):
    """study(**phantom fields) -> SeriesGrid of a series written for the test."""
    return lambda **fields: grid_in(tmp_path / "study", **fields)


@pytest.fixture
def written(tmp_path, study):
    """written(array, scheme, **phantom fields) -> (file, grid)."""

    def write(array, scheme=SCHEME, name="rt.dcm", algorithm=MODEL, **fields):
        grid = study(**{"shape": array.shape, **fields})
        write_rtstruct(volume_on(grid, array), tmp_path / name, scheme, grid, algorithm)
        return tmp_path / name, grid

    return write


@pytest.fixture
def drawn(tmp_path):
    """drawn({name: [points or (type, points)]}, **elements) -> file, as another program writes it.

    `frames` gives ROIs another frame of reference, `counts` another number of points than they have.
    """

    def write(rois, frames=(), counts=(), **elements):
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.481.3", "1.2.3.4"
        data.Modality, data.Manufacturer, data.StructureSetLabel = "RTSTRUCT", "Somebody Else", "plan"
        data.StructureSetROISequence, data.ROIContourSequence = [], []
        for number, (name, contours) in enumerate(rois.items(), start=11):
            roi, item = Dataset(), Dataset()
            roi.ROINumber = item.ReferencedROINumber = number
            roi.ROIName, roi.ReferencedFrameOfReferenceUID = name, dict(frames).get(name, FRAME)
            item.ContourSequence = []
            for each in contours:
                kind, points = each if isinstance(each[0], str) else ("CLOSED_PLANAR", each)
                contour = Dataset()
                contour.ContourGeometricType = kind
                contour.NumberOfContourPoints = dict(counts).get(name, len(points))
                contour.ContourData = [f"{v:.4f}" for point in points for v in point]
                item.ContourSequence.append(contour)
            data.StructureSetROISequence.append(roi)
            data.ROIContourSequence.insert(0, item)
        for keyword, value in elements.items():
            setattr(data, keyword, value)
        data.save_as(tmp_path / "rt.dcm", enforce_file_format=True)
        return tmp_path / "rt.dcm"

    return write
