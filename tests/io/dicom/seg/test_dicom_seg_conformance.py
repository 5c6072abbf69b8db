"""DICOM Segmentations as others see them: what belongs in the object, what viewers need, what checkers say."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from datetime import datetime

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_phantom_multiframe import write_enhanced
from dicom_phantoms import Phantom
from seg_cases import BRATS, MODEL, SCHEME, SHAPE, TURNS, a_label_map, grid_in, volume_on

from medseg.io import read
from medseg.io.dicom.grid import grid_of
from medseg.io.dicom.rtstruct.write import write_rtstruct
from medseg.io.dicom.seg.read import read_dicom_seg
from medseg.io.dicom.seg.write import write_dicom_seg
from medseg.io.dicom.series import find_series


@pytest.fixture
def study(tmp_path):
    """study(**phantom fields) -> SeriesGrid of a series written for the test."""

    return lambda **fields: grid_in(tmp_path / "study", **fields)


def test_the_object_belongs_to_its_patient_study_and_series(study, tmp_path):
    tags = {"PatientName": "山田^太郎", "SpecificCharacterSet": "ISO_IR 192", "StudyDate": "20240229"}
    grid = study(tags={**tags, "StudyTime": "101112.5", "PatientSex": "F", "SeriesNumber": 4, "AccessionNumber": "A1"})
    write_dicom_seg(volume_on(grid, a_label_map()), tmp_path / "seg.dcm", SCHEME, grid, MODEL)
    data, source = pydicom.dcmread(tmp_path / "seg.dcm"), pydicom.dcmread(grid.slices[0].path)
    for keyword in ("PatientName", "PatientID", "PatientSex", "StudyInstanceUID", "StudyDate", "AccessionNumber"):
        assert data[keyword].value == source[keyword].value, keyword
    assert (data.ContentDate, data.ContentTime) == ("20240229", "101112.5")
    # Thousands above the source's number.
    assert data.SeriesNumber > 1000
    assert data.SeriesNumber % 1000 == 4
    assert data.ContentCreatorName == "medseg^"
    assert "InstanceCreationDate" not in data
    assert data.SeriesInstanceUID != source.SeriesInstanceUID
    item = data.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert (item.AlgorithmName, item.AlgorithmVersion) == ("lung net", "1.2")
    assert item.AlgorithmParameters == f"model_hash={MODEL.model_hash},options=tta=yes"
    assert data.SegmentSequence[0].SegmentAlgorithmType == "AUTOMATIC"


def test_objects_of_two_models_on_one_series_have_different_series_numbers(study, tmp_path):
    grid = study(tags={"SeriesNumber": 4})
    numbers = []
    for algorithm in (MODEL, replace(MODEL, model_hash="77"), MODEL):
        for write in (write_dicom_seg, write_rtstruct):
            write(volume_on(grid, a_label_map()), tmp_path / "made.dcm", SCHEME, grid, algorithm)
            numbers.append(int(pydicom.dcmread(tmp_path / "made.dcm").SeriesNumber))
    assert len(set(numbers)) == 4
    assert numbers[:2] == numbers[4:]


def test_an_object_is_dated_as_its_study_or_when_it_was_made_if_that_is_asked_for(study, tmp_path):
    grid = study(tags={"StudyDate": "20240229", "StudyTime": "101112"})
    made = datetime(2026, 11, 30, 16, 5, 9)
    identities = set()
    for algorithm, date, time in ((MODEL, "20240229", "101112"), (replace(MODEL, made=made), "20261130", "160509")):
        write_dicom_seg(volume_on(grid, a_label_map()), tmp_path / "seg.dcm", SCHEME, grid, algorithm)
        write_rtstruct(volume_on(grid, a_label_map()), tmp_path / "rt.dcm", SCHEME, grid, algorithm)
        seg, rt = pydicom.dcmread(tmp_path / "seg.dcm"), pydicom.dcmread(tmp_path / "rt.dcm")
        assert (seg.ContentDate, seg.ContentTime, seg.StudyDate) == (date, time, "20240229")
        assert (rt.StructureSetDate, rt.StructureSetTime, rt.StudyDate) == (date, time, "20240229")
        # Other bytes are another object.
        identities |= {seg.SOPInstanceUID, rt.SOPInstanceUID}
    assert len(identities) == 4


def test_it_keeps_the_conventions_that_viewers_need(study, tmp_path):
    """OHIF finds the series by ReferencedSeriesSequence and frames by source image; Slicer places them by position."""
    grid = study(turn=TURNS["oblique"])
    array = a_label_map()
    write_dicom_seg(volume_on(grid, array), tmp_path / "seg.dcm", SCHEME, grid, MODEL)
    data = pydicom.dcmread(tmp_path / "seg.dcm")
    assert (data.Modality, data.SegmentationType, data.BitsAllocated) == ("SEG", "BINARY", 1)
    assert data.FrameOfReferenceUID == grid.slices[0].frame_of_reference_uid
    (series,) = data.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == grid.slices[0].series_instance_uid
    instances = [i.ReferencedSOPInstanceUID for i in series.ReferencedInstanceSequence]
    assert instances == [s.sop_instance_uid for s in grid.slices]
    shared = data.SharedFunctionalGroupsSequence[0]
    assert [float(v) for v in shared.PixelMeasuresSequence[0].PixelSpacing] == [1.1, 0.8]
    assert float(shared.PixelMeasuresSequence[0].SpacingBetweenSlices) == pytest.approx(2.5)
    source_turn = pydicom.dcmread(grid.slices[0].path).ImageOrientationPatient
    np.testing.assert_allclose(shared.PlaneOrientationSequence[0].ImageOrientationPatient, source_turn, atol=1e-9)
    pointers = [(i.DimensionIndexPointer, i.FunctionalGroupPointer) for i in data.DimensionIndexSequence]
    assert pointers == [(0x0062000B, 0x0062000A), (0x00200032, 0x00209113)]
    by_uid = {s.sop_instance_uid: s for s in grid.slices}
    places = {}
    for item in data.PerFrameFunctionalGroupsSequence:
        (reference,) = item.DerivationImageSequence[0].SourceImageSequence
        header = by_uid[reference.ReferencedSOPInstanceUID]
        assert reference.ReferencedSOPClassUID == header.sop_class_uid
        position = [float(v) for v in item.PlanePositionSequence[0].ImagePositionPatient]
        np.testing.assert_allclose(position, header.position, atol=1e-9)
        segment, place = item.FrameContentSequence[0].DimensionIndexValues
        assert segment == item.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        assert places.setdefault(place, tuple(position)) == tuple(position)
    # One index per position, counted from 1, in order along the normal.
    assert sorted(places) == list(range(1, len(places) + 1))
    normal = np.cross(*TURNS["oblique"][:, :2].T)
    steps = np.diff([np.dot(places[n], normal) for n in sorted(places)])
    assert (steps > 0).all() or (steps < 0).all()


def test_segments_are_coded_named_and_coloured(study, tmp_path):
    grid = study()
    write_dicom_seg(volume_on(grid, a_label_map()), tmp_path / "seg.dcm", SCHEME, grid, MODEL)
    lung, nodule, other = pydicom.dcmread(tmp_path / "seg.dcm").SegmentSequence
    kind = lung.SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodeValue, kind.CodingSchemeDesignator, kind.CodeMeaning) == ("39607008", "SCT", "Lung")
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    assert nodule.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning == "Morphologically Abnormal Structure"
    assert nodule.AnatomicRegionSequence[0].CodeMeaning == "Lung"
    assert other.SegmentLabel == "Ödem"
    assert other.SegmentedPropertyTypeCodeSequence[0].CodeValue == "85756007"
    assert len({tuple(s.RecommendedDisplayCIELabValue) for s in (lung, nodule, other)}) == 3


def test_frames_of_a_multi_frame_source_are_referred_to_by_number(tmp_path):
    phantom = Phantom(shape=SHAPE, turn=TURNS["oblique"])
    write_enhanced(tmp_path / "study" / "enhanced.dcm", phantom)
    grid = grid_of(find_series(tmp_path / "study")[0])
    array = a_label_map()
    write_dicom_seg(volume_on(grid, array), tmp_path / "seg.dcm", SCHEME, grid, MODEL)
    np.testing.assert_array_equal(
        read_dicom_seg(tmp_path / "seg.dcm", like=read(tmp_path / "study")).volume.array, array
    )
    data = pydicom.dcmread(tmp_path / "seg.dcm")
    (instance,) = data.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert instance.ReferencedSOPInstanceUID == grid.slices[0].sop_instance_uid
    position_of = {s.frame + 1: s.position for s in grid.slices}
    for item in data.PerFrameFunctionalGroupsSequence:
        (reference,) = item.DerivationImageSequence[0].SourceImageSequence
        assert reference.ReferencedSOPInstanceUID == grid.slices[0].sop_instance_uid
        position = item.PlanePositionSequence[0].ImagePositionPatient
        np.testing.assert_allclose(position, position_of[reference.ReferencedFrameNumber], atol=1e-6)


STUDY = {"StudyDate": "20240229", "StudyTime": "101112", "StudyID": "S1"}
POOR = {
    "PatientBirthDate": "unknown",
    "PatientSex": "W",
    "PatientAge": "41",
    "StudyDate": "2024.02.29",
    "StudyTime": "10:11",
    "SeriesNumber": None,
    "AccessionNumber": None,
    "ReferringPhysicianName": None,
    "SliceThickness": None,
    "PatientIdentityRemoved": "YES",
    "ClinicalTrialTimePointID": "1",
    "LossyImageCompression": "01",
    "LossyImageCompressionRatio": 8,
    "LossyImageCompressionMethod": "ISO_10918_1",
}


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize(
    "kind", ["plain", "poor source", "regions", "empty", "tilted", "one slice", "multi-frame", "labelmap"]
)
def test_dciodvfy_has_nothing_to_say(study, tmp_path, kind):
    """The conformance checker of David Clunie's dicom3tools; Debian's release does not know Label Map Segmentation."""
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy is not installed (Debian: apt-get install dicom3tools)")
    scheme, array = (BRATS, a_label_map(values=(2, 1, 4))) if kind == "regions" else (SCHEME, a_label_map())
    if kind == "multi-frame":
        file = write_enhanced(tmp_path / "study" / "enhanced.dcm", Phantom(shape=SHAPE))
        data = pydicom.dcmread(file)
        for keyword, value in STUDY.items():
            setattr(data, keyword, value)
        data.save_as(file)
        grid = grid_of(find_series(tmp_path / "study")[0])
    elif kind == "one slice":
        grid, array = study(shape=(9, 7, 1), tags=STUDY), array[:, :, 2:3]
    else:
        grid = study(tilt_deg=15.0 * (kind == "tilted"), tags=POOR if kind == "poor source" else STUDY)
    labels = volume_on(grid, array * (kind != "empty"))
    encoding = "labelmap" if kind == "labelmap" else "binary"
    write_dicom_seg(labels, tmp_path / "seg.dcm", scheme, grid, MODEL, encoding=encoding)
    said = subprocess.run([program, tmp_path / "seg.dcm"], capture_output=True, text=True, check=False)
    messages = [line for line in (said.stdout + said.stderr).splitlines() if line.strip() != "Segmentation"]
    if kind == "labelmap":
        # Number 0 is the background that PS3.3 C.8.20.2 asks label maps to describe.
        known = ("Information Object Not found", "SegmentNumber not monotonically increasing from one by one")
        messages = [m for m in messages if not any(k in m for k in known)]
    if kind == "poor source":
        # What the study is called is not ours to invent.
        messages.remove("Warning - Missing attribute or value that would be needed to build DICOMDIR - Study ID")
    assert messages == []


@pytest.mark.parametrize("encoding", ["binary", "labelmap"])
def test_dcmqi_reads_the_same_masks(study, tmp_path, encoding):
    """The converter that 3D Slicer is built on, a C++ program that shares no code with ours."""
    program = shutil.which("segimage2itkimage")
    if program is None:
        pytest.skip("dcmqi is not installed (pip install dcmqi)")
    grid = study(turn=TURNS["oblique"])
    array = a_label_map()
    write_dicom_seg(volume_on(grid, array), tmp_path / "seg.dcm", SCHEME, grid, MODEL, encoding=encoding)
    command = [program, "--inputDICOM", "seg.dcm", "--outputDirectory", ".", "--prefix", "out", "-t", "nrrd"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    masks = {value: np.zeros(SHAPE, bool) for value in (1, 7, 300)}
    for file in tmp_path.glob("out-*.nrrd"):
        image = sitk.ReadImage(str(file))
        numbers = sitk.GetArrayFromImage(image).T
        # Its volume begins at the first frame, ours at the first slice of the series.
        first = np.linalg.inv(grid.affine) @ [*(np.array(image.GetOrigin()) * (-1, -1, 1)), 1]
        k = round(first[2])
        assert np.abs(first[:3] - (0, 0, k)).max() < 1e-3
        direction = np.array(image.GetDirection()).reshape(3, 3)
        np.testing.assert_allclose(direction, TURNS["oblique"], atol=1e-6)
        for number in np.unique(numbers[numbers > 0]):
            value = {1: 1, 2: 7, 3: 300}[int(number)] if encoding == "binary" else int(number)
            masks[value][:, :, k : k + numbers.shape[2]] |= numbers == number
    for value, mask in masks.items():
        np.testing.assert_array_equal(mask, array == value)
