"""A palette means colours in an image and values in a label map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg.errors import ReadError
from medseg.io import read
from medseg.io.images import read_image
from medseg.io.label_maps import LabelSource, read_label_map

FIELD = Path(__file__).parents[4] / "shared" / "field" / "palette_photo"
SIZE = (40, 30)
FORMATS = [("a.png", {}), ("a.tif", {}), ("a.tif", {"compression": "tiff_lzw"}), ("a.tif", {"compression": "packbits"})]
FORMATS += [("a.bmp", {}), ("a.gif", {"optimize": False})]


def photograph():
    """RGB rows with a smooth gradient, grain, and a black frame, in 200 colours."""
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    grain = np.random.default_rng(1).integers(0, 40, (*x.shape, 3))
    rows = np.stack([3 * x + 40, 4 * y + 30, x + y], axis=-1) + grain
    rows[:, :5] = rows[:, -5:] = 0
    return Image.fromarray(rows.astype(np.uint8)).quantize(200)


def mask(values, colours):
    rows = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    for n, value in enumerate(values):
        rows[n : n + 4, 3 * n % 30 : 3 * n % 30 + 9] = value
    image = Image.fromarray(rows, mode="P")
    image.putpalette(colours)
    return image, rows


VOC = np.random.default_rng(0).integers(0, 256, (256, 3)).astype(np.uint8)


@pytest.mark.parametrize(("name", "options"), FORMATS)
def test_a_palette_photograph_is_read_as_its_colours(tmp_path, name, options):
    image = photograph()
    image.save(tmp_path / name, **options)
    for volume in (read(tmp_path / name), read_image([tmp_path / name])):
        assert volume.channels == 3
        np.testing.assert_array_equal(volume.array, np.asarray(image.convert("RGB")).transpose(2, 1, 0))
        assert [f.kind for f in volume.findings] == ["palette"]


@pytest.mark.parametrize(("name", "options"), FORMATS)
@pytest.mark.parametrize("values", [(1, 2), range(1, 21), (1, 255)])
def test_a_palette_mask_stays_indices(tmp_path, name, options, values):
    image, rows = mask(values, VOC.tobytes())
    image.save(tmp_path / name, **options)
    np.testing.assert_array_equal(read(tmp_path / name).array, rows.T)
    np.testing.assert_array_equal(read_label_map([LabelSource(tmp_path / name)]).array, rows.T)


def test_an_animation_is_refused_by_name(tmp_path):
    pages = [mask((n,), VOC.tobytes())[0] for n in (1, 2, 3)]
    pages[0].save(tmp_path / "a.gif", save_all=True, append_images=pages[1:])
    with pytest.raises(ReadError, match=r"a\.gif is an animation of 3 frames"):
        read(tmp_path / "a.gif")


def test_labels_stay_indices_however_they_look(tmp_path):
    photograph().save(tmp_path / "a.png")
    found = read_label_map([LabelSource(tmp_path / "a.png")])
    np.testing.assert_array_equal(found.array, np.asarray(Image.open(tmp_path / "a.png")).T)


def test_an_image_has_the_colours_of_its_palette_however_it_looks(tmp_path):
    image, rows = mask((1, 2), VOC.tobytes())
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image([tmp_path / "a.png"]).array, VOC[rows].transpose(2, 1, 0))


def test_a_grey_palette_gives_grey_levels(tmp_path):
    image, rows = mask((1, 2), np.repeat(np.arange(255, -1, -1, dtype=np.uint8), 3).tobytes())
    image.save(tmp_path / "a.png")
    found = read_image([tmp_path / "a.png"])
    np.testing.assert_array_equal(found.array, 255 - rows.T[None])


def test_the_palette_photographs_of_the_field_are_near_the_original():
    if not FIELD.is_dir():
        pytest.skip("the shared field inputs are not on this machine")
    original = np.asarray(Image.open(FIELD / "orig.png")).transpose(2, 1, 0)
    for found in (read(FIELD / "images" / "p0.png"), read_image([FIELD / "images" / "p0.png"])):
        # Its 64 colours were chosen from 141.
        assert np.abs(found.array.astype(int) - original).max() <= 12
    assert read(FIELD / "labels" / "p0.png").channels == 0
