"""Exponential moving average of a network's weights: the weights that are validated and shipped."""

from __future__ import annotations

import copy

import torch
from torch import nn

__all__ = ["WeightAverage"]


class WeightAverage:
    """Follows a network: average = decay * average + (1 - decay) * weights, after every step.

    Early on the decay is (1 + n) / (10 + n) where that is smaller, so that the random start is soon forgotten.

    Args:
        net: the network that is trained; its copy `self.net` holds the average.
        decay: between 0 (no averaging) and 1.

    Source:
        Polyak & Juditsky 1992; warm-up as in TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.net = copy.deepcopy(net).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, net: nn.Module, step: int) -> None:
        """Take in the weights after step number `step` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        mine, theirs = self.net.state_dict(), net.state_dict()
        floating = [name for name, value in mine.items() if value.is_floating_point()]
        torch._foreach_lerp_([mine[n] for n in floating], [theirs[n] for n in floating], 1.0 - decay)
        for name in mine.keys() - set(floating):
            mine[name].copy_(theirs[name])
