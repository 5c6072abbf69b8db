"""NIfTI in and out."""

from __future__ import annotations

import gzip

import nibabel as nib
import numpy as np
import pytest

from medseg.errors import ReadError, WriteError
from medseg.io import read, write
from medseg.volume import Volume

OBLIQUE = np.array([[0.9, 0.1, 0.0, -20], [-0.1, 0.9, 0.2, 5], [0.02, -0.18, 2.0, 7], [0, 0, 0, 1]])
ROTATION = np.array([[0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]], float) @ np.diag([0.7, 0.8, 3, 1])


def random_array(shape=(5, 6, 7), dtype=np.int16):
    return np.random.default_rng(0).integers(0, 200, shape).astype(dtype)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_writing_and_reading_keeps_voxels_and_grid(tmp_path, suffix, dtype):
    volume = Volume(random_array(dtype=dtype), OBLIQUE)
    write(volume, tmp_path / f"a{suffix}")
    back = read(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(back.array, volume.array)
    assert back.array.dtype == dtype
    assert back.same_geometry(volume)
    assert back.findings == ()


@pytest.mark.parametrize("order", ["C", "F"])
def test_nibabel_reads_what_is_written(tmp_path, order):
    volume = Volume(np.array(random_array(), order=order), ROTATION)
    write(volume, tmp_path / "a.nii.gz")
    image = nib.load(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), volume.array)
    np.testing.assert_allclose(image.get_sform(), ROTATION, atol=1e-5)
    np.testing.assert_allclose(image.get_qform(), ROTATION, atol=1e-5)
    assert image.header.get_xyzt_units()[0] == "mm"


@pytest.mark.parametrize("dtype", [">i2", "<i2", ">f4", "<u1"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_what_nibabel_writes_is_read(tmp_path, dtype, kind):
    array = random_array(dtype=dtype)
    header = kind.header_class(endianness=">" if dtype[0] == ">" else "<")
    header.set_data_dtype(dtype)
    nib.save(kind(array, ROTATION, header), tmp_path / "a.nii.gz")
    volume = read(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(volume.array, array)
    assert volume.array.dtype.isnative
    np.testing.assert_allclose(volume.affine, ROTATION, atol=1e-5)


def test_the_same_volume_gives_the_same_bytes_under_any_name(tmp_path):
    volume = Volume(random_array(), OBLIQUE)
    for name in ("a.nii.gz", "other.nii.gz"):
        write(volume, tmp_path / name)
    first, second = ((tmp_path / n).read_bytes() for n in ("a.nii.gz", "other.nii.gz"))
    assert first == second
    # gzip header: no flags (no name), time 0.
    assert first[3] == 0
    assert first[4:8] == b"\0\0\0\0"


def test_channels_become_the_fourth_axis_and_come_back(tmp_path):
    volume = Volume(random_array((3, 4, 5, 6)), OBLIQUE, channels=3)
    write(volume, tmp_path / "a.nii.gz")
    assert nib.load(tmp_path / "a.nii.gz").shape == (4, 5, 6, 3)
    back = read(tmp_path / "a.nii.gz")
    assert back.channels == 3
    np.testing.assert_array_equal(back.array, volume.array)


def test_two_axes_give_a_2d_image_and_one_slice_stays_3d(tmp_path):
    write(Volume(random_array((5, 6)), np.diag([0.5, 0.6, 1, 1])), tmp_path / "flat.nii.gz")
    write(Volume(random_array((5, 6, 1)), np.diag([0.5, 0.6, 1, 1])), tmp_path / "slice.nii.gz")
    flat, one = read(tmp_path / "flat.nii.gz"), read(tmp_path / "slice.nii.gz")
    assert (flat.dims, one.dims) == (2, 3)
    assert flat.spacing_mm == pytest.approx((0.5, 0.6))


def test_trailing_axes_of_length_one_are_no_channels(tmp_path):
    nib.save(nib.Nifti1Image(random_array((4, 5, 6, 1, 1)), np.eye(4)), tmp_path / "a.nii")
    assert read(tmp_path / "a.nii").channels == 0
    nib.save(nib.Nifti1Image(random_array((4, 5, 6, 1, 3)), np.eye(4)), tmp_path / "b.nii")
    assert read(tmp_path / "b.nii").array.shape == (3, 4, 5, 6)


def test_an_image_without_spacing_stays_without(tmp_path):
    write(Volume(random_array((5, 6)), np.eye(4), spacing_known=False), tmp_path / "a.nii.gz")
    assert not read(tmp_path / "a.nii.gz").spacing_known


def scaled(tmp_path, array, slope, inter):
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "a.nii")
    # nibabel rescales on writing, so the header is patched where slope and intercept lie.
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    raw[112:120] = np.array([slope, inter], "<f4").tobytes()
    (tmp_path / "a.nii").write_bytes(raw)
    return read(tmp_path / "a.nii").array


def test_tiny_slope_on_large_integers_gives_exact_zero_and_one(tmp_path):
    stored = np.array([-(2**31), 2**31 - 1] * 6, np.int32).reshape(2, 2, 3)
    values = scaled(tmp_path, stored, 2.0**-32, 0.5)
    assert sorted(np.unique(values)) == [0.0, 1.0]


def test_whole_numbers_in_slope_and_intercept_keep_integers(tmp_path):
    stored = np.array([0, 4095], np.int16).repeat(6).reshape(2, 2, 3)
    values = scaled(tmp_path, stored, 1.0, -1024.0)
    assert values.dtype == np.int16
    assert (values.min(), values.max()) == (-1024, 3071)


def test_slope_zero_means_no_scaling(tmp_path):
    assert scaled(tmp_path, np.full((2, 2, 2), 7, np.int16), 0.0, 3.0).max() == 7


def test_fractional_slope_gives_float32(tmp_path):
    values = scaled(tmp_path, np.full((2, 2, 2), 7, np.uint8), 0.5, 1.0)
    assert values.dtype == np.float32
    assert values.max() == 4.5


def with_codes(path, sform, qform, sform_code, qform_code):
    image = nib.Nifti1Image(random_array((3, 4, 5)), None)
    image.header.set_sform(sform, sform_code)
    image.header.set_qform(qform, qform_code)
    # Image construction would reset the codes, so the parts are written one after the other.
    nib.save(image, path)
    return read(path)


def test_sform_comes_before_qform(tmp_path):
    shifted = np.array(ROTATION)
    shifted[0, 3] += 10
    volume = with_codes(tmp_path / "a.nii", ROTATION, shifted, 1, 1)
    np.testing.assert_allclose(volume.affine, ROTATION, atol=1e-5)
    assert [f.kind for f in volume.findings] == ["sform_qform_differ"]
    volume = with_codes(tmp_path / "b.nii", ROTATION, shifted, 0, 1)
    np.testing.assert_allclose(volume.affine, shifted, atol=1e-5)


def test_without_any_code_the_orientation_is_reported_as_unknown(tmp_path):
    volume = with_codes(tmp_path / "a.nii", None, np.diag([2.0, 3, 4, 1]), 0, 0)
    assert [f.kind for f in volume.findings] == ["no_orientation"]
    assert volume.spacing_mm == (2.0, 3.0, 4.0)


def test_metres_become_millimetres(tmp_path):
    image = nib.Nifti1Image(random_array((3, 4, 5)), np.diag([0.001, 0.002, 0.003, 1]))
    image.header.set_xyzt_units("meter")
    nib.save(image, tmp_path / "a.nii")
    assert read(tmp_path / "a.nii").spacing_mm == pytest.approx((1, 2, 3))


def test_rgb_voxels_become_channels(tmp_path):
    rgb = np.zeros((3, 4, 5), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    rgb["G"] = 9
    nib.save(nib.Nifti1Image(rgb, np.eye(4)), tmp_path / "a.nii")
    volume = read(tmp_path / "a.nii")
    assert volume.channels == 3
    assert volume.array.max(axis=(1, 2, 3)).tolist() == [0, 9, 0]


def test_wrong_suffixes_are_seen_through(tmp_path):
    write(Volume(random_array(), OBLIQUE), tmp_path / "a.nii")
    (tmp_path / "b.nii.gz").write_bytes((tmp_path / "a.nii").read_bytes())
    (tmp_path / "c.nii").write_bytes(gzip.compress((tmp_path / "a.nii").read_bytes()))
    for name in ("b.nii.gz", "c.nii"):
        np.testing.assert_array_equal(read(tmp_path / name).array, random_array())


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("keep", [0, 3, 200, -150, -9])
def test_a_file_cut_short_is_refused_by_name(tmp_path, name, keep):
    write(Volume(random_array(), OBLIQUE), tmp_path / name)
    raw = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(raw[:keep])
    with pytest.raises(ReadError, match=name.replace(".", r"\.")) as caught:
        read(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_nonsense_and_complex_and_singular_are_refused(tmp_path):
    (tmp_path / "a.nii").write_bytes(b"this is no image" * 100)
    with pytest.raises(ReadError, match="not a NIfTI"):
        read(tmp_path / "a.nii")
    nib.save(nib.Nifti1Image(np.ones((2, 2, 2), np.complex64), np.eye(4)), tmp_path / "b.nii")
    with pytest.raises(ReadError, match="complex"):
        read(tmp_path / "b.nii")
    image = nib.Nifti1Image(random_array((2, 2, 2)), None)
    image.header["sform_code"], image.header["srow_x"] = 1, 0
    (tmp_path / "c.nii").write_bytes(image.to_bytes())
    with pytest.raises(ReadError, match="singular"):
        read(tmp_path / "c.nii")


def test_bool_is_written_as_uint8_and_int64_as_int32(tmp_path):
    write(Volume(np.ones((2, 2, 2), bool), np.eye(4)), tmp_path / "a.nii.gz")
    assert read(tmp_path / "a.nii.gz").array.dtype == np.uint8
    write(Volume(np.ones((2, 2, 2), np.int64), np.eye(4)), tmp_path / "a.nii.gz")
    assert read(tmp_path / "a.nii.gz").array.dtype == np.int32
    with pytest.raises(WriteError, match="complex"):
        write(Volume(np.ones((2, 2, 2), complex), np.eye(4)), tmp_path / "b.nii.gz")
    assert not (tmp_path / "b.nii.gz").exists()


def test_unknown_suffix_and_missing_file(tmp_path):
    with pytest.raises(WriteError, match="ending in"):
        write(Volume(np.ones((2, 2, 2)), np.eye(4)), tmp_path / "a.xyz")
    with pytest.raises(ReadError, match="does not exist"):
        read(tmp_path / "a.nii.gz")
    (tmp_path / "a.xyz").write_text("text")
    with pytest.raises(ReadError, match="not a supported image file"):
        read(tmp_path / "a.xyz")
