"""Windows lie over the patient alone; around him there is background, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from inference_bundles import make_info, make_plan, unet_weights
from torch.nn.functional import avg_pool2d, avg_pool3d

from medseg.inference import load_model, rolling, save_bundle
from medseg.inference.sliding_window import Body, Passes, logit_slabs, sliding_window, whole_logits
from medseg.inference.window_grid import Windows
from medseg.preparation.training_range import TrainingRange
from medseg.volume import Volume

BEYOND = torch.tensor([0.0, -20.0])
KNOWN = TrainingRange(cases=1, spans=(), inside_body=True)


def _net(x):
    pool = avg_pool3d if x.ndim == 5 else avg_pool2d
    return torch.cat([x, pool(x * x, 3, 1, 1)], 1)


@pytest.mark.parametrize("least", [2, 16])
@pytest.mark.parametrize("patch", [(8, 8, 8), (8, 8)])
@pytest.mark.parametrize(
    ("shape", "box"),
    [
        ((30, 11, 9), [(7, 20), (2, 11), (0, 9)]),
        ((9, 12, 41), [(0, 9), (1, 10), (20, 41)]),
        ((9, 40, 10), [(0, 8), (30, 39), (1, 9)]),
    ],
)
def test_inside_are_the_logits_of_the_box_and_outside_what_was_said(monkeypatch, shape, box, patch, least):
    monkeypatch.setattr(rolling, "LEAST_ROWS", least)
    image, where = torch.randn(1, *shape), tuple(slice(*each) for each in box)
    slabs = logit_slabs(_net, image, Windows(patch), 2, Passes(3), Body(where, BEYOND))
    axis = 2 if len(patch) == 2 else int(np.argmax(shape))
    logits = whole_logits(slabs, shape, axis)
    alone = sliding_window(_net, image[(slice(None), *where)].contiguous(), patch, 2, batch_size=3)
    torch.testing.assert_close(logits[(slice(None), *where)], alone, atol=1e-6, rtol=1e-5)
    outside = torch.ones(shape, dtype=torch.bool)
    outside[where] = False
    assert torch.equal(logits[:, outside], BEYOND[:, None].expand(2, int(outside.sum())))


def test_a_box_thinner_than_a_window_grows_as_far_as_the_image_goes():
    image = torch.randn(1, 30, 20, 6)
    windows = []
    body = Body((slice(28, 30), slice(9, 11), slice(2, 4)), torch.tensor([-1.0]))
    slabs = logit_slabs(lambda x: windows.append(x) or x, image, Windows((8, 8, 8)), 1, body=body)
    logits = whole_logits(slabs, (30, 20, 6), 0)
    assert len(windows) == 1 and torch.equal(windows[0][0, 0, :, :, 1:7], image[0, 22:30, 6:14])
    assert torch.equal(logits[0, 22:30, 6:14], image[0, 22:30, 6:14])
    assert (logits == -1).sum() == logits.numel() - 8 * 8 * 6


@pytest.mark.parametrize("labels", [{"lung": 1, "tumour": 7}, {"whole": (1, 2), "core": (2,)}])
def test_a_model_looks_for_nothing_in_the_air(tmp_path, labels):
    info = make_info(make_plan(), labels=labels).model_copy(update={"reference_ranges": KNOWN})
    model = load_model(save_bundle(tmp_path / "m", info, {0: unet_weights(info)}), "cpu")
    array = np.full((60, 40, 40), -1000.0, dtype=np.float32)
    array[20:34, 12:26, 12:26] = np.random.default_rng(0).normal(40, 30, (14, 14, 14))
    volume = Volume(array, np.diag([-1.5, -1.5, 1.5, 1.0]))
    windows = []
    shape = []

    def probabilities(wanted):
        shape.append(np.ones(wanted, dtype=np.float16))
        return shape[0]

    mask = model.predict(volume, progress=lambda done, total: windows.append(total), probabilities=probabilities)
    unaware = load_model(
        save_bundle(tmp_path / "u", info.model_copy(update={"reference_ranges": None}), {0: unet_weights(info)}), "cpu"
    )
    everywhere = []
    unaware.predict(volume, progress=lambda done, total: everywhere.append(total))
    assert windows[0] < everywhere[0] / 2
    outside = np.ones(array.shape, dtype=bool)
    outside[11:43, 3:35, 3:35] = False  # the body, 8 voxels around it, and one that is interpolated
    assert not mask.array[outside].any()
    assert shape[0][:, outside].max() < 1e-6
    assert mask.array[20:34, 12:26, 12:26].any()
