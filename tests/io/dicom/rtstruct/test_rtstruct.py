"""Label maps as RT Structure Sets: written on their series, read back bit for bit, and filled by programs not ours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pydicom
import pytest
from dicom_phantom_multiframe import write_enhanced
from dicom_phantoms import Phantom, write_study
from matplotlib.path import Path as Polygon
from seg_cases import BRATS, MODEL, ROTATIONS, SCHEME, SHAPE, TURNS, a_label_map, volume_on

from medseg.errors import DatasetError, GeometryError, WriteError
from medseg.geometry import flip_lps_ras
from medseg.io import read
from medseg.io.dicom.algorithm import Algorithm
from medseg.io.dicom.grid import grid_of
from medseg.io.dicom.rtstruct.read import read_rtstruct, referenced_series
from medseg.io.dicom.rtstruct.write import write_rtstruct
from medseg.io.dicom.series import find_series
from medseg.labels import LabelScheme
from medseg.volume import Volume

STUDY = {"StudyDate": "20240229", "StudyTime": "101112", "StudyID": "S1"}


def contours_of(data, number):
    """ROINumber -> contours as (n, 3) arrays, by pydicom alone."""
    (item,) = [i for i in data.ROIContourSequence if i.ReferencedROINumber == number]
    return [np.array(c.ContourData, float).reshape(-1, 3) for c in item.get("ContourSequence", ())]


def filled_by_matplotlib(contours, affine_lps, shape):
    """Which voxel centres lie inside an odd number of contours on their slice, by matplotlib's point in polygon."""
    mask = np.zeros(shape, bool)
    centres = np.argwhere(np.ones(shape[:2]))
    for points in contours:
        index = (np.linalg.inv(affine_lps) @ np.c_[points, np.ones(len(points))].T).T
        assert np.ptp(index[:, 2]) < 1e-3
        k = round(index[0, 2])
        assert abs(index[0, 2] - k) < 1e-3
        mask[:, :, k] ^= Polygon(index[:, :2]).contains_points(centres).reshape(shape[:2])
    return mask


@pytest.mark.parametrize("turn", TURNS)
def test_a_label_map_comes_back_bit_for_bit_in_every_orientation(written, tmp_path, turn):
    array = a_label_map()
    path, grid = written(array, turn=TURNS[turn])
    source = read(tmp_path / "study")
    for like in (grid, source):
        labels, values = read_rtstruct(path, like)
        np.testing.assert_array_equal(labels.array, array)
        assert labels.findings == ()
        assert labels.same_geometry(source)
        assert values == {"left_lung": 1, "lung nodule": 7, "Ödem": 300}
    assert referenced_series(path) == (source.metadata.series_instance_uid,)
    # A reader that is not ours, by the place of each voxel's centre in the patient.
    data = pydicom.dcmread(path)
    for value in (1, 7, 300):
        found = filled_by_matplotlib(contours_of(data, value), flip_lps_ras(grid.affine), SHAPE)
        np.testing.assert_array_equal(found, array == value)


def test_there_are_24_rotations():
    assert len({tuple(r.ravel().round()) for r in ROTATIONS}) == 24


def test_a_hole_is_part_of_its_contour_and_an_island_in_it_a_contour_of_its_own(written):
    array = np.zeros((9, 7, 3), np.uint8)
    array[1:6, 1:6, 1] = 1
    array[2:5, 2:5, 1] = 0
    array[3, 3, 1] = 1
    path, grid = written(array)
    contours = contours_of(pydicom.dcmread(path), 1)
    # 0.8 x 1.1 mm voxels: outer 5 x 5 with its hole, island 1 x 1; first voxel centre at (-3, 4, -7.5). Contours run
    # 1/128 voxel inside the edges.
    sizes = sorted((np.ptp(c, axis=0) / (0.8, 1.1, 1.0) + (1 / 64, 1 / 64, 0.0) for c in contours), key=max)
    np.testing.assert_allclose(sizes, [(1, 1, 0), (5, 5, 0)], atol=2e-5)
    island = min(contours, key=lambda c: np.ptp(c[:, 0]))
    np.testing.assert_allclose(island.mean(axis=0), [-3 + 3 * 0.8, 4 + 3 * 1.1, -7.5 + 2.5], atol=1e-6)
    np.testing.assert_array_equal(read_rtstruct(path, grid)[0].array, array)


@pytest.mark.parametrize("position", ["HFS", "FFS", "HFP"])
def test_contours_lie_where_the_voxels_lie_whatever_the_patient_position_says(written, position):
    turn = {"HFS": np.eye(3), "FFS": np.diag([-1.0, 1, -1]), "HFP": np.diag([-1.0, -1, 1])}[position]
    array = a_label_map()
    path, grid = written(array, turn=turn, tags={"PatientPosition": position})
    found = filled_by_matplotlib(contours_of(pydicom.dcmread(path), 7), flip_lps_ras(grid.affine), SHAPE)
    np.testing.assert_array_equal(found, array == 7)


def test_slices_of_a_tilted_gantry_hold_their_own_contours(written, tmp_path):
    array = a_label_map()
    path, grid = written(array, tilt_deg=15.0, turn=TURNS["oblique"])
    for like in (grid, read(tmp_path / "study")):
        labels, _ = read_rtstruct(path, like)
        np.testing.assert_array_equal(labels.array, array)
        assert labels.findings == ()
    normal = np.cross(grid.slices[0].orientation[:3], grid.slices[0].orientation[3:])
    places = np.array([np.dot(s.position, normal) for s in grid.slices])
    for points in contours_of(pydicom.dcmread(path), 1):
        assert np.abs((points @ normal)[:, None] - places).min(axis=1).max() < 1e-4


def test_unevenly_spaced_slices_hold_their_own_contours(tmp_path):
    write_study(tmp_path / "study", Phantom(shape=(9, 7, 6), depths=(0.0, 2.5, 5.0, 10.0, 12.5, 15.0)))
    grid = grid_of(find_series(tmp_path / "study")[0], "allow")
    array = a_label_map((9, 7, 6))
    write_rtstruct(volume_on(grid, array), tmp_path / "rt.dcm", SCHEME, grid, MODEL)
    np.testing.assert_array_equal(read_rtstruct(tmp_path / "rt.dcm", grid)[0].array, array)
    depths = {float(c[0, 2]) for c in contours_of(pydicom.dcmread(tmp_path / "rt.dcm"), 1)}
    assert depths == {-7.5 + d for d, k in zip((2.5, 5.0, 12.5), (1, 2, 4), strict=True) if (array[..., k] == 1).any()}


def test_planes_laid_between_uneven_slices_are_drawn_where_they_lie(tmp_path):
    write_study(tmp_path / "study", Phantom(shape=(9, 7, 6), depths=(0.0, 2.5, 5.0, 10.0, 12.5, 15.0)))
    grid = grid_of(find_series(tmp_path / "study")[0], "resample")
    array = a_label_map((9, 7, grid.planes))
    labels = volume_on(grid, array)
    write_rtstruct(labels, tmp_path / "rt.dcm", SCHEME, grid, MODEL)
    for like in (grid, labels):
        np.testing.assert_array_equal(read_rtstruct(tmp_path / "rt.dcm", like)[0].array, array)
    data = pydicom.dcmread(tmp_path / "rt.dcm")
    assert not any("ContourImageSequence" in c for item in data.ROIContourSequence for c in item.ContourSequence)
    assert len(data[0x30060010][0][0x30060012][0][0x30060014][0].ContourImageSequence) == 6


def test_one_slice_is_a_2d_label_map(study, tmp_path):
    grid = study(shape=(9, 7, 1), turn=TURNS["oblique"])
    array = a_label_map()[:, :, 2]
    write_rtstruct(volume_on(grid, array), tmp_path / "rt.dcm", SCHEME, grid, MODEL)
    for like in (grid, read(tmp_path / "study")):
        labels, _ = read_rtstruct(tmp_path / "rt.dcm", like)
        assert labels.dims == 2
        np.testing.assert_array_equal(labels.array, array)


def test_frames_of_a_multi_frame_source_are_referred_to_by_number(tmp_path):
    write_enhanced(tmp_path / "study" / "enhanced.dcm", Phantom(shape=SHAPE, turn=TURNS["oblique"]))
    grid = grid_of(find_series(tmp_path / "study")[0])
    array = a_label_map()
    write_rtstruct(volume_on(grid, array), tmp_path / "rt.dcm", SCHEME, grid, MODEL)
    np.testing.assert_array_equal(read_rtstruct(tmp_path / "rt.dcm", grid)[0].array, array)
    data = pydicom.dcmread(tmp_path / "rt.dcm")
    (whole,) = data[0x30060010][0][0x30060012][0][0x30060014][0].ContourImageSequence
    assert whole.ReferencedSOPInstanceUID == grid.slices[0].sop_instance_uid
    assert "ReferencedFrameNumber" not in whole
    position_of = {s.frame + 1: np.array(s.position) for s in grid.slices}
    normal = np.cross(grid.slices[0].orientation[:3], grid.slices[0].orientation[3:])
    for contour in data.ROIContourSequence[0].ContourSequence:
        place = position_of[contour.ContourImageSequence[0].ReferencedFrameNumber]
        assert abs((np.array(contour.ContourData[:3], float) - place) @ normal) < 1e-4


def test_regions_overlap_in_the_file_and_come_back_as_they_were_painted(written):
    array = a_label_map(values=(2, 1, 4))
    path, grid = written(array, BRATS)
    labels, values = read_rtstruct(path, grid)
    np.testing.assert_array_equal(labels.array, array)
    assert labels.findings == ()
    assert values == {"WT": 2, "TC": 1, "ET": 4}
    data = pydicom.dcmread(path)
    affine = flip_lps_ras(grid.affine)
    for number, members in ((2, (1, 2, 4)), (1, (1, 4)), (4, (4,))):
        found = filled_by_matplotlib(contours_of(data, number), affine, SHAPE)
        np.testing.assert_array_equal(found, np.isin(array, members))
    assert data.StructureSetROISequence[1].ROIDescription == "label value 1, region of the values 1, 3, 4"


def test_finding_nothing_is_a_valid_file_that_says_so(written):
    path, grid = written(np.zeros(SHAPE, np.uint8))
    data = pydicom.dcmread(path)
    assert data.StructureSetDescription.startswith("segmented, none found; automatic segmentation by lung net 1.2")
    assert [r.ROIDescription for r in data.StructureSetROISequence] == [
        f"label value {v}; segmented, none found" for v in (1, 7, 300)
    ]
    assert not any("ContourSequence" in item for item in data.ROIContourSequence)
    labels, values = read_rtstruct(path, grid)
    assert labels.shape == SHAPE
    assert not labels.array.any()
    assert values == {"left_lung": 1, "lung nodule": 7, "Ödem": 300}


def test_a_label_that_does_not_occur_is_an_roi_without_contours(written):
    path, _ = written(a_label_map(values=(1, 1, 7)))
    data = pydicom.dcmread(path)
    described = [r.ROIDescription for r in data.StructureSetROISequence]
    assert described == ["label value 1", "label value 7", "label value 300; segmented, none found"]
    assert [len(contours_of(data, n)) > 0 for n in (1, 7, 300)] == [True, True, False]


def test_the_same_inputs_give_the_same_bytes_and_another_model_other_uids(written, tmp_path):
    array = a_label_map()

    def uids(name, labels=array, algorithm=MODEL):
        path, _ = written(labels, name=name, algorithm=algorithm)
        data = pydicom.dcmread(path)
        return data.SOPInstanceUID, data.SeriesInstanceUID

    # The source is the same files for all: instance UIDs of a phantom are its own.
    first = uids("a.dcm")
    grid = grid_of(find_series(tmp_path / "study")[0])
    others = []
    for n, (labels, algorithm) in enumerate(
        [
            (array, MODEL),
            (array, replace(MODEL, model_hash="77")),
            (array, replace(MODEL, options="")),
            (a_label_map(seed=1), MODEL),
        ]
    ):
        write_rtstruct(volume_on(grid, labels), tmp_path / f"{n}.dcm", SCHEME, grid, algorithm)
        data = pydicom.dcmread(tmp_path / f"{n}.dcm")
        others.append((data.SOPInstanceUID, data.SeriesInstanceUID))
    assert others[0] == first
    assert (tmp_path / "a.dcm").read_bytes() == (tmp_path / "0.dcm").read_bytes()
    assert len({uid for each in others for uid in each}) == 8


def test_the_file_belongs_to_its_patient_study_and_series(written):
    path, grid = written(a_label_map(), turn=TURNS["oblique"], tags=STUDY)
    data = pydicom.dcmread(path)
    source = pydicom.dcmread(grid.slices[0].path)
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "StudyDate", "FrameOfReferenceUID"):
        assert data[keyword].value == source[keyword].value
    assert data.SeriesInstanceUID != source.SeriesInstanceUID
    assert (data.Modality, data.ApprovalStatus, data.Manufacturer) == ("RTSTRUCT", "UNAPPROVED", "medseg")
    assert (data.SoftwareVersions, data.ManufacturerModelName) == ("1.2", "lung net")
    assert data.DeviceSerialNumber == MODEL.model_hash
    assert "tta=yes" in data.StructureSetDescription
    assert (data.StructureSetDate, data.StructureSetTime) == ("20240229", "101112")
    (frame,) = data.ReferencedFrameOfReferenceSequence
    (of_study,) = frame.RTReferencedStudySequence
    (of_series,) = of_study.RTReferencedSeriesSequence
    assert frame.FrameOfReferenceUID == source.FrameOfReferenceUID
    assert of_study.ReferencedSOPInstanceUID == source.StudyInstanceUID
    assert of_series.SeriesInstanceUID == source.SeriesInstanceUID
    listed = [i.ReferencedSOPInstanceUID for i in of_series.ContourImageSequence]
    assert listed == [s.sop_instance_uid for s in grid.slices]
    for roi, item, observation in zip(
        data.StructureSetROISequence, data.ROIContourSequence, data.RTROIObservationsSequence, strict=True
    ):
        assert roi.ROINumber == item.ReferencedROINumber == observation.ReferencedROINumber
        assert roi.ReferencedFrameOfReferenceUID == source.FrameOfReferenceUID
        assert roi.ROIGenerationAlgorithm == "AUTOMATIC"
        for contour in item.ContourSequence:
            assert contour.ContourGeometricType == "CLOSED_PLANAR"
            assert len(contour.ContourData) == 3 * contour.NumberOfContourPoints
            # The image that is referred to lies in the plane of the contour.
            (image,) = contour.ContourImageSequence
            (header,) = [s for s in grid.slices if s.sop_instance_uid == image.ReferencedSOPInstanceUID]
            normal = np.cross(header.orientation[:3], header.orientation[3:])
            points = np.array(contour.ContourData, float).reshape(-1, 3)
            assert np.abs((points - header.position) @ normal).max() < 1e-4
    assert len({tuple(i.ROIDisplayColor) for i in data.ROIContourSequence}) == 3


@pytest.mark.parametrize("origin", [(-3.0, 4.0, -7.5), (-123456.7, 98765.4, -99999.9)])
def test_coordinates_are_legal_decimal_strings_within_a_micrometre(written, origin):
    array = a_label_map()
    path, grid = written(array, turn=TURNS["oblique"], origin=origin, gradient=(0.0, 0.0, 0.0))
    data = pydicom.dcmread(path)
    inverse = np.linalg.inv(flip_lps_ras(grid.affine))
    for item in data.ROIContourSequence:
        for contour in item.ContourSequence:
            texts = bytes(contour.get_item("ContourData").value).decode().strip().split("\\")
            assert max(map(len, texts)) <= 16
            points = np.array(texts, float).reshape(-1, 3)
            index = (inverse @ np.c_[points, np.ones(len(points))].T).T[:, :3]
            # A little inside the corners of voxels, and the channels to holes beside the centres.
            exact = np.c_[np.round(index[:, :2] * 128) / 128, np.round(index[:, 2])]
            assert np.abs((index - exact) * (0.8, 1.1, 2.5)).max() < 2e-5
    np.testing.assert_array_equal(read_rtstruct(path, grid)[0].array, array)


def test_a_contour_longer_than_64_kilobytes_is_kept(written):
    comb = np.zeros((400, 40, 2), np.uint8)
    comb[:, 0, 1] = comb[::2, :, 1] = 1
    array = np.concatenate([comb] * 6)
    path, grid = written(array)
    (contour,) = pydicom.dcmread(path).ROIContourSequence[0].ContourSequence
    assert len(bytes(contour.get_item("ContourData").value)) > 2**16
    np.testing.assert_array_equal(read_rtstruct(path, grid)[0].array, array)


def test_a_label_map_that_lies_elsewhere_is_refused(study, tmp_path):
    grid = study()
    moved = grid.affine.copy()
    moved[0, 3] += 0.5
    with pytest.raises(GeometryError, match="has another position than its source series"):
        write_rtstruct(Volume(a_label_map(), moved), tmp_path / "rt.dcm", SCHEME, grid, MODEL)
    with pytest.raises(GeometryError, match="8 slices of 9 x 7 pixels"):
        write_rtstruct(volume_on(grid, a_label_map()[:, :, :5]), tmp_path / "rt.dcm", SCHEME, grid, MODEL)
    assert not (tmp_path / "rt.dcm").exists()


def test_values_that_are_no_labels_are_refused(study, tmp_path):
    grid = study()
    with pytest.raises(DatasetError, match=r"value\(s\) 7, 300"):
        one = LabelScheme.from_mapping({"lung": 1})
        write_rtstruct(volume_on(grid, a_label_map()), tmp_path / "rt.dcm", one, grid, MODEL)
    with pytest.raises(DatasetError, match=r"value\(s\) -1"):
        write_rtstruct(volume_on(grid, -(a_label_map() > 0).astype(int)), tmp_path / "rt.dcm", SCHEME, grid, MODEL)
    with pytest.raises(WriteError, match="integer labels, found float32"):
        write_rtstruct(volume_on(grid, np.ones(SHAPE, np.float32)), tmp_path / "rt.dcm", SCHEME, grid, MODEL)
    with pytest.raises(WriteError, match="voxels to ignore"):
        ignoring = LabelScheme.from_mapping({"lung": 1, "nodule": 7}, ignore=300)
        write_rtstruct(volume_on(grid, a_label_map()), tmp_path / "rt.dcm", ignoring, grid, MODEL)


def test_bool_and_signed_label_maps_are_written_too(written):
    array = a_label_map(values=(1, 1, 1))
    for dtype in (bool, np.int64):
        path, grid = written(array.astype(dtype))
        np.testing.assert_array_equal(read_rtstruct(path, grid)[0].array, array)


def test_images_without_a_place_in_the_patient_cannot_hold_contours(study, tmp_path):
    grid = study(shape=(9, 7, 1), tags={"ImagePositionPatient": None, "ImageOrientationPatient": None})
    with pytest.raises(WriteError, match="has no position, orientation or pixel spacing"):
        write_rtstruct(volume_on(grid, a_label_map()[:, :, 2]), tmp_path / "rt.dcm", SCHEME, grid, MODEL)


def test_labels_that_no_model_made_do_not_claim_to_be_automatic(written):
    path, _ = written(a_label_map(), algorithm=Algorithm("medseg convert", "0.3", ""))
    data = pydicom.dcmread(path)
    assert data.StructureSetDescription == "labels by medseg convert 0.3"
    assert {r.ROIGenerationAlgorithm for r in data.StructureSetROISequence} == {""}
