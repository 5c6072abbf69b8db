"""Files without pixels, or with too few, are named by `inspect` as `read` names them; what pixels mean is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_phantom_multiframe import write_enhanced
from dicom_phantoms import Phantom, write_study
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from medseg.commands.inspect import inspect
from medseg.errors import MedsegError
from medseg.io import read
from medseg.io.dicom import datasets, deflated, headers

FIELD = Path(__file__).parents[4] / "shared" / "field"
PLAIN = Phantom()


def without_pixels(path):
    data = pydicom.dcmread(path)
    del data.PixelData
    data.save_as(path)


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def without_preamble(path):
    raw = path.read_bytes()
    path.write_bytes(raw[144 + int.from_bytes(raw[140:144], "little") :])


@pytest.mark.parametrize("damage", [without_pixels, cut])
@pytest.mark.parametrize(
    "syntax", ["explicit little endian", "implicit little endian", "deflated", "explicit big endian", ""]
)
def test_a_file_without_its_pixels_is_told_by_inspect_as_by_read(tmp_path, syntax, damage):
    files = write_study(tmp_path, PLAIN.but(syntax=syntax or "implicit little endian"))
    if damage is without_pixels:
        without_pixels(files[2])
    for path in files if not syntax else ():
        without_preamble(path)
    if damage is cut:
        cut(files[2])
    with pytest.raises(MedsegError, match=files[2].name) as caught:
        read(tmp_path)
    refused = [item.refused for item in inspect(tmp_path).items if item.refused]
    # The header of a deflated file cannot be read without its end, so the other slices lack one.
    assert refused == [str(caught.value)] or (syntax == "deflated" and str(caught.value) in refused)
    if damage is without_pixels:
        assert caught.value.kind == "no_pixels"


@pytest.mark.parametrize("syntax", ["JPEG-LS lossless", "RLE", "JPEG 2000 lossless"])
def test_compressed_pixels_cut_short_are_told_by_inspect_as_by_read(tmp_path, syntax):
    files = write_study(tmp_path, Phantom(shape=(21, 18, 4), stored="uint16", bits=12, syntax=syntax))
    cut(files[1])
    with pytest.raises(MedsegError, match=rf"{files[1].name} is cut short") as caught:
        read(tmp_path)
    assert [item.refused for item in inspect(tmp_path).items] == [str(caught.value)]


def test_a_whole_compressed_file_without_an_end_mark_is_read(tmp_path):
    phantom = Phantom(shape=(21, 18, 4), stored="uint16", bits=12, syntax="JPEG-LS lossless")
    files = write_study(tmp_path, phantom)
    files[1].write_bytes(files[1].read_bytes()[:-8])
    assert phantom.truth().faults(read(tmp_path)) == ""


@pytest.mark.parametrize("name", ["header_only/header_only", "header_only/short_px"])
def test_inspect_says_of_the_headers_of_the_field_what_read_says(name):
    if not FIELD.is_dir():
        pytest.skip("the shared field inputs are not on this machine")
    with pytest.raises(MedsegError) as caught:
        read(FIELD / name)
    assert [item.refused for item in inspect(FIELD / name).items] == [str(caught.value)]


@pytest.mark.parametrize("syntax", ["deflated", "explicit big endian"])
def test_a_file_of_many_frames_is_parsed_once_for_its_header_and_once_for_its_pixels(tmp_path, monkeypatch, syntax):
    phantom = Phantom(shape=(16, 15, 40), syntax=syntax)
    path = write_enhanced(tmp_path / "a.dcm", phantom)
    calls = []

    def counted(path):
        calls.append(path)
        return deflated.inflated(path)

    monkeypatch.setattr(headers, "inflated", counted)
    monkeypatch.setattr(datasets, "inflated", counted)
    assert phantom.truth().faults(read(path)) == ""
    assert len(calls) == 2


def lut(descriptor, data):
    def change(dataset, k):
        item = Dataset()
        item.add_new("LUTDescriptor", "US", descriptor)
        item.ModalityLUTType = "HU"
        item.add_new("LUTData", "US", data)
        dataset.ModalityLUTSequence = Sequence([item])

    return change


@pytest.mark.parametrize(("descriptor", "data"), [(None, None), ([256, 0, 16], None), (None, [1, 2, 3])])
def test_a_modality_lut_without_a_table_is_read_as_absent_with_a_finding(tmp_path, descriptor, data):
    phantom = PLAIN.but(change=lut(descriptor, data))
    write_study(tmp_path, phantom)
    volume = read(tmp_path)
    assert phantom.truth().faults(volume) == ""
    assert [f.kind for f in volume.findings] == ["empty_modality_lut"]


@pytest.mark.parametrize("bits", [12, 16])
def test_colours_of_more_than_8_bits_keep_the_highest_with_a_finding(tmp_path, bits):
    colours = np.random.default_rng(0).integers(0, 2**bits, (7, 9, 3)).astype("<u2")

    def change(data, k):
        data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "RGB", 0
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, bits, bits - 1, 0
        data.PixelData = colours.tobytes()

    write_study(tmp_path, PLAIN.but(shape=(9, 7, 1), modality="OT", change=change))
    volume = read(tmp_path)
    np.testing.assert_array_equal(volume.array, (colours >> (bits - 8)).transpose(2, 1, 0))
    assert volume.array.dtype == np.uint8
    assert "bit_depth" in [f.kind for f in volume.findings]


def corners(value, tag):
    def change(data, k):
        pixels = np.frombuffer(data.PixelData, np.int16).reshape(data.Rows, data.Columns).copy()
        pixels[:2, :2] = value
        data.PixelData = pixels.tobytes()
        for keyword, stated in tag.items():
            data.add_new(keyword, "SS", stated)

    return change


@pytest.mark.parametrize(
    ("value", "tag", "expected"),
    [
        (-2000, {"PixelPaddingValue": -2000}, (-3024.0, -3024.0)),
        (-1990, {"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": -1980}, (-3024.0, -3004.0)),
        (-2000, {}, (-3024.0, -3024.0)),
        (-2000, {"PixelPaddingValue": -1500}, (-3024.0, -3024.0)),
        (0, {}, ()),
    ],
)
def test_the_metadata_say_which_values_are_padding_and_voxels_stay_as_stored(tmp_path, value, tag, expected):
    write_study(tmp_path, PLAIN.but(change=corners(value, tag)))
    volume = read(tmp_path)
    assert volume.metadata.padding == expected
    assert ("padding" in [f.kind for f in volume.findings]) == bool(expected)
    assert (volume.array[:2, :2] == value - 1024).all()


def test_low_values_that_are_no_fill_are_not_called_padding(tmp_path):
    write_study(tmp_path, PLAIN.but(offset=-1300.0, intercepts=0.0))
    volume = read(tmp_path)
    assert volume.array.min() < -1200
    assert volume.metadata.padding == () and volume.findings == ()
