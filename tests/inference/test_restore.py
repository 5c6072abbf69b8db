from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from medseg.errors import CheckpointError, GeometryError
from medseg.inference import restore, restore_blocks, restore_same
from medseg.inference.probabilities import to_probabilities
from medseg.inference.restore import Restorer, to_label_map
from medseg.labels import LabelScheme
from medseg.resampling import resample_array

PLAIN = LabelScheme.from_mapping({"liver": 3, "tumour": 9})
REGIONS = LabelScheme.from_mapping({"WT": [1, 2, 3, 4], "TC": [1, 3, 4], "ET": [4]})


def _smooth(channels, shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mode = "trilinear" if len(shape) == 3 else "bilinear"
    coarse = torch.randn(1, channels, *[max(2, n // 4) for n in shape], generator=generator)
    return functional.interpolate(coarse, size=shape, mode=mode)[0]


def _full(logits, shape):
    mode = "trilinear" if len(shape) == 3 else "bilinear"
    return functional.interpolate(logits[None], size=shape, mode=mode, align_corners=False)[0]


def _winner(full):
    """First channel of the highest value."""
    return (full >= full.amax(0)).to(torch.uint8).argmax(0).numpy()


@pytest.mark.parametrize("shape", [(33, 41, 27), (12, 17, 14), (12, 33, 14), (20, 17, 14), (5, 6, 7), (1, 40, 1)])
@pytest.mark.parametrize(("block", "chunk"), [(8, 2**17), (3, 50), (64, 2**10)])
def test_labels_are_bit_by_bit_those_of_a_full_interpolation_and_argmax(monkeypatch, shape, block, chunk):
    monkeypatch.setattr(restore, "BLOCK", block)
    monkeypatch.setattr(restore_blocks, "CHUNK_VOXELS", chunk)
    logits = _smooth(5, (12, 17, 14))
    actual = to_label_map(logits, shape)
    assert actual.dtype == np.uint8 and actual.shape == shape
    assert np.array_equal(actual, _winner(_full(logits, shape)))


@pytest.mark.parametrize("seed", range(12))
def test_any_size_and_ratio_is_exact_for_labels_and_regions_in_2d_and_3d(seed):
    rng = np.random.default_rng(seed)
    dims = 2 + seed % 2
    size, shape = ([int(n) for n in rng.integers(1, top, dims)] for top in (30, 60))
    if seed % 3 == 0:
        shape[-1] = size[-1]
    logits = _smooth(3, size, seed) if seed % 4 else (_smooth(3, size, seed) * 8).round() / 8  # full of ties
    full = _full(logits, shape)
    assert np.array_equal(to_label_map(logits, shape), _winner(full))
    expected = np.zeros(shape)
    for value, channel in zip(REGIONS.painted, full, strict=True):
        expected[channel.numpy() > 0] = value
    assert np.array_equal(to_label_map(logits, shape, REGIONS), expected)


@pytest.mark.parametrize(
    "labels",
    [
        {"core": [2], "whole": [1, 2]},
        {"pen": [1], "core": [2], "whole": [1, 2]},
        {"a": [1, 2], "b": [2, 3]},
        {"a": [1, 2], "b": [2, 3], "c": [3, 1]},
        {"a": [1, 2, 5], "b": [2, 3], "c": [5], "d": [7]},
    ],
    ids=lambda labels: "-".join(labels),
)
@pytest.mark.parametrize(("shape", "chunk"), [((25, 17, 30), 2**17), ((9, 10, 11), 50), ((4, 20, 6), 200)])
def test_regions_of_any_order_and_overlap_are_those_of_a_full_interpolation(monkeypatch, labels, shape, chunk):
    monkeypatch.setattr(restore_blocks, "CHUNK_VOXELS", chunk)
    monkeypatch.setattr(restore_same, "CHUNK_VOXELS", chunk)
    scheme = LabelScheme.from_mapping(labels)
    logits = (_smooth(len(labels), (9, 10, 11)) * 4).round() / 4  # full of ties and zeros
    inside = _full(logits, shape).numpy() > 0
    found = to_label_map(logits, shape, scheme)
    kept = scheme.regions.resolved((inside * (1 << np.arange(len(labels)))[:, None, None, None]).sum(0))
    for n, name in enumerate(labels):
        assert np.array_equal(scheme.written.mask(found, name), kept >> n & 1 == 1)


def test_models_of_older_bundles_paint_the_later_region():
    crossing = LabelScheme(("a", "b"), ((1, 2), (2, 3)), is_regions=True, later_wins=True)
    logits = torch.tensor([[[1.0, 1.0]], [[1.0, -1.0]]])
    assert to_label_map(logits, (1, 2), crossing).tolist() == [[3, 1]]
    assert to_label_map(logits, (1, 2), replace(crossing, later_wins=False)).tolist() == [[2, 1]]


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_where_the_last_bit_decides_it_is_torchs(scale):
    # Two channels that differ by a few units in the last place everywhere.
    generator = torch.Generator().manual_seed(3)
    first = torch.rand(1, 9, 9, 9, generator=generator) + 1
    logits = torch.cat([first, first * (1 + 1e-7 * torch.randn(1, 9, 9, 9, generator=generator).round())]) * scale
    assert np.array_equal(to_label_map(logits, (17, 14, 20)), _winner(_full(logits, (17, 14, 20))))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slabs_of_logits_along_any_axis_give_the_same_bytes(axis):
    logits, shape = _smooth(4, (13, 10, 11)), (29, 23, 8)
    restorer = Restorer(logits.shape[1:], shape, 4, axis=axis)
    size = logits.shape[1 + axis]
    for first in range(0, size, 5):
        last = min(first + 5, size)
        restorer.add(logits.narrow(1 + axis, first, min(6, size - first)), first, last)
    assert np.array_equal(restorer.label_map, to_label_map(logits, shape))


def test_nan_is_refused():
    logits = _smooth(3, (6, 6, 6))
    logits[1, 2, 3, 4] = torch.nan
    with pytest.raises(CheckpointError, match="NaN"):
        to_label_map(logits, (9, 9, 9))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("chunk", [1, 300, 2**17])
def test_logits_on_the_images_own_grid_need_no_blocks(monkeypatch, axis, chunk):
    monkeypatch.setattr(restore_same, "CHUNK_VOXELS", chunk)
    logits = (_smooth(3, (7, 9, 8)) * 4).round() / 4  # full of ties and zeros
    plain, regions = (Restorer((7, 9, 8), (7, 9, 8), 3, labels, axis=axis) for labels in (PLAIN, REGIONS))
    size = logits.shape[1 + axis]
    for first in range(0, size, 4):
        slab = logits.narrow(1 + axis, first, min(5, size - first))
        plain.add(slab, first, min(first + 4, size))
        regions.add(slab, first, min(first + 4, size))
    assert np.array_equal(plain.label_map, np.array([0, 3, 9])[_winner(logits)])
    expected = np.zeros((7, 9, 8), dtype=int)
    for value, channel in zip(REGIONS.painted, logits.numpy(), strict=True):
        expected[channel > 0] = value
    assert np.array_equal(regions.label_map, expected)
    for bad in (torch.nan, torch.inf, -torch.inf):
        logits[2, 6, 8, 7] = bad
        with pytest.raises(CheckpointError, match="NaN"):
            to_label_map(logits, (7, 9, 8), PLAIN)


def test_the_convention_is_that_of_resample_array():
    logits = _smooth(4, (9, 10, 11))
    interpolated = resample_array(logits.numpy(), (21, 7, 30), order=1)
    assert (to_label_map(logits, (21, 7, 30)) != interpolated.argmax(0)).mean() < 1e-3


@pytest.mark.parametrize("shape", [(20, 31), (8, 9), (3, 40)])
def test_images_go_the_same_way(shape):
    logits = _smooth(3, (8, 9))
    assert np.array_equal(to_label_map(logits.numpy(), shape), _full(logits, shape).argmax(0).numpy())


def test_half_pixel_centres_with_clamped_edges_by_hand():
    # Two voxels become four, at positions -0.25 (clamped), 0.25, 0.75, 1.25 (clamped).
    logits = np.array([[[0.0, 0.0]], [[-3.0, 1.5]]])  # channel 1: -3, -1.875, 0.375, 1.5
    assert to_label_map(logits, (1, 4)).tolist() == [[0, 0, 1, 1]]
    assert to_label_map(logits, (2, 2)).tolist() == [[0, 1], [0, 1]]


def test_ties_go_to_the_lower_channel():
    assert to_label_map(np.zeros((3, 2, 2, 2)), (5, 4, 3)).max() == 0
    assert to_label_map(np.array([[[-1.0]], [[2.0]], [[2.0]]]), (1, 1)).tolist() == [[1]]


def test_plain_labels_get_their_own_values():
    logits = _smooth(3, (8, 8, 8))
    assert np.array_equal(to_label_map(logits, (8, 8, 8), PLAIN), np.array([0, 3, 9])[logits.argmax(0).numpy()])


def test_regions_are_painted_in_order_where_their_logit_is_positive():
    logits = torch.tensor([[-1.0, 1, 1, 1, -1, 0], [-1.0, -1, 1, 1, 1, 0], [-1.0, -1, -1, 1, -1, 0]])[:, None]
    assert REGIONS.painted == (2, 1, 4)
    assert to_label_map(logits, (1, 6), REGIONS).tolist() == [[0, 2, 1, 4, 1, 0]]


def test_large_values_and_many_channels_make_uint16():
    many = np.zeros((300, 1, 2))
    many[299, 0, 1] = 1.0
    assert to_label_map(many, (1, 2)).tolist() == [[0, 299]]
    scheme = LabelScheme.from_mapping({"far": 40_000})
    result = to_label_map(many[[0, 299]], (1, 2), scheme)
    assert result.dtype == np.uint16 and result.tolist() == [[0, 40_000]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_float_type_is_taken_and_left_as_it_was(dtype):
    logits = _smooth(3, (6, 6, 6)).to(dtype)
    before = logits.clone()
    for shape in ((6, 6, 6), (9, 6, 6), (6, 9, 9)):
        assert np.array_equal(to_label_map(logits, shape), to_label_map(logits.float(), shape))
    assert torch.equal(logits, before)
    single = logits.float()
    to_label_map(single, (6, 6, 6))
    assert torch.equal(single, before.float())


def test_strided_logits_of_2d_nets_are_taken():
    logits = _smooth(3, (6, 7, 8))
    strided = logits.permute(3, 0, 1, 2).contiguous().permute(1, 2, 3, 0)
    assert np.array_equal(to_label_map(strided, (11, 7, 9)), to_label_map(logits, (11, 7, 9)))


def test_probabilities_are_softmax_or_sigmoid_of_the_interpolated_logits():
    logits = _smooth(3, (6, 7, 8))
    expected = torch.softmax(_full(logits, (9, 9, 9)), dim=0)[1:]
    assert np.abs(to_probabilities(logits, (9, 9, 9), PLAIN) - expected.numpy()).max() < 1e-3
    expected = torch.sigmoid(_full(logits, (9, 9, 9)))
    assert np.abs(to_probabilities(logits, (9, 9, 9), REGIONS) - expected.numpy()).max() < 1e-3


def test_shapes_and_channels_that_do_not_fit_are_refused():
    with pytest.raises(GeometryError, match="cannot be brought"):
        to_label_map(np.zeros((2, 3, 3)), (3, 3, 3))
    with pytest.raises(GeometryError, match="need 3"):
        to_label_map(np.zeros((2, 3, 3)), (3, 3), PLAIN)


def test_memory_stays_far_below_classes_times_native_grid():
    channels, shape = 8, (160, 144, 128)
    logits = _smooth(channels, (40, 36, 32))
    to_label_map(logits, (16, 16, 16))
    peak = _peak_resident(lambda: to_label_map(logits, shape))
    native = int(np.prod(shape))
    assert peak < 0.25 * channels * native * 4, f"{peak / 1e6:.0f} MB above the logits"


def _peak_resident(work) -> int:
    """Bytes of resident memory that `work` adds at its peak, sampled each millisecond."""

    def resident() -> int:
        with Path("/proc/self/statm").open() as file:
            return int(file.read().split()[1]) * 4096

    start, peak, stop = resident(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not stop.is_set():
            peak = max(peak, resident() - start)
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        stop.set()
        watcher.join()
    return peak
