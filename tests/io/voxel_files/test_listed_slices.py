"""NRRD and MetaImage headers that name a file per slice or slab; SimpleITK as the judge."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
import SimpleITK as sitk

from medseg.errors import ReadError
from medseg.io import read

ARRAY = np.arange(60, dtype=np.int16).reshape(3, 4, 5, order="F")


def nrrd(path, data_file, *names, encoding="raw"):
    """A NRRD header of a 3 x 4 x 5 image of int16 in other files."""
    lines = ["NRRD0005", "type: int16", "dimension: 3", "space: left-posterior-superior", "sizes: 3 4 5"]
    lines += ["space directions: (0.5,0,0) (0,0.6,0) (0,0,2)", "space origin: (10,20,30)", "endian: little"]
    path.write_text("\n".join([*lines, f"encoding: {encoding}", f"data file: {data_file}", *names, ""]))
    return path


def meta(path, data_file, *names):
    lines = ["ObjectType = Image", "NDims = 3", "BinaryData = True", "BinaryDataByteOrderMSB = False"]
    lines += ["Offset = 10 20 30", "ElementSpacing = 0.5 0.6 2", "DimSize = 3 4 5", "ElementType = MET_SHORT"]
    path.write_text("\n".join([*lines, f"ElementDataFile = {data_file}", *names, ""]))
    return path


def agrees_with_itk(path):
    volume, image = read(path), sitk.ReadImage(str(path))
    np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(image).T)
    np.testing.assert_array_equal(volume.array, ARRAY)
    assert volume.spacing_mm == pytest.approx(image.GetSpacing())


def slices(folder, pack=lambda data: data):
    """s001.raw to s005.raw, a slice each."""
    for k in range(5):
        (folder / f"s{k + 1:03d}.raw").write_bytes(pack(ARRAY[:, :, k].tobytes(order="F")))
    return [f"s{k + 1:03d}.raw" for k in range(5)]


@pytest.mark.parametrize(("encoding", "pack"), [("raw", bytes), ("gzip", gzip.compress)])
def test_a_nrrd_list_of_slices_is_read(tmp_path, encoding, pack):
    agrees_with_itk(nrrd(tmp_path / "a.nhdr", "LIST", *slices(tmp_path, pack), encoding=encoding))


def test_a_nrrd_pattern_of_slices_is_read(tmp_path):
    slices(tmp_path)
    agrees_with_itk(nrrd(tmp_path / "a.nhdr", "s%03d.raw 1 5 1"))
    back = read(nrrd(tmp_path / "b.nhdr", "s%03d.raw 5 1 -1 2"))
    np.testing.assert_array_equal(back.array, ARRAY[:, :, ::-1])


def test_a_metaimage_list_of_slices_is_read(tmp_path):
    agrees_with_itk(meta(tmp_path / "a.mhd", "LIST", *slices(tmp_path)))


def test_a_metaimage_pattern_of_slices_is_read(tmp_path):
    slices(tmp_path)
    agrees_with_itk(meta(tmp_path / "a.mhd", "s%03d.raw 1 5 1"))


@pytest.mark.parametrize(
    ("data_file", "words"),
    [
        ("s%03d.raw 1 6", "no voxel file"),
        ("s%03d.raw 1 4", "is cut short"),
        ("s%03d.raw 1 99999999", "99999999 files"),
        ("s%03d.raw 5 1", "0 files"),
        ("s%03d.raw one two", "first and last number"),
        ("s%0999999999d.raw 1 5", "one number"),
        ("s%s%d.raw 1 5", "one number"),
        ("../s%03d.raw 1 5", "in its own folder"),
    ],
)
def test_a_list_that_cannot_be_right_is_refused_by_name(tmp_path, data_file, words):
    slices(tmp_path)
    for path in (nrrd(tmp_path / "a.nhdr", data_file), meta(tmp_path / "a.mhd", data_file)):
        with pytest.raises(ReadError, match=words) as caught:
            read(path)
        assert "a." in str(caught.value) or "s001.raw" in str(caught.value)


def test_a_list_of_files_into_which_the_voxels_do_not_divide_is_refused(tmp_path):
    names = slices(tmp_path)
    with pytest.raises(ReadError, match=r"lists 7 files, into which its 60 voxels"):
        read(nrrd(tmp_path / "a.nhdr", "LIST", *names, *names[:2]))


def test_a_listed_slice_cut_short_is_named(tmp_path):
    slices(tmp_path)
    (tmp_path / "s003.raw").write_bytes(b"12")
    with pytest.raises(ReadError, match=r"s003\.raw is cut short"):
        read(nrrd(tmp_path / "a.nhdr", "s%03d.raw 1 5"))
