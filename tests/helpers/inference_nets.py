"""Networks small enough to compute by hand, found by name as a user's own networks are."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Threshold(nn.Module):
    """Logits 0 for background and `slope * x - bias` for the only label, where x is channel 0."""

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.ones(out_channels))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        shape = (1, -1, *[1] * (x.ndim - 2))
        return self.slope.view(shape) * x[:, :1] - self.bias.view(shape)


class Sides(nn.Module):
    """Background where x <= 0.5; else label 1 in the first half of axis 0, label 2 in the second."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        position = torch.linspace(-1, 1, x.shape[2], device=x.device).view(1, 1, -1, *[1] * (x.ndim - 3))
        inside = torch.where(x[:, :1] > 0.5, 10.0, -10.0)
        return self.scale * torch.cat([-inside, inside - position, inside + position], dim=1)


class Blurred(nn.Module):
    """Label 1 where the mean of 8 x 8 squares is above 0.5: as coarse as a net of output stride 8."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        coarse = nn.functional.avg_pool2d(x[:, :1], 8, ceil_mode=True)
        inside = nn.functional.interpolate(coarse, size=x.shape[2:], mode="bilinear") - 0.5
        return self.scale * torch.cat([-inside, inside], dim=1)


def build_blurred(dims: int, in_channels: int, out_channels: int) -> nn.Module:
    return Blurred()


def build_threshold(dims: int, in_channels: int, out_channels: int) -> nn.Module:
    return Threshold(out_channels)


def build_sides(dims: int, in_channels: int, out_channels: int) -> nn.Module:
    return Sides()


def build_nothing(dims: int, in_channels: int, out_channels: int) -> str:
    return "not a network"
