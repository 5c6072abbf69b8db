"""A 7x7x7 of stride 2 on few channels: torch's own backward pass corrupts memory on some sizes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from medseg.nets.blocks import conv


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("size", [(3, 8, 8), (5, 5, 5), (5, 8, 8), (9, 11, 13)])
def test_it_is_torchs_convolution_and_survives_its_backward_pass(channels, size):
    torch.manual_seed(0)
    own = conv(3, channels, 4, 7, stride=2)
    plain = nn.Conv3d(channels, 4, 7, stride=2, padding=3)
    plain.load_state_dict(own.state_dict())
    image = torch.randn(2, channels, *size)
    with torch.no_grad():
        torch.testing.assert_close(own(image), plain(image))
    own(image.requires_grad_()).square().sum().backward()
    assert torch.isfinite(image.grad).all()
