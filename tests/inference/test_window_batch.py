"""Windows per forward pass: as many as pay, fewer where memory is short, the same on every run."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from inference_bundles import make_info, make_plan, unet_weights

from medseg.inference import NetInfo, load_model, save_bundle, window_batch
from medseg.inference.window_batch import windows_at_a_time
from medseg.nets import NETS
from medseg.nets.profile import build_on_meta, forward_bytes

CPU = torch.device("cpu")
UNET = NetInfo(name="unet", dims=3, in_channels=1, out_channels=2, options={"channels": (16, 32)})


def _with_memory(monkeypatch, size):
    monkeypatch.setattr(window_batch, "device_memory", lambda device: size)


def test_a_pass_takes_a_quarter_of_a_million_voxels_and_at_least_two_windows(monkeypatch):
    _with_memory(monkeypatch, 10**12)
    assert [windows_at_a_time(UNET, (n,) * 3, CPU) for n in (16, 32, 48, 96)] == [32, 8, 2, 2]


def test_memory_that_holds_fewer_windows_means_fewer_windows(monkeypatch):
    each = forward_bytes(build_on_meta(**UNET.arguments), (1, 1, 32, 32, 32))
    # At least skip, upsampled map and both together: 16 + 16 + 32 channels.
    assert each >= 4 * 64 * 32**3
    for windows in (1, 3):
        _with_memory(monkeypatch, int((windows + 0.5) * each / window_batch.SHARE))
        assert windows_at_a_time(UNET, (32, 32, 32), CPU) == windows


def test_a_window_that_does_not_fit_is_tried_alone_and_said(monkeypatch, caplog):
    _with_memory(monkeypatch, 10**6)
    with caplog.at_level(logging.WARNING):
        assert windows_at_a_time(UNET, (32, 32, 32), CPU) == 1
    assert "one window of the network takes about 0.0 GB of 0.0 GB" in caplog.text


def test_where_layers_cannot_be_counted_single_windows_are_taken_unless_any_network_would_fit(monkeypatch):
    _with_memory(monkeypatch, 10**12)
    assert windows_at_a_time(UNET, (32, 32, 32), CPU, counted=False) == 8
    _with_memory(monkeypatch, 2**30)
    assert windows_at_a_time(UNET, (32, 32, 32), CPU, counted=False) == 1


def test_a_plug_in_is_not_counted(monkeypatch):
    _with_memory(monkeypatch, 10**6)
    assert windows_at_a_time(UNET.model_copy(update={"name": "mine:build"}), (32, 32, 32), CPU) == 8


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", NETS)
def test_every_net_can_be_counted(name, dims, monkeypatch):
    _with_memory(monkeypatch, 10**4)
    net = NetInfo(name=name, dims=dims, in_channels=2, out_channels=3, width=0.25)
    assert windows_at_a_time(net, (64,) * dims, CPU) == 1


def test_prediction_takes_that_many(tmp_path, monkeypatch):
    info = make_info(make_plan())
    model = load_model(save_bundle(tmp_path / "model", info, {0: unet_weights(info)}), "cpu")
    seen = []
    model.nets[0].register_forward_hook(lambda net, given, out: seen.append(len(given[0])))
    each = forward_bytes(build_on_meta(**info.net.arguments), (1, 1, 8, 8, 8))
    _with_memory(monkeypatch, int(3.5 * each / window_batch.SHARE))
    model.predict(np.zeros((12, 12, 12), np.float32), np.eye(4), mirror=False)
    assert seen == [3, 3, 2]
