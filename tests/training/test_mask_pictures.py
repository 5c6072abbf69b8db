"""Pictures of validation masks: the same slices each time, on the grid of the image, wherever the prediction is."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg.config import load_config
from medseg.labels import LabelScheme
from medseg.preparation import open_case, prepare
from medseg.training.mask_pictures import MaskPictures

SCHEME = LabelScheme.from_mapping({"ball": 1})
BLUE, AMBER = (0x4F, 0xC3, 0xF7), (0xFF, 0xB3, 0x00)


def _prepared(folder: Path, **changes: object):
    config = load_config(folder / "config.yaml", changes)
    preparation = prepare(config, memory_gb=4, on_gpu=False, workers=1)
    return [open_case(path) for path in preparation.cases.values()], preparation.plan


def _drawn(cases, plan, change) -> np.ndarray:
    pictures = MaskPictures(cases, plan, SCHEME)
    for case in cases:
        reference = case.labels if case.native is None else case.native.read()
        pictures.add(change(np.asarray(reference)), reference, None)
    return np.asarray(Image.open(io.BytesIO(pictures.drawn())).convert("RGB"))


def _places(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return np.argwhere((picture == colour).all(axis=-1))


@pytest.mark.parametrize("spacing", [None, [2.0, 1.5, 1.0]])
def test_contours_lie_where_the_masks_are_also_where_the_network_sees_another_grid(
    tiny_dataset: Path, spacing: list[float] | None
) -> None:
    changes = {} if spacing is None else {"plan.spacing_mm": spacing, "plan.patch_size": [8, 8, 8]}
    cases, plan = _prepared(tiny_dataset, **changes)
    assert (cases[0].native is None) is (spacing is None)
    # Where the prediction is the reference its contour covers that of the reference but for rounding.
    same = _drawn(cases, plan, lambda reference: reference)
    assert len(_places(same, AMBER)) > 10 * len(_places(same, BLUE)) / 3
    # Five voxels further along an axis: both show, and lie apart.
    moved = _drawn(cases, plan, lambda reference: np.roll(reference, 5, axis=1))
    blue, amber = _places(moved, BLUE), _places(moved, AMBER)
    assert len(blue) > 200 and len(amber) > 200 and np.abs(blue.mean(axis=0) - amber.mean(axis=0)).max() > 5


def test_slice_and_frame_do_not_depend_on_the_prediction(tiny_dataset: Path) -> None:
    cases, plan = _prepared(tiny_dataset)
    nothing = _drawn(cases, plan, np.zeros_like)
    everywhere = _drawn(cases, plan, np.ones_like)
    assert nothing.shape == everywhere.shape
    differ = (nothing != everywhere).any(axis=-1)
    assert differ.any() and all(tuple(everywhere[y, x]) == AMBER for y, x in np.argwhere(differ))


def test_three_cases_that_hold_a_label_are_shown_and_none_where_no_case_does(tiny_dataset: Path) -> None:
    cases, plan = _prepared(tiny_dataset)
    pictures = MaskPictures(cases, plan, SCHEME)
    for case in cases:
        pictures.add(np.asarray(case.labels), case.labels, None)
    assert [name for name, _ in pictures._shown] == [cases[n].name for n in (0, 2, 5)]
    assert MaskPictures([], plan, SCHEME).drawn() is None
