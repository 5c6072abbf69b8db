"""A mask that asks for a look says so in its DICOM object."""

from __future__ import annotations

from dataclasses import replace

import pydicom
from seg_cases import MODEL, SCHEME, a_label_map, grid_in, volume_on

from medseg.io.dicom.rtstruct.write import write_rtstruct
from medseg.io.dicom.seg.write import write_dicom_seg


def test_a_segmentation_that_needs_review_says_so_and_is_another_object(tmp_path):
    grid = grid_in(tmp_path / "study")
    labels = volume_on(grid, a_label_map())
    write_dicom_seg(labels, tmp_path / "fine.dcm", SCHEME, grid, MODEL)
    write_dicom_seg(labels, tmp_path / "doubtful.dcm", SCHEME, grid, replace(MODEL, review=True))
    fine, doubtful = (pydicom.dcmread(tmp_path / name) for name in ("fine.dcm", "doubtful.dcm"))
    assert fine.SeriesDescription == "Segmentation by lung net"
    assert doubtful.SeriesDescription == doubtful.ContentDescription == "NEEDS REVIEW: segmentation by lung net"
    identification = doubtful.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert "review" in str(identification.AlgorithmParameters)
    assert fine.SOPInstanceUID != doubtful.SOPInstanceUID


def test_a_structure_set_that_needs_review_says_so(tmp_path):
    grid = grid_in(tmp_path / "study")
    write_rtstruct(volume_on(grid, a_label_map()), tmp_path / "rt.dcm", SCHEME, grid, replace(MODEL, review=True))
    data = pydicom.dcmread(tmp_path / "rt.dcm")
    assert data.SeriesDescription == "NEEDS REVIEW: segmentation by lung net"
    assert data.StructureSetDescription.startswith("NEEDS REVIEW: ")
