"""RT Structure Sets of other programs: read where they lie, with a finding for what is lost, or refused by name."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from seg_cases import BRATS, FRAME, MODEL, SCHEME, SHAPE, a_label_map, grid_in, volume_on

from medseg.errors import GeometryError, MedsegError, ReadError
from medseg.io import read
from medseg.io.dicom.rtstruct.read import read_rtstruct, referenced_series
from medseg.io.dicom.rtstruct.write import write_rtstruct
from medseg.volume import Metadata, Volume

# 20 x 16 x 6 voxels of 1 x 1 x 2 mm, the centre of the first at the origin: i = x, j = y, k = z / 2.
LIKE = Volume(np.zeros((20, 16, 6), np.int16), np.diag([-1.0, -1.0, 2.0, 1.0]))


def square(low, high, z):
    return [(low, low, z), (high, low, z), (high, high, z), (low, high, z)]


def kinds(volume):
    return [f.kind for f in volume.findings]


def test_rois_of_others_get_the_values_1_to_n_in_their_order(drawn):
    path = drawn({"Lung L": [square(1.5, 4.5, 4)], "Heart": [square(6.5, 8.5, 6)], "empty": []})
    labels, values = read_rtstruct(path, LIKE)
    assert values == {"Lung L": 1, "Heart": 2, "empty": 3}
    expected = np.zeros(LIKE.shape, int)
    expected[2:5, 2:5, 2] = 1
    expected[7:9, 7:9, 3] = 2
    np.testing.assert_array_equal(labels.array, expected)
    assert labels.findings == ()
    assert labels.array.dtype == np.uint8
    assert labels.metadata.modality == "RTSTRUCT"


def test_two_rois_of_one_name_are_told_apart_by_their_numbers(drawn, tmp_path):
    path = drawn({"a": [square(1.5, 4.5, 4)], "b": [square(6.5, 8.5, 6)]})
    data = pydicom.dcmread(path)
    data.StructureSetROISequence[1].ROIName = "a"
    data.save_as(path)
    assert read_rtstruct(path, LIKE)[1] == {"a (11)": 1, "a (12)": 2}


@pytest.mark.parametrize("kind", ["CLOSED_PLANAR", "CLOSEDPLANAR_XOR"])
def test_an_inner_contour_is_a_hole_and_one_in_that_an_island(drawn, kind):
    rings = [(kind, square(low, 15 - low, 4)) for low in (1.5, 3.5, 5.5)]
    labels, _ = read_rtstruct(drawn({"ring": rings}), LIKE)
    expected = np.zeros((20, 16), int)
    expected[2:14, 2:14] = 1
    expected[4:12, 4:12] = 0
    expected[6:10, 6:10] = 1
    np.testing.assert_array_equal(labels.array[:, :, 2], expected)


def test_a_keyhole_is_a_hole_too(drawn):
    keyhole = [
        *((1.5, 6, 4), (1.5, 1.5, 4), (13.5, 1.5, 4), (13.5, 13.5, 4), (1.5, 13.5, 4), (1.5, 6, 4)),
        *((3.5, 6, 4), (3.5, 11.5, 4), (11.5, 11.5, 4), (11.5, 3.5, 4), (3.5, 3.5, 4), (3.5, 6, 4)),
    ]
    labels, _ = read_rtstruct(drawn({"ring": [keyhole]}), LIKE)
    expected = np.zeros((20, 16), int)
    expected[2:14, 2:14] = 1
    expected[4:12, 4:12] = 0
    np.testing.assert_array_equal(labels.array[:, :, 2], expected)


def square_of(low_i, low_j, high_i, high_j, z=4):
    return [(low_i, low_j, z), (high_i, low_j, z), (high_i, high_j, z), (low_i, high_j, z)]


WHOLE = square_of(1.5, 1.5, 11.5, 11.5)


@pytest.mark.parametrize(
    "again",
    [WHOLE, WHOLE[::-1], WHOLE[2:] + WHOLE[:2], [*WHOLE, WHOLE[0]], [(1.5, 6, 4), *WHOLE[::-1]]],
    ids=["the same", "reversed", "another start", "closed", "one more point on an edge"],
)
def test_identical_contours_count_once_with_a_finding(drawn, again):
    labels, _ = read_rtstruct(drawn({"organ": [WHOLE, again, WHOLE]}), LIKE)
    assert labels.array.sum() == 100
    assert kinds(labels) == ["contours_repeated"]
    assert "'organ': 2 contour(s)" in labels.findings[0].message


def test_a_contour_that_lists_its_points_twice_is_filled(drawn):
    labels, _ = read_rtstruct(drawn({"organ": [WHOLE + WHOLE], "other": [[*WHOLE, WHOLE[0]] * 2]}), LIKE)
    assert (labels.array == 2).sum() == 100
    assert kinds(labels) == ["overlap"]


def test_crossing_contours_of_one_roi_are_united_with_a_finding(drawn):
    plus = [square_of(1.5, 6.5, 11.5, 8.5), square_of(6.5, 1.5, 8.5, 11.5)]
    labels, _ = read_rtstruct(drawn({"organ": plus}), LIKE)
    assert labels.array.sum() == 20 + 20 - 4
    assert kinds(labels) == ["contours_cross"]


def test_a_contour_that_leaves_another_beside_every_voxel_centre_crosses_it(drawn):
    labels, _ = read_rtstruct(drawn({"organ": [WHOLE, square_of(1.3, 5.5, 4.5, 8.5)]}), LIKE)
    assert labels.array.sum() == 100
    assert kinds(labels) == ["contours_cross"]


def test_a_hole_may_touch_its_outer_contour_as_far_as_decimals_tell(drawn):
    for low in (1.5, 1.505, 1.495):
        labels, _ = read_rtstruct(drawn({"organ": [WHOLE, square_of(low, 5.5, 4.5, 8.5)]}), LIKE)
        assert labels.array.sum() == 100 - 9
        assert labels.findings == ()


def test_contours_that_touch_have_each_their_voxels_and_no_finding(drawn):
    for low in (11.5, 11.505, 11.495):
        labels, _ = read_rtstruct(drawn({"organ": [WHOLE, square_of(low, 1.5, 14.5, 11.5)]}), LIKE)
        assert labels.array.sum() == 100 + 30
        assert labels.findings == ()


def test_a_hole_in_two_united_contours_stays_open(drawn):
    contours = [square_of(1.5, 1.5, 9.5, 11.5), square_of(4.5, 1.5, 14.5, 11.5), square_of(5.5, 5.5, 7.5, 7.5)]
    labels, _ = read_rtstruct(drawn({"organ": contours}), LIKE)
    assert labels.array.sum() == 130 - 4


def test_an_island_drawn_as_a_contour_in_the_hole_of_a_keyhole_is_kept(drawn):
    keyhole = [(1.5, 6.2, 4), *WHOLE, (1.5, 6.2, 4), (3.5, 6.2, 4), *square_of(3.5, 3.5, 9.5, 9.5)[::-1], (3.5, 6.2, 4)]
    labels, _ = read_rtstruct(drawn({"organ": [keyhole, square_of(5.5, 5.5, 7.5, 7.5)]}), LIKE)
    assert labels.array.sum() == 100 - 36 + 4
    assert labels.findings == ()


def test_contours_to_be_combined_by_exclusive_or_cancel_where_they_coincide(drawn):
    twice = [("CLOSEDPLANAR_XOR", WHOLE), ("CLOSEDPLANAR_XOR", WHOLE)]
    crossing = [
        ("CLOSEDPLANAR_XOR", square_of(1.5, 1.5, 5.5, 5.5)),
        ("CLOSEDPLANAR_XOR", square_of(4.5, 1.5, 8.5, 5.5)),
    ]
    labels, _ = read_rtstruct(drawn({"twice": twice, "crossing": crossing}), LIKE)
    assert [(labels.array == value).sum() for value in (1, 2)] == [0, 16 + 16 - 8]
    assert kinds(labels) == ["roi_empty"]
    mixed = [WHOLE, ("CLOSEDPLANAR_XOR", square_of(4.5, 4.5, 8.5, 8.5))]
    assert read_rtstruct(drawn({"mixed": mixed}), LIKE)[0].array.sum() == 100 - 16


def test_contours_between_the_voxel_centres_leave_an_roi_empty_with_a_finding(drawn):
    labels, values = read_rtstruct(drawn({"tiny": [square_of(1.6, 1.6, 1.9, 1.9)]}), LIKE)
    assert not labels.array.any()
    assert values == {"tiny": 1}
    assert kinds(labels) == ["roi_empty"]


BAD = {
    "outside the image": ([square_of(50, 50, 60, 60)], {}),
    "beyond the slices": ([square(1.5, 4.5, 40)], {}),
    "sagittal": ([[(2, 1, 0), (2, 5, 0), (2, 5, 8), (2, 1, 8)]], {}),
    "another frame of reference": ([square(1.5, 4.5, 4)], {"frames": {"bad": "1.2.3"}}),
    "wrong number of points": ([square(1.5, 4.5, 4)], {"counts": {"bad": 7}}),
}


@pytest.mark.parametrize("fault", BAD)
def test_an_roi_that_cannot_be_read_is_left_out_by_name_and_the_others_are_read(drawn, fault):
    contours, fields = BAD[fault]
    like = Volume(LIKE.array, LIKE.affine, metadata=Metadata(frame_of_reference_uid=FRAME))
    path = drawn({"organ": [WHOLE], "bad": contours, "last": [square(12.5, 14.5, 4)]}, **fields)
    labels, values = read_rtstruct(path, like)
    assert values == {"organ": 1, "last": 3}
    assert [(labels.array == value).sum() for value in (1, 2, 3)] == [100, 0, 4]
    (finding,) = labels.findings
    assert finding.kind == "roi_left_out"
    assert finding.message.startswith("'bad' was left out: ")
    assert str(path) not in finding.message
    with pytest.raises(MedsegError, match="'bad'"):
        read_rtstruct(path, like, strict=True)
    with pytest.raises(MedsegError, match="'bad'"):
        read_rtstruct(drawn({"bad": contours, "nothing": []}, **fields), like)


@pytest.mark.parametrize("off", [square(1.5, 4.5, 40), square(50, 60, 4)])
def test_contours_off_the_grid_are_skipped_where_others_of_the_roi_lie_on_it(drawn, off):
    path = drawn({"organ": [WHOLE, off]})
    labels, _ = read_rtstruct(path, LIKE)
    assert labels.array.sum() == 100
    assert kinds(labels) == ["contours_outside"]
    with pytest.raises(GeometryError, match="'organ'"):
        read_rtstruct(path, LIKE, strict=True)


def test_contours_of_an_roi_that_is_stored_in_two_items_or_not_described_are_read(drawn):
    path = drawn({"organ": [WHOLE], "b": [square(12.5, 14.5, 4)], "c": [square(12.5, 14.5, 6)]})
    data = pydicom.dcmread(path)
    del data.StructureSetROISequence[2]
    items = {int(item.ReferencedROINumber): item for item in data.ROIContourSequence}
    items[12].ReferencedROINumber = 11
    data.save_as(path)
    labels, values = read_rtstruct(path, LIKE)
    assert values == {"organ": 1, "b": 2, "ROI 13": 3}
    assert [(labels.array == value).sum() for value in (1, 2, 3)] == [104, 0, 4]


def test_points_and_open_contours_are_skipped_with_a_finding(drawn):
    rois = {
        "marker": [("POINT", [(3, 3, 4)])],
        "lung": [square(1.5, 4.5, 4), [(1, 1, 2), (2, 2, 2)], ("OPEN_PLANAR", square(1, 9, 4)), [(1, 1, 4)]],
    }
    labels, values = read_rtstruct(drawn(rois), LIKE)
    assert values == {"marker": 1, "lung": 2}
    assert labels.array.sum() == 2 * 9
    assert [(f.kind, f.message) for f in labels.findings] == [
        ("contours_skipped", "'marker': 1 contour(s) POINT have no inside and were skipped"),
        ("contours_skipped", "'lung': 2 contour(s) of fewer than 3 points have no inside and were skipped"),
        ("contours_skipped", "'lung': 1 contour(s) OPEN_PLANAR have no inside and were skipped"),
    ]


def test_contours_between_slices_go_to_the_nearest_with_a_finding(drawn):
    labels, _ = read_rtstruct(drawn({"a": [square(1.5, 4.5, 4.7), square(1.5, 4.5, 7.2)]}), LIKE)
    assert labels.array.sum(axis=(0, 1)).tolist() == [0, 0, 9, 0, 9, 0]
    assert kinds(labels) == ["contours_between_slices", "contours_sparse"]
    assert "up to 0.80 mm onto" in labels.findings[0].message


def test_of_several_planes_for_one_slice_the_nearest_is_taken(drawn):
    # Drawn on slices 1 mm apart: filled together, every second plane would cancel out the one before.
    contours = [square(1.5, 4.5 + z, z) for z in range(9)]
    labels, _ = read_rtstruct(drawn({"a": contours}), LIKE)
    assert labels.array.sum(axis=(0, 1)).tolist() == [9, 25, 49, 81, 121, 0]
    assert "contours_thinned" in kinds(labels)


def test_contours_on_every_second_slice_leave_the_others_empty_with_a_finding(drawn):
    labels, _ = read_rtstruct(drawn({"a": [square(1.5, 4.5, z) for z in (0, 4, 8)]}), LIKE)
    assert labels.array.sum(axis=(0, 1)).tolist() == [9, 0, 9, 0, 9, 0]
    assert kinds(labels) == ["contours_sparse"]


def test_contours_that_reach_beyond_the_image_are_cut_with_a_finding(drawn):
    labels, _ = read_rtstruct(drawn({"couch": [square(-5, 4.5, 4)]}), LIKE)
    assert labels.array[:, :, 2].sum() == 25
    assert kinds(labels) == ["contours_clipped"]


def test_of_overlapping_rois_the_later_one_shows_with_a_finding(drawn):
    labels, _ = read_rtstruct(drawn({"a": [square(1.5, 5.5, 4)], "b": [square(4.5, 6.5, 4)]}), LIKE)
    assert (labels.array == 1).sum() == 16 - 1
    assert (labels.array == 2).sum() == 4
    assert kinds(labels) == ["overlap"]
    assert "'b' over 1 voxels" in labels.findings[0].message


@pytest.mark.parametrize(
    ("contour", "message"),
    [
        (square(1.5, 4.5, 40), "28|30.00 mm off the nearest slice, with slices 2.00 mm apart"),
        (square(1.5, 4.5, -1.2), "1.20 mm off the nearest slice"),
        (square(50, 60, 4), "outside the image of 20 x 16 voxels"),
        ([(2, 1, 0), (2, 5, 0), (2, 5, 8), (2, 1, 8)], "8.00 mm across the slices"),
    ],
)
def test_contours_off_the_grid_are_refused(drawn, contour, message):
    with pytest.raises(GeometryError, match=message) as caught:
        read_rtstruct(drawn({"a": [contour]}), LIKE)
    assert caught.value.kind == "contours_off_grid"
    assert "rt.dcm" in str(caught.value)


def test_another_frame_of_reference_is_refused(drawn, tmp_path):
    grid = grid_in(tmp_path / "study", shape=SHAPE)
    write_rtstruct(volume_on(grid, a_label_map()), tmp_path / "own.dcm", SCHEME, grid, MODEL)
    other = grid_in(tmp_path / "other", shape=SHAPE, frame_of_reference=2)
    for like in (other, read(tmp_path / "other")):
        with pytest.raises(GeometryError, match="another frame of reference"):
            read_rtstruct(tmp_path / "own.dcm", like)


def test_a_grid_without_a_place_in_the_patient_is_refused(drawn):
    photograph = Volume(np.zeros((5, 5)), np.eye(4), spacing_known=False)
    with pytest.raises(GeometryError, match="no known spacing"):
        read_rtstruct(drawn({"a": [square(1.5, 4.5, 0)]}), photograph)


def test_a_volume_of_any_orientation_can_be_read_onto(drawn):
    path = drawn({"a": [square(1.5, 4.5, 4)], "b": [[(6.5, 1.5, 6), (9.5, 1.5, 6), (9.5, 3.5, 6), (6.5, 3.5, 6)]]})
    straight, _ = read_rtstruct(path, LIKE)
    flipped = LIKE.affine @ np.array([[-1, 0, 0, 19], [0, 1, 0, 0], [0, 0, -1, 5], [0, 0, 0, 1.0]])
    turned, _ = read_rtstruct(path, Volume(LIKE.array, flipped))
    np.testing.assert_array_equal(turned.array, straight.array[::-1, :, ::-1])


def test_what_is_no_structure_set_is_refused_by_name(tmp_path, drawn):
    (tmp_path / "text.dcm").write_text("hello")
    with pytest.raises(ReadError, match=r"text\.dcm is not a DICOM file"):
        read_rtstruct(tmp_path / "text.dcm", LIKE)
    with pytest.raises(ReadError, match=r"gone\.dcm cannot be read"):
        read_rtstruct(tmp_path / "gone.dcm", LIKE)
    grid = grid_in(tmp_path / "study", shape=SHAPE)
    for reader in (lambda path: read_rtstruct(path, LIKE), referenced_series):
        with pytest.raises(ReadError, match="is CT Image Storage; expected an RT Structure Set"):
            reader(grid.slices[0].path)
    with pytest.raises(ReadError, match="describes the ROIs none"):
        read_rtstruct(drawn({}), LIKE)
    assert referenced_series(drawn({})) == ()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"1\\2", "has 2 coordinates"),
        (b"1\\2\\3\\4\\5\\6\\7\\8\\9 ", "has 9 coordinates, but claims 4 points"),
        (b"1\\2\\x ", "is damaged .*expected an RT Structure Set"),
        (b"1\\2\\nan\\1\\2\\3\\1\\2\\3\\1\\2\\3", "are not numbers"),
    ],
)
def test_damaged_coordinates_are_refused(drawn, data, message):
    path = drawn({"a": [square(1, 4, 4)]})
    content = path.read_bytes()
    at = content.index(b"1.0000\\1.0000")
    length = int.from_bytes(content[at - 2 : at], "little")
    # Trailing spaces keep the length that the file promises.
    path.write_bytes(content[:at] + data.ljust(length) + content[at + length :])
    with pytest.raises(ReadError, match=message):
        read_rtstruct(path, LIKE)


def test_a_file_of_ours_keeps_its_values_whatever_happens_to_the_descriptions(tmp_path):
    grid = grid_in(tmp_path / "study", shape=SHAPE)
    write_rtstruct(volume_on(grid, a_label_map()), tmp_path / "rt.dcm", SCHEME, grid, MODEL)
    data = pydicom.dcmread(tmp_path / "rt.dcm")
    for roi in data.StructureSetROISequence:
        del roi.ROIDescription
    data.save_as(tmp_path / "rt.dcm")
    assert list(read_rtstruct(tmp_path / "rt.dcm", grid)[1].values()) == [1, 7, 300]


def test_mutated_files_are_read_or_refused_but_never_crash(tmp_path):
    grid = grid_in(tmp_path / "study", shape=SHAPE)
    write_rtstruct(volume_on(grid, a_label_map(values=(2, 1, 4))), tmp_path / "rt.dcm", BRATS, grid, MODEL)
    content = (tmp_path / "rt.dcm").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(150):
        mutated = bytearray(content)
        for at in rng.integers(132, len(content), rng.integers(1, 12)):
            mutated[at] = rng.integers(256)
        if rng.random() < 0.3:
            del mutated[rng.integers(132, len(content)) :]
        (tmp_path / "bad.dcm").write_bytes(bytes(mutated))
        for reader in (lambda path: read_rtstruct(path, grid), referenced_series):
            try:
                reader(tmp_path / "bad.dcm")
            except MedsegError as error:
                assert "bad.dcm" in str(error)
                assert "\n" not in str(error)
