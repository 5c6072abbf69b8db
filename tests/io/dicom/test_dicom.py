"""A regular DICOM series: order, orientation, rescaling, and what stays in int16."""

from __future__ import annotations

import shutil
import zipfile
import zlib

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from medseg.errors import MedsegError, ReadError
from medseg.geometry import flip_lps_ras, reorient
from medseg.io import read, read_all

TURNS = {
    "axial": np.eye(3),
    "axial, feet first": np.array([[1, 0, 0], [0, -1, 0], [0, 0, -1]], float),
    "coronal": np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], float),
    "sagittal": np.array([[0, 0, -1], [1, 0, 0], [0, -1, 0]], float),
    "oblique": np.array(
        [[0.9362934, -0.2896295, 0.1986693], [0.3129918, 0.9447025, -0.0978434], [-0.1593451, 0.1537920, 0.9751703]]
    ),
}


def world_function(points):
    return 3.0 * points[0] - 2.0 * points[1] + 5.0 * points[2]


@pytest.mark.parametrize("turn", TURNS)
def test_each_voxel_lies_where_its_slice_says(write_series, tmp_path, turn):
    row, column = np.linalg.qr(TURNS[turn])[0][:, :2].T
    affine = np.eye(4)
    affine[:3, :3] = np.stack([row, column, np.cross(row, column)], axis=1) * (0.8, 1.1, 2.5)
    affine[:3, 3] = (-31.0, 12.5, 7.0)
    shape = (7, 6, 5)
    index = np.indices(shape).reshape(3, -1)
    lps = affine[:3, :3] @ index + affine[:3, 3:]
    array = np.rint(world_function(lps)).astype(np.int16).reshape(shape)
    write_series(tmp_path, array, affine)
    volume = read(tmp_path)
    ras = volume.affine[:3, :3] @ index + volume.affine[:3, 3:]
    expected = world_function(np.array([-ras[0], -ras[1], ras[2]]))
    assert np.abs(volume.array.reshape(-1) - expected).max() <= 0.51
    assert volume.array.dtype == np.int16
    assert volume.shape == shape
    np.testing.assert_allclose(volume.affine, flip_lps_ras(affine), atol=1e-5)


def test_it_equals_what_itk_reads(write_series, tmp_path):
    array = np.random.default_rng(1).integers(-1000, 2000, (6, 5, 4)).astype(np.int16)
    turn = np.eye(4)
    turn[:3, :3] = TURNS["coronal"] * (0.9, 1.2, 3.0)
    write_series(tmp_path, array, turn)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    image = reader.Execute()
    volume = read(tmp_path)
    np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(image).T)
    np.testing.assert_allclose(volume.spacing_mm, image.GetSpacing(), atol=1e-6)
    np.testing.assert_allclose(flip_lps_ras(volume.affine)[:3, 3], image.GetOrigin(), atol=1e-6)


def test_stacking_order_does_not_depend_on_names_or_instance_numbers(small_series):
    first, second = read(small_series("a", seed=1)), read(small_series("b", seed=2))
    np.testing.assert_array_equal(first.array, second.array)
    np.testing.assert_array_equal(first.array, np.arange(120).reshape(5, 4, 6))


def test_spacing_along_k_is_the_mean_step_and_small_jitter_is_read(small_series):
    folder = small_series(per_slice=lambda k: {"ImagePositionPatient": [0, 0, 2.0 * k + 0.01 * (k % 2)]})
    volume = read(folder)
    assert volume.spacing_mm[2] == pytest.approx((10.01 - 0.0) / 5)
    assert volume.findings == ()


def test_noticeable_jitter_is_read_with_a_finding(small_series):
    volume = read(small_series(per_slice=lambda k: {"ImagePositionPatient": [0, 0, 2.0 * k + 0.06 * (k % 2)]}))
    assert [f.kind for f in volume.findings] == ["spacing_jitter"]


def test_integral_intercept_keeps_int16(small_series):
    volume = read(small_series(RescaleIntercept=-1024))
    assert volume.array.dtype == np.int16
    assert volume.array[0, 0, 0] == -1024


def test_slopes_differ_per_slice_as_in_pet(small_series):
    volume = read(small_series(per_slice=lambda k: {"RescaleSlope": 0.5 * (k + 1), "RescaleIntercept": 1}))
    assert volume.array.dtype == np.float32
    stored = np.arange(120).reshape(5, 4, 6)
    np.testing.assert_allclose(volume.array, stored * (0.5 * np.arange(1, 7)) + 1)


def test_unsigned_values_beyond_int16_become_float32(write_series, tmp_path):
    array = np.full((4, 4, 4), 60000, np.uint16)
    array[0, 0, 0] = 3
    write_series(tmp_path, array, np.eye(4), RescaleIntercept=-1024)
    volume = read(tmp_path)
    assert volume.array.dtype == np.float32
    assert volume.array[0, 0, 0] == 3 - 1024
    assert volume.array[1, 1, 1] == 60000 - 1024


def test_monochrome1_is_not_inverted(small_series):
    volume = read(small_series(PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_array_equal(volume.array, np.arange(120).reshape(5, 4, 6))
    assert [f.kind for f in volume.findings] == ["monochrome1"]


def test_metadata_carry_modality_and_identifiers(small_series):
    metadata = read(small_series(SeriesDescription="thin")).metadata
    assert (metadata.modality, metadata.patient_id, metadata.series_description) == ("CT", "p1", "thin")
    assert metadata.series_instance_uid.endswith(".3")


def test_one_slice_is_a_2d_image_in_the_patient(small_series):
    folder = small_series()
    volume = read(folder / "IM0000")
    assert volume.dims == 2
    assert volume.spacing_mm == (0.5, 0.75)
    assert volume.affine[2, 2] == pytest.approx(2.0)
    assert volume.spacing_known


def test_a_radiograph_without_position_is_read_at_its_detector_spacing(small_series):
    lost = {"ImagePositionPatient": None, "ImageOrientationPatient": None, "PixelSpacing": None}
    volume = read(small_series(slices=1, ImagerPixelSpacing=[0.2, 0.1], **lost))
    assert volume.spacing_mm == (0.1, 0.2)
    assert [f.kind for f in volume.findings] == ["detector_spacing"]


def test_other_files_in_the_folder_are_passed_over(small_series):
    folder = small_series()
    (folder / "README.txt").write_text("hello")
    (folder / "notes").write_text("no DICOM at all, but long enough to look at" * 9)
    (folder / "._IM0000").write_bytes(b"junk")
    (folder / "preview.png").write_bytes(b"junk")
    assert read(folder).shape == (5, 4, 6)


def test_several_series_are_refused_and_named_and_one_can_be_chosen(small_series, tmp_path):
    small_series("study/a", SeriesInstanceUID="1.2.3", SeriesDescription="thin")
    small_series("study/b", SeriesInstanceUID="1.2.4", SeriesDescription="thick", RescaleIntercept=7)
    with pytest.raises(ReadError, match=r"2 volumes.*1\.2\.3 \(CT 'thin', 6 images\).*1\.2\.4.*series=UID"):
        read(tmp_path / "study")
    assert read(tmp_path / "study", series="1.2.4").array[0, 0, 0] == 7
    with pytest.raises(ReadError, match=r"not contain series 9\.9.*1\.2\.3"):
        read(tmp_path / "study", series="9.9")
    assert len(read_all(tmp_path / "study")) == 2


def test_read_all_names_what_it_could_not_read(small_series, tmp_path):
    small_series("study/a", SeriesInstanceUID="1.2.3")
    small_series("study/b", SeriesInstanceUID="1.2.4", ImagePositionPatient=None)
    (volume,) = read_all(tmp_path / "study")
    assert [f.kind for f in volume.findings] == ["unreadable"]
    assert "no ImagePositionPatient" in volume.findings[0].message


def test_a_zip_is_read_like_its_folder(small_series, tmp_path):
    folder = small_series()
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"deep/{path.name}")
    volume = read(tmp_path / "study.zip")
    np.testing.assert_array_equal(volume.array, read(folder).array)
    assert volume.metadata.source.endswith("study.zip")


def test_a_damaged_zip_is_refused(tmp_path):
    (tmp_path / "study.zip").write_bytes(b"PK nonsense")
    with pytest.raises(ReadError, match=r"study\.zip"):
        read(tmp_path / "study.zip")


def test_a_slice_cut_short_is_refused_by_name(small_series):
    folder = small_series()
    path = folder / "IM0003"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ReadError, match="IM0003"):
        read(folder)


def test_a_header_cut_short_is_refused_not_passed_over(small_series):
    folder = small_series()
    path = folder / "IM0003"
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(ReadError, match="IM0003"):
        read(folder)


def test_an_empty_file_named_dcm_is_refused(small_series):
    folder = small_series()
    (folder / "IM0009.dcm").touch()
    with pytest.raises(ReadError, match=r"IM0009\.dcm"):
        read(folder)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ReadError, match="contains no image"):
        read(tmp_path)


def test_files_without_preamble_are_read(small_series):
    folder = small_series()
    for path in list(folder.iterdir()):
        data = pydicom.dcmread(path)
        del data.file_meta.TransferSyntaxUID
        raw = pydicom.filebase.DicomBytesIO()
        raw.is_little_endian, raw.is_implicit_VR = True, True
        pydicom.filewriter.write_dataset(raw, data)
        path.write_bytes(raw.getvalue())
    np.testing.assert_array_equal(read(folder).array, np.arange(120).reshape(5, 4, 6))


def test_left_stays_left_through_dicom(write_series, tmp_path):
    array = np.zeros((9, 8, 7), np.int16)
    # i runs to the patient's left (LPS identity), so the high end is left, x < 0 in RAS.
    array[7, 4, 3] = 100
    affine = np.eye(4)
    affine[:3, 3] = (-4, -4, -3)
    write_series(tmp_path, array, affine)
    ras = reorient(read(tmp_path), "RAS")
    i, j, k = np.argwhere(ras.array == 100)[0]
    assert (ras.affine @ (i, j, k, 1))[0] == pytest.approx(-3.0)


REFUSED = {
    "a missing slice": ({"per_slice": lambda k: {"ImagePositionPatient": [0, 0, 2.0 * (k + (k > 3))]}}, "missing"),
    "steps that creep": ({"per_slice": lambda k: {"ImagePositionPatient": [0, 0, 2.0 * k + 0.2 * k * k]}}, "evenly"),
    "one place taken twice": (
        {"per_slice": lambda k: {"ImagePositionPatient": [0, 0, 2.0 * (k - (k == 4))]}},
        "different images",
    ),
    "places with nothing to tell them apart": (
        {"per_slice": lambda k: {"ImagePositionPatient": [0, 0, 2.0 * (k // 2)], "InstanceNumber": 1}},
        "different images at 3 position",
    ),
    "scattered slices": (
        {"per_slice": lambda k: {"ImagePositionPatient": [0, 5.0 * (k == 3), 2.0 * k]}},
        "not a straight stack: IM0",
    ),
    "a stray orientation": (
        {"per_slice": lambda k: {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]} if k == 2 else {}},
        r"2 volumes.*axial.*coronal, 5 x 4 pixels, IM0",
    ),
    "mixed pixel spacing": ({"per_slice": lambda k: {"PixelSpacing": [1, 1]} if k == 2 else {}}, "pixel spacings"),
    "mixed size": (
        {"per_slice": lambda k: {"Rows": 2, "Columns": 2, "PixelData": b"\0" * 8} if k == 2 else {}},
        "image sizes",
    ),
    "two patients": ({"per_slice": lambda k: {"PatientID": f"secret{k > 2}"}}, "2 patients"),
    "two studies": ({"per_slice": lambda k: {"StudyInstanceUID": f"1.2.{int(k > 2)}"}}, "2 studies"),
    "two frames": ({"per_slice": lambda k: {"FrameOfReferenceUID": f"1.2.{int(k > 2)}"}}, "2 frames of reference"),
    "no positions": ({"ImagePositionPatient": None}, "no ImagePositionPatient"),
    "no pixel spacing": ({"PixelSpacing": None}, "PixelSpacing"),
    "colour without its layout": ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "Planar Configuration"),
    "frames without positions": ({"NumberOfFrames": 5}, r"no ImagePositionPatient.*IM0000\[1\]"),
    "a slope of nothing": ({"RescaleSlope": 0}, "RescaleSlope is 0"),
    "impossible bits": ({"BitsStored": 20, "HighBit": 19}, "store 20 bits"),
    "no unit vectors": ({"ImageOrientationPatient": [1, 1, 0, 0, 1, 0]}, "unit vectors"),
    "words for numbers": ({"PixelSpacing": None, "RescaleSlope": None, "Rows": 0, "Columns": 0}, "IM0"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_irregular_series_are_refused_in_one_line(small_series, what):
    options, words = REFUSED[what]
    folder = small_series(**options)
    with pytest.raises(MedsegError, match=words) as caught:
        read(folder)
    text = str(caught.value)
    assert "\n" not in text
    assert "study" in text
    assert "secret" not in text
    assert "Doe" not in text


def test_a_copy_of_a_slice_is_dropped_and_a_different_one_of_the_same_uid_refused(small_series):
    folder = small_series()
    shutil.copy(folder / "IM0002", folder / "copy_of_it")
    volume = read(folder)
    np.testing.assert_array_equal(volume.array, np.arange(120).reshape(5, 4, 6))
    assert [f.kind for f in volume.findings] == ["duplicate_slices"]
    raw = bytearray((folder / "IM0002").read_bytes())
    raw[-1] ^= 1
    (folder / "copy_of_it").write_bytes(raw)
    with pytest.raises(MedsegError, match=r"different images.*(IM0002|copy_of_it)"):
        read(folder)


def test_a_position_that_is_no_number_is_refused(small_series):
    folder = small_series(ImagePositionPatient=["12.34567", 0, 0])
    path = folder / "IM0003"
    path.write_bytes(path.read_bytes().replace(b"12.34567", b"nan     "))
    with pytest.raises(ReadError, match=r"IM0003.*ImagePositionPatient is"):
        read(folder)


def test_a_gantry_tilt_gives_a_sheared_affine(small_series):
    volume = read(small_series(per_slice=lambda k: {"ImagePositionPatient": [0, round(0.3 * k, 3), 2.0 * k]}))
    assert [f.kind for f in volume.findings] == ["gantry_tilt"]
    np.testing.assert_allclose(volume.affine[:3, 2], (0, -0.3, 2.0), atol=1e-6)


def test_a_localizer_among_the_slices_is_dropped(small_series):
    scout = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}
    volume = read(small_series(slices=7, per_slice=lambda k: scout if k == 6 else {}))
    assert volume.shape == (5, 4, 6)
    assert [f.kind for f in volume.findings] == ["localizer_dropped"]


def gap(k):
    return {"ImagePositionPatient": [0, 0, 2.0 * (k + (k > 3))]}


def test_a_missing_slice_is_interpolated_or_ignored_where_asked(small_series):
    folder = small_series(per_slice=gap)
    volume = read(folder, irregular="resample")
    assert (volume.shape, volume.spacing_mm[2]) == ((5, 4, 7), pytest.approx(2.0))
    assert volume.array[0, 0].tolist() == [0, 1, 2, 3, 4, 4, 5]
    assert [f.kind for f in volume.findings] == ["missing_slices"]
    volume = read(folder, irregular="allow")
    assert (volume.shape, volume.spacing_mm[2]) == ((5, 4, 6), pytest.approx(12 / 5))
    assert [f.kind for f in volume.findings] == ["missing_slices"]
    with pytest.raises(MedsegError, match="resample, allow"):
        read(folder, irregular="guess")


def test_a_refusal_says_its_kind_and_files(small_series):
    with pytest.raises(MedsegError) as caught:
        read(small_series(per_slice=gap))
    assert caught.value.kind == "missing_slices"
    assert len(caught.value.files) == 2


def test_time_points_are_volumes_of_their_own(small_series):
    folder = small_series(
        slices=8,
        per_slice=lambda k: {"ImagePositionPatient": [0, 0, 2.0 * (k % 4)], "TemporalPositionIdentifier": 1 + k // 4},
    )
    with pytest.raises(ReadError, match=r"2 volumes.*#1 \(CT, time point 1, 4 images\).*#2"):
        read(folder)
    first, second = read_all(folder)
    assert [f.kind for f in first.findings] == ["time_points"]
    np.testing.assert_array_equal(first.array[0, 0], range(4))
    np.testing.assert_array_equal(second.array[0, 0], range(4, 8))
    uid = second.metadata.series_instance_uid
    np.testing.assert_array_equal(read(folder, series=f"{uid}#2").array, second.array)


@pytest.mark.parametrize(("signed", "stored", "high"), [(0, 12, 11), (1, 12, 11), (0, 12, 15), (1, 10, 11)])
def test_only_the_stored_bits_count(write_series, tmp_path, signed, stored, high):
    values = np.random.default_rng(0).integers(-(2 ** (stored - 1)), 2 ** (stored - 1), (5, 4, 3))
    values = values if signed else values + 2 ** (stored - 1)
    junk = np.uint16(0xFFFF & ~(((1 << stored) - 1) << (high + 1 - stored)))
    words = ((values.astype(np.int64) << (high + 1 - stored)) & 0xFFFF).astype(np.uint16)
    mask = np.uint16(~junk & 0xFFFF)
    write_series(
        tmp_path,
        (words & mask) | junk,
        np.eye(4),
        BitsStored=stored,
        HighBit=high,
        PixelRepresentation=signed,
    )
    np.testing.assert_array_equal(read(tmp_path).array, values)


def test_padding_is_counted_and_kept_as_stored(small_series):
    volume = read(small_series(PixelPaddingValue=5, RescaleIntercept=-1000))
    assert [f.kind for f in volume.findings] == ["padding"]
    assert volume.findings[0].message.startswith("1 voxels")
    np.testing.assert_array_equal(volume.array, np.arange(120).reshape(5, 4, 6) - 1000)


def test_a_deflated_file_that_would_fill_the_memory_is_refused(small_series, tmp_path):
    data = pydicom.dcmread(small_series() / "IM0000")
    data.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    data.save_as(tmp_path / "whole.dcm")
    assert read(tmp_path / "whole.dcm").shape == (5, 4)
    raw = (tmp_path / "whole.dcm").read_bytes()
    start = 144 + int.from_bytes(raw[140:144], "little")
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = b"".join(packer.compress(bytes(2**20)) for _ in range(600)) + packer.flush()
    (tmp_path / "bomb.dcm").write_bytes(raw[:start] + packed)
    with pytest.raises(ReadError, match=r"bomb\.dcm inflates to more than 25\d MB"):
        read(tmp_path / "bomb.dcm")
