from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from torch import nn

from medseg.errors import CheckpointError, GeometryError
from medseg.inference.sliding_window import Passes, image_logits, sliding_window
from medseg.inference.tta import allowed_mirror_axes, mean_of, mirrored_logits
from medseg.inference.window_grid import Windows, blend_weights, window_starts
from medseg.labels import LabelScheme


def _naive(net, image, patch, channels, overlap):
    """Gaussian blending with full-size weight map and a division at the end; image at least the patch."""
    total = torch.zeros(channels, *image.shape[1:], dtype=torch.float64)
    weight = torch.zeros(image.shape[1:], dtype=torch.float64)
    gauss = torch.ones(patch, dtype=torch.float64)
    for axis, p in enumerate(patch):
        line = torch.exp(-0.5 * ((torch.arange(p) - (p - 1) / 2) / (p / 8)).double() ** 2)
        gauss *= line.view([-1 if a == axis else 1 for a in range(len(patch))])
    starts = [window_starts(n, p, overlap) for n, p in zip(image.shape[1:], patch, strict=True)]
    for corner in torch.cartesian_prod(*[torch.tensor(s) for s in starts]).tolist():
        box = tuple(slice(c, c + p) for c, p in zip(corner, patch, strict=True))
        total[(slice(None), *box)] += net(image[(slice(None), *box)][None])[0].double() * gauss
        weight[box] += gauss
    return total / weight


def test_windows_are_evenly_spread_and_touch_both_borders():
    assert window_starts(10, 4, 0.5) == (0, 2, 4, 6)
    assert window_starts(9, 4, 0.5) == (0, 2, 3, 5)  # 5 / 3 apart, rounded
    assert window_starts(9, 4, 0.0) == (0, 2, 5)
    assert window_starts(4, 4, 0.5) == (0,)
    assert window_starts(3, 4, 0.5) == (0,)
    assert window_starts(5, 1, 0.9) == (0, 1, 2, 3, 4)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.75])
@pytest.mark.parametrize(("length", "patch"), [(7, 7), (8, 7), (15, 7), (64, 16), (5, 9), (33, 1)])
def test_neighbours_overlap_as_asked_and_weights_sum_to_one(length, patch, overlap):
    starts = window_starts(length, patch, overlap)
    assert starts[0] == 0 and (starts[-1] + patch == length or length < patch)
    assert all(b - a <= max(1, -(-patch * (1 - overlap) // 1)) for a, b in pairwise(starts))
    total = np.zeros(max(length, patch), np.float32)
    for start, weights in blend_weights(length, patch, overlap).items():
        assert (weights > 0).all()
        total[start : start + patch] += weights
    assert np.allclose(total, 1, atol=1e-6)


@pytest.mark.parametrize("shape", [(16, 16, 16), (17, 9, 23), (8, 8, 8), (5, 20, 3), (1, 1, 1), (9, 2, 8)])
@pytest.mark.parametrize("batch_size", [1, 5])
def test_an_identity_net_gives_the_image_back_at_any_size(shape, batch_size):
    image = torch.randn(2, *shape)
    logits = sliding_window(nn.Identity(), image, (8, 8, 8), 2, batch_size=batch_size)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, image, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("shape", [(21, 13), (4, 30), (3, 3)])
def test_an_identity_net_gives_a_2d_image_back(shape):
    image = torch.randn(3, *shape)
    torch.testing.assert_close(sliding_window(nn.Identity(), image, (8, 8), 3), image, atol=2e-6, rtol=1e-5)


def test_a_2d_net_on_a_volume_does_each_slice_as_an_image_of_its_own():
    torch.manual_seed(0)
    net = nn.Conv2d(2, 3, 3, padding=1).eval()
    image = torch.randn(2, 13, 5, 7)
    together = sliding_window(net, image, (8, 8), 3, batch_size=4, mirror_axes=(1,))
    assert together.shape == (3, 13, 5, 7)
    for k in range(7):
        alone = sliding_window(net, image[..., k], (8, 8), 3, mirror_axes=(1,))
        if k:  # padded with each volume's minimum, so border voxels of a slice can differ
            torch.testing.assert_close(together[:, 1:-1, 1:-1, k], alone[:, 1:-1, 1:-1], atol=1e-5, rtol=1e-4)


def test_blending_equals_a_weight_map_and_a_division():
    torch.manual_seed(0)
    net = nn.Conv3d(1, 4, 3, padding=1).eval()
    image = torch.randn(1, 19, 12, 16)
    with torch.inference_mode():
        expected = _naive(net, image, (8, 8, 8), 4, 0.5)
    actual = sliding_window(net, image, (8, 8, 8), 4, overlap=0.5, batch_size=3)
    torch.testing.assert_close(actual.double(), expected, atol=1e-5, rtol=1e-5)


def test_a_small_image_is_padded_with_its_minimum_on_both_sides():
    seen = []

    def net(x):
        seen.append(x.clone())
        return x

    sliding_window(net, torch.tensor([[[3.0, 5.0]]]), (3, 5), 1)
    assert seen[0].tolist() == [[[[3, 3, 3, 3, 3], [3, 3, 5, 3, 3], [3, 3, 3, 3, 3]]]]


def test_one_window_is_one_plain_forward_pass():
    calls = []

    def net(x):
        calls.append(x.shape)
        return x * 2

    image = torch.randn(1, 8, 8, 8)
    assert torch.equal(sliding_window(net, image, (8, 8, 8), 1), image * 2)
    assert calls == [(1, 1, 8, 8, 8)]


def test_mirroring_is_the_mean_over_all_flips():
    torch.manual_seed(0)
    net = nn.Conv3d(1, 2, 3, padding=1).eval()
    image = torch.randn(1, 8, 9, 10)
    with torch.inference_mode():
        flips = [()] + [s for n in (1, 2, 3) for s in combinations((2, 3, 4), n)]
        expected = sum(torch.flip(net(torch.flip(image[None], f)), f) for f in flips)[0] / 8
        torch.testing.assert_close(mirrored_logits(net, image[None], (0, 1, 2))[0], expected)
    torch.testing.assert_close(sliding_window(net, image, (8, 9, 10), 2, mirror_axes=(0, 1, 2)), expected)


def test_mirroring_leaves_the_nets_own_tensors_alone():
    batch = torch.randn(1, 1, 4, 4)
    before = batch.clone()
    mirrored_logits(lambda x: x, batch, (0, 1))
    assert torch.equal(batch, before)


def test_the_logits_of_an_ensemble_are_the_mean_of_its_members():
    image = torch.randn(1, 12, 9)
    before = image.clone()
    mean = mean_of([nn.Identity(), lambda x: 3 * x, lambda x: 5 * x])
    torch.testing.assert_close(sliding_window(mean, image, (8, 8), 1), 3 * image, atol=2e-6, rtol=1e-5)
    assert torch.equal(image, before)


def test_progress_counts_windows():
    seen = []
    sliding_window(nn.Identity(), torch.zeros(1, 16, 8), (8, 8), 1, batch_size=2, progress=lambda *a: seen.append(a))
    assert seen == [(2, 3), (3, 3)]


def test_patches_and_nets_that_do_not_fit_are_refused():
    with pytest.raises(GeometryError, match="do not fit"):
        sliding_window(nn.Identity(), torch.zeros(1, 8, 8), (8, 8, 8), 1)
    with pytest.raises(CheckpointError, match="expected \\(1, 3, 8, 8\\)"):
        sliding_window(nn.Identity(), torch.zeros(1, 8, 8), (8, 8), 3)


def test_mirroring_across_left_and_right_is_off_for_paired_labels():
    paired = LabelScheme.from_mapping({"left_lung": 1, "right_lung": 2, "heart": 3})
    single = LabelScheme.from_mapping({"lung": 1})
    assert allowed_mirror_axes(3, "RAS", paired) == (1, 2)
    assert allowed_mirror_axes(3, "SAL", paired) == (0, 1)
    assert allowed_mirror_axes(2, "SAL", paired) == (0, 1)
    assert allowed_mirror_axes(2, None, paired) == (1,)
    assert allowed_mirror_axes(3, "RAS", single) == (0, 1, 2)


@pytest.mark.parametrize("error", [RuntimeError("CUDA out of memory. Tried to allocate"), MemoryError()])
def test_too_little_memory_for_a_batch_means_smaller_batches_and_a_warning(error, caplog):
    seen = []

    def net(batch):
        if len(batch) > 2:
            raise error
        seen.append(len(batch))
        return batch

    image, steps = torch.randn(1, 20, 8, 8), []
    logits = sliding_window(net, image, (8, 8, 8), 1, batch_size=4, progress=lambda *a: steps.append(a))
    torch.testing.assert_close(logits, image, atol=2e-6, rtol=1e-5)
    assert seen == [2, 2] and steps == [(2, 4), (4, 4)]
    assert "going on with 2" in caplog.text


def test_other_errors_and_single_windows_that_do_not_fit_are_raised():
    def broken(batch):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    def huge(batch):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    for net, words in ((broken, "multiplied"), (huge, "allocate")):
        with pytest.raises(RuntimeError, match=words):
            sliding_window(net, torch.zeros(1, 8, 8, 8), (8, 8, 8), 1, batch_size=4)


def test_a_window_that_does_not_fit_on_the_device_is_computed_on_the_cpu_with_a_warning(caplog):
    seen = []

    def small_gpu(batch):
        seen.append(len(batch))
        if len(seen) > 1:
            raise RuntimeError("CUDA out of memory. Tried to allocate")
        return batch

    image, cpu = torch.randn(1, 20, 8, 8), torch.device("cpu")
    logits = image_logits(small_gpu, image, Windows((8, 8, 8)), 1, Passes(2, device=cpu, on_cpu=nn.Identity))
    torch.testing.assert_close(logits, image, atol=2e-6, rtol=1e-5)
    assert seen == [2, 2, 1]
    assert "the rest of this image is computed on the CPU" in caplog.text
