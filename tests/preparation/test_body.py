"""The box around the patient: nothing of him is lost, and what may be him is kept."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import plan_for

from medseg.preparation.body import body_box, hounsfield_channels, labels_inside


def _sizes(box):
    return [(part.start, part.stop) for part in box]


def test_air_around_a_ct_is_left_out_though_it_is_noisy():
    rng = np.random.default_rng(0)
    array = rng.normal(-1000, 30, (1, 80, 90, 40))
    array[0, 30:50, 40:70] = rng.normal(40, 20, (20, 30, 40))
    array[0, 36:44, 50:60] = rng.normal(-850, 60, (8, 10, 40))  # a lung
    # Blocks of four voxels, and two of them more on every side.
    assert _sizes(body_box(array, (True,) * len(array))) == [(20, 60), (32, 80), (0, 40)]


def test_far_negative_grey_levels_are_air_in_ct_alone():
    array = np.full((1, 64, 64), -2000.0)
    array[0, 20:44, 16:48] = -1500.0  # tissue of an MR that was scaled to other numbers
    array[0, 28:36, 28:36] = 100.0
    assert _sizes(body_box(array, (False,))) == [(12, 52), (8, 56)]
    assert _sizes(body_box(array, (True,))) == [(20, 44), (20, 44)]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"normalization": [{"kind": "clip", "low": -900, "high": 300, "mean": 0, "std": 1}]}, True),
        ({"normalization": [{"kind": "zscore"}]}, False),
        ({"normalization": [{"kind": "zscore"}], "select": [{"modality": "CT"}]}, True),
        (
            {
                "normalization": [{"kind": "window", "low": 0, "high": 9, "mean": 0, "std": 1}],
                "select": [{"modality": "MR"}],
            },
            False,
        ),
        ({"normalization": [{"kind": "zscore"}], "select": [{"modality": "CT"}], "normalize_on": "native"}, False),
    ],
)
def test_hounsfield_units_are_known_by_modality_or_else_by_normalisation(changes, expected):
    assert hounsfield_channels(plan_for(**changes)) == (expected,)


def test_a_frame_below_air_counts_as_air():
    array = np.full((1, 64, 64, 8), -2000)
    array[0, 8:56, 8:56] = -1000
    array[0, 24:40, 28:36] = 0
    assert _sizes(body_box(array, (True,) * len(array))) == [(16, 48), (20, 44), (0, 8)]


def test_a_lung_that_is_cut_at_the_border_is_kept():
    rng = np.random.default_rng(0)
    array = rng.normal(-870, 40, (1, 48, 48, 24))
    array[0, :, ::5] += 500  # vessels and walls
    assert _sizes(body_box(array, (True,) * len(array))) == [(0, 48), (0, 48), (0, 24)]


def test_a_stripped_skull_is_found_in_any_channel():
    array = np.zeros((2, 60, 60, 30))
    array[0, 20:30, 20:30, 10:20] = 1.0
    array[1, 25:40, 22:28, 10:20] = -2.0
    assert _sizes(body_box(array, (True,) * len(array))) == [(12, 48), (12, 38), (2, 28)]


def test_noise_around_a_head_in_mr_is_not_taken_for_nothing():
    array = np.abs(np.random.default_rng(0).normal(0, 5, (1, 40, 40, 20)))
    array[0, 10:30, 10:30] += 200
    assert _sizes(body_box(array, (True,) * len(array))) == [(0, 40), (0, 40), (0, 20)]


@pytest.mark.parametrize("value", [-1000.0, 0.0, 7.0])
def test_an_image_without_anything_is_kept_whole(value):
    assert _sizes(body_box(np.full((1, 20, 9), value), (True,))) == [(0, 20), (0, 9)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=2, max_size=3), st.sampled_from([-1000.0, 0.0]), st.data())
def test_nothing_solid_lies_outside(shape, background, data):
    array = np.full((1, *shape), background)
    corner = tuple(data.draw(st.integers(0, n - 1)) for n in shape)
    far = tuple(data.draw(st.integers(c + 1, n)) for c, n in zip(corner, shape, strict=True))
    body = tuple(slice(c, f) for c, f in zip(corner, far, strict=True))
    array[(0, *body)] = 50.0
    labels = np.zeros(shape, dtype=np.uint8)
    labels[body] = 1
    held = labels[body_box(array, (True,) * len(array))]
    # In air a block of four voxels must be a tenth full to be seen; thinner things have a margin of two blocks anyway.
    assert held.sum() == labels.sum()
    assert labels_inside(array, labels, (True,))


def test_labels_in_the_air_are_noticed():
    array = np.zeros((1, 64, 64))
    array[0, 30:34, 30:34] = 1.0
    labels = np.zeros((64, 64), dtype=np.uint8)
    labels[30:34, 30:34] = 1
    assert labels_inside(array, labels, (True,))
    labels[5, 5] = 2
    assert not labels_inside(array, labels, (True,))
