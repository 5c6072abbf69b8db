"""Label maps as DICOM Segmentations: written on their series, read back bit for bit, and read by a second decoder."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from dicom_phantoms import Phantom, write_study
from seg_cases import BRATS, MODEL, ROTATIONS, SCHEME, SHAPE, TURNS, a_label_map, grid_in, volume_on
from seg_decoder import decode, masks_on

from medseg.errors import DatasetError, GeometryError, ReadError, WriteError
from medseg.geometry import flip_lps_ras, reorient
from medseg.io import read
from medseg.io.dicom.grid import grid_of
from medseg.io.dicom.seg.read import read_dicom_seg
from medseg.io.dicom.seg.write import write_dicom_seg
from medseg.io.dicom.series import find_series
from medseg.labels import LabelScheme


@pytest.fixture
def study(tmp_path):
    """study(**phantom fields) -> SeriesGrid of a series written for the test."""

    return lambda **fields: grid_in(tmp_path / "study", **fields)


def test_there_are_24_rotations():
    assert len({tuple(r.ravel()) for r in ROTATIONS}) == 24


@pytest.mark.parametrize("encoding", ["binary", "labelmap"])
@pytest.mark.parametrize("turn", TURNS)
def test_a_label_map_comes_back_bit_for_bit(study, tmp_path, turn, encoding):
    grid = study(turn=TURNS[turn])
    array = a_label_map()
    write_dicom_seg(volume_on(grid, array), tmp_path / "seg.dcm", SCHEME, grid, MODEL, encoding=encoding)
    source = read(tmp_path / "study")
    found = read_dicom_seg(tmp_path / "seg.dcm", like=source)
    np.testing.assert_array_equal(found.volume.array, array)
    assert found.volume.same_geometry(source)
    assert found.volume.findings == ()
    assert found.labels == {"left_lung": 1, "lung nodule": 7, "Ödem": 300}
    assert found.source_series_uid == source.metadata.series_instance_uid
    # A decoder that shares no code, by the position of each pixel in the patient.
    data, frames = decode(tmp_path / "seg.dcm")
    masks = masks_on(frames, SHAPE, flip_lps_ras(grid.affine))
    numbers = {1: 1, 2: 7, 3: 300} if encoding == "binary" else {1: 1, 7: 7, 300: 300}
    assert set(masks) == set(numbers)
    for number, value in numbers.items():
        np.testing.assert_array_equal(masks[number], array == value)
    turned = np.array(data.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient)
    np.testing.assert_allclose(turned, TURNS[turn][:, :2].T.ravel(), atol=1e-8)


def test_without_the_source_the_smallest_grid_that_holds_all_frames_is_found(study, tmp_path):
    grid = study(turn=TURNS["oblique"])
    array = a_label_map()
    write_dicom_seg(volume_on(grid, array), tmp_path / "seg.dcm", SCHEME, grid, MODEL)
    alone = read_dicom_seg(tmp_path / "seg.dcm").volume
    # Slices 1 to 6 of 8: the gap at 3 is filled, the empty ends are not known.
    np.testing.assert_array_equal(alone.array, array[:, :, 1:7])
    expected = grid.affine.copy()
    expected[:3, 3] += grid.affine[:3, 2]
    np.testing.assert_allclose(alone.affine, expected, atol=1e-5)


def test_a_label_map_object_keeps_its_empty_slices_by_itself(study, tmp_path):
    grid = study(turn=TURNS["oblique"])
    array = a_label_map()
    write_dicom_seg(volume_on(grid, array), tmp_path / "seg.dcm", SCHEME, grid, MODEL, encoding="labelmap")
    alone = read_dicom_seg(tmp_path / "seg.dcm").volume
    np.testing.assert_array_equal(alone.array, array)
    np.testing.assert_allclose(alone.affine, grid.affine, atol=1e-5)


def test_regions_overlap_in_the_object_and_come_back_as_they_were_painted(study, tmp_path):
    grid = study()
    assert BRATS.painted == (2, 1, 4)
    array = a_label_map(values=(2, 1, 4))
    write_dicom_seg(volume_on(grid, array), tmp_path / "seg.dcm", BRATS, grid, MODEL)
    found = read_dicom_seg(tmp_path / "seg.dcm", like=read(tmp_path / "study"))
    np.testing.assert_array_equal(found.volume.array, array)
    assert found.volume.findings == ()
    assert found.scheme == BRATS
    data, frames = decode(tmp_path / "seg.dcm")
    masks = masks_on(frames, SHAPE, flip_lps_ras(grid.affine))
    np.testing.assert_array_equal(masks[1], np.isin(array, (1, 2, 4)))
    np.testing.assert_array_equal(masks[2], np.isin(array, (1, 4)))
    np.testing.assert_array_equal(masks[3], array == 4)
    assert data.SegmentsOverlap == "YES"
    assert data.SegmentSequence[1].SegmentDescription == "label value 1, region of the values 1, 3, 4"


def test_regions_are_refused_as_a_label_map(study, tmp_path):
    grid = study()
    with pytest.raises(WriteError, match=r"regions overlap.*use encoding='binary'"):
        write_dicom_seg(
            volume_on(grid, a_label_map(values=(2, 1, 4))), tmp_path / "s.dcm", BRATS, grid, MODEL, encoding="labelmap"
        )


@pytest.mark.parametrize("encoding", ["binary", "labelmap"])
def test_finding_nothing_is_a_valid_object_that_says_so(study, tmp_path, encoding):
    grid = study()
    empty = volume_on(grid, np.zeros(SHAPE, np.uint8))
    write_dicom_seg(empty, tmp_path / "seg.dcm", SCHEME, grid, MODEL, encoding=encoding)
    found = read_dicom_seg(tmp_path / "seg.dcm", like=read(tmp_path / "study"))
    assert found.description == "segmented, none found"
    assert found.volume.shape == SHAPE
    assert not found.volume.array.any()
    assert found.labels == {"left_lung": 1, "lung nodule": 7, "Ödem": 300}
    data, frames = decode(tmp_path / "seg.dcm")
    assert len(frames) == (3 if encoding == "binary" else 8)
    assert all(s.SegmentDescription.endswith("none found") for s in data.SegmentSequence if s.SegmentNumber)


def test_a_label_that_does_not_occur_is_described_as_not_found(study, tmp_path):
    grid = study()
    write_dicom_seg(volume_on(grid, a_label_map(values=(1, 1, 7))), tmp_path / "seg.dcm", SCHEME, grid, MODEL)
    described = [s.SegmentDescription for s in pydicom.dcmread(tmp_path / "seg.dcm").SegmentSequence]
    assert described == ["label value 1", "label value 7", "label value 300; segmented, none found"]


def test_the_same_inputs_give_the_same_bytes_and_another_model_other_uids(study, tmp_path):
    grid = study()
    array = a_label_map()

    def uids(name, labels=array, algorithm=MODEL):
        write_dicom_seg(volume_on(grid, labels), tmp_path / name, SCHEME, grid, algorithm)
        data = pydicom.dcmread(tmp_path / name)
        return data.SOPInstanceUID, data.SeriesInstanceUID, data.DimensionOrganizationSequence[0][0x00209164].value

    first = uids("a.dcm")
    assert uids("b.dcm") == first
    assert (tmp_path / "a.dcm").read_bytes() == (tmp_path / "b.dcm").read_bytes()
    others = [
        uids("c.dcm", algorithm=replace(MODEL, model_hash="77")),
        uids("d.dcm", algorithm=replace(MODEL, options="")),
        uids("e.dcm", labels=a_label_map(seed=1)),
    ]
    assert len({uid for each in (first, *others) for uid in each}) == 12


def test_slices_of_a_tilted_gantry_keep_their_own_positions(study, tmp_path):
    grid = study(tilt_deg=15.0)
    array = a_label_map()
    write_dicom_seg(volume_on(grid, array), tmp_path / "seg.dcm", SCHEME, grid, MODEL)
    np.testing.assert_array_equal(
        read_dicom_seg(tmp_path / "seg.dcm", like=read(tmp_path / "study")).volume.array, array
    )
    alone = read_dicom_seg(tmp_path / "seg.dcm").volume
    np.testing.assert_array_equal(alone.array, array[:, :, 1:7])
    np.testing.assert_allclose(alone.affine[:3, :3], grid.affine[:3, :3], atol=1e-6)
    data = pydicom.dcmread(tmp_path / "seg.dcm")
    positions = {tuple(map(float, i.PlanePositionSequence[0].ImagePositionPatient)) for i in data[0x52009230]}
    own = np.array([s.position for s in grid.slices])
    assert all(np.abs(own - p).max(axis=1).min() < 1e-6 for p in positions)
    measures = data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert float(measures.SpacingBetweenSlices) == pytest.approx(2.5 * np.cos(np.radians(15)))
    assert "DimensionOrganizationType" not in data


def test_planes_laid_between_uneven_slices_are_written_where_they_lie(tmp_path):
    write_study(tmp_path / "study", Phantom(shape=(9, 7, 6), depths=(0.0, 2.5, 5.0, 10.0, 12.5, 15.0)))
    grid = grid_of(find_series(tmp_path / "study")[0], "resample")
    array = a_label_map((9, 7, grid.planes))
    array[4, 4, 3] = 7
    labels = volume_on(grid, array)
    write_dicom_seg(labels, tmp_path / "seg.dcm", SCHEME, grid, MODEL)
    np.testing.assert_array_equal(read_dicom_seg(tmp_path / "seg.dcm", like=labels).volume.array, array)
    data = pydicom.dcmread(tmp_path / "seg.dcm")
    assert len(data.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 6
    # Plane 3 lies in the gap between the third and the fourth slice; the others are slices themselves.
    sources = {}
    for item in data.PerFrameFunctionalGroupsSequence:
        depth = round(float(item.PlanePositionSequence[0].ImagePositionPatient[2]) + 7.5, 3)
        references = item.DerivationImageSequence[0].SourceImageSequence
        sources[depth] = [(r.ReferencedSOPInstanceUID, r.SpatialLocationsPreserved) for r in references]
    uids = [s.sop_instance_uid for s in grid.slices]
    assert sources[10.0] == [(uids[3], "YES")]
    assert sources[7.5] == [(uids[2], "NO"), (uids[3], "NO")]


def test_one_slice_is_a_2d_label_map(study, tmp_path):
    grid = study(shape=(9, 7, 1), turn=TURNS["oblique"])
    array = a_label_map((9, 7, 5))[:, :, 2]
    source = read(tmp_path / "study")
    write_dicom_seg(source.with_array(array), tmp_path / "seg.dcm", SCHEME, grid, MODEL)
    found = read_dicom_seg(tmp_path / "seg.dcm", like=source).volume
    assert found.dims == 2
    np.testing.assert_array_equal(found.array, array)


def test_a_radiograph_without_a_place_in_space_can_be_segmented(study, tmp_path):
    lost = dict.fromkeys(["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "FrameOfReferenceUID"])
    grid = study(shape=(9, 7, 1), tags={**lost, "ImagerPixelSpacing": [0.2, 0.1]})
    source = read(tmp_path / "study")
    array = a_label_map((9, 7, 5))[:, :, 2]
    write_dicom_seg(source.with_array(array), tmp_path / "seg.dcm", SCHEME, grid, MODEL)
    found = read_dicom_seg(tmp_path / "seg.dcm", like=source).volume
    np.testing.assert_array_equal(found.array, array)


def test_a_label_map_that_lies_elsewhere_is_refused(study, tmp_path):
    grid = study()
    good = volume_on(grid, a_label_map())
    moved = grid.affine.copy()
    moved[0, 3] += 0.02
    for wrong in (replace(good, affine=moved), reorient(good, "RAS"), replace(good, array=good.array[1:])):
        with pytest.raises(GeometryError, match="source series"):
            write_dicom_seg(wrong, tmp_path / "seg.dcm", SCHEME, grid, MODEL)
    assert not (tmp_path / "seg.dcm").exists()
    moved[0, 3] -= 0.015
    write_dicom_seg(replace(good, affine=moved), tmp_path / "seg.dcm", SCHEME, grid, MODEL)


def test_values_that_are_no_labels_are_refused(study, tmp_path):
    grid = study()
    array = a_label_map()
    with pytest.raises(DatasetError, match="label value\\(s\\) 5"):
        write_dicom_seg(volume_on(grid, np.where(array == 1, 5, array)), tmp_path / "s", SCHEME, grid, MODEL)
    with pytest.raises(WriteError, match="needs integer labels, found float32"):
        write_dicom_seg(volume_on(grid, array.astype(np.float32)), tmp_path / "s", SCHEME, grid, MODEL)
    ignoring = replace(SCHEME, ignore=255)
    with pytest.raises(WriteError, match="value 255, which marks voxels to ignore"):
        write_dicom_seg(volume_on(grid, np.where(array == 1, 255, array)), tmp_path / "s", ignoring, grid, MODEL)


def test_bool_and_signed_label_maps_are_written_too(study, tmp_path):
    grid = study()
    scheme = LabelScheme.from_mapping({"lung": 1})
    mask = a_label_map() > 0
    for array in (mask, mask.astype(np.int64)):
        write_dicom_seg(volume_on(grid, array), tmp_path / "seg.dcm", scheme, grid, MODEL)
        np.testing.assert_array_equal(
            read_dicom_seg(tmp_path / "seg.dcm", like=read(tmp_path / "study")).volume.array, mask
        )


def test_a_source_that_nothing_can_refer_to_is_refused(study, tmp_path):
    grid = study(tags={"StudyInstanceUID": None})
    with pytest.raises(WriteError, match=r"no StudyInstanceUID.*write \.nii\.gz instead"):
        write_dicom_seg(volume_on(grid, a_label_map()), tmp_path / "seg.dcm", SCHEME, grid, MODEL)


def test_uids_that_an_export_has_blanked_are_those_of_the_file(study, tmp_path):
    grid = study()
    for header in grid.slices:
        data = pydicom.dcmread(header.path)
        data.SOPClassUID = data.SOPInstanceUID = ""
        pydicom.dcmwrite(header.path, data, enforce_file_format=False)
    blank = grid_of(find_series(tmp_path / "study")[0])
    write_dicom_seg(volume_on(grid, a_label_map()), tmp_path / "seg.dcm", SCHEME, blank, MODEL)
    series = pydicom.dcmread(tmp_path / "seg.dcm").ReferencedSeriesSequence[0]
    assert [i.ReferencedSOPInstanceUID for i in series.ReferencedInstanceSequence] == [
        s.sop_instance_uid for s in grid.slices
    ]
    assert series.ReferencedInstanceSequence[0].ReferencedSOPClassUID.name == "CT Image Storage"


def test_a_source_that_is_gone_is_refused(study, tmp_path):
    grid = study()
    shutil.rmtree(tmp_path / "study")
    with pytest.raises(ReadError, match="cannot be read"):
        write_dicom_seg(volume_on(grid, a_label_map()), tmp_path / "seg.dcm", SCHEME, grid, MODEL)
