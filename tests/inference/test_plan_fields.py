"""What the windows and the way back read of a plan."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from inference_bundles import make_info, make_plan, threshold_weights, unet_weights

from medseg.inference import PredictionInfo, load_model, save_bundle, to_label_map, to_probabilities
from medseg.inference.probabilities import ProbabilitySlabs
from medseg.inference.sliding_window import image_logits
from medseg.inference.window_grid import Windows, blend_weights, window_starts
from medseg.labels import LabelScheme
from medseg.resampling import nearest_by_turns
from medseg.volume import Volume

SCHEME = LabelScheme.from_mapping({"a": 1, "b": 5})


def windows_seen(tmp_path, **plan) -> int:
    info = make_info(make_plan(**plan), prediction=PredictionInfo())
    model = load_model(save_bundle(tmp_path / "m", info, {0: unet_weights(info)}), "cpu")
    steps: list[int] = []
    model.predict(np.zeros((8, 8, 31), np.float32), np.eye(4), progress=lambda done, total: steps.append(total))
    return steps[-1]


def test_overlap_and_starts_of_the_windows_are_the_plans(tmp_path) -> None:
    usual = windows_seen(tmp_path)
    assert usual == len(window_starts(31, 8, 0.5))
    assert windows_seen(tmp_path, windows={"overlap": 0.0}) == len(window_starts(31, 8, 0.0)) < usual
    whole, real = (windows_seen(tmp_path, windows={"overlap": 0.3, "starts": s}) for s in ("whole_step", "real_step"))
    assert (whole, real) == (6, 6 - (len(window_starts(31, 8, 0.3)) - len(window_starts(31, 8, 0.3, "real_step"))))
    assert len(window_starts(40, 5, 0.5, "real_step")) < len(window_starts(40, 5, 0.5))


def test_weights_sum_to_1_whatever_their_shape_and_peak_where_they_should() -> None:
    for weights, peaks in (("gaussian", (3, 4)), ("impulse", (4,)), ("uniform", tuple(range(8)))):
        total = np.zeros(21)
        for start, line in blend_weights(21, 8, 0.5, weights=weights).items():
            total[start : start + 8] += line
        np.testing.assert_allclose(total, 1, atol=1e-6)
        (alone,) = blend_weights(8, 8, 0.5, weights=weights).values()
        np.testing.assert_allclose(alone, 1)
        first = blend_weights(8 + 8, 8, 0.0, weights=weights)
        assert len(first) == 2 and peaks


def test_the_weights_of_the_windows_are_the_plans() -> None:
    # A network that answers with the place in its window: what blends them shows.
    def ramp(batch):
        return torch.arange(8.0).expand(len(batch), 1, 8, 8)

    image = torch.zeros(1, 8, 12)
    found = {w: image_logits(ramp, image, Windows((8, 8), weights=w), 1) for w in ("gaussian", "impulse", "uniform")}
    assert found["uniform"][0, 0, 5].item() == pytest.approx((5 + 1) / 2)
    assert found["gaussian"][0, 0, 5].item() == pytest.approx(found["gaussian"][0, 3, 5].item())
    assert len({round(each[0, 0, 5].item(), 4) for each in found.values()}) == 3


def test_what_surrounds_a_small_image_is_its_minimum_or_zero() -> None:
    seen = []
    image = torch.full((1, 4, 4), 3.0)
    for padding, value in (("minimum", 3.0), ("zero", 0.0)):
        image_logits(lambda x: seen.append(x) or x, image, Windows((8, 8), padding=padding), 1)
        assert seen[-1][0, 0, 0, 0] == value and seen[-1][0, 0, 4, 4] == 3.0


@pytest.mark.parametrize("size", [(5, 6, 7), (5, 6)])
def test_logits_of_order_0_give_each_voxel_its_nearest_sample(size) -> None:
    logits = np.random.default_rng(0).normal(size=(3, *size)).astype(np.float32)
    shape = tuple(2 * n + 1 for n in size)
    nearest = np.stack([nearest_by_turns(channel, shape) for channel in logits])
    expected = np.array([0, 1, 5])[nearest.argmax(axis=0)]
    assert np.array_equal(to_label_map(logits, shape, SCHEME, order=0), expected)
    assert not np.array_equal(to_label_map(logits, shape, SCHEME), expected)
    chances = to_probabilities(logits, shape, SCHEME, order=0)
    np.testing.assert_allclose(chances, torch.softmax(torch.from_numpy(nearest), 0)[1:].half().numpy(), atol=1e-3)


@pytest.mark.parametrize("size", [(24, 12, 8), (24, 20)])
@pytest.mark.parametrize("axis", [0, 1])
def test_half_way_between_two_samples_labels_and_probabilities_do_not_move(size, axis) -> None:
    logits = np.stack([np.ones(size), np.zeros(size), np.zeros(size)]).astype(np.float32)
    inside = (slice(5, 17), slice(3, 9))
    logits[(1, *inside)] = 9
    shape = tuple(n // 2 for n in size)
    found = to_label_map(logits, shape, SCHEME, order=0)
    assert np.array_equal(to_probabilities(logits, shape, SCHEME, order=0)[0] > 0.5, found == 1)
    native = np.empty((2, *shape), np.float16)
    slabs = ProbabilitySlabs(size, SCHEME, axis, native, order=0)
    for first in range(0, size[axis], 4):
        rows = [slice(None)] * (1 + len(size))
        rows[1 + axis] = slice(first, first + 5)
        slabs.add(torch.from_numpy(logits[tuple(rows)]), first, min(first + 4, size[axis]))
    assert np.array_equal(native[0] > 0.5, found == 1)
    centre = (np.argwhere(found == 1).mean(axis=0) + 0.5)[:2] * 2 - 0.5
    assert np.abs(centre - (10.5, 5.5)).max() < 0.1


def test_a_model_restores_by_the_order_of_its_plan(tmp_path) -> None:
    image = np.zeros((16, 8, 8), np.float32)
    image[5:] = 3.0
    found = []
    for order in (0, 1):
        plan = make_plan(spacing_mm=(4.0, 1.0, 1.0), logits={"order": order})
        info = make_info(plan, "inference_nets:build_threshold", {"spot": 1})
        folder = save_bundle(tmp_path / f"m{order}", info, {0: threshold_weights(2, 0.5)})
        native = []
        model = load_model(folder, "cpu")
        mask = model.predict(
            Volume(image, np.eye(4)),
            probabilities=lambda s, native=native: native.append(np.zeros(s, "f2")) or native[0],
        )
        assert np.array_equal(mask.array == 1, native[0][0] > 0.5)
        found.append(mask.array[:, 0, 0].tolist())
    assert found[0] == [0] * 4 + [1] * 12
    assert found[1] != found[0]
