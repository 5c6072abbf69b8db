"""DICOM objects without the patient: never on disk with the patient, and the bytes of a copy de-identified later."""

from __future__ import annotations

import shutil
from functools import partial

import pydicom
import pytest
from dicom_phantoms import Phantom, write_study
from seg_cases import BRATS, MODEL, SCHEME, SHAPE, a_label_map, volume_on

from medseg.io.dicom.deidentify.files import deidentify_files
from medseg.io.dicom.deidentify.profile import Deidentifier
from medseg.io.dicom.grid import grid_of
from medseg.io.dicom.labels import harmless_texts
from medseg.io.dicom.rtstruct.write import write_rtstruct
from medseg.io.dicom.seg.write import write_dicom_seg
from medseg.io.dicom.series import find_series

KEY = "a key of the site"
WRITERS = {
    "seg": write_dicom_seg,
    "labelmap": partial(write_dicom_seg, encoding="labelmap"),
    "rtstruct": write_rtstruct,
}


def identified_grid(folder):
    """A study whose every slice names a patient, a physician and numbers of the hospital."""
    shutil.rmtree(folder, ignore_errors=True)
    write_study(folder, Phantom(shape=SHAPE))
    for path in folder.rglob("*"):
        if path.is_file():
            data = pydicom.dcmread(path)
            data.PatientName, data.PatientID, data.PatientBirthDate = "Roe^Richard", "MRN-0815", "19610203"
            data.AccessionNumber, data.ReferringPhysicianName, data.StudyID = "ACC-4711", "Strange^Stephen", "S-99"
            data.save_as(path)
    return grid_of(find_series(folder)[0])


def secrets_of(grid):
    texts = {"Roe", "Richard", "MRN-0815", "19610203", "ACC-4711", "Strange", "S-99"}
    for each in grid.slices:
        texts |= {each.sop_instance_uid, each.series_instance_uid, each.study_instance_uid, each.frame_of_reference_uid}
    return texts - {""}


@pytest.mark.parametrize("kind", WRITERS)
def test_an_object_written_without_the_patient_is_the_copy_of_the_one_with_the_patient(tmp_path, kind):
    grid = identified_grid(tmp_path / "study")
    arguments = (SCHEME, grid, MODEL)
    known = harmless_texts(SCHEME)
    write = WRITERS[kind]
    write(volume_on(grid, a_label_map()), tmp_path / "named.dcm", *arguments)
    deidentify_files([tmp_path / "named.dcm"], tmp_path / "copies", KEY, known)
    (copy,) = (tmp_path / "copies").rglob("*.dcm")
    clean = tmp_path / "clean.dcm"
    deidentifier = Deidentifier.with_key(KEY, known)
    write(volume_on(grid, a_label_map()), clean, *arguments, deidentifier=deidentifier)
    assert clean.read_bytes() == copy.read_bytes()
    named, raw = (tmp_path / "named.dcm").read_bytes(), clean.read_bytes()
    for text in secrets_of(grid):
        assert text.encode() not in raw, text
    assert b"Roe^Richard" in named and grid.slices[0].sop_instance_uid.encode() in named


@pytest.mark.parametrize("write", [write_dicom_seg, write_rtstruct])
def test_references_of_regions_that_share_their_slices_are_replaced_once(tmp_path, write):
    grid = identified_grid(tmp_path / "study")
    deidentifier = Deidentifier.with_key(KEY)
    labels = volume_on(grid, a_label_map(values=(1, 2, 4)))
    assert write(labels, tmp_path / "out.dcm", BRATS, grid, MODEL, deidentifier=deidentifier) == ()
    expected = {deidentifier.uid(s.sop_instance_uid) for s in grid.slices}
    found = {
        str(each.value)
        for each in pydicom.dcmread(tmp_path / "out.dcm").iterall()
        if each.keyword == "ReferencedSOPInstanceUID"
    }
    study = deidentifier.uid(grid.slices[0].study_instance_uid)
    assert found - {study} == expected
