"""A network by ONNX Runtime or OpenVINO in an ordinary prediction: the same labels, or the network as it is."""

from __future__ import annotations

import json
import logging
import sys

import numpy as np
import pytest
import torch
from inference_bundles import make_info, make_plan, unet_weights
from torch import nn

import medseg
from medseg.errors import ConfigError, MissingPartError
from medseg.inference import load_model, save_bundle
from medseg.inference.engine import NetworkEngine
from medseg.inference.engines import exported, names, trial
from medseg.inference.engines.exported import exported_network
from medseg.inference.engines.providers import provider_chain
from medseg.studies import PredictOptions, predict_studies
from medseg.volume import Volume

CPU = torch.device("cpu")
ALL = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
LIBRARIES = ["onnxruntime", "openvino"]


def _net(dims=2):
    torch.manual_seed(0)
    convolution = nn.Conv2d if dims == 2 else nn.Conv3d
    return convolution(1, 3, 3, padding=1).eval().requires_grad_(False)


def _by(name, net, **options):
    return exported_network(name, net, False, **{"fast": False, "graphs": {}, **options})


@pytest.fixture
def counted(monkeypatch):
    """Notes the windows that graphs are written for."""
    windows = []
    write = exported.onnx_graph

    def noted(net, in_channels, patch):
        windows.append((in_channels, *patch))
        return write(net, in_channels, patch)

    monkeypatch.setattr(exported, "onnx_graph", noted)
    return windows


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_network_by_another_library_gives_the_same_labels_for_any_batch_by_one_graph(name, counted):
    net = _net(3)
    other = _by(name, net)
    with torch.inference_mode():
        for count in (2, 1, 2, 1):
            windows = torch.randn(count, 1, 16, 12, 8, generator=torch.Generator().manual_seed(count))
            logits, expected = other(windows), net(windows)
            assert logits.dtype == torch.float32 and torch.allclose(logits, expected, atol=1e-4)
    assert counted == [(1, 16, 12, 8)]


def test_engines_of_one_trial_share_the_graph(counted):
    net, graphs, windows = _net(), {}, torch.randn(1, 1, 16, 16)
    with torch.inference_mode():
        for name in LIBRARIES:
            _by(name, net, graphs=graphs)(windows)
    assert len(counted) == 1


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_graph_whose_labels_differ_does_not_answer(name, monkeypatch):
    net = _net()
    wrong = _net()
    for parameter in wrong.parameters():
        parameter.neg_()
    write = exported.onnx_graph
    monkeypatch.setattr(exported, "onnx_graph", lambda net, channels, patch: write(wrong, channels, patch))
    windows = torch.randn(1, 1, 16, 16)
    with torch.inference_mode():
        assert torch.equal(_by(name, net)(windows), net(windows))


def _trial_of(monkeypatch, seconds_worth, installed=LIBRARIES, **options):
    monkeypatch.setattr(trial, "SECONDS_WORTH_EXPORTING", seconds_worth)
    monkeypatch.setattr("medseg.inference.engine.VOXELS_WORTH_MEASURING", 0)
    monkeypatch.setattr(
        "medseg.inference.engine.is_installed", lambda name: name not in names.EXPORTED or name in installed
    )
    tried = []
    build = NetworkEngine._network
    monkeypatch.setattr(
        NetworkEngine, "_network", lambda self, name, *rest: tried.append(name) or build(self, name, *rest)
    )
    windows = torch.randn(2, 1, 16, 16)
    engine = NetworkEngine(CPU, images=1, **options)
    with torch.inference_mode():
        engine.networks([_net()], lambda: iter([windows, windows]), 100)
    return tried[:-1], engine.name


def test_libraries_take_part_in_the_trial_where_they_are_installed(monkeypatch):
    tried, chosen = _trial_of(monkeypatch, 0)
    assert tried == ["winograd", "openvino", "onnxruntime"] and chosen in ("eager", "openvino", "onnxruntime")


def test_what_is_not_installed_is_no_candidate(monkeypatch):
    assert _trial_of(monkeypatch, 0, ["onnxruntime"])[0] == ["winograd", "onnxruntime"]


def test_a_run_that_takes_less_than_it_costs_to_export_tries_no_library(monkeypatch):
    assert _trial_of(monkeypatch, 1000)[0] == ["winograd"]


@pytest.mark.skipif(not names.has_bf16(), reason="this CPU has no bfloat16")
def test_fast_tries_both_libraries_that_have_bfloat16(monkeypatch):
    assert _trial_of(monkeypatch, 0, ["openvino-bf16"], fast=True)[0] == ["bf16", "openvino-bf16"]


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "tensorrt"])
def test_an_engine_that_is_asked_for_but_not_installed_is_refused_with_the_command(unet_bundle, monkeypatch, name):
    monkeypatch.setitem(sys.modules, "openvino" if name == "openvino" else "onnxruntime", None)
    with pytest.raises(MissingPartError, match=r"pip install -c constraints\.txt '\.\[onnx"):
        load_model(unet_bundle, "cpu", name)
    # What an earlier run on another machine recorded is passed over.
    engine = NetworkEngine(CPU)
    engine.keep(name)
    assert engine.name is None


def test_bfloat16_of_openvino_is_only_used_where_fast_is_asked_for():
    with pytest.raises(ConfigError, match="fast"):
        NetworkEngine(CPU, "openvino-bf16")


def test_a_model_of_two_folds_predicts_by_the_library_it_is_told(tmp_path, name="openvino"):
    info = make_info(make_plan())
    path = save_bundle(tmp_path / "model", info, {n: unet_weights(info, n) for n in range(2)})
    image = Volume(np.random.default_rng(0).normal(size=(19, 13, 11)).astype(np.float32), np.eye(4))
    model = load_model(path, "cpu", name)
    got = np.asarray(model.predict_logits(image)[0])
    expected = np.asarray(load_model(path, "cpu").predict_logits(image)[0])
    assert model.engine_name == name and not np.array_equal(got, expected)
    assert np.abs(got - expected).max() < 1e-3
    assert np.array_equal(got, np.asarray(model.predict_logits(image)[0]))


def test_predict_takes_the_engine_that_is_named_and_the_ledger_records_it(unet_bundle, tmp_path):
    image = np.random.default_rng(0).normal(size=(12, 11, 10)).astype(np.float32)
    medseg.write(Volume(image, np.eye(4)), tmp_path / "ann.nii.gz")
    options = PredictOptions(device="cpu", network_engine="onnxruntime")
    predict_studies(unet_bundle, [tmp_path / "ann.nii.gz"], tmp_path / "out", options)
    rows = [json.loads(line) for line in (tmp_path / "out" / "ledger.jsonl").read_text().splitlines()]
    assert [row["network_engine"] for row in rows] == ["onnxruntime"]
    # Another engine is another mask.
    options = PredictOptions(device="cpu", network_engine="eager")
    assert len(predict_studies(unet_bundle, [tmp_path / "ann.nii.gz"], tmp_path / "out", options).rows) == 1


def test_an_unknown_engine_is_refused_before_anything_is_read():
    with pytest.raises(ConfigError, match="openvino"):
        PredictOptions(network_engine="openvinno")


def test_tensorrt_falls_back_to_cuda_and_cuda_to_the_cpu(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with caplog.at_level(logging.WARNING):
        chain = provider_chain("tensorrt", "cuda", 1, ALL)
        assert [name for name, _ in chain] == ALL and not caplog.messages
        assert all(options["device_id"] == 1 for _, options in chain[:-1])
        assert provider_chain("onnxruntime", "cuda", None, ALL) == [
            ("CUDAExecutionProvider", chain[1][1] | {"device_id": 0}),
            ("CPUExecutionProvider", {}),
        ]
        for engine, device, available, first, reason in (
            ("tensorrt", "cuda", ALL[1:], "CUDAExecutionProvider", "has no TensorRT"),
            ("tensorrt", "cuda", ALL[2:], "CPUExecutionProvider", "has no CUDA"),
            ("onnxruntime", "cuda", ALL[2:], "CPUExecutionProvider", "has no CUDA"),
            ("tensorrt", "cpu", ALL, "CPUExecutionProvider", "--device cuda"),
        ):
            caplog.clear()
            assert provider_chain(engine, device, None, available)[0][0] == first
            assert len(caplog.messages) == 1 and reason in caplog.messages[0]


def test_tensorrt_keeps_what_it_compiles_for_its_user_alone_and_halves_precision_only_where_it_may(
    monkeypatch, tmp_path
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (_, exact), (_, fast) = (provider_chain("tensorrt", "cuda", None, ALL, fast=fast)[0] for fast in (False, True))
    assert (exact["trt_fp16_enable"], fast["trt_fp16_enable"]) == (False, True)
    folder = tmp_path / "medseg" / "tensorrt"
    assert exact["trt_engine_cache_enable"] and exact["trt_engine_cache_path"] == str(folder)
    assert folder.stat().st_mode & 0o077 == 0


def test_a_tensorrt_engine_without_a_gpu_predicts_on_the_cpu_and_says_so(caplog):
    net, windows = _net(), torch.randn(1, 1, 16, 16)
    with torch.inference_mode(), caplog.at_level(logging.WARNING):
        logits = _by("tensorrt", net)(windows)
        assert torch.allclose(logits, net(windows), atol=1e-4)
    assert [m for m in caplog.messages if "runs by ONNX Runtime on the CPU" in m]
