"""PNG, JPEG and TIFF: i = x, j = y, no spacing."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image

from medseg.errors import ReadError, WriteError
from medseg.io import read, write
from medseg.volume import Volume


def flat(array):
    return Volume(array, np.eye(4), channels=3 if array.ndim == 3 else 0, spacing_known=False)


def test_the_first_axis_is_x(tmp_path):
    rows = np.zeros((4, 7), np.uint8)
    rows[1, 5] = 9
    Image.fromarray(rows).save(tmp_path / "a.png")
    volume = read(tmp_path / "a.png")
    assert volume.shape == (7, 4)
    assert volume.array[5, 1] == 9
    assert not volume.spacing_known
    np.testing.assert_array_equal(volume.affine, np.eye(4))


@pytest.mark.parametrize("top", [1, 255, 256, 65535])
def test_label_maps_come_back_from_png(tmp_path, top):
    labels = np.random.default_rng(0).integers(0, top + 1, (9, 5)).astype(np.uint16)
    labels[0, 0] = top
    write(flat(labels), tmp_path / "a.png")
    back = read(tmp_path / "a.png")
    np.testing.assert_array_equal(back.array, labels)
    assert back.array.dtype == (np.uint8 if top < 256 else np.uint16)


def test_colours_are_three_leading_channels_and_alpha_is_dropped(tmp_path):
    rgba = np.random.default_rng(0).integers(0, 256, (4, 7, 4)).astype(np.uint8)
    Image.fromarray(rgba, "RGBA").save(tmp_path / "a.png")
    volume = read(tmp_path / "a.png")
    assert volume.channels == 3
    np.testing.assert_array_equal(volume.array, rgba[..., :3].transpose(2, 1, 0))
    write(volume, tmp_path / "b.png")
    np.testing.assert_array_equal(read(tmp_path / "b.png").array, volume.array)


def test_grey_with_alpha_is_grey(tmp_path):
    Image.new("LA", (5, 4), (7, 100)).save(tmp_path / "a.png")
    volume = read(tmp_path / "a.png")
    assert volume.channels == 0
    assert np.unique(volume.array).tolist() == [7]


def test_a_palette_keeps_its_indices(tmp_path):
    image = Image.new("P", (5, 4), 0)
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    image.putpixel((3, 1), 2)
    image.save(tmp_path / "a.png")
    volume = read(tmp_path / "a.png")
    assert volume.array[3, 1] == 2
    assert volume.array.sum() == 2


def test_one_bit_masks_hold_zero_and_one(tmp_path):
    Image.fromarray(np.eye(4, dtype=bool)).save(tmp_path / "a.png")
    volume = read(tmp_path / "a.png")
    np.testing.assert_array_equal(volume.array, np.eye(4))
    assert volume.array.dtype == np.uint8


def test_camera_orientation_is_applied(tmp_path):
    rows = np.zeros((8, 16), np.uint8)
    rows[:, 8:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees: stored right becomes bottom
    Image.fromarray(rows).save(tmp_path / "a.jpg", exif=exif, quality=95)
    volume = read(tmp_path / "a.jpg")
    assert volume.shape == (8, 16)
    assert volume.array[4, 12] > 200
    assert volume.array[4, 3] < 50


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 4), (7, 5, 3), (7, 5, 1)])
def test_tiff_keeps_any_values_and_pages_are_slices(tmp_path, dtype, shape):
    array = (np.random.default_rng(0).random(shape) * 100).astype(dtype)
    write(flat(array) if len(shape) == 2 else Volume(array, np.eye(4), spacing_known=False), tmp_path / "a.tif")
    back = read(tmp_path / "a.tif")
    np.testing.assert_array_equal(back.array, array if shape[2:] != (1,) else array[..., 0])
    assert back.array.dtype == dtype


def test_colour_tiff_and_pillow_compressions(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (6, 9, 3)).astype(np.uint8)
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", None):
        Image.fromarray(rgb).save(tmp_path / "a.tif", compression=compression)
        np.testing.assert_array_equal(read(tmp_path / "a.tif").array, rgb.transpose(2, 1, 0))
    write(read(tmp_path / "a.tif"), tmp_path / "b.tif")
    np.testing.assert_array_equal(read(tmp_path / "b.tif").array, rgb.transpose(2, 1, 0))


def test_pages_in_a_compression_only_pillow_knows_are_all_read(tmp_path):
    pages = [Image.fromarray(np.full((4, 6), n, np.uint8)) for n in (1, 2, 3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:], compression="tiff_lzw")
    volume = read(tmp_path / "a.tif")
    assert volume.shape == (6, 4, 3)
    assert volume.array[0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("compression", "dtype"), [(None, "uint8"), ("zlib", "uint16"), ("lzw", "uint8"), ("lzw", "uint16"), (None, "bool")]
)
def test_white_is_zero_keeps_its_values_with_a_finding_as_monochrome1_does(tmp_path, compression, dtype):
    rows = (np.arange(24).reshape(4, 6) * 9 % (2 if dtype == "bool" else 251)).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", rows, photometric="miniswhite", compression=compression)
    volume = read(tmp_path / "a.tif")
    np.testing.assert_array_equal(volume.array, rows.T.astype(volume.array.dtype))
    assert [f.kind for f in volume.findings] == ["monochrome1"]


def test_big_endian_tiff_becomes_native(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.arange(20, dtype=">u2").reshape(4, 5), byteorder=">")
    assert read(tmp_path / "a.tif").array.dtype.isnative


def test_what_a_png_cannot_hold_is_refused(tmp_path):
    for array, words in (
        (np.zeros((3, 4), np.float32), "integers"),
        (np.full((3, 4), -1), "do not fit"),
        (np.full((3, 4), 70000), "do not fit"),
    ):
        with pytest.raises(WriteError, match=words):
            write(flat(array), tmp_path / "a.png")
    with pytest.raises(WriteError, match="one 2D image"):
        write(Volume(np.zeros((3, 4, 5), np.uint8), np.eye(4)), tmp_path / "a.png")
    with pytest.raises(WriteError, match="JPEG alters"):
        write(flat(np.zeros((3, 4), np.uint8)), tmp_path / "a.jpg")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
@pytest.mark.parametrize("keep", [0, 10, 60])
def test_damaged_pictures_are_refused_by_name(tmp_path, name, keep):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50)).astype(np.uint8)).save(tmp_path / name)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:keep])
    with pytest.raises(ReadError, match=name.replace(".", r"\.")):
        read(tmp_path / name)


def test_sixteen_bit_colour_is_reported(tmp_path):
    import struct
    import zlib

    rows = b"".join(b"\0" + np.full((4, 3), 0x1234, ">u2").tobytes() for _ in range(3))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 4, 3, 16, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(png)
    assert [f.kind for f in read(tmp_path / "a.png").findings] == ["bit_depth"]
