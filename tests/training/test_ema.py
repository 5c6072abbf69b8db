"""The moving average of weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from medseg.training.ema import WeightAverage


def test_average_follows_the_weights_by_one_minus_decay() -> None:
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, 0.0)
    average = WeightAverage(net, decay=0.9)
    nn.init.constant_(net.weight, 1.0)
    average.update(net, step=10_000)
    assert average.net.weight.item() == pytest.approx(0.1)
    average.update(net, step=10_001)
    assert average.net.weight.item() == pytest.approx(0.19)


def test_early_steps_forget_the_random_start() -> None:
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, 0.0)
    average = WeightAverage(net, decay=0.999)
    nn.init.constant_(net.weight, 1.0)
    average.update(net, step=0)
    assert average.net.weight.item() == pytest.approx(0.9)


def test_counters_are_copied_and_running_statistics_averaged() -> None:
    net = nn.BatchNorm1d(1, momentum=1.0)
    average = WeightAverage(net, decay=0.5)
    net.train()(torch.tensor([[1.0], [3.0]]))
    average.update(net, step=100)
    assert average.net.num_batches_tracked.item() == 1
    assert average.net.running_mean.item() == pytest.approx(1.0)
