"""A value that no image can have is refused from the header, by tag, value and file; unusual ones are read."""

from __future__ import annotations

import struct
import time

import numpy as np
import pydicom
import pytest
from dicom_phantom_multiframe import write_enhanced
from dicom_phantoms import Phantom, save, slice_of
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from seg_cases import MODEL, SCHEME, a_label_map, grid_in, volume_on

from medseg.commands.inspect import inspect
from medseg.errors import MedsegError
from medseg.io import read, read_all
from medseg.io.dicom.objects import read_object
from medseg.io.dicom.rtstruct.write import write_rtstruct
from medseg.io.dicom.seg.write import write_dicom_seg
from medseg.io.dicom.tags import tagged


def put(data, keyword, value):
    """An element as damage leaves it: bytes that no library would write."""
    tag = Tag(pydicom.datadict.tag_for_keyword(keyword))
    kind = "US" if isinstance(value, int) else pydicom.datadict.dictionary_VR(tag)
    raw = struct.pack("<H", value) if isinstance(value, int) else value.encode()
    raw += b" " * (len(raw) % 2)
    data[tag] = RawDataElement(tag, kind, len(raw), raw, 0, False, True)


def series(folder, keyword, value, which=None, slices=4, **fields):
    """A series of which all slices, or one, have this value; where it is called, it is given k."""
    phantom = Phantom(shape=(9, 7, slices), **fields)
    for k in range(slices):
        data = slice_of(phantom, k)
        wanted = value(k) if callable(value) else value
        is_text = keyword == "NumberOfFrames"
        if which is None or which == k:
            # pydicom parses whole numbers when it writes them.
            put(data, keyword, "7" * (len(wanted) + len(wanted) % 2) if is_text else wanted)
        path = save(data, folder / f"IM{k}.dcm", phantom.syntax)
        if is_text:
            length = len(wanted) + len(wanted) % 2
            tag = b"\x28\0\x08\0IS" + struct.pack("<H", length)
            content = path.read_bytes().replace(tag + b"7" * length, tag + wanted.encode().ljust(length))
            path.write_bytes(content)
    return folder


def refusal(path, **options):
    """The one line of a refusal, which `inspect` tells, too."""
    started = time.monotonic()
    with pytest.raises(MedsegError) as caught:
        read(path, **options)
    told = [item.refused for item in inspect(path, **options).items]
    assert time.monotonic() - started < 5
    text = str(caught.value)
    assert "\n" not in text
    assert caught.value.exit_code == 3
    assert text in told
    with pytest.raises(MedsegError):
        read_all(path, **options)
    return text


SPACINGS = ["1e-30", "1e-9", "0", "-1", "1e5", "1e30", "1e400", "nan", "inf", "abc"]
SLOPES = ["0", "1e-300", "1e300", "-1e25", "nan", "inf", "abc"]
POSITIONS = ["1e9", "-1e12", "1e300", "nan", "inf", "abc"]


@pytest.mark.parametrize("slices", [1, 4])
@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        *(("PixelSpacing", f"{v}\\{v}") for v in SPACINGS),
        *(("ImagePositionPatient", f"{v}\\0\\0") for v in POSITIONS),
        *(("RescaleSlope", v) for v in SLOPES),
        *(("RescaleIntercept", v) for v in ["1e300", "nan", "inf", "abc"]),
        *(("SliceThickness", v) for v in ["1e-30", "1e9", "nan", "inf", "abc"]),
        ("ImageOrientationPatient", "0\\0\\0\\0\\0\\0"),
        ("ImageOrientationPatient", "2\\0\\0\\0\\2\\0"),
        ("ImageOrientationPatient", "1\\0\\0\\1\\0\\0"),
        ("ImageOrientationPatient", "nan\\0\\0\\0\\1\\0"),
        ("ImageOrientationPatient", "1e300\\0\\0\\0\\1e300\\0"),
        ("Rows", 0),
        ("Rows", 65535),
        ("Columns", 0),
        ("Columns", 65535),
        *(("BitsAllocated", v) for v in [0, 1, 7, 12, 64, 65535]),
        *(("BitsStored", v) for v in [0, 17]),
        *(("HighBit", v) for v in [3, 65535]),
        *(("SamplesPerPixel", v) for v in [0, 2, 200]),
        *(("NumberOfFrames", v) for v in ["1000000000", "0", "-1", "2.5", "nan", "abc"]),
    ],
)
def test_an_impossible_value_is_refused_by_tag_and_file(tmp_path, keyword, value, slices):
    text = refusal(series(tmp_path, keyword, value, slices=slices))
    assert tagged(keyword) in text
    assert f"{tmp_path / 'IM0.dcm'}" in text


def test_the_tag_is_named_by_keyword_and_number():
    assert tagged("PixelSpacing") == "PixelSpacing (0028,0030)"
    assert tagged("DoseGridScaling") == "DoseGridScaling (3004,000E)"


@pytest.mark.parametrize("value", POSITIONS)
def test_one_stray_slice_is_named(tmp_path, value):
    text = refusal(series(tmp_path, "ImagePositionPatient", f"0\\0\\{value}", which=2))
    assert tagged("ImagePositionPatient") in text
    assert "IM2.dcm" in text


@pytest.mark.parametrize("irregular", ["error", "allow", "resample"])
@pytest.mark.parametrize("apart", [1e5, 3e6])
def test_slices_further_apart_than_any_scanner_is_long_are_refused(tmp_path, apart, irregular):
    folder = series(tmp_path, "ImagePositionPatient", lambda k: f"0\\0\\{apart * k:g}")
    text = refusal(folder, irregular=irregular)
    assert tagged("ImagePositionPatient") in text
    assert f"{apart:g}" in text


def test_a_gap_that_no_memory_fills_is_not_interpolated(tmp_path):
    folder = series(tmp_path, "ImagePositionPatient", lambda k: f"0\\0\\{2.5 * k + 1e6 * (k == 3):g}")
    assert tagged("ImagePositionPatient") in refusal(folder, irregular="resample")


def test_pixels_too_small_for_their_slices_are_refused(tmp_path):
    text = refusal(series(tmp_path, "PixelSpacing", "1e-6\\1e-6"))
    assert tagged("PixelSpacing") in text
    assert "1e-06 x 1e-06 x 2.5 mm" in text


def test_a_detector_spacing_counts_only_where_nothing_else_is_known(tmp_path):
    folder = series(tmp_path / "a", "ImagerPixelSpacing", "1e30\\1e30", slices=1)
    assert read(folder).spacing_mm == (0.8, 1.1)
    folder = series(tmp_path / "b", "ImagerPixelSpacing", "1e30\\1e30", slices=1, tags={"PixelSpacing": None})
    assert tagged("ImagerPixelSpacing") in refusal(folder)


@pytest.mark.parametrize("syntax", ["RLE", "JPEG 2000 lossless", "JPEG-LS lossless"])
def test_compressed_pixels_that_cannot_fill_their_frame_are_refused_before_memory_is_taken(tmp_path, syntax):
    folder = series(tmp_path, "Rows", 7, slices=3, syntax=syntax, stored="uint16")
    for path in folder.iterdir():
        data = pydicom.dcmread(path)
        data.Rows = data.Columns = 65535
        data.save_as(path)
    text = refusal(folder)
    assert tagged("Rows") in text
    assert tagged("Columns") in text


def test_more_voxels_than_memory_is_free_are_refused_before_they_are_read(tmp_path, monkeypatch):
    import medseg.io.dicom.read as reading

    folder = series(tmp_path, "Rows", 7)
    monkeypatch.setattr(reading, "free_memory", lambda: 100)
    with pytest.raises(MedsegError, match="4 slices of 7 x 9"):
        read(folder)


@pytest.mark.parametrize(
    ("fields", "keyword", "value"),
    [
        ({"spacing": (4e-6, 4e-6, 4e-5)}, "Rows", 7),
        ({"spacing": (0.00025, 0.00025, 5.0)}, "Rows", 7),
        ({"spacing": (50.0, 50.0, 200.0), "gradient": (0.01, 0.02, 0.03)}, "Rows", 7),
        ({}, "SliceThickness", "0"),
        ({}, "SliceThickness", "-1"),
        ({}, "RescaleSlope", "2.3e-10"),
        ({}, "RescaleSlope", "-1e-9"),
        ({}, "RescaleSlope", "123456789"),
        ({}, "RescaleIntercept", "-1e6"),
        ({}, "EchoTime", "nan"),
        ({}, "WindowWidth", "1e300"),
        ({}, "InstanceNumber", "99999999"),
    ],
)
def test_unusual_values_are_read(tmp_path, fields, keyword, value):
    folder = series(tmp_path, keyword, value, digits=12, **fields)
    volume = read(folder)
    np.testing.assert_allclose(volume.spacing_mm, fields.get("spacing", (0.8, 1.1, 2.5)), rtol=1e-6)
    assert np.isfinite(volume.array).all()
    (item,) = inspect(folder).items
    np.testing.assert_allclose(item.spacing_mm, volume.spacing_mm, rtol=1e-5)


@pytest.mark.parametrize(
    ("sequence", "keyword", "value"),
    [
        *(("PixelMeasuresSequence", "PixelSpacing", f"{v}\\{v}") for v in SPACINGS),
        *(("PixelMeasuresSequence", "SliceThickness", v) for v in ["1e9", "nan", "inf", "abc"]),
        *(("PlanePositionSequence", "ImagePositionPatient", f"0\\{v}\\0") for v in POSITIONS),
        ("PlaneOrientationSequence", "ImageOrientationPatient", "nan\\0\\0\\0\\1\\0"),
        ("PlaneOrientationSequence", "ImageOrientationPatient", "1e300\\0\\0\\0\\1e300\\0"),
        *(("PixelValueTransformationSequence", "RescaleSlope", v) for v in SLOPES),
        *(("PixelValueTransformationSequence", "RescaleIntercept", v) for v in ["1e300", "nan", "abc"]),
    ],
)
@pytest.mark.parametrize("which", ["all", "one"])
def test_functional_groups_are_held_to_the_same_bounds(tmp_path, sequence, keyword, value, which):
    path = write_enhanced(tmp_path / "e.dcm", Phantom(), per_frame_geometry=True, in_order=True)
    data = pydicom.dcmread(path)
    groups = data.PerFrameFunctionalGroupsSequence
    # One odd frame is told by what makes it odd; several by the value itself.
    for group in groups if which == "all" else groups[:1]:
        put(group[sequence][0], keyword, value)
    pydicom.dcmwrite(path, data)
    text = refusal(path)
    assert "e.dcm" in text
    assert tagged(keyword) in text or (which == "one" and "e.dcm[" in text)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("NumberOfFrames", "1000000000"), ("Rows", 65535), ("BitsAllocated", 7), ("SamplesPerPixel", 200)],
)
def test_the_size_of_a_multi_frame_object_is_checked(tmp_path, keyword, value):
    path = write_enhanced(tmp_path / "e.dcm", Phantom())
    data = pydicom.dcmread(path)
    put(data, keyword, value)
    pydicom.dcmwrite(path, data)
    assert tagged(keyword) in refusal(path)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        *(("DoseGridScaling", v) for v in SLOPES),
        *(("GridFrameOffsetVector", f"0\\2.5\\5\\{v}") for v in ["1e9", "1e300", "nan", "inf", "abc"]),
        ("GridFrameOffsetVector", "0\\1e6\\2e6\\3e6"),
        ("NumberOfFrames", "60000"),
    ],
)
def test_doses_are_held_to_the_same_bounds(tmp_path, keyword, value):
    data = slice_of(Phantom(shape=(9, 7, 1), slopes=None, stored="uint16"), 0)
    data.SOPClassUID, data.Modality = "1.2.840.10008.5.1.4.1.1.481.2", "RTDOSE"
    data.PixelData = data.PixelData * 4
    for each, usual in (("NumberOfFrames", "4"), ("DoseGridScaling", "0.001"), ("GridFrameOffsetVector", "0\\3\\6\\9")):
        put(data, each, value if each == keyword else usual)
    save(data, tmp_path / "dose.dcm")
    text = refusal(tmp_path)
    assert tagged(keyword) in text or (value.endswith("3e6") and "1e+06 mm" in text)


def measures(keyword, value):
    return lambda data: put(data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0], keyword, value)


def apart(value):
    def change(data):
        for k, group in enumerate(data.PerFrameFunctionalGroupsSequence):
            put(group.PlanePositionSequence[0], "ImagePositionPatient", f"0\\0\\{value * k:g}")

    return change


def fractional(data):
    data.SegmentationType = "FRACTIONAL"
    put(data, "MaximumFractionalValue", 0)


SEGMENTATIONS = {
    **{f"PixelSpacing {v}": measures("PixelSpacing", f"{v}\\{v}") for v in SPACINGS},
    **{f"SpacingBetweenSlices {v}": measures("SpacingBetweenSlices", v) for v in ["1e9", "nan", "abc"]},
    **{f"SliceThickness {v}": measures("SliceThickness", v) for v in ["1e300", "inf", "abc"]},
    **{f"ImagePositionPatient {v:g}": apart(v) for v in (1e5, 1e9, 1e300)},
    "Rows 65535": lambda data: (put(data, "Rows", 65535), put(data, "Columns", 65535)),
    "Rows 0": lambda data: put(data, "Rows", 0),
    "NumberOfFrames 1e9": lambda data: put(data, "NumberOfFrames", "1000000000"),
    "BitsAllocated 7": lambda data: put(data, "BitsAllocated", 7),
    "SamplesPerPixel 200": lambda data: put(data, "SamplesPerPixel", 200),
    "MaximumFractionalValue 0": fractional,
}


@pytest.mark.parametrize("what", SEGMENTATIONS)
def test_segmentations_are_held_to_the_same_bounds(tmp_path, what):
    grid = grid_in(tmp_path / "study")
    path = tmp_path / "s.dcm"
    write_dicom_seg(volume_on(grid, a_label_map()), path, SCHEME, grid, MODEL)
    data = pydicom.dcmread(path)
    SEGMENTATIONS[what](data)
    pydicom.dcmwrite(path, data)
    with pytest.raises(MedsegError) as caught:
        read(path)
    assert tagged(what.split()[0]) in str(caught.value)
    assert "s.dcm" in str(caught.value)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        *(("ContourData", f"{v}\\1\\1\\2\\1\\1\\2\\2\\1") for v in ["nan", "inf", "1e30", "1e300", "1e400", "abc"]),
        *(("NumberOfContourPoints", v) for v in ["300000000", "-1", "abc", "nan"]),
    ],
)
def test_contours_are_held_to_the_same_bounds(tmp_path, keyword, value):
    grid = grid_in(tmp_path / "study")
    path = tmp_path / "r.dcm"
    write_rtstruct(volume_on(grid, a_label_map()), path, SCHEME, grid, MODEL)
    data = pydicom.dcmread(path)
    contour = data.ROIContourSequence[0].ContourSequence[0]
    if keyword == "ContourData":
        put(contour, "NumberOfContourPoints", "3")
    put(contour, keyword, value)
    pydicom.dcmwrite(path, data)
    with pytest.raises(MedsegError) as caught:
        read_object(path, tmp_path / "study", strict=True)
    assert tagged(keyword) in str(caught.value)
    assert "r.dcm" in str(caught.value)
    assert caught.value.exit_code == 3
    # Without strict the other ROIs are read, and the damaged one is named.
    volume, _ = read_object(path, tmp_path / "study")
    (left_out,) = [finding for finding in volume.findings if finding.kind == "roi_left_out"]
    assert tagged(keyword) in left_out.message
