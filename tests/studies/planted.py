"""DICOM studies, sound and damaged, that name their patient in every kind of value, and a search for traces of it."""

from __future__ import annotations

import gzip
import io
import re
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pydicom
from pydicom.config import disable_value_validation
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from selection_studies import write_series

# Nobody's, and nothing that occurs by itself in a file.
NAME = "Zqxsmith^Zqxjane^^Prof"
TEXTS = {
    # Identity, as table E.1-1 of PS3.15 knows it, by kind of value.
    "PatientName": NAME,  # PN
    "OtherPatientNames": "Zqxmaiden^Zqxjane",
    "ReferringPhysicianName": "Zqxreferrer^Ann",
    "PatientID": "ZQXMRN-73519264",  # LO
    "PatientAddress": "Zqxstreet 12",
    "InstitutionName": "Zqx Hospital Northwing",
    "SeriesDescription": "zqx thorax for smythe",
    "ProtocolName": "zqxprotocol",
    "StudyDescription": "zqxstudy of the thorax",
    "RequestingService": "ZQX-SERVICE",
    "AccessionNumber": "ZQXACC-81",  # SH
    "StudyID": "ZQXST-5",
    "StationName": "zqxstation",
    "PatientTelephoneNumbers": "+49 30 9081726",
    "PatientComments": "zqxcomment: fell off a ladder",  # LT
    "AdditionalPatientHistory": "zqxhistory of falls",
    "InstitutionAddress": "Zqxalley 7\r\nZqxtown",  # ST
    "TextValue": "zqxtextvalue",  # UT
    "PatientBirthDate": "19410729",  # DA
    "StudyDate": "20170529",
    "PatientBirthTime": "054321.987654",  # TM
    "StudyTime": "161718.293",
    "AcquisitionDateTime": "20170529161803.77",  # DT
    "PatientAge": "077Y",  # AS
    "PatientWeight": "83.7261945",  # DS
    "PatientSize": "1.7261945",
    "IssueDateOfImagingServiceRequest": "20170528",
    "PerformedProcedureStepID": "ZQXSTEP-4",
    "DeviceSerialNumber": "ZQXSERIAL9",
    "SmokingStatus": "ZQXSMOKES",  # CS
    "RetrieveAETitle": "ZQXRETRIEVE",  # AE
    "PatientReligiousPreference": "zqxfaith",
}
MARKS = [value for value in TEXTS.values() if value != NAME]
MARKS += ["Zqxsmith", "Zqxjane", "ZQXPRIVATE", "ZQXMEANING", "ZQXNESTED", "ZQXTITLE", "ZQXWRONG", "ZQXMETA"]
# Names in other character sets: (SpecificCharacterSet, name, what is searched for).
ALPHABETS = (
    ("ISO_IR 100", "Zqxmüller^Jörgä", "Zqxmüller"),
    ("ISO_IR 144", "Люксембург^Роза", "Люксембург"),
    ("ISO_IR 192", "Buc^Jérômeżół", "Jérômeżół"),
    ("GB18030", "Wang^XiaoDong=王^小东", "小东"),
    (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎", "山田"),
)


def plant(data: Dataset, marks: set[str]) -> None:
    """Put all of it into a slice; its identifiers join `marks`."""
    with disable_value_validation():
        for keyword, value in TEXTS.items():
            setattr(data, keyword, value)
        data.private_block(0x0029, "ZQXPRIVATE COMPANY", create=True).add_new(0x01, "LO", "ZQXPRIVATE^zqxcontent")
        data[0x00291001].private_creator = None
        nested = Dataset()
        nested.PatientName, nested.RequestedProcedureDescription = "ZQXNESTED^Name", "ZQXNESTED procedure"
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "123", "99LOCAL", "ZQXMEANING of a code"
        nested.RequestedProcedureCodeSequence = Sequence([code])
        data.RequestAttributesSequence = Sequence([nested])
        data.ProcedureCodeSequence = Sequence([code])
        data.AnatomicRegionSequence = Sequence([code])
        data.file_meta.SourceApplicationEntityTitle = "ZQXTITLE"
        data.file_meta.PrivateInformationCreatorUID = "1.2.3.4.5.6.7.8.9.10.11"
        data.file_meta.PrivateInformation = b"ZQXMETA information "
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"):
        marks.add(str(data[keyword].value))


def series(folder: Path, marks: set[str], study: int, number: int = 1, slices: int = 9, **tags: object) -> Path:
    """A planted series with UIDs of its own."""
    place = write_series(folder, number, slices=slices)
    for path in place.iterdir():
        data = pydicom.dcmread(path)
        for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"):
            old = str(data[keyword].value)
            data[keyword].value = f"1.3.6.1.4.1.99999.{study}{old.removeprefix('1.2.826.0.1.3680043.8')}"
        plant(data, marks)
        with disable_value_validation():
            for keyword, value in tags.items():
                setattr(data, keyword, value)
        pydicom.dcmwrite(path, data)
    return place


def edit(place: Path, change: Callable[[Dataset], None], files: slice = slice(None)) -> None:
    for path in sorted(place.iterdir())[files]:
        data = pydicom.dcmread(path)
        with disable_value_validation():
            change(data)
            pydicom.dcmwrite(path, data, enforce_file_format=False)


def wrong_number(place: Path, keyword: str, vr: bytes, files: slice = slice(None)) -> None:
    """A name where a number should be, as only other programs write it."""
    for path in sorted(place.iterdir())[files]:
        data = pydicom.dcmread(path)
        data[keyword] = DataElement(
            data.data_element(keyword).tag if keyword in data else keyword, "LO", "ZQXWRONG^Jim"
        )
        pydicom.dcmwrite(path, data, enforce_file_format=False)
        path.write_bytes(path.read_bytes().replace(b"LO\x0c\x00ZQXWRONG^Jim", vr + b"\x0c\x00ZQXWRONG^Jim"))


def studies(root: Path) -> tuple[set[str], set[str]]:
    """Write a folder of studies; gives what must be nowhere, and the names of the cases that can be segmented."""
    marks = set(MARKS)
    good = {"good", "uuid"}
    series(root / "good", marks, 1)
    uuid = f"2.25.{0x6C84FB9012C411E19B2300144FAB5C12}"
    marks.add(uuid)
    series(root / "uuid", marks, 2, SeriesInstanceUID=uuid)
    for number, (charset, name, mark) in enumerate(ALPHABETS):
        marks.add(mark)
        good.add(f"alphabet{number}")
        place = root / f"alphabet{number}"
        text = name.replace("^", " ").replace("=", " ")
        series(place, marks, 30 + number, SpecificCharacterSet=charset, PatientName=name, SeriesDescription=text)
        # The same, to choose from: listed with its description.
        for part in (1, 2):
            series(
                root / f"choice{number}",
                marks,
                40 + number,
                part,
                SpecificCharacterSet=charset,
                PatientName=name,
                SeriesDescription=text,
            )
    place = series(root / "pixels", marks, 3)
    edit(place, _junk_pixels)
    place = series(root / "gap", marks, 4)
    sorted(place.iterdir())[4].unlink()
    place = series(root / "patients", marks, 5)
    edit(place, lambda d: setattr(d, "PatientID", "ZQXOTHER-1"), slice(3))
    marks.add("ZQXOTHER-1")
    for number in (1, 2):
        series(root / "choose", marks, 6, number)
    place = series(root / "syntax", marks, 7)
    edit(place, lambda d: _junk_pixels(d, "1.2.840.10008.1.2.4.100"))
    place = series(root / "sizes", marks, 8)
    edit(place, _smaller, slice(2))
    place = series(root / "few", marks, 9, slices=4)
    edit(place, lambda d: setattr(d, "Modality", "MR"))
    for number, keyword in enumerate(("SliceThickness", "ImagePositionPatient", "PixelSpacing", "RescaleSlope")):
        place = series(root / f"wrong{number}", marks, 10 + number)
        wrong_number(place, keyword, b"DS", slice(4, 5))
    place = series(root / "rows", marks, 15)
    wrong_number(place, "Rows", b"US", slice(4, 5))
    # Read without looking, but a DICOM object is made from it.
    place = series(root / "weight", marks, 16)
    wrong_number(place, "PatientWeight", b"DS")
    place = series(root / "charset", marks, 19)
    edit(place, lambda d: setattr(d, "SpecificCharacterSet", "ZQXWRONG"))
    place = series(root / "cut", marks, 17)
    first = sorted(place.iterdir())[0]
    first.write_bytes(first.read_bytes()[:700])
    place = series(root / "damaged", marks, 18)
    shutil.copy(sorted(place.iterdir())[0], place / "extra.dcm")
    wrong_number(place, "InstanceNumber", b"DS", slice(None, None, 4))
    wrong_number(place, "Columns", b"IS", slice(1))
    return marks, good


def _junk_pixels(data: Dataset, syntax: str = "1.2.840.10008.1.2.4.70") -> None:
    data.file_meta.TransferSyntaxUID = syntax
    data.PixelData = pydicom.encaps.encapsulate([b"ZQXWRONG no JPEG " * 3])


def _smaller(data: Dataset) -> None:
    data.Rows, data.Columns = 3, 3
    data.PixelData = np.zeros((3, 3), np.int16).tobytes()


def contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """The name and the bytes of every file, unpacked ones too."""
    for path in sorted(folder.rglob("*")):
        yield str(path.relative_to(folder)), b""
        if not path.is_file():
            continue
        content = path.read_bytes()
        yield path.name, content
        if content[:2] == b"\x1f\x8b":
            yield f"{path.name} unpacked", gzip.decompress(content)
        if content[:2] == b"PK":
            with zipfile.ZipFile(io.BytesIO(content)) as packed:
                yield from ((f"{path.name}/{name}", packed.read(name)) for name in packed.namelist())
        for start in (match.start() for match in re.finditer(rb"\x78[\x01\x5e\x9c\xda]", content)):
            if content[:4] == b"\x89PNG":
                unpacker = zlib.decompressobj()
                try:
                    yield f"{path.name} at {start}", unpacker.decompress(content[start:])
                except zlib.error:
                    continue


def traces(marks: set[str], folder: Path, *texts: str) -> list[str]:
    """Where one of the marks stands, in any case and any usual encoding."""
    found = []
    pieces = [*contents(folder), *((f"text {n}", text.encode()) for n, text in enumerate(texts))]
    forms = {mark: _forms(mark) for mark in marks}
    for name, content in pieces:
        low = content.lower()
        low_name = name.lower()
        found += [f"{mark!r} in {name}" for mark, all_ in forms.items() if any(f in low for f in all_)]
        found += [f"{mark!r} in the name {name}" for mark in marks if mark.lower() in low_name]
    return found


def _forms(mark: str) -> set[bytes]:
    forms = {mark, mark.lower(), ascii(mark)[1:-1].lower(), mark.encode("utf-8").decode("latin-1").lower()}
    result = {form.encode() for form in forms} | {mark.lower().encode("utf-16-le")}
    for encoding in ("latin-1", "iso8859-5", "gb18030", "iso2022_jp_2", "shift_jis"):
        try:
            coded = mark.encode(encoding)
        except UnicodeEncodeError:
            continue
        # As a reader shows bytes that it cannot decode, too.
        result |= {coded.lower(), coded.decode("latin-1").lower().encode(), repr(coded)[2:-1].lower().encode()}
    return {form for form in result if len(form) >= 4}
