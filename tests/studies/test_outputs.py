"""Masks of DICOM studies as DICOM objects: on the slices they were made from, with the patient or without."""

from __future__ import annotations

import json
import shutil
import zipfile
from datetime import date
from pathlib import Path

import numpy as np
import pydicom
import pytest

import medseg
from medseg.commands.convert import ConvertOptions, convert
from medseg.errors import ConfigError, ReadError
from medseg.phantoms import samples_folder
from medseg.studies import PredictOptions, predict_studies


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Every fifth slice of the phantom's study, under a neutral name."""
    folder = tmp_path / "in" / "case1"
    folder.mkdir(parents=True)
    files = sorted((samples_folder() / "study").iterdir())
    ordered = sorted(files, key=lambda f: float(pydicom.dcmread(f).ImagePositionPatient[2]))
    for path in ordered[::5]:
        shutil.copy(path, folder)
    return folder


@pytest.mark.parametrize("kind", ["dicom-seg", "rtstruct"])
def test_a_mask_as_a_dicom_object_is_the_nifti_mask(threshold_bundle, study, tmp_path, kind):
    model = threshold_bundle(value=4)
    predict_studies(model, [study], tmp_path / "nifti").raise_for_failures()
    expected = medseg.read(tmp_path / "nifti" / "case1.nii.gz")
    assert 0 < np.count_nonzero(expected.array) < expected.array.size
    out = tmp_path / "out"
    result = predict_studies(model, [study], out, PredictOptions(format=kind))
    result.raise_for_failures()
    convert(out / "case1.dcm", tmp_path / "back.nii.gz", ConvertOptions(reference=study))
    back = medseg.read(tmp_path / "back.nii.gz")
    np.testing.assert_array_equal(back.array, expected.array)
    assert back.same_geometry(expected)
    data, source = pydicom.dcmread(out / "case1.dcm"), pydicom.dcmread(next(study.iterdir()))
    assert data.PatientID == source.PatientID
    assert data.StudyInstanceUID == source.StudyInstanceUID
    first = (out / "case1.dcm").read_bytes()
    assert predict_studies(model, [study], out, PredictOptions(format=kind)).skipped == ("case1",)
    predict_studies(model, [study], out, PredictOptions(format=kind, overwrite=True)).raise_for_failures()
    assert (out / "case1.dcm").read_bytes() == first
    other = predict_studies(threshold_bundle("other", value=5), [study], tmp_path / "b", PredictOptions(format=kind))
    other.raise_for_failures()
    theirs = pydicom.dcmread(tmp_path / "b" / "case1.dcm")
    assert theirs.SOPInstanceUID != data.SOPInstanceUID
    assert theirs.SeriesNumber != data.SeriesNumber
    dated = PredictOptions(format=kind, timestamps=True, overwrite=True)
    earliest = date.today().strftime("%Y%m%d")
    predict_studies(model, [study], out, dated).raise_for_failures()
    now = pydicom.dcmread(out / "case1.dcm")
    made = now.get("ContentDate") or now.StructureSetDate
    assert (data.get("ContentDate") or data.StructureSetDate) < earliest <= made


def test_a_zipped_study_and_an_empty_result(threshold_bundle, study, tmp_path):
    with zipfile.ZipFile(tmp_path / "zipped.zip", "w") as archive:
        for path in study.iterdir():
            raw = pydicom.dcmread(path)
            raw.PixelData = bytes(len(raw.PixelData))
            raw.save_as(path)
            archive.write(path, f"case1/{path.name}")
    result = predict_studies(
        threshold_bundle(), [tmp_path / "zipped.zip"], tmp_path / "out", PredictOptions(format="dicom-seg")
    )
    assert result.rows[0].state == "done_empty"
    found = pydicom.dcmread(tmp_path / "out" / f"{result.rows[0].case}.dcm")
    assert found.ContentDescription == "segmented, none found"


def test_anonymised_objects_hold_nothing_of_the_patient_and_keep_their_labels(
    threshold_bundle, study, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    source = pydicom.dcmread(next(study.iterdir()))
    convert(study, tmp_path / "shared", ConvertOptions(anonymize=True))
    for kind in ("dicom-seg", "rtstruct"):
        out = tmp_path / kind
        options = PredictOptions(format=kind, anonymize=True)
        predict_studies(threshold_bundle(value=4), [study], out, options).raise_for_failures()
        raw = (out / "case1.dcm").read_bytes()
        for secret in (str(source.PatientName), source.PatientID, source.StudyInstanceUID, source.SeriesInstanceUID):
            assert str(secret).encode() not in raw
            assert str(secret) not in (out / "ledger.jsonl").read_text()
        # The same key: the object lies on the anonymised copy of its study.
        done = convert(out / "case1.dcm", tmp_path / f"{kind}.nii.gz", ConvertOptions(reference=tmp_path / "shared"))
        assert done.classes == {"spot": 4}
        assert medseg.read(tmp_path / f"{kind}.nii.gz").array.any()


def test_dicom_objects_need_a_dicom_study_and_a_known_format(threshold_bundle, study, tmp_path):
    convert(study, tmp_path / "case1.nii.gz")
    result = predict_studies(
        threshold_bundle(), [tmp_path / "case1.nii.gz"], tmp_path / "out", PredictOptions(format="dicom-seg")
    )
    with pytest.raises(ReadError, match=r"case1\.nii\.gz is not a DICOM series"):
        result.raise_for_failures()
    assert json.loads((tmp_path / "out" / "ledger.jsonl").read_text())["state"] == "failed"
    with pytest.raises(ConfigError, match="dicom-seg, rtstruct"):
        PredictOptions(format="seg")
