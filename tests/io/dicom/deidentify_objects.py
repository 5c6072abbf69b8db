"""Objects full of identifying values, and the texts that must be gone from them."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pydicom
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence

from medseg.io.dicom.deidentify.rules import RULES, Action

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
