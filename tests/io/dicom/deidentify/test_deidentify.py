"""The Basic Application Level Confidentiality Profile: what goes, what stays, what fits together afterwards."""

from __future__ import annotations

from io import BytesIO

import pydicom
import pytest
from deidentify_objects import KEY, MARKS, filled, image, referring_objects, with_meta, written
from hypothesis import given
from hypothesis import strategies as st
from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from medseg.errors import ConfigError
from medseg.io.dicom.deidentify.profile import Deidentifier, deidentify
from medseg.io.dicom.deidentify.rules import RULES, Action, action_for

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
    assert (data.ContentDate, data.SeriesDate, data.OperatorsName) == ("19000101", "19000101", "ANONYMIZED^")
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
    assert first.PatientID == second.PatientID != other.PatientID
    assert first.PatientName == second.PatientName == f"{first.PatientID}^"
    assert first.PatientID.startswith("ANON-")
    empty = image(PatientID="", PatientName="")
    deidentify(empty, KEY)
    assert empty.PatientID == empty.PatientName == ""


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
