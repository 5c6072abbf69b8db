from __future__ import annotations

import io

import numpy as np
from PIL import Image

from medseg.labels import LabelScheme
from medseg.reports.preview import preview_png
from medseg.volume import Volume

SCHEME = LabelScheme.from_mapping({"liver": 1})


def _picture(image: Volume, mask: Volume) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(preview_png(image, mask, SCHEME))).convert("RGB")).astype(int)


def _coloured(picture: np.ndarray) -> np.ndarray:
    return np.abs(picture - picture.mean(axis=2, keepdims=True)).max(axis=2) > 20


def test_a_mask_on_the_patients_right_is_outlined_on_the_left_of_the_picture() -> None:
    array = np.zeros((40, 40, 6), np.uint8)
    array[28:36, 10:30, 3] = 1  # x grows to the right of the patient
    rng = np.random.default_rng(0)
    image = Volume(rng.normal(size=array.shape).astype(np.float32), np.diag([1.0, 1.0, 3.0, 1.0]))
    columns = np.flatnonzero(_coloured(_picture(image, Volume(array, image.affine))).any(axis=0))
    assert columns.size and columns.mean() < 384 / 2


def test_the_same_case_gives_the_same_bytes_and_an_empty_mask_a_plain_picture() -> None:
    image = Volume(np.arange(4096, dtype=np.float32).reshape(16, 16, 16), np.eye(4))
    empty = Volume(np.zeros((16, 16, 16), np.uint8), np.eye(4))
    assert preview_png(image, empty, SCHEME) == preview_png(image, empty, SCHEME)
    assert not _coloured(_picture(image, empty)).any()


def test_a_colour_photograph_keeps_its_colours_and_its_proportions() -> None:
    array = np.zeros((3, 30, 20), np.uint8)
    array[0] = 200
    image = Volume(array, np.eye(4), channels=3, spacing_known=False)
    mask = Volume(np.zeros((30, 20), np.uint8), np.eye(4), spacing_known=False)
    picture = _picture(image, mask)
    assert picture.shape[:2] == (256, 384) and (picture[5, 5] == (200, 0, 0)).all()
