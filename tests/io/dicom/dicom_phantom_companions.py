"""What lies beside slices in real folders: DICOM objects without an image, other files, files without preamble."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pydicom
from dicom_phantoms import Phantom, header, save
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import generate_uid

OBJECTS = {
    "SR": "1.2.840.10008.5.1.4.1.1.88.33",
    "PR": "1.2.840.10008.5.1.4.1.1.11.1",
    "KO": "1.2.840.10008.5.1.4.1.1.88.59",
    "RTSTRUCT": "1.2.840.10008.5.1.4.1.1.481.3",
    "RAW": "1.2.840.10008.5.1.4.1.1.66",
    "PDF": "1.2.840.10008.5.1.4.1.1.104.1",
}
GEOMETRY = ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel")


def write_objects(folder: Path, phantom: Phantom) -> None:
    """One object of each kind of the same study, none of which is an image, and a DICOMDIR."""
    for number, (name, sop_class) in enumerate(OBJECTS.items()):
        data = header(phantom.but(series=90 + number))
        data.SOPClassUID, data.Modality = sop_class, name[:2] if name != "RTSTRUCT" else name
        data.SOPInstanceUID = generate_uid(entropy_srcs=[name])
        for keyword in (*GEOMETRY, "PhotometricInterpretation", "ImageType"):
            delattr(data, keyword)
        if name == "RTSTRUCT":
            data.StructureSetLabel = "contours"
        save(data, folder / f"{name}.dcm")
    directory = Dataset()
    directory.file_meta = pydicom.dataset.FileMetaDataset()
    directory.SOPClassUID, directory.SOPInstanceUID = "1.2.840.10008.1.3.10", generate_uid(entropy_srcs=["dir"])
    directory.FileSetID = "STUDY"
    directory.DirectoryRecordSequence = Sequence([])
    save(directory, folder / "DICOMDIR")


def write_strangers(folder: Path) -> None:
    """Files that are no DICOM and do not say they were."""
    (folder / "notes.txt").write_text("head first, table moved by hand")
    (folder / "IM9001").write_bytes(bytes(np.random.default_rng(0).integers(0, 256, 4000, dtype=np.uint8)))
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0" + bytes(200))
    (folder / "IM9002").write_bytes(b"")
    (folder / ".DS_Store").write_bytes(bytes(100))


def write_pretender(folder: Path) -> None:
    """A text under the name of a slice: it may once have been one, so nobody can say that nothing is lost."""
    (folder / "IM9000.dcm").write_text("this was never an image")


def strip_preamble(path: Path, with_meta: bool) -> None:
    """Rewrite a file without preamble and prefix; without meta information it is bare implicit little endian."""
    if with_meta:
        path.write_bytes(path.read_bytes()[132:])
        return
    data = pydicom.dcmread(path)
    bare = Dataset(data)
    target = io.BytesIO()
    pydicom.dcmwrite(target, bare, implicit_vr=True, little_endian=True, enforce_file_format=False)
    path.write_bytes(target.getvalue())


def private_block(data: Dataset, k: int) -> None:
    """Private sequences of undefined length before the pixels, which hold a copy of the pixel data tag's bytes."""
    block = data.private_block(0x0029, "MEDSEG TEST", create=True)
    inner = Dataset()
    inner.add_new(0x00291101, "LO", "inner")
    inner.add_new(0x00291102, "OB", b"\xe0\x7f\x10\x00OW\x00\x00\x08\x00\x00\x00" + bytes(8))
    outer = Dataset()
    outer.add_new(0x00291103, "SQ", Sequence([inner, inner]))
    outer[0x00291103].is_undefined_length = True
    block.add_new(0x10, "SQ", Sequence([outer]))
    data[block.get_tag(0x10)].is_undefined_length = True
    for item in (outer, inner):
        item.is_undefined_length_sequence_item = True


def icon(data: Dataset, k: int) -> None:
    """An icon image with pixel data, rows, position and rescale of its own, before the real ones."""
    small = Dataset()
    small.Rows = small.Columns = 4
    small.SamplesPerPixel, small.PhotometricInterpretation = 1, "MONOCHROME2"
    small.BitsAllocated = small.BitsStored = 8
    small.HighBit, small.PixelRepresentation = 7, 0
    small.PixelData = bytes(range(16))
    small["PixelData"].VR = "OB"
    data.IconImageSequence = Sequence([small])
    data["IconImageSequence"].is_undefined_length = True
    small.is_undefined_length_sequence_item = True
