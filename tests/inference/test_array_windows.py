"""The sliding window over numpy arrays finds what it finds over tensors, and on a device what it finds on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from medseg.inference.array_ops import ArrayOps
from medseg.inference.fused_sums import FusedSums
from medseg.inference.half_by_torch import half_by_torch
from medseg.inference.probabilities import half, to_probabilities
from medseg.inference.restore import to_label_map
from medseg.inference.sliding_window import Body, Passes, logit_slabs, sliding_window, whole_logits
from medseg.inference.tensor_ops_cuda import TensorOps
from medseg.inference.torch_network import TorchNetwork
from medseg.inference.tta import mean_of, mirrored_logits
from medseg.inference.window_grid import Windows, stream_axis
from medseg.inference.window_slabs import slabs_by
from medseg.labels import LabelScheme

CPU = torch.device("cpu")
BODY = Body((slice(3, 20), slice(0, 9), slice(2, 15)), np.array([0.0, -20.0], np.float32))


def _net(dims):
    torch.manual_seed(0)
    kind = nn.Conv3d if dims == 3 else nn.Conv2d
    return kind(1, 2, 3, padding=1).eval().requires_grad_(False)


def _whole(ops, net, image, windows, passes, body=None):
    axis = stream_axis(image.shape[1:], windows.patch_size)
    return np.asarray(whole_logits(slabs_by(ops, net, image, windows, 2, passes, body), image.shape[1:], axis))


@pytest.mark.parametrize(
    ("shape", "patch", "axes", "body"),
    [
        ((23, 9, 17), (8, 8, 8), (0, 2), None),
        ((23, 9, 17), (8, 8, 8), (), BODY),
        ((5, 30, 6), (8, 8, 8), (), None),
        ((13, 11, 4), (8, 8), (1,), None),
        ((19, 7), (8, 8), (), None),
    ],
)
def test_arrays_tensors_and_fused_sums_give_the_same_logits(shape, patch, axes, body):
    image = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    net, windows, passes = _net(len(patch)), Windows(patch), Passes(3, axes)
    arrays = _whole(ArrayOps(), TorchNetwork(net), image, windows, passes, body)
    fused = _whole(FusedSums(), TorchNetwork(net), image, windows, passes, body)
    tensors = _whole(TensorOps(CPU, CPU), net, torch.from_numpy(image), windows, passes, body)
    # Only the rounding of a product before it is added differs.
    assert np.array_equal(fused, tensors)
    np.testing.assert_allclose(arrays, tensors, atol=2e-6, rtol=1e-5)
    assert arrays.dtype == np.float32


def test_public_sliding_windows_of_arrays_take_and_give_arrays():
    image = np.random.default_rng(0).normal(size=(1, 20, 9)).astype(np.float32)
    found = sliding_window(lambda batch: 2 * batch, image, (8, 8), 1, batch_size=2)
    assert isinstance(found, np.ndarray) and found.dtype == np.float32
    np.testing.assert_allclose(found, 2 * image, atol=2e-6, rtol=1e-5)
    slabs = logit_slabs(lambda batch: 2 * batch, image, Windows((8, 8)), 1)
    assert all(isinstance(slab, np.ndarray) for slab, _, _ in slabs)


def test_an_array_network_that_runs_out_of_memory_gets_smaller_batches():
    seen = []

    def net(batch):
        if len(batch) > 1:
            raise MemoryError
        seen.append(len(batch))
        return batch

    image = np.random.default_rng(0).normal(size=(1, 20, 8)).astype(np.float32)
    np.testing.assert_allclose(sliding_window(net, image, (8, 8), 1, batch_size=4), image, atol=2e-6, rtol=1e-5)
    assert seen == [1] * 4


def test_a_torch_network_shares_its_memory_with_the_arrays():
    batch = np.random.default_rng(0).normal(size=(1, 1, 4, 4)).astype(np.float32)
    assert np.shares_memory(TorchNetwork(nn.Identity())(batch), batch)
    assert TorchNetwork(lambda x: x.to(torch.bfloat16))(batch).dtype == np.float32


def test_mirrored_and_mean_logits_of_arrays_are_those_of_tensors_bit_by_bit():
    net, batch = _net(3), np.random.default_rng(0).normal(size=(2, 1, 6, 7, 8)).astype(np.float32)
    with torch.inference_mode():
        expected = mirrored_logits(net, torch.from_numpy(batch), (0, 2)).numpy()
        thrice = mean_of([net, lambda x: 3 * net(x), net])(torch.from_numpy(batch)).numpy()
    assert np.array_equal(mirrored_logits(TorchNetwork(net), batch, (0, 2)), expected)
    networks = [TorchNetwork(each) for each in (net, lambda x: 3 * net(x), net)]
    assert np.array_equal(mean_of(networks)(batch), thrice)


def test_a_window_that_does_not_fit_on_a_device_goes_on_with_the_network_of_the_cpu(caplog):
    seen = []

    def small_device(batch):
        seen.append(len(batch))
        if len(seen) > 1:
            raise RuntimeError("CUDA out of memory. Tried to allocate")
        return torch.cat([batch, -batch], 1)

    image = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 20, 8, 8)).astype(np.float32))
    passes = Passes(2, on_cpu=lambda: lambda batch: torch.cat([batch, -batch], 1))
    found = _whole(TensorOps(CPU, CPU), small_device, image, Windows((8, 8, 8)), passes)
    np.testing.assert_allclose(found, torch.cat([image, -image]).numpy(), atol=2e-6, rtol=1e-5)
    assert seen == [2, 2, 1] and "the rest of this image is computed on the CPU" in caplog.text


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("held", ["cuda", "cpu"])
def test_windows_on_a_gpu_give_the_logits_of_the_cpu(held):
    image = np.random.default_rng(0).normal(size=(1, 23, 9, 17)).astype(np.float32)
    net, windows, passes = _net(3), Windows((8, 8, 8)), Passes(3, (0, 2))
    expected = _whole(ArrayOps(), TorchNetwork(net), image, windows, passes, BODY)
    place = torch.device("cuda")
    ops = TensorOps(torch.device(held), place)
    tensor = torch.from_numpy(image).to(held)
    slabs = slabs_by(ops, net.to(place), tensor, windows, 2, passes, BODY)
    found = whole_logits(slabs, image.shape[1:], stream_axis(image.shape[1:], windows.patch_size))
    np.testing.assert_allclose(found.cpu().numpy(), expected, atol=1e-3)


def test_torch_rounds_probabilities_to_half_precision_as_numpy_does():
    values = np.concatenate([np.random.default_rng(0).random(100_000), [0, 1, 2.0**-24, 3 * 2.0**-26, 1 - 2.0**-12]])
    values = np.concatenate([values, values * 1e-5]).astype(np.float32)
    assert np.array_equal(half_by_torch(values).view(np.uint16), values.astype(np.float16).view(np.uint16))
    assert np.array_equal(half(values), values.astype(np.float16))


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_tensors_become_labels_and_probabilities_as_their_arrays_do(kind):
    labels = LabelScheme.from_mapping({"a": 3, "b": 5})
    tensor = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 5, 6, 7))).to(kind)
    array = tensor.float().numpy()
    for shape in ((5, 6, 7), (9, 5, 11)):
        assert np.array_equal(to_label_map(tensor, shape, labels), to_label_map(array, shape, labels))
        assert np.array_equal(to_probabilities(tensor, shape, labels), to_probabilities(array, shape, labels))


def test_logits_on_a_device_are_taken_part_by_part():
    class OnDevice:
        """A tensor that says it lies on a device; counts what is copied from there."""

        def __init__(self, tensor):
            self.tensor, self.device, self.shape = tensor, torch.device("cuda"), tensor.shape

        def detach(self):
            return self

        def __len__(self):
            return len(self.tensor)

        def __getitem__(self, box):
            copied.append(self.tensor[box].numel())
            return self.tensor[box]

    copied, tensor = [], torch.from_numpy(np.random.default_rng(0).normal(size=(2, 40, 5, 6)).astype(np.float32))
    for shape in ((60, 7, 6), (40, 5, 6)):
        assert np.array_equal(to_label_map(OnDevice(tensor), shape), to_label_map(tensor, shape))
    assert max(copied) < tensor.numel() / 3
