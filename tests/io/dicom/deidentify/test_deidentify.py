"""The Basic Application Level Confidentiality Profile: what goes, what stays, what fits together afterwards."""

from __future__ import annotations

import shutil
import subprocess
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence

from medseg.errors import ConfigError, ReadError, WriteError
from medseg.io import read
from medseg.io.dicom.algorithm import Algorithm
from medseg.io.dicom.deidentify.files import deidentify_files
from medseg.io.dicom.deidentify.profile import Deidentifier, deidentify
from medseg.io.dicom.deidentify.rules import RULES, Action, action_for
from medseg.io.dicom.grid import grid_of
from medseg.io.dicom.seg.read import read_dicom_seg
from medseg.io.dicom.seg.write import write_dicom_seg
from medseg.io.dicom.series import find_series
from medseg.labels import LabelScheme

KEY = "a key for tests"
# Nobody's name or number, and nothing that occurs by itself in a DICOM file.
SECRETS = {
    **dict.fromkeys(("AE", "CS", "LO", "LT", "SH", "ST", "UC", "UT"), "ZQXSECRET"),
    "PN": "ZQXSECRET^Zqxjane",
    "AS": "077Y",
    "DA": "20010203",
    "DT": "20010203112233.77",
    "TM": "112233.77",
    "UI": "1.2.3.4.5.6.7.8.9",
    "UR": "http://zqx.example/SECRET",
    "DS": "77.1234",
    "IS": "771234",
    "US": 31415,
    "OB": b"ZQXSECRET!",
    "UN": b"ZQXSECRET!",
}
MARKS = [
    b"ZQXSECRET",
    b"zqxsecret",
    b"Zqxjane",
    b"077Y",
    b"20010203",
    b"112233.77",
    b"1.2.3.4.5.6.7.8.9",
    b"zqx.example",
]
MARKS += [b"77.1234", b"771234", (31415).to_bytes(2, "little")]


def filled(tag: int) -> DataElement:
    vr = dictionary_VR(tag).split(" or ")[0]
    if vr != "SQ":
        return DataElement(tag, vr, SECRETS[vr])
    item = Dataset()
    keywords = ["PatientName", "ReferencedSOPInstanceUID", "Date", "RequestedProcedureID"]
    # References keep their form, other sequences go with all that is in them.
    keywords += ["CodeMeaning", "TextValue"] * (RULES[tag] is not Action.REMOVE_OR_EMPTY_OR_UID)
    for keyword in keywords:
        item.add(filled(tag_for_keyword(keyword)))
    return DataElement(tag, "SQ", Sequence([item]))


def with_meta(dataset: Dataset) -> Dataset:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    return dataset


def image(**tags: object) -> Dataset:
    """A small CT slice of a patient."""
    data = with_meta(Dataset())
    data.SOPClassUID, data.SOPInstanceUID = pydicom.uid.CTImageStorage, "1.2.3.10"
    data.file_meta.MediaStorageSOPClassUID, data.file_meta.MediaStorageSOPInstanceUID = data.SOPClassUID, "1.2.3.10"
    data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = "1.2.3.1", "1.2.3.2", "1.2.3.3"
    data.PatientName, data.PatientID, data.Modality = "Zqxsecret^Zqxjane", "MRN-0815", "CT"
    data.Rows, data.Columns, data.BitsAllocated, data.BitsStored, data.HighBit = 2, 2, 16, 16, 15
    data.SamplesPerPixel, data.PixelRepresentation, data.PhotometricInterpretation = 1, 1, "MONOCHROME2"
    data.PixelData = np.arange(4, dtype=np.int16).tobytes()
    for name, value in tags.items():
        setattr(data, name, value)
    return data


def written(dataset: Dataset) -> bytes:
    """The bytes of the file, pixels left out."""
    copy = Dataset()
    copy.update({e.tag: e for e in dataset if e.keyword != "PixelData"})
    copy.file_meta = dataset.file_meta
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, copy, enforce_file_format="MediaStorageSOPClassUID" in copy.file_meta)
    return buffer.getvalue()


KNOWN = sorted(tag for tag in RULES if keyword_for_tag(tag) and tag >> 16 > 2)


@pytest.mark.parametrize("nested", [False, True], ids=["top level", "two sequences deep"])
def test_no_value_of_any_row_of_the_table_is_left(nested):
    assert len(KNOWN) > 600
    left = []
    for tag in KNOWN:
        inner = Dataset()
        inner.add(filled(tag))
        dataset = inner
        for _ in range(2 * nested):
            outer = Dataset()
            # A sequence that the profile keeps.
            outer.SharedFunctionalGroupsSequence = Sequence([dataset])
            dataset = outer
        with_meta(dataset)
        deidentify(dataset, KEY)
        content = written(dataset)
        if any(mark in content for mark in MARKS):
            left.append(keyword_for_tag(tag))
    assert left == []


@pytest.mark.parametrize(
    ("keyword", "action"),
    [
        # PS3.15 Table E.1-1, read by eye.
        ("PatientName", "Z"),
        ("PatientID", "Z/D"),
        ("PatientBirthDate", "Z"),
        ("PatientSex", "Z"),
        ("PatientAge", "X"),
        ("OtherPatientIDs", "X"),
        ("AccessionNumber", "Z"),
        ("StudyDate", "Z"),
        ("SeriesDate", "X/D"),
        ("AcquisitionDate", "X/Z"),
        ("AcquisitionDateTime", "X/Z/D"),
        ("ContentDate", "Z/D"),
        ("InstitutionName", "X/Z/D"),
        ("ReferringPhysicianName", "Z"),
        ("OperatorsName", "X/Z/D"),
        ("StudyDescription", "X"),
        ("SeriesDescription", "X"),
        ("ImageComments", "X"),
        ("ProtocolName", "X/D"),
        ("DeviceSerialNumber", "X/Z/D"),
        ("SOPInstanceUID", "U"),
        ("FrameOfReferenceUID", "U"),
        ("SourceImageSequence", "X/Z/U*"),
        ("ROIName", "Z"),
        ("StructureSetLabel", "D"),
        ("IconImageSequence", "X"),
        ("OriginalAttributesSequence", "X"),
        ("SOPClassUID", "K"),
        ("BodyPartExamined", "K"),
        ("SegmentLabel", "K"),
        ("PixelData", "K"),
    ],
)
def test_rows_of_the_table(keyword, action):
    assert action_for(tag_for_keyword(keyword)) is Action(action)


def test_what_the_table_does_not_name():
    assert action_for(0x00091001) is Action.REMOVE  # private
    assert action_for(0x50023000) is action_for(0x60003000) is action_for(0x60000010) is Action.REMOVE
    assert action_for(0x0018FFFE) is Action.REMOVE  # in no dictionary
    assert action_for(tag_for_keyword("EncryptedAttributesSequence")) is Action.REMOVE
    assert action_for(tag_for_keyword("EvaluatorName")) is Action.DUMMY
    assert action_for(tag_for_keyword("DateOfGainCalibration")) is Action.DUMMY
    assert action_for(tag_for_keyword("VolumeFrameOfReferenceUID")) is Action.UID


def test_choices_keep_the_object_valid_for_attributes_that_must_have_a_value():
    data = image(ContentDate="20010203", SeriesDate="20010203", AcquisitionDate="20010203", StudyDate="20010203")
    data.OperatorsName, data.PatientAge, data.AccessionNumber = "Zqx", "077Y", "A1"
    deidentify(data, KEY)
    assert (data.ContentDate, data.SeriesDate, data.OperatorsName) == ("19000101", "19000101", "ANONYMIZED")
    assert data.AcquisitionDate == data.StudyDate == data.AccessionNumber == ""
    assert "PatientAge" not in data


def test_it_says_what_was_done():
    data = image(LongitudinalTemporalInformationModified="UNMODIFIED")
    deidentify(data, KEY)
    assert (data.PatientIdentityRemoved, data.LongitudinalTemporalInformationModified) == ("YES", "REMOVED")
    assert data.DeidentificationMethod[0] == "DICOM PS3.15 2026c Basic Application Confidentiality Profile"
    assert all(len(value) <= 64 for value in data.DeidentificationMethod)
    (code,) = data.DeidentificationMethodCodeSequence
    assert (code.CodeValue, code.CodingSchemeDesignator) == ("113100", "DCM")
    assert code.CodeMeaning == "Basic Application Confidentiality Profile"


def test_file_meta_and_preamble_hold_nothing_of_the_sender():
    data = image()
    data.preamble = b"ZQXSECRET".ljust(128, b"!")
    data.file_meta.SourceApplicationEntityTitle = data.file_meta.SendingApplicationEntityTitle = "ZQXSECRET"
    data.file_meta.PrivateInformationCreatorUID, data.file_meta.PrivateInformation = "1.2.3.4", b"ZQXSECRET!"
    deidentify(data, KEY)
    names = {element.keyword for element in data.file_meta}
    assert names == {"MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID", "TransferSyntaxUID"}
    assert data.file_meta.MediaStorageSOPInstanceUID == data.SOPInstanceUID != "1.2.3.10"
    assert data.preamble == bytes(128)


def test_private_tags_are_gone_at_every_depth():
    data = image()
    for depth in range(3):
        item = Dataset()
        block = item.private_block(0x0009, "ZQX VENDOR", create=True)
        block.add_new(1, "LO", "ZQXSECRET")
        block.add_new(2, "SQ", Sequence([image()]))
        if depth:
            item.SharedFunctionalGroupsSequence = data.SharedFunctionalGroupsSequence
        data.SharedFunctionalGroupsSequence = Sequence([item])
    data.private_block(0x0011, "ZQX VENDOR", create=True).add_new(1, "UN", b"ZQXSECRET!")
    deidentify(data, KEY)
    assert not [e.tag for e in data.iterall() if e.tag.is_private]
    assert b"ZQX" not in written(data)


def test_curves_and_overlays_are_gone():
    data = image()
    data.add_new(0x60003000, "OW", b"ZQXSECRET!")
    data.add_new(0x60000010, "US", 2)
    data.add_new(0x50003000, "OW", b"ZQXSECRET!")
    deidentify(data, KEY)
    assert not [e.tag for e in data if e.tag.group >> 8 in (0x50, 0x60)]


def test_names_repeated_in_kept_texts_go_with_them_but_standard_terms_stay():
    data = image(KVP="120", Manufacturer="Brain Scanners", ConvolutionKernel="of Zqxjane", PatientName="Brain^Zqxjane")
    term = Dataset()
    term.CodeValue, term.CodingSchemeDesignator, term.CodeMeaning = "12738006", "SCT", "Brain"
    data.AnatomicRegionSequence = Sequence([term])
    data.SequenceName = "MRN-08157"
    deidentify(data, KEY)
    assert (data.Manufacturer, data.ConvolutionKernel, data.KVP) == ("ANONYMIZED", "ANONYMIZED", 120)
    assert data.AnatomicRegionSequence[0].CodeMeaning == "Brain"
    assert data.SequenceName == "MRN-08157"  # another number than the patient's


TEXT = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=7, max_size=12).map(lambda text: f"Q{text}X")


@given(
    name=TEXT,
    number=TEXT,
    where=st.lists(st.sampled_from(["ImageComments", "Manufacturer", "SequenceName", "SoftwareVersions"]), max_size=3),
    depth=st.integers(0, 3),
)
def test_no_identifying_text_is_left_wherever_it_was(name, number, where, depth):
    data = image(PatientName=f"{name}^A", PatientID=number, AccessionNumber=number[:16], ReferringPhysicianName=name)
    inner = data
    for _ in range(depth):
        inner.PerFrameFunctionalGroupsSequence = Sequence([Dataset()])
        inner = inner.PerFrameFunctionalGroupsSequence[0]
    for keyword in where:
        setattr(inner, keyword, f"{number}"[:16] if keyword == "SequenceName" else f"for {name} ({number})")
    deidentify(data, KEY)
    content = written(data).upper()
    assert name.encode() not in content
    assert number.encode() not in content


def test_a_patient_number_used_as_series_number_goes_too():
    data = image(PatientID="123456", SeriesNumber="123456", InstanceNumber="12")
    deidentify(data, KEY)
    assert (data.SeriesNumber, data.InstanceNumber) == (0, 12)


def test_uids_are_replaced_alike_under_one_key_and_those_of_the_standard_stay():
    one, two = Deidentifier.with_key("one"), Deidentifier.with_key(b"two")
    assert one.uid("1.2.3") == Deidentifier.with_key(b"one").uid("1.2.3 ") == one.uid("1.2.3\0")
    assert len({one.uid("1.2.3"), two.uid("1.2.3"), one.uid("1.2.4"), "1.2.3"}) == 4
    assert one.uid("1.2.3").startswith("2.25.")
    assert len(one.uid("1.2.3")) <= 64
    assert one.uid("1.2.840.10008.1.4.1.1") == "1.2.840.10008.1.4.1.1"
    assert one.uid("") == ""


def test_one_patient_keeps_one_neutral_name():
    first, second, other = image(), image(StudyInstanceUID="1.2.3.99"), image(PatientID="MRN-4711")
    for data in (first, second, other):
        deidentify(data, KEY)
    assert first.PatientID == second.PatientID == first.PatientName != other.PatientID
    assert first.PatientID.startswith("ANON-")
    empty = image(PatientID="", PatientName="")
    deidentify(empty, KEY)
    assert empty.PatientID == empty.PatientName == ""


def referring_objects() -> list[Dataset]:
    """A slice, a segmentation and a structure set that refer to it, in the sequences that each kind uses."""
    slice_, seg, struct = image(), image(Modality="SEG", SOPInstanceUID="1.2.3.20"), image(Modality="RTSTRUCT")
    seg.SOPClassUID, struct.SOPClassUID = pydicom.uid.SegmentationStorage, pydicom.uid.RTStructureSetStorage
    struct.SOPInstanceUID = "1.2.3.30"
    del struct.PixelData

    def reference() -> Dataset:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = pydicom.uid.CTImageStorage, "1.2.3.10"
        return item

    series = Dataset()
    series.SeriesInstanceUID, series.ReferencedInstanceSequence = "1.2.3.2", Sequence([reference()])
    seg.ReferencedSeriesSequence = Sequence([series])
    derivation = Dataset()
    derivation.SourceImageSequence = Sequence([reference()])
    frame = Dataset()
    frame.DerivationImageSequence = Sequence([derivation])
    seg.PerFrameFunctionalGroupsSequence = Sequence([frame])
    contour, roi, roi_contour = Dataset(), Dataset(), Dataset()
    contour.ContourImageSequence = Sequence([reference()])
    roi_contour.ContourSequence = Sequence([contour])
    struct.ROIContourSequence = Sequence([roi_contour])
    roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = 1, "liver", "1.2.3.3"
    struct.StructureSetROISequence = Sequence([roi])
    rt_series, rt_study, frame_of_reference = Dataset(), Dataset(), Dataset()
    rt_series.SeriesInstanceUID, rt_series.ContourImageSequence = "1.2.3.2", Sequence([reference()])
    rt_study.ReferencedSOPClassUID, rt_study.ReferencedSOPInstanceUID = "1.2.840.10008.3.1.2.3.1", "1.2.3.1"
    rt_study.RTReferencedSeriesSequence = Sequence([rt_series])
    frame_of_reference.FrameOfReferenceUID = "1.2.3.3"
    frame_of_reference.RTReferencedStudySequence = Sequence([rt_study])
    struct.ReferencedFrameOfReferenceSequence = Sequence([frame_of_reference])
    return [slice_, seg, struct]


def test_segmentations_and_structure_sets_still_refer_to_their_series():
    slice_, seg, struct = referring_objects()
    for data in (slice_, seg, struct):
        deidentify(data, KEY)
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == slice_.SeriesInstanceUID
    assert (
        seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == slice_.SOPInstanceUID
    )
    source = seg.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
    assert source.ReferencedSOPInstanceUID == slice_.SOPInstanceUID
    assert source.ReferencedSOPClassUID == pydicom.uid.CTImageStorage
    contour = struct.ROIContourSequence[0].ContourSequence[0]
    assert contour.ContourImageSequence[0].ReferencedSOPInstanceUID == slice_.SOPInstanceUID
    frame_of_reference = struct.ReferencedFrameOfReferenceSequence[0]
    study = frame_of_reference.RTReferencedStudySequence[0]
    assert study.ReferencedSOPInstanceUID == slice_.StudyInstanceUID
    assert study.RTReferencedSeriesSequence[0].SeriesInstanceUID == slice_.SeriesInstanceUID
    assert frame_of_reference.FrameOfReferenceUID == slice_.FrameOfReferenceUID
    assert struct.StructureSetROISequence[0].ReferencedFrameOfReferenceUID == slice_.FrameOfReferenceUID
    assert struct.StructureSetROISequence[0].ROIName == ""


def test_names_of_labels_stay_where_they_are_known_to_be_labels():
    _, _, struct = referring_objects()
    deidentify(struct, KEY, known_texts=("liver", "tumor"))
    assert struct.StructureSetROISequence[0].ROIName == "liver"


def test_content_of_reports_is_replaced_and_said_so():
    data = with_meta(Dataset())
    data.SOPClassUID, data.Modality = "1.2.840.10008.5.1.4.1.1.88.11", "SR"
    item = Dataset()
    item.RelationshipType, item.ValueType, item.TextValue = "CONTAINS", "TEXT", "ZQXSECRET"
    data.ContentSequence = Sequence([item])
    findings = deidentify(data, KEY)
    assert [f.kind for f in findings] == ["content_replaced"]
    assert (data.ContentSequence[0].ValueType, data.ContentSequence[0].TextValue) == ("TEXT", "ANONYMIZED")


@pytest.mark.parametrize(
    ("tags", "kinds"),
    [
        ({"BurnedInAnnotation": "NO"}, []),
        ({"BurnedInAnnotation": "YES"}, ["burned_in_text"]),
        ({}, ["burned_in_text"]),
        ({"BurnedInAnnotation": "NO", "Modality": "US"}, ["burned_in_text"]),
        ({"BurnedInAnnotation": "NO", "SOPClassUID": pydicom.uid.SecondaryCaptureImageStorage}, ["burned_in_text"]),
        ({"BurnedInAnnotation": "NO", "ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, ["burned_in_text"]),
        ({"BurnedInAnnotation": "NO", "BodyPartExamined": "HEAD"}, ["recognizable_face"]),
        ({"BurnedInAnnotation": "NO", "StudyDescription": "MR Brain"}, ["recognizable_face"]),
        ({"BurnedInAnnotation": "NO", "BodyPartExamined": "HEAD", "RecognizableVisualFeatures": "NO"}, []),
        ({"BurnedInAnnotation": "NO", "RecognizableVisualFeatures": "YES"}, ["recognizable_face"]),
        ({"Modality": "SEG"}, []),
    ],
)
def test_it_says_what_it_cannot_remove(tags, kinds):
    assert [finding.kind for finding in deidentify(image(**tags), KEY)] == kinds


def test_an_overlay_in_unused_bits_of_the_pixels_is_named():
    data = image(BurnedInAnnotation="NO")
    data.add_new(0x60000102, "US", 12)
    (finding,) = deidentify(data, KEY)
    assert finding.kind == "burned_in_text"
    assert "overlay" in finding.message


def test_values_that_cannot_be_parsed_do_not_get_through():
    data = image()
    item = image()
    item.add_new(0x00280030, "DS", "1\\1")
    buffer = BytesIO()
    data.add_new(0x00081140, "SQ", Sequence([item]))
    pydicom.dcmwrite(buffer, data)
    content = buffer.getvalue().replace(b"DS\x04\x001\\1 ", b"DS\x04\x00Zqx ")
    again = pydicom.dcmread(BytesIO(content), force=True)
    deidentify(again, KEY)
    assert b"Zqxjane" not in written(again)


@pytest.mark.parametrize("key", ["", b"", "  "])
def test_an_empty_key_is_refused(key):
    with pytest.raises(ConfigError, match="empty"):
        deidentify(image(), key)


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
