"""De-identified copies of files and folders, made-up and real: names, bytes, pixels, references, refusals."""

from __future__ import annotations

import shutil
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from deidentify_objects import KEY, image, referring_objects
from pydicom.dataset import Dataset

from medseg.errors import ReadError, WriteError
from medseg.io import read
from medseg.io.dicom.algorithm import Algorithm
from medseg.io.dicom.deidentify.files import deidentify_files
from medseg.io.dicom.deidentify.profile import Deidentifier
from medseg.io.dicom.grid import grid_of
from medseg.io.dicom.seg.read import read_dicom_seg
from medseg.io.dicom.seg.write import write_dicom_seg
from medseg.io.dicom.series import find_series
from medseg.labels import LabelScheme


def saved(folder: Path, **datasets: Dataset) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, data in datasets.items():
        files.append(folder / f"{name}.dcm")
        data.file_meta.MediaStorageSOPClassUID, data.file_meta.MediaStorageSOPInstanceUID = (
            data.SOPClassUID,
            data.SOPInstanceUID,
        )
        pydicom.dcmwrite(files[-1], data, enforce_file_format=True)
    return files


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_folder_gives_copies_of_neutral_names(tmp_path):
    source = tmp_path / "Zqxjane"
    saved(source, Zqxjane1=image(InstanceNumber=2), Zqxjane0=image(SOPInstanceUID="1.2.3.11", InstanceNumber=1))
    saved(source / "b", scout=image(SeriesInstanceUID="1.2.3.5", SOPInstanceUID="1.2.3.12"))
    (source / "readme.txt").write_text("ZQXSECRET")
    findings = deidentify_files([source], tmp_path / "out", KEY)
    files = contents(tmp_path / "out")
    assert len(files) == 3
    assert {name.split("/")[0] for name in files} == {"study_1"}
    assert {name.split("/")[1] for name in files} == {"series_1", "series_2"}
    assert {finding.kind for finding in findings} == {"burned_in_text", "left_out"}
    (burned,) = [f for f in findings if f.kind == "burned_in_text"]
    assert sorted(burned.files) == sorted(files)
    assert all(b"qxjane" not in content for content in files.values())
    numbers = [
        pydicom.dcmread(p).InstanceNumber for p in sorted((tmp_path / "out").rglob("*.dcm")) if "00002" in p.name
    ]
    assert numbers == [2]


def test_names_and_bytes_follow_from_content_and_key_alone(tmp_path):
    first = saved(tmp_path / "a", x=image(), y=image(SOPInstanceUID="1.2.3.11"))
    second = saved(tmp_path / "b", one=image(SOPInstanceUID="1.2.3.11"), two=image())
    deidentify_files(first, tmp_path / "out_a", KEY)
    deidentify_files(second[::-1], tmp_path / "out_b", KEY)
    assert contents(tmp_path / "out_a") == contents(tmp_path / "out_b")


def test_a_damaged_object_leaves_nothing_behind(tmp_path):
    files = saved(tmp_path / "in", x=image())
    (tmp_path / "in" / "bad.dcm").write_bytes(b"nothing")
    with pytest.raises(ReadError, match=r"bad\.dcm"):
        deidentify_files([tmp_path / "in"], tmp_path / "out", KEY)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in"]
    assert files[0].exists()


def test_mutated_objects_give_a_copy_or_one_readable_error(tmp_path):
    (source,) = saved(tmp_path / "in", x=referring_objects()[1])
    original, rng = source.read_bytes(), np.random.default_rng(0)
    outcomes = set()
    for _ in range(150):
        content = bytearray(original)
        for place in rng.integers(132, len(content), rng.integers(1, 20)):
            content[place] = rng.integers(256)
        source.write_bytes(content[: rng.integers(140, len(content))] if rng.random() < 0.3 else content)
        try:
            deidentify_files([source], tmp_path / "out", KEY, overwrite=True)
            outcomes.add("copied")
        except ReadError as error:
            assert str(source) in str(error)
            assert "\n" not in str(error)
            outcomes.add("refused")
    assert outcomes == {"copied", "refused"}


def test_existing_folders_and_sources_are_not_overwritten(tmp_path):
    files = saved(tmp_path / "in", x=image())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("kept")
    with pytest.raises(WriteError, match="not empty"):
        deidentify_files(files, tmp_path / "out", KEY)
    assert contents(tmp_path / "out") == {"mine.txt": b"kept"}
    deidentify_files(files, tmp_path / "out", KEY, overwrite=True)
    assert list(contents(tmp_path / "out")) == ["study_1/series_1/00001.dcm"]
    with pytest.raises(WriteError, match="one of the files to be copied"):
        deidentify_files(files, tmp_path / "in", KEY, overwrite=True)
    assert files[0].exists()


@pytest.mark.parametrize(
    "syntax",
    ["ImplicitVRLittleEndian", "ExplicitVRBigEndian", "DeflatedExplicitVRLittleEndian"],
)
def test_every_encoding_is_kept(tmp_path, syntax):
    data = image()
    data.file_meta.TransferSyntaxUID = getattr(pydicom.uid, syntax)
    (source,) = saved(tmp_path / "in", x=data)
    deidentify_files([source], tmp_path / "out", KEY)
    before, after = pydicom.dcmread(source), pydicom.dcmread(tmp_path / "out" / "study_1" / "series_1" / "00001.dcm")
    assert after.file_meta.TransferSyntaxUID == before.file_meta.TransferSyntaxUID
    assert after.PixelData == before.PixelData
    assert after.PatientName != before.PatientName


def test_a_file_without_a_preamble_gets_one(tmp_path):
    (tmp_path / "in").mkdir()
    data = image()
    del data.file_meta
    pydicom.dcmwrite(tmp_path / "in" / "old", data, implicit_vr=True, little_endian=True)
    deidentify_files([tmp_path / "in"], tmp_path / "out", KEY)
    after = pydicom.dcmread(tmp_path / "out" / "study_1" / "series_1" / "00001.dcm")
    assert after.file_meta.TransferSyntaxUID == pydicom.uid.ImplicitVRLittleEndian
    assert after.PixelData == data.PixelData


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_a_dicomdir_which_lists_the_patients_is_left_out(tmp_path):
    (source,) = saved(tmp_path / "in", x=image())
    directory = image(SOPClassUID="1.2.840.10008.1.3.10")
    saved(tmp_path / "in", DICOMDIR=directory)[0].rename(tmp_path / "in" / "DICOMDIR")
    findings = deidentify_files([tmp_path / "in"], tmp_path / "out", KEY)
    assert [f.kind for f in findings] == ["burned_in_text", "left_out"]
    assert len(contents(tmp_path / "out")) == 1
    assert source.exists()


def test_a_folder_without_dicom_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.txt").write_text("x")
    with pytest.raises(ReadError, match="none of the 1 files"):
        deidentify_files([tmp_path / "in"], tmp_path / "out", KEY)


REAL = ["dicom_mr_hcrop", "dicom_mr_t1post", "dicom_seg", "lung_ct_cip/ct-64Dicom", "dicom_bad/slicecount"]
REAL += [f"dicom_compressed/compressed_{codec}" for codec in ("j2k", "jpeg", "jpegls", "rle")]
IDENTIFYING = ["PatientName", "PatientID", "PatientBirthDate", "OtherPatientIDs", "AccessionNumber", "InstitutionName"]
IDENTIFYING += ["ReferringPhysicianName", "OperatorsName", "StudyDate", "SeriesDate", "StudyInstanceUID", "StationName"]
IDENTIFYING += ["SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID", "DeviceSerialNumber", "StudyTime"]


@pytest.mark.parametrize("folder", REAL)
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_studies_lose_identity_and_keep_their_pixels(data_folder, tmp_path, folder):
    files = sorted(p for p in (data_folder / folder).rglob("*") if p.is_file())
    sources = [p for p in files if p.read_bytes()[128:132] == b"DICM"][:6]
    deidentify_files(sources, tmp_path / "out", KEY)
    uid = Deidentifier.with_key(KEY).uid
    copies = {pydicom.dcmread(p).SOPInstanceUID: p for p in (tmp_path / "out").rglob("*.dcm")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for source in sources:
            before = pydicom.dcmread(source)
            copy = copies[uid(before.SOPInstanceUID)]
            after = pydicom.dcmread(copy)
            assert after.PixelData == before.PixelData
            assert after.file_meta.TransferSyntaxUID == before.file_meta.TransferSyntaxUID
            assert not [e.tag for e in after.iterall() if e.tag.is_private]
            header = copy.read_bytes().replace(after.PixelData, b"")
            for keyword in IDENTIFYING:
                value = str(before.get(keyword, "") or "").strip()
                if len(value) >= 4:
                    assert value.encode() not in header, keyword
            for keyword in ("ImagePositionPatient", "PixelSpacing", "RescaleSlope", "Rows", "ImageType"):
                assert after.get(keyword) == before.get(keyword)


def test_a_series_reads_the_same_after_it(data_folder, tmp_path):
    source = data_folder / "dicom_mr_t1post"
    deidentify_files([source], tmp_path / "out", KEY)
    before, after = read(source), read(tmp_path / "out")
    np.testing.assert_array_equal(before.array, after.array)
    np.testing.assert_array_equal(before.affine, after.affine)
    assert before.metadata.study_instance_uid != after.metadata.study_instance_uid


def test_a_segmentation_of_a_series_lies_on_its_de_identified_slices(data_folder, tmp_path):
    source = data_folder / "dicom_mr_t1post"
    volume, scheme = read(source), LabelScheme.from_mapping({"liver": 1, "tumor": 2})
    array = np.zeros(volume.shape, np.uint8)
    array[100:140, 120:170, 5:9], array[50:60, 50:70, 10:12] = 1, 2
    (series,) = find_series(source)
    algorithm = Algorithm("test", "1", "ab")
    write_dicom_seg(volume.with_array(array), tmp_path / "seg.dcm", scheme, grid_of(series), algorithm)
    deidentify_files([source, tmp_path / "seg.dcm"], tmp_path / "out", KEY)
    copies = {pydicom.dcmread(p, stop_before_pixels=True).Modality: p for p in (tmp_path / "out").rglob("*.dcm")}
    series_folder = copies["MR"].parent
    back = read_dicom_seg(copies["SEG"], like=read(series_folder))
    np.testing.assert_array_equal(back.volume.array, array)
    referred = pydicom.dcmread(copies["SEG"]).ReferencedSeriesSequence[0]
    assert referred.SeriesInstanceUID == pydicom.dcmread(copies["MR"]).SeriesInstanceUID
    slices = {pydicom.dcmread(p, stop_before_pixels=True).SOPInstanceUID for p in series_folder.iterdir()}
    assert {item.ReferencedSOPInstanceUID for item in referred.ReferencedInstanceSequence} <= slices


def dciodvfy_errors(path: Path) -> set[str]:
    result = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, errors="replace", check=False)
    return {line for line in (result.stdout + result.stderr).splitlines() if line.startswith("Error")}


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian's dicom3tools) is not installed")
@pytest.mark.parametrize("folder", ["dicom_mr_hcrop", "dicom_mr_t1post", "dicom_seg/ct-3slice", "dicom_seg"])
def test_real_objects_break_no_rule_that_they_did_not_break_before(real_data, tmp_path, folder):
    source = sorted(p for p in (real_data / folder).iterdir() if p.is_file() and p.read_bytes()[128:132] == b"DICM")[0]
    deidentify_files([source], tmp_path / "out", KEY)
    (copy,) = (tmp_path / "out").rglob("*.dcm")
    assert dciodvfy_errors(copy) <= dciodvfy_errors(source)
