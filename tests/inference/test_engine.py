"""The network by another engine: the same labels, chosen once, kept for a folder."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from inference_bundles import make_info, make_plan, unet_weights
from torch import nn

import medseg
from medseg.errors import ConfigError
from medseg.inference import engine as engine_module
from medseg.inference import load_model, save_bundle, trial_windows
from medseg.inference.engine import NetworkEngine
from medseg.nets import build_net
from medseg.studies import PredictOptions, predict_studies
from medseg.volume import Volume

CPU = torch.device("cpu")
IMAGE = Volume(np.random.default_rng(0).normal(size=(19, 13, 11)).astype(np.float32), np.eye(4))


def _net(norm="batch", seed=0, width=1):
    torch.manual_seed(seed)
    options = {"channels": (4, 8), "strides": ((1, 1, 1), (2, 2, 2)), "width": width}
    net = build_net("unet", dims=3, in_channels=1, out_channels=3, norm=norm, **options)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return net.eval().requires_grad_(False)


def _networks(engine, net, windows, passes=1, regions=False):
    with torch.inference_mode():
        return engine.networks([net], lambda: iter([windows, windows]), passes, regions=regions)[0]


class Slow(nn.Module):
    """Waits, in Python only: a graph of it does not."""

    def forward(self, x):
        time.sleep(0.05)
        return torch.cat([x, -x], 1)


class DependsOnBatch(nn.Module):
    """A batch of one is turned round: what tracing one size does not know of another."""

    def forward(self, x):
        return torch.cat([x, -x], 1) if len(x) > 1 else torch.cat([-x, x], 1)


@pytest.mark.parametrize("norm", ["batch", "instance", "group", "none"])
def test_a_frozen_network_gives_the_same_labels_and_the_same_bytes_at_every_call(norm):
    net, windows = _net(norm), torch.randn(2, 1, 16, 16, 16)
    frozen = _networks(NetworkEngine(CPU, "frozen"), net, windows)
    with torch.inference_mode():
        calls = [frozen(windows) for _ in range(4)]
        expected = net(windows)
    assert all(torch.equal(calls[0], each) for each in calls)
    assert torch.allclose(calls[0], expected, atol=1e-4)
    assert (calls[0].argmax(1) == expected.argmax(1)).float().mean() >= 0.9999


def test_a_smaller_last_batch_gets_a_graph_of_its_own_that_is_checked_too():
    frozen = _networks(NetworkEngine(CPU, "frozen"), DependsOnBatch().eval(), torch.randn(2, 1, 4, 4))
    one, two = torch.randn(1, 1, 4, 4), torch.randn(2, 1, 4, 4)
    for batch in (two, one, two, one):
        assert torch.equal(frozen(batch), DependsOnBatch()(batch))


def test_what_is_chosen_is_faster_and_what_changes_labels_is_refused(monkeypatch):
    monkeypatch.setattr(engine_module, "VOXELS_WORTH_MEASURING", 0)
    windows = torch.randn(2, 1, 4, 4) + 0.5
    engine = NetworkEngine(CPU, images=1000)
    assert _networks(engine, Slow().eval(), windows)(windows).shape == (2, 2, 4, 4) and engine.name == "frozen"
    monkeypatch.setattr(engine_module, "_run_by", lambda name, net, regions: lambda x: -net(x))
    engine = NetworkEngine(CPU, images=1000)
    _networks(engine, nn.Identity(), torch.cat([windows, -windows], 1))
    assert engine.name == "eager"


def test_a_network_that_cannot_be_traced_stays_as_it_is(monkeypatch):
    monkeypatch.setattr(engine_module, "VOXELS_WORTH_MEASURING", 0)

    class Untraceable(nn.Module):
        def forward(self, x):
            if torch.jit.is_tracing():
                raise RuntimeError("no graph of me")
            return torch.cat([x, -x], 1)

    engine = NetworkEngine(CPU, images=1000)
    net = Untraceable().eval()
    assert _networks(engine, net, torch.randn(1, 1, 4, 4)) is net and engine.name == "eager"


def test_a_winograd_network_gives_the_same_labels_and_the_same_bytes_at_every_call():
    net, windows = _net("instance", width=4), torch.randn(2, 1, 24, 24, 24)
    fast = _networks(NetworkEngine(CPU, "winograd"), net, windows)
    with torch.inference_mode():
        calls, expected = [fast(windows) for _ in range(2)], net(windows)
    assert torch.equal(*calls) and not torch.equal(calls[0], expected)
    assert torch.allclose(calls[0], expected, atol=1e-3)
    assert (calls[0].argmax(1) == expected.argmax(1)).float().mean() >= 0.9999


def test_winograd_is_tried_on_shorter_runs_than_a_graph(monkeypatch):
    tried = []

    def run_by(name, net, regions):
        tried.extend({name} - {"eager"})
        return net

    monkeypatch.setattr(engine_module, "_run_by", run_by)
    windows = torch.randn(2, 1, 16, 16, 16)
    monkeypatch.setattr(engine_module, "VOXELS_WORTH_MEASURING", 0)
    for passes, expected in ((39, []), (40, ["winograd"]), (200, ["winograd", "frozen"])):
        tried.clear()
        engine = NetworkEngine(CPU, images=1)
        _networks(engine, _net(), windows, passes=passes)
        assert tried == expected and engine.name == "eager"


def test_no_graph_is_tried_where_winograd_is_faster(monkeypatch):
    def run_by(name, net, regions):
        assert name != "frozen"
        return (lambda x: torch.cat([x, -x], 1)) if name == "winograd" else net

    monkeypatch.setattr(engine_module, "_run_by", run_by)
    monkeypatch.setattr(engine_module, "VOXELS_WORTH_MEASURING", 0)
    engine = NetworkEngine(CPU, images=1)
    _networks(engine, Slow().eval(), torch.randn(2, 1, 4, 4), passes=200)
    assert engine.name == "winograd"


def test_few_windows_are_not_worth_a_measurement(monkeypatch):
    monkeypatch.setattr(NetworkEngine, "_choose", lambda *_: pytest.fail("measured"))
    windows = torch.randn(2, 1, 8, 8, 8)
    run = NetworkEngine(CPU, images=30)
    _networks(run, _net(), windows, passes=8)
    assert run.name == "eager"
    # From Python, nobody knows how many images will come, and nothing records a choice.
    alone = NetworkEngine(CPU)
    _networks(alone, _net(), windows, passes=10**6)
    assert alone.name is None


@pytest.mark.skipif(not engine_module.has_bf16(), reason="this CPU has no bfloat16")
def test_bf16_is_close_and_only_used_where_fast_is_asked_for():
    net, windows = _net("instance"), torch.randn(2, 1, 16, 16, 16)
    fast = _networks(NetworkEngine(CPU, "bf16", fast=True), net, windows)
    with torch.inference_mode():
        logits, expected = fast(windows), net(windows)
    assert logits.dtype == torch.float32 and 0 < (logits - expected).abs().max() < 0.1 * expected.abs().max()
    with pytest.raises(ConfigError, match="fast"):
        NetworkEngine(CPU, "bf16")


def test_engines_that_a_device_does_not_have_are_refused(unet_bundle, monkeypatch):
    with pytest.raises(ConfigError, match="eager, winograd, frozen, bf16"):
        load_model(unet_bundle, "cpu", "warp")
    with pytest.raises(ConfigError, match="on cuda"):
        NetworkEngine(torch.device("cuda"), "frozen")
    assert NetworkEngine(torch.device("cuda"), fast=True).name == "eager"
    monkeypatch.setattr("medseg.inference.engines.names.has_bf16", lambda: False)
    with pytest.raises(ConfigError, match="no bfloat16"):
        load_model(unet_bundle, "cpu", "bf16", fast=True)
    # What an earlier run on another machine recorded is passed over.
    engine = NetworkEngine(CPU, fast=True)
    engine.keep("bf16")
    assert engine.name is None


@pytest.mark.parametrize("folds", [1, 2])
def test_a_model_predicts_by_the_engine_it_is_told(tmp_path, folds):
    info = make_info(make_plan())
    path = save_bundle(tmp_path / "model", info, {n: unet_weights(info, n) for n in range(folds)})
    eager, frozen = load_model(path, "cpu"), load_model(path, "cpu", "frozen")
    assert (eager.engine_name, frozen.engine_name) == ("", "frozen")
    expected, got = eager.predict_logits(IMAGE)[0], frozen.predict_logits(IMAGE)[0]
    assert torch.allclose(got, expected, atol=1e-4)
    assert torch.equal(frozen.predict_logits(IMAGE)[0], got)


def test_the_measurement_sees_a_window_in_the_middle_padded_where_the_image_is_smaller(unet_bundle):
    seen = []

    class Recorder(NetworkEngine):
        def networks(self, nets, trials, passes, *, regions=False):
            seen.append((list(trials()), passes))
            return tuple(nets)

    model = load_model(unet_bundle, "cpu")
    array = np.zeros((24, 6, 8), dtype=np.float32)
    array[11, 2, 3] = 5.0
    replace(model, engine=Recorder(CPU)).predict_logits(array, np.eye(4), mirror=False, batch_size=2)
    (windows, *others), passes = seen[0]
    # 24 voxels by windows of 8 that overlap by half: 5 windows, 3 batches.
    assert windows.shape == (2, 1, 8, 8, 8) and passes == 3
    assert (windows[:1] == windows.max()).nonzero().tolist() == [[0, 0, 3, 2, 3]]
    # Eight places, padded at the same side.
    assert [tuple(each.shape) for each in others] == [(2, 1, 8, 8, 8)] * 3


def test_of_a_large_window_half_of_each_axis_is_measured(unet_bundle, monkeypatch):
    seen = []

    class Recorder(NetworkEngine):
        def networks(self, nets, trials, passes, *, regions=False):
            seen.append((next(trials()).shape, passes))
            return tuple(nets)

    monkeypatch.setattr(trial_windows, "LARGE_WINDOW", 8**3 - 1)
    model = replace(load_model(unet_bundle, "cpu"), engine=Recorder(CPU))
    model.predict_logits(np.zeros((12, 12, 12), np.float32), np.eye(4), mirror=False, batch_size=2)
    # 8 windows of 8^3 by two, each as much as 8 of 4^3.
    assert seen == [((2, 1, 4, 4, 4), 4 * 8)]


def test_a_network_of_one_size_only_is_not_measured_on_another(monkeypatch):
    class OneSize(nn.Module):
        def forward(self, x):
            if x.shape[2:] != (8, 8):
                raise RuntimeError("expected 8 x 8")
            return torch.cat([x, -x], 1)

    monkeypatch.setattr(engine_module, "VOXELS_WORTH_MEASURING", 0)
    engine, net = NetworkEngine(CPU, images=1000), OneSize().eval()
    assert _networks(engine, net, torch.randn(2, 1, 4, 4)) is net and engine.name == "eager"


def _studies(folder, names=("ann", "ben")):
    folder.mkdir(exist_ok=True)
    for seed, name in enumerate(names):
        image = np.random.default_rng(seed).normal(size=(12, 11, 10)).astype(np.float32)
        medseg.write(Volume(image, np.eye(4)), folder / f"{name}.nii.gz")
    return folder


def _engines(out):
    return [json.loads(line)["network_engine"] for line in (out / "ledger.jsonl").read_text().splitlines()]


def test_a_folder_keeps_the_engine_of_its_ledger(unet_bundle, tmp_path, monkeypatch):
    studies, out = _studies(tmp_path / "in", ["ann"]), tmp_path / "out"
    predict_studies(load_model(unet_bundle, "cpu", "frozen"), [studies], out)
    assert _engines(out) == ["frozen"]
    monkeypatch.setattr(NetworkEngine, "_choose", lambda *_: pytest.fail("measured anew"))
    monkeypatch.setattr(NetworkEngine, "_candidates", lambda *_: ("frozen",))
    result = predict_studies(unet_bundle, [_studies(tmp_path / "in")], out, PredictOptions(device="cpu"))
    assert result.skipped == ("ann",) and [row.case for row in result.rows] == ["ben"]
    assert _engines(out) == ["frozen", "frozen"]


def test_a_mask_by_another_engine_is_made_again(unet_bundle, tmp_path):
    studies, out = _studies(tmp_path / "in"), tmp_path / "out"
    predict_studies(load_model(unet_bundle, "cpu", "frozen"), [studies], out)
    again = predict_studies(load_model(unet_bundle, "cpu", "eager"), [studies], out)
    assert [row.case for row in again.rows] == ["ann", "ben"] and _engines(out)[2:] == ["eager", "eager"]
    assert predict_studies(load_model(unet_bundle, "cpu"), [studies], out).skipped == ("ann", "ben")
    # A fast run is another choice: it neither takes the engine of the others nor counts their masks as done.
    fast = predict_studies(load_model(unet_bundle, "cpu", "frozen", fast=True), [studies], out)
    assert len(fast.rows) == 2 and _engines(out)[4:] == ["frozen", "frozen"]


def test_a_run_of_small_studies_is_eager_and_leaves_the_given_model_alone(unet_bundle, tmp_path):
    model = load_model(unet_bundle, "cpu")
    predict_studies(model, [_studies(tmp_path / "in")], tmp_path / "out")
    assert _engines(tmp_path / "out") == ["eager", "eager"] and model.engine_name == ""


def test_a_mask_made_before_an_engine_was_chosen_is_not_made_again(unet_bundle, tmp_path, monkeypatch):
    studies, out = _studies(tmp_path / "in"), tmp_path / "out"
    monkeypatch.setattr(NetworkEngine, "_candidates", lambda *_: ("frozen",))
    answers = iter([None, "frozen"])
    monkeypatch.setattr(NetworkEngine, "_choose", lambda *_: next(answers))
    predict_studies(unet_bundle, [studies], out, PredictOptions(device="cpu"))
    assert _engines(out) == ["", "frozen"]
    assert predict_studies(unet_bundle, [studies], out, PredictOptions(device="cpu")).skipped == ("ann", "ben")
