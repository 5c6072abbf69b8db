"""The door of texts: what of a header is found again in a message, and what is left alone."""

from __future__ import annotations

import logging
import traceback
import warnings
import zipfile
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence

from medseg.errors import MedsegError, ReadError
from medseg.io.dicom.deidentify.profile import Deidentifier
from medseg.io.dicom.deidentify.texts import REMOVED, PrivateTexts, named_files

UID = "1.3.6.1.4.1.14519.5.2.1.7009.2403.1"
LONG = "".join(f"fell off ladder {n}; " for n in range(40))


@pytest.fixture
def door() -> PrivateTexts:
    return PrivateTexts(Deidentifier.with_key("a key for tests"))


@pytest.fixture
def file(tmp_path) -> Path:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = pydicom.uid.CTImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = "1.2.3.44"
    data.SpecificCharacterSet = "ISO_IR 192"
    data.PatientName, data.PatientID, data.AccessionNumber = "Roe^Jörg=山田^太郎", "MRN-0815", "ACC7"
    data.SeriesDescription, data.PatientBirthDate, data.StudyTime = "CT of Roe", "19501231", "1430"
    data.AdditionalPatientHistory, data.ImageType, data.Modality = LONG, ["ORIGINAL", "PRIMARY", "AXIAL"], "CT"
    data.SliceThickness, data.PatientWeight = "2.5000", "81.75"
    item = Dataset()
    item.RequestedProcedureDescription = "nested procedure"
    data.RequestAttributesSequence = Sequence([item])
    data.private_block(0x0029, "ACME", create=True).add_new(0x01, "LO", "hidden^content")
    path = tmp_path / "x.dcm"
    pydicom.dcmwrite(path, data, enforce_file_format=True)
    return path


@pytest.mark.parametrize("uid", [UID, "2.25.140000000000000000000000000000000000001"])
def test_uids_in_texts_are_replaced_like_those_of_objects(door, uid):
    new = door.deidentifier.uid(uid)
    assert door.clean(f"series {uid}#2 in /in/{uid}.dcm, {uid}.") == f"series {new}#2 in /in/{new}.dcm, {new}."


def test_a_text_that_passes_twice_is_as_after_once(door, file):
    once = door.clean(f"{UID} of Roe", door.values([file]))
    assert door.clean(once, door.values([file])) == once


@pytest.mark.parametrize(
    "text", ["1.2.840.10008.1.2.4.100 is MPEG", "torch 2.13.0, 1.0 mm", "10.0.0.1 answers", "2.25.1", ""]
)
def test_standard_uids_and_other_numbers_stay(door, text):
    assert door.clean(text) == text


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("invalid value 'Roe^Jörg'", f"invalid value '{REMOVED}'"),
        ("invalid value 'ROE'", f"invalid value '{REMOVED}'"),
        (r"invalid value 'J\xf6rg'", f"invalid value '{REMOVED}'"),
        ("患者山田様", f"患者{REMOVED}様"),
        ("ID MRN-0815, ACC7 and 81.75", f"ID {REMOVED}, {REMOVED} and {REMOVED}"),
        ("born 1950-12-31 or 19501231", f"born {REMOVED} or {REMOVED}"),
        (f"bad text '{LONG[:120]}", f"bad text '{REMOVED}"),
        ("a nested procedure, hidden, content", f"a {REMOVED}, {REMOVED}, {REMOVED}"),
        ("instance 1.2.3.44 and 1.2.3.445", "instance NEW and 1.2.3.445"),
        # What a header says of every image, and parts of longer words.
        ("CT, AXIAL, ORIGINAL, 2.5000 mm", "CT, AXIAL, ORIGINAL, 2.5000 mm"),
        ("heroes at 1430 mm", "heroes at 1430 mm"),
    ],
)
def test_values_of_the_header_are_removed_from_texts(door, file, text, left):
    assert door.clean(text, door.values([file])) == left.replace("NEW", door.deidentifier.uid("1.2.3.44"))


def test_a_name_where_a_number_should_be_is_found(door, file):
    file.write_bytes(file.read_bytes().replace(b"2.5000", b"Kim^Al"))
    with pytest.raises(ValueError, match=r"Kim\^Al") as error:
        float(pydicom.dcmread(file).SliceThickness)
    assert door.clean(str(error.value), door.values([file])) == f"could not convert string to float: '{REMOVED}'"


@pytest.mark.parametrize("damage", [lambda c: c[:-40], lambda c: c[132:], lambda c: b"\0" * 300 + c, lambda c: c[200:]])
def test_what_cannot_be_parsed_is_searched_for_all_that_is_text(door, file, damage):
    file.write_bytes(damage(file.read_bytes()))
    assert door.clean("Roe MRN-0815 damaged", door.values([file])) == f"{REMOVED} {REMOVED} damaged"


def test_members_of_a_zip_are_looked_at_too(door, file, tmp_path):
    packed = tmp_path / "all.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.write(file, "a/x.dcm")
        archive.write(file, "a/y.dcm")
    text = f"{packed / 'a/x.dcm'} of Roe is damaged"
    assert named_files(text, [packed]) == [packed / "a/x.dcm"]
    assert f" of {REMOVED} is" in door.clean(text, door.values(named_files(text, [packed])))
    assert door.values([packed / "a/none.dcm", tmp_path / "gone.dcm"]).names == set()


def test_errors_that_leave_the_block_are_clean_with_all_that_led_to_them(door, file):
    for kind in (ReadError, MedsegError, KeyError, UnicodeError):
        with pytest.raises(Exception) as caught, door.guarded([file.parent]):
            raise_with_values(kind, file)
        # Without the lines of code, in which these tests have the values themselves.
        lines = "".join(traceback.format_exception(caught.value)).splitlines()
        told = "\n".join(line for line in lines if not line.startswith(" "))
        assert kind.__name__ in told
        assert not any(mark in told for mark in ("MRN-0815", "Jörg", UID))


def raise_with_values(kind: type[Exception], file: Path) -> None:
    try:
        raise ValueError("Roe, MRN-0815")
    except ValueError as reason:
        raise kind(f"{file} holds 'Roe^Jörg', {UID}") from reason


def test_logs_and_warnings_of_the_block_are_clean_and_others_untouched(door, caplog, recwarn):
    with door.guarded([]):
        logging.getLogger("medseg.x").warning("%s: %d files of %s", Path(f"/in/{UID}"), 3, UID)
        logging.getLogger("pydicom").warning("bad value Roe^Jörg")
        logging.getLogger("highdicom.seg").warning("bad value %s", "Roe^Jörg")
        logging.getLogger("another").warning("bad value %s", "Poe")
        warnings.warn_explicit("bad value Roe^Jörg", UserWarning, "/lib/pydicom/valuerep.py", 1)
        warnings.warn_explicit("Poe", UserWarning, "/lib/another/x.py", 1)
    logging.getLogger("pydicom").warning("as before")
    new = door.deidentifier.uid(UID)
    assert f"/in/{new}: 3 files of {new}" in caplog.text
    assert "Roe" not in caplog.text and "bad value Poe" in caplog.text and "as before" in caplog.text
    assert ["Roe" in str(each.message) for each in recwarn] == [False, False]
    assert "Poe" in str(recwarn[-1].message)
