"""NIfTI and Analyze beyond the plain file: pairs, time, mirrored and sheared grids, and what headers only promise."""

from __future__ import annotations

import gzip
import tracemalloc

import nibabel as nib
import numpy as np
import pytest

from medseg.errors import ReadError, WriteError
from medseg.io import read, read_all, write
from medseg.io.label_maps import LabelSource, read_label_map
from medseg.io.voxel_files import streams
from medseg.io.voxel_files.nifti import read_nifti
from medseg.volume import Volume


def numbers(shape=(5, 6, 7), dtype=np.int16):
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def patched(path, values, target=None):
    """A copy of an uncompressed file with bytes replaced: {offset: bytes}."""
    raw = bytearray(path.read_bytes())
    for offset, value in values.items():
        raw[offset : offset + len(value)] = value
    (target or path).write_bytes(raw)
    return target or path


@pytest.mark.parametrize("given", ["a.hdr", "a.img"])
@pytest.mark.parametrize("kind", ["Nifti1Pair", "Nifti2Pair"])
def test_a_pair_is_read_by_either_name(tmp_path, kind, given):
    affine = np.diag([-2.0, 3, 4, 1])
    nib.save(getattr(nib, kind)(numbers(), affine), tmp_path / "a.hdr")
    volume = read(tmp_path / given)
    np.testing.assert_array_equal(volume.array, numbers())
    np.testing.assert_allclose(volume.affine, affine)
    assert volume.findings == ()


def test_a_pair_in_a_folder_is_one_volume(tmp_path):
    nib.save(nib.Nifti1Pair(numbers(), np.eye(4)), tmp_path / "a.hdr")
    # Other programs use .hdr, too; without voxels beside it, it is none of ours.
    (tmp_path / "b.hdr").write_text("ENVI")
    assert len(read_all(tmp_path)) == 1


def test_a_header_without_its_voxels_says_what_is_missing(tmp_path):
    nib.save(nib.Nifti1Pair(numbers(), np.eye(4)), tmp_path / "a.hdr")
    (tmp_path / "a.img").unlink()
    with pytest.raises(ReadError, match=r"a\.hdr has no voxel file; expected a\.img"):
        read(tmp_path / "a.hdr")
    with pytest.raises(WriteError, match=r"write \.nii\.gz"):
        write(Volume(numbers(), np.eye(4)), tmp_path / "a.hdr")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "f4", "f8"])
def test_analyze_is_read_and_says_that_its_orientation_is_unknown(tmp_path, order, dtype):
    header = nib.AnalyzeImage.header_class(endianness=order)
    header.set_data_dtype(np.dtype(order + dtype))
    nib.save(nib.AnalyzeImage(numbers(dtype=dtype), np.diag([2.0, 3, 4, 1]), header), tmp_path / "a.hdr")
    volume = read(tmp_path / "a.hdr")
    np.testing.assert_array_equal(volume.array, numbers(dtype=dtype))
    assert volume.array.dtype == dtype
    assert volume.spacing_mm == (2, 3, 4)
    assert [f.kind for f in volume.findings] == ["no_orientation"]


def test_the_scale_factor_of_spm_is_applied_and_reported(tmp_path):
    nib.save(nib.AnalyzeImage(numbers(), np.eye(4)), tmp_path / "a.hdr")
    patched(tmp_path / "a.hdr", {112: np.array(0.5, "<f4").tobytes()})
    volume = read(tmp_path / "a.hdr")
    np.testing.assert_array_equal(volume.array, numbers() * np.float32(0.5))
    assert [f.kind for f in volume.findings] == ["no_orientation", "scaled"]


def in_time(tmp_path, unit, step, intent="none"):
    image = nib.Nifti1Image(numbers((2, 3, 4, 5)), np.eye(4))
    image.header.set_xyzt_units("mm", unit)
    image.header.set_zooms((1, 1, 1, step))
    image.header.set_intent(intent)
    nib.save(image, tmp_path / "a.nii")
    return [f.kind for f in read(tmp_path / "a.nii").findings]


def test_a_fourth_axis_of_time_is_read_as_channels_with_a_finding(tmp_path):
    assert in_time(tmp_path, "sec", 2.5) == ["time_points"]
    assert in_time(tmp_path, "msec", 1) == ["time_points"]
    assert in_time(tmp_path, 0, 2.5) == ["time_points"]
    assert in_time(tmp_path, 0, 1) == []
    assert in_time(tmp_path, "ppm", 2.5) == []
    assert in_time(tmp_path, "sec", 2.5, "vector") == []


def test_sform_and_qform_are_compared_where_they_differ_most(tmp_path):
    image = nib.Nifti1Image(numbers(), None)
    image.header.set_sform(np.eye(4), 1)
    # Half a voxel is 0.5 mm; at i = 4 a spacing of 1.1 mm is 0.4 mm off, one of 1.2 mm 0.8 mm.
    for spacing, kinds in ((1.1, []), (1.2, ["sform_qform_differ"])):
        image.header.set_qform(np.diag([spacing, 1, 1, 1]), 1)
        nib.save(image, tmp_path / "a.nii")
        volume = read(tmp_path / "a.nii")
        assert [f.kind for f in volume.findings] == kinds
    assert "0.80 mm, at voxel (4, 0, 0)" in volume.findings[0].message


def test_a_mirrored_grid_keeps_its_negative_determinant(tmp_path):
    mirrored = np.array([[0, 0.9, 0.1, 4], [1.1, 0, 0, 5], [0, -0.2, 2.5, 6], [0, 0, 0, 1]])
    assert np.linalg.det(mirrored[:3, :3]) < 0
    write(Volume(numbers(), mirrored), tmp_path / "a.nii.gz")
    back = read(tmp_path / "a.nii.gz")
    np.testing.assert_allclose(back.affine, mirrored, rtol=1e-6)
    np.testing.assert_array_equal(back.array, numbers())


def test_a_sheared_grid_is_kept_by_the_sform_alone(tmp_path):
    sheared = np.eye(4)
    sheared[1, 2] = 0.25
    write(Volume(numbers(), sheared), tmp_path / "a.nii.gz")
    header = nib.load(tmp_path / "a.nii.gz").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 0)
    np.testing.assert_array_equal(read(tmp_path / "a.nii.gz").affine, sheared)


def test_a_volume_without_voxels_is_not_written(tmp_path):
    with pytest.raises(WriteError, match="no voxels"):
        write(Volume(np.zeros((0, 3, 4)), np.eye(4)), tmp_path / "a.nii.gz")


def test_bytes_depend_neither_on_memory_order_nor_on_the_number_of_cores(tmp_path, monkeypatch):
    # 3.8 MB, so that there are several blocks to compress.
    array = np.random.default_rng(0).integers(-1000, 2000, (120, 130, 121)).astype(np.int16)
    write(Volume(array, np.eye(4)), tmp_path / "a.nii.gz")
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    write(Volume(np.asfortranarray(array), np.eye(4)), tmp_path / "b.nii.gz")
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    write(Volume(array[::-1][::-1], np.eye(4)), tmp_path / "c.nii.gz")
    first = (tmp_path / "a.nii.gz").read_bytes()
    assert first == (tmp_path / "b.nii.gz").read_bytes() == (tmp_path / "c.nii.gz").read_bytes()
    # An independent decompressor, and one member only, as browsers read no more.
    assert len(gzip.decompress(first)) == 352 + array.nbytes
    assert first.count(b"\x1f\x8b\x08\x00\x00\x00\x00\x00") == 1
    np.testing.assert_array_equal(np.asanyarray(nib.load(tmp_path / "a.nii.gz").dataobj), array)


def test_loading_needs_no_second_copy(tmp_path):
    array = np.random.default_rng(0).integers(0, 9, (128, 128, 256)).astype(np.int16)
    write(Volume(array, np.eye(4)), tmp_path / "a.nii.gz")
    read(tmp_path / "a.nii.gz")
    tracemalloc.start()
    read(tmp_path / "a.nii.gz")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.25 * array.nbytes


def test_a_header_that_promises_too_much_is_refused_before_memory_is_taken(tmp_path):
    write(Volume(numbers(), np.eye(4)), tmp_path / "a.nii")
    # dim[1..3] = 30000: 54 TB of voxels.
    patched(tmp_path / "a.nii", {42: np.array([30000] * 3, "<i2").tobytes()})
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress((tmp_path / "a.nii").read_bytes()))
    tracemalloc.start()
    for name in ("a.nii", "b.nii.gz"):
        with pytest.raises(ReadError, match=rf"{name} is cut short: its header promises 54000000000\d+ bytes"):
            read(tmp_path / name)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4e6


def test_more_than_the_memory_can_take_is_refused(tmp_path, monkeypatch):
    write(Volume(np.zeros((64, 64, 64), np.int16), np.eye(4)), tmp_path / "a.nii.gz")
    monkeypatch.setattr(streams, "free_memory", lambda: 500_000)
    with pytest.raises(ReadError, match="GB of memory are free"):
        read(tmp_path / "a.nii.gz")


def test_a_bomb_is_cut_off_where_the_promise_ends(tmp_path):
    write(Volume(numbers(), np.eye(4)), tmp_path / "a.nii")
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress((tmp_path / "a.nii").read_bytes() + bytes(200 << 20), 1))
    tracemalloc.start()
    volume = read_nifti(tmp_path / "a.nii.gz")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4e6
    np.testing.assert_array_equal(volume.array, numbers())
    assert [f.kind for f in volume.findings] == ["surplus_data"]


def test_a_wrong_checksum_is_damage(tmp_path):
    write(Volume(numbers(), np.eye(4)), tmp_path / "a.nii.gz")
    raw = bytearray((tmp_path / "a.nii.gz").read_bytes())
    raw[-6] ^= 1
    (tmp_path / "a.nii.gz").write_bytes(raw)
    with pytest.raises(ReadError, match=r"a\.nii\.gz is damaged"):
        read(tmp_path / "a.nii.gz")


def labels_scaled(tmp_path, stored, slope, inter):
    nib.save(nib.Nifti1Image(stored, np.eye(4)), tmp_path / "a.nii")
    patched(tmp_path / "a.nii", {112: np.array([slope, inter], "<f4").tobytes()})
    return read_label_map([LabelSource(tmp_path / "a.nii")]).array


def test_label_maps_with_odd_scaling_come_back_as_integers(tmp_path):
    ends = np.array([-(2**31), 2**31 - 1] * 6, np.int32).reshape(2, 2, 3)
    found = labels_scaled(tmp_path, ends, 2.3283064e-10, 0.5)
    assert (found.dtype, np.unique(found).tolist()) == (np.uint8, [0, 1])
    # 0, 85, 170, 255 scaled by 1/85, as after a trip through 8-bit grey.
    found = labels_scaled(tmp_path, np.array([0, 85, 170, 255] * 3, np.uint8).reshape(2, 2, 3), 1 / 85, 0)
    assert (found.dtype, np.unique(found).tolist()) == (np.uint8, [0, 1, 2, 3])


def test_label_maps_that_are_no_integers_are_refused(tmp_path):
    from medseg.errors import DatasetError

    with pytest.raises(DatasetError, match=r"a\.nii contains the value"):
        labels_scaled(tmp_path, np.array([0, 100, 255] * 4, np.uint8).reshape(2, 2, 3), 1 / 255, 0)
