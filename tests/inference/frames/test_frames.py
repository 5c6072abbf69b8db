"""One frame in, one mask out: as `predict`, in bounded memory, and what is dropped is counted."""

from __future__ import annotations

import gc
import logging
import threading
import time
import tracemalloc
from dataclasses import replace
from itertools import count, islice

import numpy as np
import pytest
import torch
from inference_bundles import make_info, make_plan, unet_weights

import medseg
from medseg.errors import ConfigError, GeometryError
from medseg.inference import FrameStream, PredictionInfo, load_model, save_bundle
from medseg.inference.frames.masks import is_new_scene
from medseg.preparation.plan import ChannelPlan
from medseg.volume import Volume

RGB = (ChannelPlan(kind="rgb", mean=0.4, std=0.2),) * 3
PICTURES = {
    "dims": 2,
    "orientation": None,
    "spacing_mm": None,
    "patch_size": (16, 16),
    "strides": ((1, 1), (2, 2)),
    "in_channels": 3,
    "normalization": RGB,
}


def save(path, net="unet", norm="batch", **plan):
    info = make_info(make_plan(**{**PICTURES, **plan}), net)
    info = info.model_copy(update={"net": info.net.model_copy(update={"options": {**info.net.options, "norm": norm}})})
    torch.manual_seed(0)
    return save_bundle(path, info, {0: info.net.build().state_dict()})


@pytest.fixture
def colour(tmp_path):
    return load_model(save(tmp_path / "colour"), "cpu")


@pytest.fixture
def bright(threshold_bundle):
    """Label 1 where a grey frame of 8 bits is above 100: a net that a whole frame suits as well as windows."""
    plan = {
        **PICTURES,
        "in_channels": 1,
        "normalization": (ChannelPlan(kind="window", low=0, high=200, mean=0.0, std=200.0),),
    }
    return load_model(threshold_bundle("bright", **plan), "cpu")


def pictures(shape, number=3, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, shape, np.uint8) for _ in range(number)]


def as_volume(frame):
    """Rows and columns to medseg's [x, y] with channels first, written out once more."""
    turned = np.moveaxis(np.swapaxes(frame, 0, 1), -1, 0) if frame.ndim == 3 else np.swapaxes(frame, 0, 1)
    return Volume(turned, np.eye(4), 3 if frame.ndim == 3 else 0, spacing_known=False)


def run(model, frames, **options):
    with model.stream(frames, drop=False, **options) as stream:
        return [each.mask for each in stream]


class Stalled:
    """A model whose passes wait until they are let go."""

    def __init__(self, model):
        self.info, self.entered, self.go = model.info, threading.Semaphore(0), threading.Semaphore(0)
        self._model = model

    def predict(self, volume, mirror=None):
        self.entered.release()
        self.go.acquire()
        return self._model.predict(volume, mirror=mirror)


def stalled(model):
    held = Stalled(model)
    return held, FrameStream(held, whole=False)


@pytest.mark.parametrize("size", [(16, 16), (11, 16), (37, 22)])
@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_a_mask_is_that_of_predict_on_the_same_picture(tmp_path, size, norm):
    model = load_model(save(tmp_path / "m", norm=norm), "cpu")
    frames = pictures((*size, 3))
    expected = [model.predict(as_volume(frame)).array.T for frame in frames]
    assert any(mask.any() for mask in expected)
    for mask, wanted in zip(run(model, frames, whole=False), expected, strict=True):
        assert mask.shape == size and mask.dtype == wanted.dtype
        np.testing.assert_array_equal(mask, wanted)
    for mask, wanted in zip(run(model, frames), expected, strict=True):
        assert np.count_nonzero(mask != wanted) <= 4


@pytest.mark.parametrize("kind", ["zscore", "unit", "window", "rgb", "none"])
@pytest.mark.parametrize("where", ["network", "native"])
def test_frames_are_normalised_as_the_plan_says(tmp_path, kind, where):
    numbers = {"low": 0, "high": 255, "mean": 0.0, "std": 255.0} if kind == "window" else {}
    plan = {"normalization": (ChannelPlan(kind=kind, **numbers),) * 3, "normalize_on": where}
    model = load_model(save(tmp_path / "m", **plan), "cpu")
    for frame, mask in zip(pictures((16, 16, 3)), run(model, pictures((16, 16, 3))), strict=True):
        np.testing.assert_array_equal(mask, model.predict(as_volume(frame)).array.T)


def test_a_volume_gets_its_mask_in_its_own_axes(colour):
    frames = [as_volume(frame) for frame in pictures((14, 20, 3))]
    for frame, mask in zip(frames, run(colour, frames), strict=True):
        assert isinstance(mask, Volume) and mask.shape == (20, 14)
        np.testing.assert_array_equal(mask.array, colour.predict(frame).array)


def test_a_picture_file_and_its_array_get_the_same_mask(bright, tmp_path):
    frame = pictures((19, 13))[0]
    medseg.write(as_volume(frame), tmp_path / "frame.png")
    (array,), (volume,) = run(bright, [frame]), run(bright, [medseg.read(tmp_path / "frame.png")])
    np.testing.assert_array_equal(array, volume.array.T)


def test_a_frame_goes_through_the_network_at_once_where_that_finds_the_same(bright, tmp_path, caplog, monkeypatch):
    passes = []
    monkeypatch.setattr(type(bright), "predict", _noting(type(bright).predict, passes))
    frames = pictures((40, 48))
    with caplog.at_level(logging.INFO, "medseg"):
        for frame, mask in zip(frames, run(bright, frames), strict=True):
            np.testing.assert_array_equal(mask, frame > 100)
    assert "as a whole" in caplog.text
    assert passes[0] == (16, 16) and passes[2:] == [(64, 64)] * 3


def test_a_frame_goes_through_in_windows_where_a_whole_one_gets_other_labels(tmp_path, caplog):
    model = load_model(save(tmp_path / "m", norm="instance"), "cpu")
    frames = pictures((40, 48, 3))
    with caplog.at_level(logging.INFO, "medseg"):
        for frame, mask in zip(frames, run(model, frames), strict=True):
            np.testing.assert_array_equal(mask, model.predict(as_volume(frame)).array.T)
    assert "labels differ" in caplog.text


def _noting(predict, passes):
    def noted(self, *args, **options):
        passes.append(self.info.plan.patch_size)
        return predict(self, *args, **options)

    return noted


@pytest.mark.parametrize("net", ["enet", "bisenetv2"])
def test_a_frame_of_any_size_goes_through_a_real_time_network_as_a_whole(tmp_path, net):
    model = load_model(save(tmp_path / "m", net, patch_size=(32, 32)), "cpu")
    (mask,) = run(model, pictures((33, 70, 3), 1), whole=True, mirror=False)
    assert mask.shape == (33, 70)


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (np.zeros((3, 20, 30), np.uint8), "Channels first"),
        (np.zeros((20, 30, 3), np.float32), "found float32"),
        (np.zeros((20, 30, 4), np.uint8), "(20, 30, 4)"),
        (np.zeros((20, 30), np.uint8), "give colour frames (rows, columns, 3)"),
        (np.zeros((0, 30, 3), np.uint8), "contains no pixels"),
        (Volume(np.zeros((4, 5, 6), np.uint8), np.eye(4)), "4 x 5 x 6"),
        (Volume(np.zeros((4, 5), np.uint8), np.eye(4)), "1 channel(s)"),
        ([[1, 2], [3, 4]], "list"),
    ],
)
def test_a_frame_that_does_not_fit_is_refused_where_it_is_given_and_to_whoever_takes_the_masks(colour, frame, words):
    with colour.stream() as stream, pytest.raises(GeometryError) as given:
        stream.push(frame)
    assert words in str(given.value) and "\n" not in str(given.value)
    with pytest.raises(GeometryError) as taken:
        run(colour, [frame])
    assert str(taken.value) == str(given.value)


def test_a_model_of_volumes_a_bad_smoothing_and_use_outside_of_the_block_are_refused(unet_bundle, colour):
    with pytest.raises(ConfigError, match="volumes"):
        load_model(unet_bundle, "cpu").stream()
    for smoothing in (1.0, -0.1, float("nan")):
        with pytest.raises(ConfigError, match="smoothing"):
            colour.stream(smoothing=smoothing)
    with pytest.raises(ConfigError, match="inside"):
        colour.stream().push(np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(ConfigError, match="inside"):
        next(iter(colour.stream()))


def test_an_exported_model_takes_windows_of_the_size_it_was_exported_for(bright):
    # Its graph takes no other size; here torch's network stands for it.
    stored = bright.info.network.model_copy(update={"format": "onnx"})
    exported = replace(bright, info=bright.info.model_copy(update={"network": stored}))
    with pytest.raises(ConfigError, match="16 x 16"):
        exported.stream(whole=True)
    passes = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(bright), "predict", _noting(type(bright).predict, passes))
        frames = pictures((40, 48))
        for frame, mask in zip(frames, run(exported, frames), strict=True):
            np.testing.assert_array_equal(mask, frame > 100)
    assert passes == [(16, 16)] * 3


def test_errors_of_the_network_and_of_the_source_reach_whoever_takes_the_masks(bright):
    def broken():
        yield from pictures((16, 16), 1)
        raise OSError("the camera is gone")

    taken = []
    with bright.stream(broken(), drop=False) as stream, pytest.raises(OSError, match="camera"):
        taken.extend(stream)
    assert len(taken) == 1
    held, stream = stalled(bright)
    held.predict = lambda volume, mirror=None: 1 / 0
    with stream, pytest.raises(ZeroDivisionError):
        stream.push(pictures((16, 16))[0])
        list(stream)
    assert not stream.push(pictures((16, 16))[0])


def test_a_slow_network_takes_the_latest_frame_and_what_it_missed_is_counted_and_said(bright, caplog):
    held, stream = stalled(bright)
    frames = pictures((16, 16), 10)
    with stream:
        stream.push(frames[0])
        held.entered.acquire()
        for frame in frames[1:]:
            stream.push(frame)
        stream.close()
        for _ in frames:
            held.go.release()
        found = list(stream)
    # The mask of the first may give way to that of the last before it is taken.
    assert found[-1].number == 9 and {each.number for each in found} <= {0, 9}
    np.testing.assert_array_equal(found[-1].mask, frames[9] > 100)
    assert stream.timings.dropped_before == 8 and stream.timings.frames == len(found)
    assert "8 dropped because the network was slower" in caplog.text


def test_a_slow_consumer_gets_the_latest_mask_and_what_it_missed_is_counted_and_said(bright, caplog):
    held, stream = stalled(bright)
    frames = pictures((16, 16), 10)
    with stream:
        for frame in frames:
            stream.push(frame)
            held.entered.acquire()
            held.go.release()
        stream.close()
        stream._threads[0].join()
        found = list(stream)
    assert [each.number for each in found] == [9]
    assert stream.timings.dropped_after == 9 and stream.timings.dropped == 9
    assert "9 dropped because their masks were not taken in time" in caplog.text


def test_nothing_is_dropped_where_all_frames_are_wanted_however_slow_the_consumer(bright):
    frames = pictures((16, 16), 8)
    with bright.stream(iter(frames), drop=False) as stream:
        found = []
        for each in stream:
            time.sleep(0.005)
            found.append(each)
    assert [each.number for each in found] == list(range(8)) and stream.timings.dropped == 0
    for frame, each in zip(frames, found, strict=True):
        np.testing.assert_array_equal(each.mask, frame > 100)


def test_reading_the_network_and_the_consumer_work_at_the_same_time(bright):
    held, _ = stalled(bright)
    held.predict = lambda volume, mirror=None: (time.sleep(0.03), bright.predict(volume, mirror=mirror))[1]

    def camera():
        for frame in pictures((16, 16), 10):
            time.sleep(0.03)
            yield frame

    start = time.perf_counter()
    with FrameStream(held, camera(), drop=False, whole=False) as stream:
        for _ in stream:
            time.sleep(0.03)
    # One after the other they take 0.9 s.
    assert time.perf_counter() - start < 0.75


def test_frames_in_memory_that_is_written_again_keep_what_they_showed(bright):
    held, stream = stalled(bright)
    memory = np.full((16, 16), 200, np.uint8)
    with stream:
        stream.push(memory)
        held.entered.acquire()
        memory[:] = 0
        stream.push(memory)
        memory[:] = 200
        held.go.release()
        first = next(iter(stream))
        held.go.release()
        second = next(iter(stream))
    assert first.mask.all() and not second.mask.any()


def test_a_consumer_that_leaves_ends_an_endless_stream(bright):
    frame = pictures((16, 16))[0]
    with bright.stream(frame for _ in count()) as stream:
        taken = list(islice(stream, 3))
    assert len(taken) == 3 and not any(thread.is_alive() for thread in stream._threads)


def test_a_thousand_frames_take_no_more_memory_than_a_hundred(bright):
    frame = pictures((24, 24))[0]
    held: dict[bool, list[int]] = {False: [], True: []}
    tracemalloc.start()
    try:
        with bright.stream((frame for _ in range(1000)), drop=False, smoothing=0.5, mirror=False) as stream:
            for each in stream:
                if each.number in (100, 104, 108, 112, 116, 120, 979, 983, 987, 991, 995, 999):
                    gc.collect()
                    held[each.number > 500].append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    # The logits of a frame take 4608 bytes: less than 5 of 900 frames may be left behind. The least counts, as the
    # network is at work on the next frame meanwhile.
    assert min(held[True]) < min(held[False]) + 20_000


def test_smoothing_is_an_exponential_mean_of_the_logits_that_starts_anew_with_the_scene(bright):
    scene = np.zeros((24, 32), np.uint8)
    scene[:, :16] = 160
    flicker = scene.copy()
    flicker[4, 4] = 60  # a pixel in the midst of the object goes dark for one frame
    assert not run(bright, [scene, flicker], mirror=False)[1][4, 4]
    calm = run(bright, [scene, flicker, flicker, flicker], smoothing=0.8, mirror=False)
    # Logits x - 0.5 of x = 0.8 and x = 0.3: 0.3 at first, then 0.8 of what was and 0.2 of -0.2.
    logit, expected = 0.3, []
    for _ in range(3):
        logit = 0.8 * logit - 0.2 * 0.2
        expected.append(logit > 0)
    assert [bool(mask[4, 4]) for mask in calm[1:]] == expected
    other = np.ascontiguousarray(scene[:, ::-1])
    assert is_new_scene(scene[::8, ::8].astype(np.float32), other[::8, ::8].astype(np.float32))
    np.testing.assert_array_equal(run(bright, [scene, other], smoothing=0.8, mirror=False)[1], other > 100)
    wide = np.pad(scene, ((0, 0), (0, 8)))
    np.testing.assert_array_equal(run(bright, [scene, wide], smoothing=0.8, mirror=False)[1], wide > 100)


def test_timings_are_those_of_the_masks_that_were_used(bright):
    frames = pictures((16, 16), 5)
    with bright.stream(frames, drop=False) as stream:
        assert stream.timings.frames_per_second == 0 and np.isnan(stream.timings.median_seconds)
        seconds = [each.seconds for each in stream]
    assert stream.timings.frames == 5 and stream.timings.frames_per_second > 0
    assert stream.timings.median_seconds == pytest.approx(np.median(seconds))
    assert stream.timings.p95_seconds == pytest.approx(np.quantile(seconds, 0.95))
    assert stream.timings.text().startswith("5 frames, ")


def test_mirroring_is_that_of_predict(tmp_path):
    info = make_info(make_plan(**PICTURES), prediction=PredictionInfo(mirror_axes=(0, 1)))
    model = load_model(save_bundle(tmp_path / "m", info, {0: unet_weights(info)}), "cpu")
    frames = pictures((16, 16, 3), 1)
    for mirror in (None, True, False):
        (mask,) = run(model, frames, mirror=mirror)
        np.testing.assert_array_equal(mask, model.predict(as_volume(frames[0]), mirror=mirror).array.T)
