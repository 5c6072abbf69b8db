"""DICOM Segmentations of other programs, damaged ones, and the grid that frames span."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_phantoms import euler
from hypothesis import given, settings
from hypothesis import strategies as st
from seg_cases import BRATS, MODEL, SCHEME, SHAPE, a_label_map, grid_in, volume_on
from seg_decoder import decode, masks_on

from medseg.errors import GeometryError, MedsegError, ReadError
from medseg.geometry import flip_lps_ras, reorient
from medseg.io import read
from medseg.io.dicom.seg.frames import Frames, own_grid
from medseg.io.dicom.seg.read import read_dicom_seg
from medseg.io.dicom.seg.write import write_dicom_seg
from medseg.volume import Volume


@pytest.fixture
def written(tmp_path):
    """written(array, scheme, change=f(dataset), **phantom fields) -> path of an object, source volume."""

    def write(array=None, scheme=SCHEME, change=lambda data: None, encoding="binary", **fields):
        grid = grid_in(tmp_path / "study", **fields)
        path = tmp_path / "seg.dcm"
        labels = volume_on(grid, a_label_map() if array is None else array)
        write_dicom_seg(labels, path, scheme, grid, MODEL, encoding=encoding)
        data = pydicom.dcmread(path)
        change(data)
        data.save_as(path)
        return path, read(tmp_path / "study")

    return write


def of_another_program(data):
    data.Manufacturer = "somebody"


def bits_of(data):
    bits = np.unpackbits(np.frombuffer(data.PixelData, np.uint8), bitorder="little")
    size = data.NumberOfFrames * data.Rows * data.Columns
    return bits[:size].reshape(data.NumberOfFrames, data.Rows, data.Columns)


def test_in_objects_of_others_the_segment_number_is_the_label_value(written):
    path, source = written(change=of_another_program)
    found = read_dicom_seg(path, like=source)
    assert found.labels == {"left_lung": 1, "lung nodule": 2, "Ödem": 3}
    expected = np.select([a_label_map() == v for v in (1, 7, 300)], [1, 2, 3])
    np.testing.assert_array_equal(found.volume.array, expected)
    assert found.volume.array.dtype == np.uint8


def test_of_overlapping_segments_the_later_one_shows_and_a_finding_says_so(written):
    array = a_label_map(values=(2, 1, 4))
    path, source = written(array, BRATS, of_another_program)
    found = read_dicom_seg(path, like=source)
    np.testing.assert_array_equal(found.volume.array, np.select([array == 4, array == 1, array == 2], [3, 2, 1]))
    (finding,) = found.volume.findings
    assert finding.kind == "overlap"
    inner = int((array == 1).sum() + (array == 4).sum())
    assert f"'WT' and 'TC' in {inner} voxels" in finding.message


def test_the_order_of_frames_in_the_file_does_not_matter(written):
    array = a_label_map(values=(2, 1, 4))

    def shuffle(data):
        order = np.random.default_rng(3).permutation(data.NumberOfFrames)
        bits = bits_of(data)[order]
        data.PerFrameFunctionalGroupsSequence = [data.PerFrameFunctionalGroupsSequence[int(n)] for n in order]
        packed = np.packbits(bits.ravel(), bitorder="little").tobytes()
        data.PixelData = packed + b"\0" * (len(packed) % 2)

    path, source = written(array, BRATS, shuffle)
    np.testing.assert_array_equal(read_dicom_seg(path, like=source).volume.array, array)


def test_fractional_segments_are_cut_at_one_half_with_a_finding(written):
    def fractional(data):
        of_another_program(data)
        data.SegmentationType, data.SegmentationFractionalType = "FRACTIONAL", "PROBABILITY"
        data.MaximumFractionalValue = 200
        data.BitsAllocated = data.BitsStored = 8
        data.HighBit = 7
        # 100 of 200 is one half; the background is just below.
        pixels = np.where(bits_of(data) > 0, 100, 99).astype(np.uint8).tobytes()
        data.PixelData = pixels + b"\0" * (len(pixels) % 2)

    path, source = written(change=fractional)
    found = read_dicom_seg(path, like=source)
    expected = np.select([a_label_map() == v for v in (1, 7, 300)], [1, 2, 3])
    np.testing.assert_array_equal(found.volume.array, expected)
    assert [f.kind for f in found.volume.findings] == ["fractional"]


def test_segments_of_one_name_are_told_apart(written):
    def rename(data):
        for item in data.SegmentSequence:
            item.SegmentLabel = "lesion"

    path, _ = written(change=rename)
    assert read_dicom_seg(path).labels == {"lesion (1)": 1, "lesion (2)": 7, "lesion (3)": 300}


def test_a_label_map_with_another_background_value(written):
    """PixelPaddingValue is the background (PS3.3 C.8.20.2); segment 0 is then a segment."""

    def exchange(data):
        data.decompress()
        pixels = np.frombuffer(data.PixelData, np.uint16).copy()
        pixels[pixels == 0] = 500
        pixels[pixels == 7] = 0
        data.PixelData = pixels.tobytes()
        data.PixelPaddingValue = 500
        of_another_program(data)
        for item in data.SegmentSequence:
            item.SegmentNumber = {0: 500, 7: 0}.get(item.SegmentNumber, item.SegmentNumber)

    path, source = written(change=exchange, encoding="labelmap")
    found = read_dicom_seg(path, like=source)
    assert found.labels == {"left_lung": 1, "lung nodule": 301, "Ödem": 300}
    np.testing.assert_array_equal(found.volume.array, np.where(a_label_map() == 7, 301, a_label_map()))


def test_a_grid_that_is_not_the_source_is_refused(written):
    path, source = written()
    moved = source.affine.copy()
    moved[:3, 3] += source.affine[:3, 0] * 0.5
    half = source.affine.copy()
    half[:3, 3] += source.affine[:3, 2] * 0.5
    cut = Volume(source.array[:, :, :4], source.affine)
    for wrong, words in [
        (replace(source, affine=moved), r"frames are up to 0\.40 mm away"),
        (replace(source, affine=half), "mm away from its slices"),
        (cut, "frames are on slices beyond its 4"),
        (Volume(source.array[1:], source.affine), "frames are 9 x 7 pixels, the slices there 8 x 7"),
    ]:
        with pytest.raises(GeometryError, match=words):
            read_dicom_seg(path, like=wrong)


@pytest.mark.parametrize("orientation", ["LPI", "RAS", "ASL", "PIR"])
def test_a_copy_of_the_source_with_its_axes_turned_is_the_same_grid(written, orientation):
    path, source = written(turn=euler(8, -11, 5))
    turned = reorient(source, orientation)
    found = read_dicom_seg(path, like=turned).volume
    assert found.same_geometry(turned)
    np.testing.assert_array_equal(found.array, reorient(read_dicom_seg(path, like=source).volume, orientation).array)
    assert found.array.any()


def test_another_frame_of_reference_is_refused_though_the_numbers_fit(written):
    path, source = written()
    elsewhere = replace(source, metadata=replace(source.metadata, frame_of_reference_uid="1.2.3"))
    with pytest.raises(GeometryError, match="different frames of reference"):
        read_dicom_seg(path, like=elsewhere)


def test_uneven_frames_need_the_source(written):
    def push(data):
        for item in data.PerFrameFunctionalGroupsSequence:
            position = item.PlanePositionSequence[0].ImagePositionPatient
            position[2] = float(position[2]) + (0.9 if float(position[2]) > 4 else 0)

    path, _ = written(change=push)
    with pytest.raises(GeometryError, match="uneven distances"):
        read_dicom_seg(path)


def test_frames_without_a_described_segment_are_refused(written):
    def drop(data):
        del data.SegmentSequence[2]

    path, _ = written(change=drop)
    with pytest.raises(ReadError, match=r"segment\(s\) \[3\], which it does not describe"):
        read_dicom_seg(path)
    path, _ = written(change=drop, encoding="labelmap")
    with pytest.raises(ReadError, match=r"segment\(s\) \[7\], which it does not describe"):
        read_dicom_seg(path)


def test_what_is_no_segmentation_is_refused_by_name(written, tmp_path):
    path, source = written()
    image = next((tmp_path / "study").iterdir())
    with pytest.raises(ReadError, match="CT Image Storage; expected a DICOM Segmentation"):
        read_dicom_seg(image)
    (tmp_path / "text").write_text("no DICOM")
    with pytest.raises(ReadError, match="not a DICOM file"):
        read_dicom_seg(tmp_path / "text")
    with pytest.raises(ReadError, match="cannot be read: No such file"):
        read_dicom_seg(tmp_path / "absent.dcm", like=source)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ReadError, match=r"seg\.dcm"):
        read_dicom_seg(path)


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_a_message_stays_one_line_whatever_the_file_says(written):
    def damage(data):
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = "1.2.\n40"
        data.SegmentationType = "A\nB"

    path, _ = written(change=damage)
    with pytest.raises(ReadError) as error:
        read_dicom_seg(path)
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("encoding", ["binary", "labelmap"])
def test_damage_gives_a_readable_error_and_nothing_else(written, encoding):
    path, source = written(encoding=encoding)
    good = path.read_bytes()
    rng = np.random.default_rng(5)
    refused = 0
    for n in range(150):
        damaged = bytearray(good)
        if n % 3 == 0:
            del damaged[int(rng.integers(1, len(good))) :]
        else:
            for at in rng.integers(128, len(good), 1 + n % 7):
                damaged[at] = rng.integers(0, 256)
        path.write_bytes(damaged)
        for like in (source, None):
            try:
                read_dicom_seg(path, like=like)
            except MedsegError as error:
                refused += 1
                assert "seg.dcm" in str(error)
                assert "\n" not in str(error)
    assert refused > 100


@settings(max_examples=200, deadline=None)
@given(
    turn=st.tuples(*[st.floats(-180, 180)] * 3),
    step=st.floats(0.3, 8),
    shear=st.floats(-0.4, 0.4),
    kept=st.sets(st.integers(0, 40), min_size=1, max_size=12),
    told=st.booleans(),
)
def test_the_grid_is_found_from_any_frames_that_are_left(turn, step, shear, kept, told):
    axes = euler(*turn)
    vector = axes[:, 2] * step + axes[:, 1] * shear * step
    wanted = sorted(kept)
    positions = np.array([[5.0, -7.0, 11.0] + k * vector for k in wanted])
    if not told:
        # Without SpacingBetweenSlices the smallest step counts, so a neighbour must be there.
        positions = np.vstack([positions, positions[0] + vector])
        wanted = [*wanted, wanted[0] + 1]
    order = np.random.default_rng(0).permutation(len(wanted))
    frames = Frames(
        Path("seg.dcm"),
        (1,) * len(wanted),
        positions[order].round(6),
        axes[:, :2].T,
        (0.7, 0.9),
        step * told,
        0.0,
        5,
        6,
    )
    affine, slices, count = own_grid(frames)
    np.testing.assert_array_equal(slices, np.array(wanted)[order] - wanted[0])
    assert count == max(wanted) - wanted[0] + 1
    lps = flip_lps_ras(affine)
    if count > 1:
        np.testing.assert_allclose(lps[:3, 2], vector, atol=1e-5)
    np.testing.assert_allclose(lps[:3, :2], axes[:, :2] * (0.9, 0.7), atol=1e-9)
    np.testing.assert_allclose(lps[:3, 3], positions[0], atol=1e-5)


def test_objects_of_other_programs_equal_their_volumes(data_folder):
    """Examples of dcmqi, and objects written by highdicom, with the label maps that they were made from."""
    folder = data_folder / "dicom_seg"
    for name, source, truth in [
        ("liver.dcm", "ct-3slice", "liver_seg.nrrd"),
        ("24x38x3/seg/label.seg", "24x38x3/image", "24x38x3/nrrd/label.nrrd"),
        ("24x38x3/seg/label.seg", "24x38x3/multiframe", "24x38x3/nrrd/label.nrrd"),
    ]:
        found = read_dicom_seg(folder / name, like=read(folder / source))
        expected = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / truth))).T
        np.testing.assert_array_equal(found.volume.array, expected)
        assert found.labels == {"Liver": 1}


def test_an_object_of_another_program_with_partly_overlapping_segments(data_folder):
    path = data_folder / "dicom_seg" / "partial_overlaps.dcm"
    source = read(data_folder / "dicom_seg" / "ct-3slice")
    found = read_dicom_seg(path, like=source)
    assert list(found.labels.values()) == [1, 2, 3, 4, 5]
    assert [f.kind for f in found.volume.findings] == ["overlap"]
    assert found.source_series_uid == source.metadata.series_instance_uid
    expected = np.zeros(SHAPE[:0] + source.shape, int)
    _, frames = decode(path)
    for number, mask in sorted(masks_on(frames, source.shape, flip_lps_ras(source.affine)).items()):
        expected[mask] = number
    np.testing.assert_array_equal(found.volume.array, expected)


def test_studies_are_segmented_and_read_back(data_folder, tmp_path):
    from medseg.io.dicom.grid import grid_of
    from medseg.io.dicom.series import find_series

    for name in ("dicom_mr_t1post", "dicom_mr_hcrop", "dicom_seg/ct-3slice", "dicom_seg/24x38x3/multiframe"):
        source = read(data_folder / name)
        array = a_label_map((*source.shape[:2], max(source.shape[2], 4)))[:, :, -source.shape[2] :]
        grid = grid_of(find_series(data_folder / name)[0])
        write_dicom_seg(source.with_array(array), tmp_path / "seg.dcm", SCHEME, grid, MODEL)
        np.testing.assert_array_equal(read_dicom_seg(tmp_path / "seg.dcm", like=source).volume.array, array)


def test_a_segment_off_the_slices_is_left_out_by_number_and_the_others_are_read(written):
    def move(data):
        for item in data.PerFrameFunctionalGroupsSequence:
            if item.SegmentIdentificationSequence[0].ReferencedSegmentNumber == 2:
                position = item.PlanePositionSequence[0].ImagePositionPatient
                item.PlanePositionSequence[0].ImagePositionPatient = [position[0] + 100, *position[1:]]

    path, source = written(change=move)
    found = read_dicom_seg(path, like=source)
    array = a_label_map()
    np.testing.assert_array_equal(found.volume.array, np.where(array == 7, 0, array))
    assert found.labels == {"left_lung": 1, "Ödem": 300}
    (finding,) = found.volume.findings
    assert finding.kind == "segment_left_out"
    assert "segment 2 was left out" in finding.message
    with pytest.raises(GeometryError, match="away from its slices"):
        read_dicom_seg(path, like=source, strict=True)
