"""Labels made slab by slab while the windows pass are those of the whole image's logits, bit by bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from inference_bundles import make_info, make_plan, unet_weights

from medseg.errors import WriteError
from medseg.inference import load_model, rolling, save_bundle
from medseg.inference.array_ops import ArrayOps
from medseg.inference.probabilities import disk_array
from medseg.inference.sliding_window import Passes, logit_slabs, sliding_window
from medseg.inference.window_grid import Windows
from medseg.nets.crf import CrfOptions
from medseg.volume import Volume

PLAIN, REGIONS = {"lung": 1, "tumour": 7}, {"whole": (1, 2), "core": (2,)}
FLAT = {"dims": 2, "patch_size": (8, 8), "strides": ((1, 1), (2, 2))}


def _volume(shape, spacing=(1.0, 1.0, 1.5), channels=0, seed=0):
    rng = np.random.default_rng(seed)
    affine = np.diag([-spacing[0], spacing[1], -spacing[2], 1.0])
    lead = (channels,) if channels else ()
    return Volume(rng.normal(size=(*lead, *shape)).astype(np.float32), affine, channels)


def _model(tmp_path, labels, folds=1, mirror=(), **plan):
    info = make_info(make_plan(**plan), labels=labels)
    info = info.model_copy(update={"prediction": info.prediction.model_copy(update={"mirror_axes": mirror})})
    return load_model(save_bundle(tmp_path / "m", info, {n: unet_weights(info, n) for n in range(folds)}), "cpu")


@pytest.mark.parametrize("shape", [(37, 11, 13), (9, 12, 40), (10, 45, 9), (5, 3, 7), (1, 1, 1)])
@pytest.mark.parametrize(
    ("labels", "folds", "mirror", "plan"),
    [
        (PLAIN, 1, (), {}),
        (PLAIN, 3, (0, 2), {}),
        (REGIONS, 2, (1,), {}),
        (PLAIN, 1, (), {"spacing_mm": None, "orientation": "SAR"}),
        (PLAIN, 2, (0,), {**FLAT, "spacing_mm": (1.3, 0.8, 1.0), "orientation": "RSA"}),
        (REGIONS, 1, (), {**FLAT, "spacing_mm": None}),
    ],
)
def test_streamed_labels_are_those_of_the_whole_logits(tmp_path, monkeypatch, shape, labels, folds, mirror, plan):
    model, volume = _model(tmp_path, labels, folds, mirror, **plan), _volume(shape)
    monkeypatch.setattr(rolling, "LEAST_ROWS", 10**6)  # one segment: the whole image
    logits, grid = model.predict_logits(volume)
    expected = model.to_labels(logits, grid, volume)
    monkeypatch.setattr(rolling, "LEAST_ROWS", 2)
    streamed = model.predict(volume)
    assert np.array_equal(streamed.array, expected.array) and streamed.array.dtype == expected.array.dtype
    assert torch.equal(model.predict_logits(volume)[0], logits)
    assert np.array_equal(streamed.array, model.predict(volume).array)


def test_streamed_labels_of_a_2d_image(tmp_path, monkeypatch):
    model = _model(tmp_path, PLAIN, 2, (0,), **FLAT, spacing_mm=None, orientation=None)
    volume = _volume((41, 19))
    expected = model.to_labels(*model.predict_logits(volume), volume)
    monkeypatch.setattr(rolling, "LEAST_ROWS", 2)
    assert np.array_equal(model.predict(volume).array, expected.array)


@pytest.mark.parametrize("least", [1, 2, 5, 16])
@pytest.mark.parametrize("shape", [(30, 10, 9), (9, 10, 31), (9, 31, 10)])
def test_slabs_leave_in_order_without_gap_and_hold_their_samples(monkeypatch, least, shape):
    monkeypatch.setattr(rolling, "LEAST_ROWS", max(2, least))
    image = torch.randn(1, *shape)
    axis, whole = 1 + int(np.argmax(shape)), sliding_window(lambda x: x * x, image, (8, 8, 8), 1, batch_size=3)
    reached = 0
    for slab, first, last in logit_slabs(lambda x: x * x, image, Windows((8, 8, 8)), 1, Passes(3)):
        assert first == reached and slab.shape[axis] == min(last + 1, max(shape)) - first
        assert torch.equal(slab, whole.narrow(axis, first, slab.shape[axis]))
        reached = last
    assert reached == max(shape)


def test_only_open_rows_are_held(monkeypatch):
    made = []
    zeros = ArrayOps.zeros
    monkeypatch.setattr(ArrayOps, "zeros", lambda *a: made.append(zeros(*a)) or made[-1])
    monkeypatch.setattr(rolling, "LEAST_ROWS", 4)
    slabs = logit_slabs(lambda x: x, torch.randn(1, 160, 8, 8), Windows((8, 8, 8)), 1)
    assert sum(last - first for _, first, last in slabs) == 160
    assert sum(each.size for each in made if each.ndim == 4) == (8 + 2) * 8 * 8  # a window, its lead, and a copy


@pytest.mark.parametrize("orientation", ["RAS", "PSR"])
@pytest.mark.parametrize("labels", [PLAIN, REGIONS])
def test_probabilities_are_written_into_the_array_that_was_asked_for(tmp_path, labels, orientation):
    model, volume = _model(tmp_path, labels, orientation=orientation), _volume((9, 12, 40))
    arrays = []

    def make(shape):
        arrays.append(np.lib.format.open_memmap(tmp_path / "p.npy", "w+", np.float16, shape))
        return arrays[-1]

    streamed = model.predict(volume, probabilities=make)
    logits, grid = model.predict_logits(volume)
    whole = model.to_probabilities(logits, grid, volume)
    assert arrays[0].shape == whole.array.shape == (2, 9, 12, 40)
    assert np.abs(arrays[0].astype(np.float32) - whole.array.astype(np.float32)).max() < 1e-3
    assert np.array_equal(streamed.array, model.predict(volume).array)


def test_a_crf_sees_the_whole_logits(tmp_path):
    model, volume = _model(tmp_path, PLAIN), _volume((9, 12, 40))
    crf = CrfOptions(appearance_mm=3.0)
    logits, grid = model.predict_logits(volume, crf=crf)
    assert np.array_equal(model.predict(volume, crf=crf).array, model.to_labels(logits, grid, volume).array)
    assert not np.array_equal(model.predict(volume, crf=crf).array, model.predict(volume).array)


def test_an_array_on_disk_has_no_name_and_a_folder_that_is_not_there_is_named(tmp_path):
    array = disk_array(tmp_path, (2, 3, 4))
    array[:] = 0.5
    assert array.dtype == np.float16 and float(array.sum()) == 12.0 and not list(tmp_path.iterdir())
    with pytest.raises(WriteError, match="missing"):
        disk_array(tmp_path / "missing", (2, 3, 4))
