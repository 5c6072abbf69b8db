"""INT8: small, fast, and at the price of little Dice, or refused."""

from __future__ import annotations

import sys

import numpy as np
import onnx
import pytest
import torch
from inference_bundles import make_plan
from onnx import numpy_helper
from torch import nn

from medseg import machine
from medseg.errors import CheckpointError, DatasetError, MissingPartError
from medseg.inference.exporting.onnx_file import check_onnx
from medseg.inference.onnx_network import OnnxNetwork
from medseg.inference.openvino_network import OpenvinoNetwork
from medseg.inference.quantisation import quantised
from medseg.inference.quantisation.dice_loss import Judge
from medseg.inference.quantisation.floating import with_little_loss
from medseg.inference.quantisation.layers import weighted_layers
from medseg.inference.quantisation.onnx_int8 import onnx_int8
from medseg.inference.quantisation.openvino_int8 import openvino_int8
from medseg.inference.quantisation.windows import CalibrationCase, stored_cases, window_count
from medseg.labels import LabelScheme
from medseg.nets.onnx_graph import onnx_graph
from medseg.preparation.normalize import Scale
from medseg.preparation.store import CaseNotes, CaseOrigin, PreparedArrays, write_case

KINDS = ["onnx", "openvino"]


@pytest.fixture(scope="module")
def graph():
    """Finds what is brighter than 0.5, by two layers of many channels."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 1), nn.ReLU(), nn.Conv2d(64, 2, 1))
    with torch.no_grad():
        net[0].weight[0], net[0].bias[0] = 0.0, 0.0
        net[0].weight[0, 0, 1, 1] = 1.0
        net[2].weight[0], net[2].bias[0] = 0.0, 0.0
        net[2].weight[0, 0] = 1.0
        net[4].weight.zero_()
        net[4].weight[1, 0], net[4].bias[0], net[4].bias[1] = 1.0, 0.5, 0.0
    return onnx_graph(net.eval().requires_grad_(False), 1, (32, 32))


def _cases(count=4, labelled=True, windows=2):
    cases = []
    for seed in range(count):
        bright = np.zeros((windows, 32, 32), bool)
        bright[:, 5 + seed : 20, 8:25] = True
        noise = np.random.default_rng(seed).normal(0, 0.1, (windows, 1, 32, 32))
        cases.append(
            CalibrationCase((bright[:, None] + noise).astype(np.float32), bright.astype(int) if labelled else None)
        )
    return cases


def _network(kind, made):
    return OnnxNetwork(made.content) if kind == "onnx" else OpenvinoNetwork(made.content, made.weights)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("labelled", [True, False])
def test_a_network_in_int8_finds_the_same_and_says_what_it_costs(graph, kind, labelled):
    made = quantised(graph, kind, _cases(labelled=labelled))
    window = _cases(5)[4].windows[:1]
    expected = OnnxNetwork(graph)(window).argmax(1)
    assert (_network(kind, made)(window).argmax(1) == expected).mean() > 0.99
    assert made.loss <= 0.005 and made.floating == () and (made.cases, made.by_labels) == (2, labelled)
    assert made.float_seconds > 0 and made.seconds > 0 and made.float_bytes == len(graph)
    assert ("their labels" if labelled else "in float") in made.text()


def _weights(content):
    return {each.name: numpy_helper.to_array(each) for each in onnx.load_from_string(content).graph.initializer}


def test_an_onnx_file_in_int8_has_8_bit_weights_by_channel_and_may_be_run(graph):
    windows = [window[None] for case in _cases() for window in case.windows]
    content = onnx_int8(graph, windows)
    check_onnx(content, "int8.onnx")
    stored = {name: value for name, value in _weights(content).items() if value.ndim == 4}
    assert len(stored) == 3 and all(value.dtype == np.int8 for value in stored.values())
    scales = [value for name, value in _weights(content).items() if name.endswith("weight_scale")]
    assert sorted(len(each) for each in scales) == [2, 64, 64]


def test_weights_keep_to_7_bits_where_8_bit_sums_overflow(graph):
    windows = [_cases()[0].windows[:1]]
    for reduce, largest in ((False, 127), (True, 64)):
        stored = [value for value in _weights(onnx_int8(graph, windows, (), reduce)).values() if value.dtype == np.int8]
        assert largest - 1 <= max(np.abs(value.astype(int)).max() for value in stored if value.ndim == 4) <= largest


def test_a_processor_without_vnni_gets_7_bits(graph, monkeypatch):
    for flags, reduced in (({"avx2"}, True), ({"avx2", "avx512f"}, True), ({"avx2", "avx_vnni"}, False)):
        monkeypatch.setattr(machine, "processor", lambda flags=flags: ("a processor", frozenset(flags)))
        assert machine.has_vnni() != reduced
    monkeypatch.setattr(machine, "processor", lambda: ("a processor", frozenset({"avx2"})))
    assert quantised(graph, "onnx", _cases()).reduced


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_can_stay_in_float(graph, kind):
    windows = [_cases()[0].windows[:1]]
    names = list(weighted_layers(graph))
    assert len(names) == 3
    if kind == "onnx":
        stored = [value for value in _weights(onnx_int8(graph, windows, names[1:2])).values() if value.ndim == 4]
        assert sorted(str(value.dtype) for value in stored) == ["float32", "int8", "int8"]
    else:
        sizes = [len(openvino_int8(graph, windows, floating)[1]) for floating in ((), names[1:2])]
        assert sizes[1] - sizes[0] > 2 * weighted_layers(graph)[names[1]]


def test_layers_that_cost_dice_are_found_and_no_others_stay_in_float():
    layers = {f"layer{n}": 10 for n in range(20)}
    costs = {"layer3": 0.02, "layer17": 0.01}
    tried = []

    def loss(floating):
        tried.append(floating)
        return sum(cost for name, cost in costs.items() if name not in floating)

    made, floating, lost = with_little_loss(lambda names: tuple(names), loss, layers, 0.005)
    assert made == floating == ("layer3", "layer17") and lost == 0
    # Parts of parts, not one layer after the other.
    assert len(tried) < 25
    # 0.01 is accepted where as much may be lost.
    assert with_little_loss(lambda names: tuple(names), loss, layers, 0.015)[1] == ("layer3",)


def test_a_network_that_loses_more_than_is_allowed_is_refused():
    with pytest.raises(CheckpointError, match=r"loses 0\.5000 of Dice.*--max-loss"):
        with_little_loss(lambda names: names, lambda made: 0.5, {f"layer{n}": 10 for n in range(8)}, 0.005)


def test_dice_is_lost_by_label_and_only_where_voxels_count():
    reference = np.zeros((1, 4, 8), int)
    reference[0, :2], reference[0, 2:, :4] = 1, 2
    windows = np.zeros((1, 3, 4, 8), np.float32)
    for value in range(3):
        windows[0, value] = reference[0] == value
    misses_two = lambda batch: batch * np.array([1, 1, 0], np.float32)[:, None, None]  # noqa: E731
    perfect = lambda batch: batch  # noqa: E731
    assert Judge(perfect, [CalibrationCase(windows, reference)]).losses(misses_two).tolist() == [0.5]
    counted = reference != 2
    assert Judge(perfect, [CalibrationCase(windows, reference, counted)]).losses(misses_two).tolist() == [0.0]
    # A case without labels says nothing.
    assert Judge(perfect, [CalibrationCase(windows, 0 * reference)]).losses(misses_two).size == 0
    regions = np.stack([reference > 0, reference == 2], 1)
    logits = np.where(regions, 1, -1).astype(np.float32)
    judge = Judge(perfect, [CalibrationCase(logits, regions)], regions=True)
    assert judge.losses(lambda batch: np.where([[[[True]], [[False]]]], batch, -1)).tolist() == [0.5]


def _store(prepared, count=6, channels=1):
    for n in range(count):
        labels = np.zeros((20, 24, 6), np.uint8)
        labels[4:9, 5:12, 2] = 7
        labels[0, 0, 2] = 9
        image = np.broadcast_to(labels.astype(np.float32) + n, (channels, *labels.shape)).copy()
        arrays = PreparedArrays(image, labels, (1.0, 1.0, 1.0), (Scale(-np.inf, np.inf, 0.0, 7.0),) * channels)
        notes = CaseNotes(inside_body=True, losses={})
        write_case(prepared / f"case{n}", CaseOrigin(f"case{n}", "", "stamp"), arrays, 9, notes, None)
    return prepared


def test_windows_of_a_store_show_a_label_normalised_with_what_counts(tmp_path):
    prepared = _store(tmp_path / "prepared")
    plan = make_plan(dims=2, patch_size=(16, 32), strides=((1, 1), (2, 2)))
    scheme = LabelScheme.from_mapping({"lesion": 7}, 9)
    cases = stored_cases(prepared, plan, scheme)
    assert len(cases) == 6 and [c.windows.shape for c in cases] == [(2, 1, 16, 32)] * 6
    for case, again in zip(cases, stored_cases(prepared, plan, scheme), strict=True):
        assert np.array_equal(case.windows, again.windows)
        assert set(np.unique(case.reference)) <= {0, 1} and case.reference[0].any()
        # Normalised by the case's own scale; what lies outside of the image takes no label and does not count.
        assert np.ptp(case.windows[0]) == pytest.approx(1, abs=1e-6) or np.ptp(case.windows[0]) == pytest.approx(9 / 7)
        assert not case.counted[:, :, 24:].any() and case.counted[0][case.reference[0] == 1].all()
    assert len(stored_cases(prepared, plan, scheme, ["case3"])) == 1
    regions = stored_cases(prepared, plan, LabelScheme.from_mapping({"whole": [7]}, 9))
    assert regions[0].reference.shape == (2, 1, 16, 32) and regions[0].reference.dtype == bool


def test_a_store_of_another_model_is_refused(tmp_path):
    plan = make_plan(dims=2, patch_size=(16, 32), strides=((1, 1), (2, 2)))
    scheme = LabelScheme.from_mapping({"lesion": 7}, 9)
    with pytest.raises(DatasetError, match="has 2 channels, the model takes 1"):
        stored_cases(_store(tmp_path / "two", channels=2), plan, scheme)
    with pytest.raises(DatasetError, match="no prepared cases"):
        stored_cases(tmp_path, plan, scheme)


def test_fewer_large_windows_than_small_ones_are_measured():
    assert [window_count(patch) for patch in ((64, 64), (96,) * 3, (192,) * 3)] == [64, 18, 8]


def test_nothing_to_measure_on_is_refused(graph):
    with pytest.raises(DatasetError, match="--calibration"):
        quantised(graph, "onnx", [])


@pytest.mark.parametrize(("kind", "module", "command"), [("onnx", "onnx", "onnx"), ("openvino", "nncf", "openvino")])
def test_a_part_that_is_not_installed_is_named_with_the_command(graph, monkeypatch, kind, module, command):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingPartError, match=rf"needs {module}.*\[{command}\]"):
        quantised(graph, kind, _cases())
