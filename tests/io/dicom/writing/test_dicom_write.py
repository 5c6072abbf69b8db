"""A volume as a DICOM series: the same voxels in the same place, a valid object, nobody invented."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from series_volumes import CT, MR, OBLIQUE, TURNS, as_read, counted, grid, placed

from medseg.errors import GeometryError, WriteError
from medseg.geometry import flip_lps_ras
from medseg.io import read, read_all
from medseg.io.dicom.writing.series import write_dicom_series
from medseg.volume import Metadata, Volume


@pytest.mark.parametrize("turn", range(48))
def test_every_orientation_reads_back(tmp_path, turn):
    volume = Volume(counted(), placed(TURNS[turn]), metadata=CT)
    findings = write_dicom_series(volume, tmp_path / "out")
    array, affine = as_read(volume)
    back = read(tmp_path / "out")
    np.testing.assert_array_equal(back.array, array)
    np.testing.assert_allclose(back.affine, affine, atol=1e-9)
    assert back.array.dtype == np.int16
    left_handed = np.linalg.det(TURNS[turn]) < 0
    assert [f.kind for f in findings] == ["reversed_slices"] * int(left_handed)


@settings(max_examples=25, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-3.1, 3.1)] * 3),
    spacing=st.tuples(*[st.floats(0.1, 5)] * 3),
    origin=st.tuples(*[st.floats(-500, 500)] * 3),
    lean=st.tuples(*[st.floats(-0.4, 0.4)] * 2),
    flip=st.booleans(),
)
def test_any_grid_with_any_tilt_reads_back(angles, spacing, origin, lean, flip):
    (a, b, c), turn = angles, np.eye(3)
    for axis, angle in enumerate((a, b, c)):
        rotation = np.eye(3)
        one, two = [n for n in range(3) if n != axis]
        rotation[[one, one, two, two], [one, two, one, two]] = [
            np.cos(angle),
            -np.sin(angle),
            np.sin(angle),
            np.cos(angle),
        ]
        turn = turn @ rotation
    affine = placed(turn, spacing, origin)
    affine[:3, 2] += spacing[2] * (lean[0] * turn[:, 0] + lean[1] * turn[:, 1])
    affine[:3, 2] *= -1 if flip else 1
    volume = Volume(counted(), affine, metadata=MR)
    with tempfile.TemporaryDirectory() as folder:
        write_dicom_series(volume, Path(folder) / "out")
        array, expected = as_read(volume)
        back = read(Path(folder) / "out")
    np.testing.assert_array_equal(back.array, array)
    # The reader takes what lies less than a tenth of a pixel aside for jitter, not for a tilt.
    aside = 2 * spacing[2] * float(np.hypot(*lean))
    jitter = aside <= max(0.01, 0.1 * min(spacing[:2])) * 1.001
    np.testing.assert_allclose(back.affine, expected, atol=aside + 1e-9 if jitter else 1e-5)


@pytest.mark.parametrize("turn", [np.eye(3), OBLIQUE, TURNS[7], TURNS[30]])
@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
def test_itk_reads_the_same(tmp_path, turn, modality):
    volume = Volume(counted(), placed(turn), metadata=Metadata(modality=modality))
    write_dicom_series(volume, tmp_path / "out")
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "out")))
    image = reader.Execute()
    array, affine = as_read(volume)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).T, array)
    lps = flip_lps_ras(affine)
    np.testing.assert_allclose(image.GetOrigin(), lps[:3, 3], atol=1e-6)
    np.testing.assert_allclose(image.GetSpacing(), volume.spacing_mm, atol=1e-6)
    np.testing.assert_allclose(np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing(), lps[:3, :3], atol=1e-6)


def test_a_tilt_is_written_as_the_positions_of_the_slices(tmp_path):
    affine = placed(np.eye(3), (1, 1, 2), (0, 0, 0))
    affine[:3, 2] = (0, 2 * np.tan(np.radians(15)), 2)
    write_dicom_series(Volume(counted(), affine, metadata=CT), tmp_path / "out")
    positions = [pydicom.dcmread(p).ImagePositionPatient for p in sorted((tmp_path / "out").iterdir())]
    # LPS: y counts towards the back.
    np.testing.assert_allclose(positions, [[0, -0.5358984 * k, 2 * k] for k in range(3)], atol=1e-6)
    header = pydicom.dcmread(tmp_path / "out" / "00001.dcm")
    assert float(header.SliceThickness) == float(header.SpacingBetweenSlices) == 2
    np.testing.assert_allclose(read(tmp_path / "out").affine, affine, atol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [
        (bool, 0, 1),
        (np.uint8, 0, 255),
        (np.int8, -128, 127),
        (np.int16, -32768, 32767),
        (np.uint16, 0, 65535),
        (np.int32, -40000, 25535),
        (np.int64, 100000, 165535),
        (np.float32, -1024, 3071),
        (np.float64, 30000, 60000),
    ],
)
@pytest.mark.parametrize("metadata", [CT, MR, Metadata()])
def test_whole_numbers_are_stored_exactly(tmp_path, dtype, low, high, metadata):
    array = np.linspace(low, high, 60).round().astype(dtype).reshape(5, 4, 3)
    assert write_dicom_series(Volume(array, placed(np.eye(3)), metadata=metadata), tmp_path / "out") == ()
    np.testing.assert_array_equal(read(tmp_path / "out").array, array.astype(np.float64))
    header = pydicom.dcmread(tmp_path / "out" / "00001.dcm")
    assert header.get("RescaleSlope", 1) == 1
    assert float(header.get("RescaleIntercept", 0)).is_integer()


@given(
    low=st.floats(-1e6, 1e6),
    span=st.floats(1e-3, 1e6),
    seed=st.integers(0, 100),
)
@settings(max_examples=25, deadline=None)
def test_other_numbers_are_at_most_half_a_step_off(low, span, seed):
    array = low + span * np.random.default_rng(seed).random((5, 4, 3))
    with tempfile.TemporaryDirectory() as folder:
        (finding,) = write_dicom_series(Volume(array, np.eye(4), metadata=CT), Path(folder) / "out")
        back = read(Path(folder) / "out").array
        slope = float(pydicom.dcmread(Path(folder) / "out" / "00001.dcm").RescaleSlope)
    assert finding.kind == "quantised"
    assert f"{slope:.6g}" in finding.message
    assert slope == pytest.approx((array.max() - array.min()) / 65534)
    rounding = np.abs(array).max() * np.finfo(np.float32).eps
    assert np.abs(back - array).max() <= slope / 2 * (1 + 1e-6) + rounding


def test_one_value_everywhere_is_written(tmp_path):
    write_dicom_series(Volume(np.full((3, 3, 3), 0.1, np.float32), np.eye(4), metadata=CT), tmp_path / "out")
    np.testing.assert_allclose(read(tmp_path / "out").array, 0.1, rtol=1e-6)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.array([0, 70000]), "do not fit into the 16 bits"),
        (np.array([0.5, np.nan]), "1 values are not finite"),
        (np.array([-np.inf, 0.5]), "1 values are not finite"),
        (np.array([0, 1e-6]) + 123456789.123456789, "cannot be distinguished"),
        (np.array([1j, 2j]), "not grey levels"),
    ],
)
def test_values_that_do_not_fit_are_refused(tmp_path, array, says):
    with pytest.raises(WriteError, match=says):
        write_dicom_series(Volume(array.reshape(2, 1, 1), np.eye(4)), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_2d_image_in_the_patient_reads_back(tmp_path):
    volume = Volume(counted((5, 4)), placed(OBLIQUE), metadata=CT)
    write_dicom_series(volume, tmp_path / "out")
    back = read(tmp_path / "out")
    assert back.dims == 2
    np.testing.assert_array_equal(back.array, volume.array)
    np.testing.assert_allclose(back.affine[:, [0, 1, 3]], volume.affine[:, [0, 1, 3]], atol=1e-6)


def test_a_picture_without_a_scale_has_no_place(tmp_path):
    write_dicom_series(Volume(counted((5, 4)), np.eye(4), spacing_known=False), tmp_path / "out")
    header = pydicom.dcmread(tmp_path / "out" / "00001.dcm")
    assert not {"PixelSpacing", "ImagePositionPatient", "FrameOfReferenceUID"} & {e.keyword for e in header}
    back = read(tmp_path / "out")
    np.testing.assert_array_equal(back.array, counted((5, 4)))
    assert not back.spacing_known
    with pytest.raises(GeometryError, match="no known spacing"):
        write_dicom_series(Volume(counted(), np.eye(4), spacing_known=False), tmp_path / "other")


@pytest.mark.parametrize("shape", [(3, 5, 3, 3), (3, 5, 3)])
def test_three_channels_of_bytes_are_colour(tmp_path, shape):
    array = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    write_dicom_series(Volume(array, placed(np.eye(3)), channels=3, metadata=MR), tmp_path / "out")
    back = read(tmp_path / "out")
    assert back.channels == 3
    np.testing.assert_array_equal(back.array, array)
    assert pydicom.dcmread(tmp_path / "out" / "00001.dcm").PhotometricInterpretation == "RGB"


def test_other_channels_are_series_of_one_study(tmp_path):
    array = np.stack([counted(), counted() * 2])
    write_dicom_series(Volume(array, placed(np.eye(3)), channels=2, metadata=MR), tmp_path / "out")
    for n in range(2):
        np.testing.assert_array_equal(read(tmp_path / "out" / f"channel_{n}").array, array[n])
    first, second = (v.metadata for v in read_all(tmp_path / "out"))
    assert first.study_instance_uid == second.study_instance_uid
    assert first.frame_of_reference_uid == second.frame_of_reference_uid
    assert first.patient_id == second.patient_id
    assert first.series_instance_uid != second.series_instance_uid
    write_dicom_series(Volume(array[:1], placed(np.eye(3)), channels=1), tmp_path / "one")
    np.testing.assert_array_equal(read(tmp_path / "one").array, array[0])


def test_grids_that_slices_cannot_express_are_refused(tmp_path):
    bent = np.eye(4)
    bent[0, 1] = 0.1
    with pytest.raises(GeometryError, match=r"meet at 84\.29 degrees"):
        write_dicom_series(Volume(counted(), bent), tmp_path / "out")
    steep = np.eye(4)
    steep[0, 2] = 2.0
    with pytest.raises(GeometryError, match=r"tilted by 63\.4 degrees"):
        write_dicom_series(Volume(counted(), steep), tmp_path / "out")


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def test_the_same_volume_gives_the_same_files_and_another_one_other_identifiers(tmp_path):
    volume = Volume(counted(), placed(OBLIQUE), metadata=CT)
    fortran = volume.with_array(np.asfortranarray(volume.array))
    write_dicom_series(volume, tmp_path / "a")
    write_dicom_series(fortran, tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    write_dicom_series(volume.with_array(volume.array + np.int16(1)), tmp_path / "c")
    write_dicom_series(volume, tmp_path / "d", description="other")
    uids = [read(tmp_path / name).metadata.series_instance_uid for name in "acd"]
    assert len(set(uids)) == 3
    assert all(uid.startswith("2.25.") for uid in uids)


def test_nobody_is_invented(tmp_path):
    secret = Metadata(modality="CT", patient_id="P-1", study_instance_uid="1.2.3", series_description="Jane Doe")
    write_dicom_series(Volume(counted(), np.eye(4), metadata=secret), tmp_path / "out")
    header = pydicom.dcmread(tmp_path / "out" / "00001.dcm")
    assert header.PatientName == "ANONYMOUS^"
    assert header.PatientID.startswith("ANON-")
    assert header.PatientBirthDate == header.PatientSex == header.StudyDate == ""
    content = (tmp_path / "out" / "00001.dcm").read_bytes()
    assert not [mark for mark in (b"P-1", b"1.2.3\0", b"Doe") if mark in content]


def test_a_derived_series_belongs_to_the_patient_and_study_of_its_reference(small_series, tmp_path):
    source = small_series(
        PatientBirthDate="19500101", StudyDate="20200101", SeriesNumber=4, KVP=120, PatientPosition="FFS"
    )
    volume = read(source)
    write_dicom_series(
        volume.with_array(volume.array * 0.5), tmp_path / "out", reference=grid(source), description="half"
    )
    back, header = read(tmp_path / "out"), pydicom.dcmread(tmp_path / "out" / "00001.dcm")
    np.testing.assert_allclose(back.array, volume.array * 0.5, atol=1e-3)
    np.testing.assert_allclose(back.affine, volume.affine, atol=1e-9)
    for name in ("patient_id", "study_instance_uid", "frame_of_reference_uid", "modality"):
        assert getattr(back.metadata, name) == getattr(volume.metadata, name)
    assert back.metadata.series_instance_uid != volume.metadata.series_instance_uid
    assert (header.PatientName, header.PatientBirthDate, header.StudyDate) == ("Doe^Jane", "19500101", "20200101")
    assert (header.KVP, header.PatientPosition, header.SeriesNumber) == (120, "FFS", 1004)
    assert list(header.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
    assert header.SeriesDescription == back.metadata.series_description == "half"
    sources = {pydicom.dcmread(p).SOPInstanceUID: p for p in source.iterdir()}
    for path in (tmp_path / "out").iterdir():
        derived = pydicom.dcmread(path)
        (item,) = derived.SourceImageSequence
        original = pydicom.dcmread(sources[item.ReferencedSOPInstanceUID])
        assert item.ReferencedSOPClassUID == original.SOPClassUID
        assert original.ImagePositionPatient == derived.ImagePositionPatient


def test_a_name_in_another_alphabet_is_kept(small_series, tmp_path):
    source = small_series(SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jörg")
    write_dicom_series(read(source), tmp_path / "out", reference=grid(source))
    assert str(pydicom.dcmread(tmp_path / "out" / "00001.dcm").PatientName) == "Müller^Jörg"


def test_another_grid_than_the_reference_is_refused(small_series, tmp_path):
    source = small_series()
    volume = read(source)
    moved = volume.affine.copy()
    moved[0, 3] += 0.02
    for other in (
        Volume(volume.array, moved),
        Volume(volume.array[1:], volume.affine),
        Volume(volume.array[..., 0], moved),
    ):
        with pytest.raises(GeometryError, match="is not on the grid of the reference"):
            write_dicom_series(other, tmp_path / "out", reference=grid(source))
    moved[0, 3] -= 0.012
    write_dicom_series(Volume(volume.array, moved), tmp_path / "out", reference=grid(source))


def test_a_folder_with_content_is_kept_unless_told(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("kept")
    volume = Volume(counted(), np.eye(4))
    with pytest.raises(WriteError, match="not empty"):
        write_dicom_series(volume, out)
    with pytest.raises(WriteError):
        write_dicom_series(volume.with_array(np.full(volume.shape, np.nan)), out, overwrite=True)
    assert contents(out) == {"mine.txt": b"kept"}
    write_dicom_series(volume, out, overwrite=True)
    assert sorted(contents(out)) == ["00001.dcm", "00002.dcm", "00003.dcm"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_description_that_no_element_holds_is_refused(tmp_path):
    for text in ("x" * 65, "a\\b"):
        with pytest.raises(WriteError, match="64 characters"):
            write_dicom_series(Volume(counted(), np.eye(4)), tmp_path / "out", description=text)
