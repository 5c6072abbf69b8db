"""The walk over plain files answers exactly what pydicom answers, or leaves the file to it."""

from __future__ import annotations

import warnings

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from medseg.io.dicom.elements import KEYWORDS, DatasetElements, walk

NUMBERS = ("Rows", "Columns", "PixelSpacing", "ImagePositionPatient", "RescaleSlope", "BitsStored")


def same_answers(path):
    raw = walk(path)
    if raw is None:
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = pydicom.dcmread(path, force=True)
        other = DatasetElements(data)
        for keyword in KEYWORDS:
            if keyword.endswith("Sequence"):
                assert raw.has(keyword) == other.has(keyword), keyword
            elif keyword == "PixelPaddingValue":
                # Its sign hangs on PixelRepresentation, which the header applies.
                assert [v % 2**16 for v in raw.numbers(keyword)] == [v % 2**16 for v in other.numbers(keyword)]
            elif keyword in NUMBERS:
                assert raw.numbers(keyword) == pytest.approx(other.numbers(keyword)), keyword
            elif keyword not in ("DiffusionBValue", "GridFrameOffsetVector"):
                assert raw.has(keyword) == other.has(keyword), keyword
    return True


def nested(depth, undefined):
    item = Dataset()
    item.SeriesDescription = "inside a sequence, not of this image"
    item.Rows = 3
    if depth:
        item.ReferencedImageSequence = Sequence([nested(depth - 1, undefined)])
        item["ReferencedImageSequence"].is_undefined_length = undefined
    item.is_undefined_length_sequence_item = undefined
    return item


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("undefined", [True, False])
def test_sequences_are_stepped_over(small_series, syntax, undefined):
    path = small_series() / "IM0003"
    data = pydicom.dcmread(path)
    data.ReferencedImageSequence = Sequence([nested(3, undefined), nested(0, undefined)])
    data["ReferencedImageSequence"].is_undefined_length = undefined
    data.file_meta.TransferSyntaxUID = syntax
    data.save_as(path, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)
    assert same_answers(path)
    raw = walk(path)
    assert raw.text("SeriesDescription") == ""
    assert raw.numbers("Rows") == (4,)
    size = path.stat().st_size
    assert (raw.pixel_offset, raw.pixel_length) == (size - 40, 40)


def test_a_header_longer_than_the_first_read_is_read_on(small_series):
    path = small_series() / "IM0003"
    data = pydicom.dcmread(path)
    data.add_new((0x0009, 0x0010), "LO", "MEDSEG TEST")
    data.add_new((0x0009, 0x1001), "OB", bytes(3_000_000))
    data.save_as(path)
    assert same_answers(path)
    assert walk(path).numbers("Columns") == (5,)


def test_other_encodings_are_left_to_pydicom(small_series):
    path = small_series() / "IM0003"
    plain = path.read_bytes()
    path.write_bytes(plain.replace(f"{ExplicitVRLittleEndian}\0".encode(), f"{ExplicitVRBigEndian}\0".encode()))
    assert walk(path) is None
    path.write_bytes(plain)
    data = pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data.save_as(path)
    assert walk(path) is None


def test_damage_is_left_to_pydicom(small_series):
    path = small_series() / "IM0003"
    whole = path.read_bytes()
    for end in (0, 100, 132, 140, 300, len(whole) - 45, len(whole) - 3):
        path.write_bytes(whole[:end])
        assert walk(path) is None
    for n in range(132, len(whole) - 44, 7):
        path.write_bytes(whole[:n] + bytes([whole[n] ^ 0xFF]) + whole[n + 1 :])
        walk(path)


def test_text_is_decoded_by_its_character_set(small_series):
    folder = small_series(SpecificCharacterSet="ISO_IR 192", SeriesDescription="Schädel ohne KM")
    assert walk(folder / "IM0000").text("SeriesDescription") == "Schädel ohne KM"
    folder = small_series("latin", SpecificCharacterSet="ISO_IR 100", SeriesDescription="Schädel")
    assert walk(folder / "IM0000").text("SeriesDescription") == "Schädel"


def test_files_are_walked_like_pydicom_reads_them(data_folder):
    files = [p for f in sorted(data_folder.glob("*dicom*")) for p in sorted(f.rglob("*")) if p.is_file()]
    files += sorted((data_folder / "lung_ct_cip/ct-64Dicom").iterdir())[::10]
    files += sorted((data_folder / "ct_totalseg/example_ct_dicom").iterdir())[::5]
    dicom = [p for p in files if p.read_bytes()[128:132] == b"DICM"]
    assert len(dicom) > 60
    walked = [same_answers(p) for p in dicom]
    assert sum(walked) >= 0.95 * len(walked)
