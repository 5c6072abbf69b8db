"""NRRD and MetaImage headers by hand: spaces, kinds, encodings, second files; SimpleITK as the judge."""

from __future__ import annotations

import bz2
import gzip
import zlib

import numpy as np
import pytest
import SimpleITK as sitk

from medseg.errors import ReadError
from medseg.io import read

ARRAY = np.arange(60, dtype=np.int16).reshape(3, 4, 5, order="F")
RAW = ARRAY.tobytes(order="F")


def nrrd(path, data=RAW, magic="NRRD0005", **fields):
    """A NRRD file of a 3 x 4 x 5 image of int16; a field of None is left out, '_' in a name is a blank."""
    known = {
        "type": "int16",
        "dimension": "3",
        "space": "left-posterior-superior",
        "sizes": "3 4 5",
        "space_directions": "(0.5,0,0) (0,0.6,0) (0,0,2)",
        "space_origin": "(10,20,30)",
        "kinds": "domain domain domain",
        "endian": "little",
        "encoding": "raw",
        **fields,
    }
    lines = [f"{name.replace('_', ' ')}: {value}" for name, value in known.items() if value is not None]
    path.write_bytes("\n".join([magic, "# a comment: with a colon", *lines, "patient:=a: b", "", ""]).encode() + data)
    return path


def meta(path, data=RAW, **fields):
    known = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "TransformMatrix": "1 0 0 0 1 0 0 0 1",
        "Offset": "10 20 30",
        "ElementSpacing": "0.5 0.6 2",
        "DimSize": "3 4 5",
        "ElementType": "MET_SHORT",
        **fields,
    }
    known.setdefault("ElementDataFile", "LOCAL")
    lines = [f"{name} = {value}" for name, value in known.items() if value is not None]
    path.write_bytes("\n".join([*lines, ""]).encode() + data)
    return path


def agrees_with_itk(path):
    volume, image = read(path), sitk.ReadImage(str(path))
    np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(image).T)
    for index in ((0, 0, 0), (2, 1, 4)):
        x, y, z = image.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose((volume.affine @ (*index, 1))[:3], (-x, -y, z), atol=1e-6)
    return volume


@pytest.mark.parametrize(
    "space", ["left-posterior-superior", "LPS", "right-anterior-superior", "RAS", "left-anterior-superior", "LAS"]
)
def test_every_space_puts_voxels_where_itk_does(tmp_path, space):
    turned = "(0,0.6,0.1) (0.5,0,0) (0,-0.3,1.8)"
    agrees_with_itk(nrrd(tmp_path / "a.nrrd", space=space, space_directions=turned))


def test_a_space_given_in_words_by_hand(tmp_path):
    volume = read(nrrd(tmp_path / "a.nrrd", space="RAS"))
    np.testing.assert_array_equal(volume.affine, [[0.5, 0, 0, 10], [0, 0.6, 0, 20], [0, 0, 2, 30], [0, 0, 0, 1]])
    volume = read(nrrd(tmp_path / "a.nrrd", space="LPS"))
    np.testing.assert_array_equal(volume.affine, [[-0.5, 0, 0, -10], [0, -0.6, 0, -20], [0, 0, 2, 30], [0, 0, 0, 1]])


def test_spacings_without_a_space_say_nothing_about_the_patient(tmp_path):
    plain = {"space": None, "space_directions": None, "space_origin": None, "kinds": None}
    volume = read(nrrd(tmp_path / "a.nrrd", spacings="0.5 0.6 2", **plain))
    assert volume.spacing_mm == (0.5, 0.6, 2)
    assert [f.kind for f in volume.findings] == ["no_orientation"]
    assert not read(nrrd(tmp_path / "a.nrrd", **plain)).spacing_known


@pytest.mark.parametrize("axis", [0, 3])
@pytest.mark.parametrize("kind", ["vector", "list", "time"])
def test_an_axis_that_is_no_space_becomes_channels(tmp_path, axis, kind):
    kinds, directions, sizes = ["domain"] * 3, ["(0.5,0,0)", "(0,0.6,0)", "(0,0,2)"], [3, 4, 5]
    for values, value in ((kinds, kind), (directions, "none"), (sizes, 2)):
        values.insert(axis, value)
    data = np.stack([ARRAY, ARRAY + 100], axis).tobytes(order="F")
    volume = read(
        nrrd(
            tmp_path / "a.nrrd",
            data,
            dimension="4",
            sizes=" ".join(map(str, sizes)),
            kinds=" ".join(kinds),
            space_directions=" ".join(directions),
        )
    )
    assert volume.channels == 2
    np.testing.assert_array_equal(volume.array, np.stack([ARRAY, ARRAY + 100]))
    assert volume.spacing_mm == (0.5, 0.6, 2)
    assert [f.kind for f in volume.findings] == (["time_points"] if kind == "time" else [])


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        pytest.param("raw", RAW, id="raw"),
        pytest.param("gzip", gzip.compress(RAW), id="gzip"),
        pytest.param("gz", gzip.compress(RAW), id="gz"),
        pytest.param("bzip2", bz2.compress(RAW), id="bzip2"),
        pytest.param("ascii", " ".join(map(str, ARRAY.ravel(order="F"))).encode(), id="ascii"),
    ],
)
def test_every_encoding_gives_the_same_voxels(tmp_path, encoding, data):
    np.testing.assert_array_equal(read(nrrd(tmp_path / "a.nrrd", data, encoding=encoding)).array, ARRAY)


def test_big_endian_and_skipped_bytes_and_lines(tmp_path):
    big = ARRAY.astype(">i2").tobytes(order="F")
    np.testing.assert_array_equal(read(nrrd(tmp_path / "a.nrrd", big, endian="big")).array, ARRAY)
    for fields, before in (
        ({"byte_skip": "7"}, b"x" * 7),
        ({"byteskip": "-1"}, b"y" * 9),
        ({"line_skip": "2"}, b"one\ntwo\n"),
    ):
        np.testing.assert_array_equal(read(nrrd(tmp_path / "a.nrrd", before + RAW, **fields)).array, ARRAY)


def test_other_units_become_millimetres(tmp_path):
    volume = read(nrrd(tmp_path / "a.nrrd", space_units='"cm" "cm" "cm"'))
    assert volume.spacing_mm == (5, 6, 20)
    assert [f.kind for f in volume.findings] == ["unit"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"endian": None}, "endian"),
        ({"encoding": "hex"}, "encoding: hex"),
        ({"type": "block"}, "'block'"),
        ({"sizes": "3 4"}, "3 whole numbers"),
        ({"sizes": "3 4 -5"}, "none of them empty"),
        ({"sizes": "999999999 999999999 999999999"}, "absurdly long"),
        ({"sizes": "30000 30000 30000"}, "cut short"),
        ({"dimension": "99999999999"}, "expected 2 to 5 axes"),
        ({"space_directions": "(1,0,0) (0,1,0)"}, "3 vectors"),
        ({"space_directions": "(1,0,0) (1,0,0) (0,0,1)"}, "span no volume"),
        ({"space_directions": "(1e300,0,0) (0,1,0) (0,0,1)"}, "span no volume"),
        ({"space_origin": "(nan,0,0)"}, "vectors of 3 numbers"),
        ({"kinds": "complex domain domain"}, "complex"),
        ({"byte_skip": "-5"}, "skips"),
        ({"data_file": "../../../etc/passwd"}, "in its own folder"),
        ({"data_file": "/etc/passwd"}, "in its own folder"),
        ({"data_file": "missing.raw"}, "no voxel file"),
        ({"data_file": "LIST"}, "no voxel file"),
    ],
)
def test_headers_that_cannot_be_right_are_refused_by_name(tmp_path, fields, words):
    with pytest.raises(ReadError, match=words) as caught:
        read(nrrd(tmp_path / "a.nrrd", **fields))
    assert "a.nrrd" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"TransformMatrix": "0 1 0 0 0 1 1 0 0"},
        {"TransformMatrix": None, "Orientation": "0 -1 0 1 0 0 0 0 1"},
        {"Offset": None, "Position": "1 2 3"},
        {"ElementNumberOfChannels": "1"},
    ],
)
def test_metaimage_puts_voxels_where_itk_does(tmp_path, fields):
    assert agrees_with_itk(meta(tmp_path / "a.mha", **fields)).array.dtype == np.int16


def test_metaimage_variants(tmp_path):
    big = ARRAY.astype(">i2").tobytes(order="F")
    for number, (data, fields) in enumerate(
        (
            (big, {"BinaryDataByteOrderMSB": None, "ElementByteOrderMSB": "True"}),
            (zlib.compress(RAW), {"CompressedData": "True"}),
            (gzip.compress(RAW), {"CompressedData": "True"}),
            (" ".join(map(str, ARRAY.ravel(order="F"))).encode(), {"BinaryData": "False"}),
        )
    ):
        np.testing.assert_array_equal(read(meta(tmp_path / f"{number}.mha", data, **fields)).array, ARRAY)
    (tmp_path / "b.raw").write_bytes(b"header" + RAW)
    for size in ("6", "-1"):
        path = meta(tmp_path / "b.mhd", b"", HeaderSize=size, ElementDataFile="b.raw")
        np.testing.assert_array_equal(read(path).array, ARRAY)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"NDims": "7"}, "2, 3 or 4 axes"),
        ({"NDims": "three"}, "1 whole number"),
        ({"DimSize": "3 4 99999999999999999999"}, "3 whole numbers"),
        ({"DimSize": "3 4 0"}, "none of them empty"),
        ({"ElementType": "MET_STRING"}, "'MET_STRING'"),
        ({"ElementSpacing": "0 1 1"}, "span no volume"),
        ({"ElementSpacing": "inf 1 1"}, "3 numbers"),
        ({"BinaryData": "perhaps"}, "True or False"),
        ({"CompressedData": "True"}, "damaged or cut short"),
        ({"ElementDataFile": "LIST"}, "in its own folder"),
        ({"ElementDataFile": "../a.raw"}, "in its own folder"),
    ],
)
def test_metaimage_headers_that_cannot_be_right_are_refused_by_name(tmp_path, fields, words):
    with pytest.raises(ReadError, match=words) as caught:
        read(meta(tmp_path / "a.mha", **fields))
    assert "a.mha" in str(caught.value)
    assert "\n" not in str(caught.value)
