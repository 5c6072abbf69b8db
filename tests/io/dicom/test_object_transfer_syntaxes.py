"""Segmentations and structure sets in every transfer syntax: the same mask, or the syntax is named."""

from __future__ import annotations

import zlib

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)
from seg_cases import MODEL, SCHEME, SHAPE, a_label_map, grid_in, volume_on

from medseg.errors import ReadError
from medseg.io import read
from medseg.io.dicom.loading import DEFLATED_FRAMES
from medseg.io.dicom.objects import object_kind, read_object
from medseg.io.dicom.rtstruct.write import write_rtstruct
from medseg.io.dicom.seg.write import write_dicom_seg

ARRAY = a_label_map()
NATIVE = [DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian]


@pytest.fixture
def objects(tmp_path):
    """Kind -> file of the same labels on one study."""
    grid = grid_in(tmp_path / "study")
    files = {kind: tmp_path / f"{kind}.dcm" for kind in ("binary", "labelmap", "rtstruct")}
    for encoding in ("binary", "labelmap"):
        write_dicom_seg(volume_on(grid, ARRAY), files[encoding], SCHEME, grid, MODEL, encoding=encoding)
    write_rtstruct(volume_on(grid, ARRAY), files["rtstruct"], SCHEME, grid, MODEL)
    return files


def store(path, syntax, of_pixels="OB"):
    """Save an object in another native transfer syntax."""
    data = pydicom.dcmread(path)
    if "PixelData" in data and data.file_meta.TransferSyntaxUID.is_encapsulated:
        data.decompress()
    data.decode()
    list(data.iterall())
    if of_pixels == "OW" or (data.get("BitsAllocated") == 16 and not syntax.is_little_endian):
        # Big-endian words have their bytes the other way round.
        pixels = data.PixelData + b"\0" * (len(data.PixelData) % 2)
        data.PixelData = np.frombuffer(pixels, "<u2").byteswap().tobytes()
        data["PixelData"].VR = "OW"
    data.file_meta.TransferSyntaxUID = syntax
    pydicom.dcmwrite(path, data, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian)


def rename_syntax(path, before, after):
    """Put another transfer syntax into the file meta information, which pydicom refuses to write."""
    content = path.read_bytes()
    length = len(before) + len(before) % 2
    assert content.count(before.encode().ljust(length, b"\0")) == 1
    path.write_bytes(content.replace(before.encode().ljust(length, b"\0"), after.encode().ljust(length, b"\0")))


@pytest.mark.parametrize("syntax", NATIVE, ids=lambda uid: uid.name)
@pytest.mark.parametrize("kind", ["binary", "labelmap", "rtstruct"])
def test_an_object_gives_the_same_mask_in_every_native_transfer_syntax(objects, tmp_path, kind, syntax):
    store(objects[kind], syntax)
    labels, values = read_object(objects[kind], tmp_path / "study")
    np.testing.assert_array_equal(labels.array, ARRAY)
    assert values == {"left_lung": 1, "lung nodule": 7, "Ödem": 300}
    if kind != "rtstruct":
        np.testing.assert_array_equal(read(objects[kind]).array.sum(), ARRAY.sum())


def test_bits_packed_into_big_endian_words_are_unpacked(objects, tmp_path):
    store(objects["binary"], ExplicitVRBigEndian, of_pixels="OW")
    assert pydicom.dcmread(objects["binary"])["PixelData"].VR == "OW"
    np.testing.assert_array_equal(read_object(objects["binary"], tmp_path / "study")[0].array, ARRAY)


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
def test_frames_that_are_deflated_one_by_one_are_read(objects, tmp_path, kind):
    store(objects[kind], ExplicitVRLittleEndian)
    data = pydicom.dcmread(objects[kind])
    count, size = int(data.NumberOfFrames), SHAPE[0] * SHAPE[1]
    bits = int(data.BitsAllocated)
    pixels = np.frombuffer(data.PixelData, "<u2" if bits == 16 else "u1")
    if bits == 1:
        frames = np.unpackbits(pixels, bitorder="little")[: count * size].reshape(count, size)
        frames = [np.packbits(frame, bitorder="little") for frame in frames]
    else:
        frames = pixels[: count * size].reshape(count, size)

    def deflated(frame):
        packer = zlib.compressobj(wbits=-15)
        content = packer.compress(frame.tobytes()) + packer.flush()
        return content + b"\0" * (len(content) % 2)

    data.PixelData = encapsulate([deflated(frame) for frame in frames])
    data["PixelData"].is_undefined_length = True
    data["PixelData"].VR = "OB"
    data.file_meta.TransferSyntaxUID = JPEG2000Lossless
    data.save_as(objects[kind])
    rename_syntax(objects[kind], JPEG2000Lossless, DEFLATED_FRAMES)
    np.testing.assert_array_equal(read_object(objects[kind], tmp_path / "study")[0].array, ARRAY)


@pytest.mark.parametrize("kind", ["binary", "rtstruct"])
@pytest.mark.parametrize("syntax", ["1.2.840.113619.5.2", "1.2.840.10008.1.2.99"])
def test_an_unknown_transfer_syntax_is_named(objects, tmp_path, kind, syntax):
    store(objects[kind], ExplicitVRLittleEndian)
    rename_syntax(objects[kind], ExplicitVRLittleEndian, syntax)
    assert object_kind(objects[kind]) in ("dicom-seg", "rtstruct")
    with pytest.raises(ReadError, match=rf"transfer syntax {syntax}, which is not known") as caught:
        read_object(objects[kind], tmp_path / "study")
    assert "damaged" not in str(caught.value)


def test_a_transfer_syntax_that_no_decoder_reads_is_named(objects):
    data = pydicom.dcmread(objects["labelmap"])
    data.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100"
    data.save_as(objects["labelmap"])
    with pytest.raises(ReadError, match=r"MPEG2.*which no installed decoder reads") as caught:
        read_object(objects["labelmap"])
    assert "damaged" not in str(caught.value)
