from __future__ import annotations

import pytest
import torch

from medseg.nets.instance_norm import InstanceNorm

CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


def by_definition(x, weight, bias, eps=1e-5):
    axes = tuple(range(2, x.dim()))
    shape = [1, -1] + [1] * len(axes)
    mean = x.mean(axes, keepdim=True)
    std = torch.sqrt(((x - mean) ** 2).mean(axes, keepdim=True) + eps)
    return (x - mean) / std * weight.view(shape) + bias.view(shape)


@pytest.mark.parametrize("grad_last", [False, True])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    "shape", [(2, 3, 9, 7), (1, 4, 5, 6, 7), (3, 16, 2, 1, 2), (2, 5, 1, 1, 1), (1, 8, 20, 41, 42)]
)
def test_output_and_gradients_are_those_of_the_definition_in_double(shape, last, grad_last):
    torch.manual_seed(0)
    dims, layouts = len(shape) - 2, {False: torch.contiguous_format, True: CHANNELS_LAST[len(shape) - 2]}
    norm = InstanceNorm(shape[1])
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = torch.randn(shape) + 3
    grad = torch.randn(shape)
    exact = [t.detach().double().requires_grad_() for t in (x, norm.weight, norm.bias)]
    wanted = by_definition(*exact)
    wanted.backward(grad.double())

    x = x.clone(memory_format=layouts[last]).requires_grad_()
    out = norm(x)
    out.backward(grad.clone(memory_format=layouts[grad_last]))
    if x[0, 0].numel() > 1:
        assert out.is_contiguous(memory_format=layouts[last])
    scale = x[0, 0].numel() ** 0.5
    torch.testing.assert_close(out.double(), wanted, rtol=1e-5, atol=1e-4 if scale == 1 else 1e-5)
    torch.testing.assert_close(x.grad.double(), exact[0].grad, rtol=1e-4, atol=1e-4 if scale == 1 else 1e-5)
    for found, right in ((norm.weight.grad, exact[1].grad), (norm.bias.grad, exact[2].grad)):
        torch.testing.assert_close(found.double(), right, rtol=1e-4, atol=1e-4 * scale)
    with torch.no_grad():
        torch.testing.assert_close(norm(x), out.detach())
    assert dims in CHANNELS_LAST


def test_many_voxels_lose_no_digits_in_channels_last():
    torch.manual_seed(0)
    x = (torch.randn(1, 16, 48, 64, 64) + 3).contiguous(memory_format=torch.channels_last_3d)
    with torch.no_grad():
        out = InstanceNorm(16)(x)
    wanted = by_definition(x.double(), torch.ones(16).double(), torch.zeros(16).double())
    assert (out - wanted).abs().max() < 1e-5


@pytest.mark.parametrize("shape", [(2, 3, 9, 7), (2, 64, 4, 6, 4), (1, 8, 12, 12, 12)])
def test_bfloat16_maps_stay_bfloat16_and_lose_only_their_own_digits(shape):
    torch.manual_seed(0)
    x = (torch.randn(shape) + 3).bfloat16().contiguous(memory_format=CHANNELS_LAST[len(shape) - 2])
    norm = InstanceNorm(shape[1])
    torch.nn.init.normal_(norm.weight)
    with torch.no_grad():
        out = norm(x)
    wanted = by_definition(x.double(), norm.weight.double(), norm.bias.double())
    assert out.dtype == torch.bfloat16 and out.is_contiguous(memory_format=CHANNELS_LAST[len(shape) - 2])
    torch.testing.assert_close(out.double(), wanted, rtol=1e-2, atol=1e-2)


def test_parameters_are_named_as_torch_names_them():
    ours, torchs = InstanceNorm(4), torch.nn.InstanceNorm3d(4, affine=True)
    assert list(ours.state_dict()) == list(torchs.state_dict())
    x = torch.randn(2, 4, 5, 5, 5)
    torch.testing.assert_close(ours(x), torchs(x), rtol=1e-4, atol=1e-5)
