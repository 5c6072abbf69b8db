from __future__ import annotations

import io

import numpy as np
from PIL import Image

from medseg.reports.slices import SlicePicture
from medseg.reports.thumbnails import FALSE_NEGATIVE, FALSE_POSITIVE, draw_slice, error_thumbnail


def _slice(pred: np.ndarray, ref: np.ndarray, aspect: float = 1.0) -> SlicePicture:
    image = np.zeros(ref.shape, np.float32)
    return SlicePicture(image, {"x": pred}, {"x": ref}, aspect, ("", "", "", ""), "whole image")


def _has(picture: np.ndarray, colour: str) -> bool:
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    # Half transparent over black, and a little changed by compression.
    return bool((np.abs(picture - 0.55 * wanted).max(axis=2) < 40).any())


def test_the_error_map_tells_what_was_predicted_too_much_from_what_was_missed() -> None:
    nothing, some = np.zeros((40, 40), bool), np.zeros((40, 40), bool)
    some[10:30, 10:30] = True
    for pred, ref, seen, unseen in ((some, nothing, FALSE_POSITIVE, FALSE_NEGATIVE),
                                    (nothing, some, FALSE_NEGATIVE, FALSE_POSITIVE)):  # fmt: skip
        content = error_thumbnail(_slice(pred, ref), {"x": ("#4fc3f7", "#ffb300")})
        assert content[8:12] == b"WEBP" and len(content) < 20_000
        picture = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(float)
        right = picture[:, picture.shape[1] // 2 + 4 :]
        assert _has(right, seen) and not _has(right, unseen)


def test_a_slice_with_tall_pixels_is_drawn_tall() -> None:
    mask = np.zeros((10, 40), bool)
    assert draw_slice(_slice(mask, mask, aspect=4.0), 100).size == (100, 100)
    assert draw_slice(_slice(mask, mask, aspect=1.0), 100).size == (100, 25)


def test_an_outline_leaves_the_inside_free() -> None:
    mask = np.zeros((50, 50), bool)
    mask[10:40, 10:40] = True
    pixels = np.asarray(draw_slice(_slice(mask, mask), 50, [(mask, "#ffffff")]))
    assert pixels[10, 25].tolist() == [255, 255, 255] and pixels[25, 25].tolist() == [0, 0, 0]
