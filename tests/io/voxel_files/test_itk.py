"""NRRD and MetaImage: LPS outside, RAS inside."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from medseg.errors import ReadError, WriteError
from medseg.io import read, write
from medseg.volume import Volume

TURN = np.array([[0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]], float) @ np.diag([0.7, 0.8, 3, 1])


def random_array(shape=(5, 6, 7), dtype=np.int16):
    return np.random.default_rng(0).integers(0, 200, shape).astype(dtype)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
@pytest.mark.parametrize("shape", [(5, 6, 7), (5, 6), (5, 6, 1)])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_writing_and_reading_keeps_voxels_and_grid(tmp_path, suffix, shape, dtype):
    affine = TURN if len(shape) == 3 else np.diag([0.7, 0.8, 1, 1])
    volume = Volume(random_array(shape, dtype), affine)
    write(volume, tmp_path / f"a{suffix}")
    back = read(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(back.array, volume.array)
    assert back.array.dtype == dtype
    assert back.dims == len(shape)
    np.testing.assert_allclose(back.spacing_mm, volume.spacing_mm, rtol=1e-6)
    if len(shape) == 3:
        assert back.same_geometry(volume)


@pytest.mark.parametrize("shape", [(3, 5, 6, 7), (2, 5, 6), (1, 4, 5, 6)])
def test_channels_become_components_and_come_back(tmp_path, shape):
    volume = Volume(random_array(shape), np.eye(4), channels=shape[0])
    write(volume, tmp_path / "a.nrrd")
    back = read(tmp_path / "a.nrrd")
    np.testing.assert_array_equal(back.array.reshape(shape), volume.array)
    assert back.dims == volume.dims


def test_position_of_a_voxel_agrees_with_itk(tmp_path):
    write(Volume(random_array(), TURN), tmp_path / "a.nrrd")
    volume = read(tmp_path / "a.nrrd")
    image = sitk.ReadImage(str(tmp_path / "a.nrrd"))
    x, y, z = image.TransformIndexToPhysicalPoint((4, 2, 5))
    np.testing.assert_allclose((volume.affine @ (4, 2, 5, 1))[:3], (-x, -y, z), atol=1e-5)
    assert image.GetPixel(4, 2, 5) == volume.array[4, 2, 5]


@pytest.mark.parametrize("suffix", [".nhdr", ".mhd"])
def test_headers_with_a_second_file_are_read_but_not_written(tmp_path, suffix):
    image = sitk.GetImageFromArray(random_array())
    sitk.WriteImage(image, str(tmp_path / f"a{suffix}"))
    np.testing.assert_array_equal(read(tmp_path / f"a{suffix}").array, random_array().T)
    with pytest.raises(WriteError, match="second file"):
        write(Volume(random_array(), np.eye(4)), tmp_path / f"b{suffix}")


def test_four_axes_become_channels(tmp_path):
    series = sitk.JoinSeries([sitk.GetImageFromArray(random_array((4, 3, 2)) + n) for n in range(3)])
    sitk.WriteImage(series, str(tmp_path / "a.mha"))
    volume = read(tmp_path / "a.mha")
    assert volume.channels == 3
    np.testing.assert_array_equal(volume.array[2], random_array((4, 3, 2)).T + 2)


def test_damaged_files_are_refused_in_one_line(tmp_path):
    (tmp_path / "a.nrrd").write_text("NRRD0004\ntype: short\n")
    write(Volume(random_array(), np.eye(4)), tmp_path / "b.mha")
    (tmp_path / "b.mha").write_bytes((tmp_path / "b.mha").read_bytes()[:100])
    for name in ("a.nrrd", "b.mha"):
        with pytest.raises(ReadError, match=name.replace(".", r"\.")) as caught:
            read(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_sheared_grid_is_not_written(tmp_path):
    sheared = np.eye(4)
    sheared[0, 2] = 0.3
    with pytest.raises(WriteError, match="right angles"):
        write(Volume(random_array(), sheared), tmp_path / "a.nrrd")
    assert list(tmp_path.iterdir()) == []


def test_the_same_volume_gives_the_same_bytes(tmp_path):
    for name in ("a.nrrd", "b.nrrd", "a.mha", "b.mha"):
        write(Volume(random_array(), TURN), tmp_path / name)
    for suffix in ("nrrd", "mha"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_damage_inside_the_compressed_voxels_is_never_read_silently(tmp_path, name):
    volume = Volume(random_array((18, 18, 18)), np.eye(4))
    write(volume, tmp_path / name)
    raw = (tmp_path / name).read_bytes()
    for place in range(len(raw) // 2, len(raw), 331):
        damaged = bytearray(raw)
        damaged[place] ^= 0xFF
        for content in (bytes(damaged), raw[:place]):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(ReadError, match=name.replace(".", r"\.")):
                read(tmp_path / name)
