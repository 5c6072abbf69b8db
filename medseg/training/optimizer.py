"""The optimizer of a training, with a learning rate of its own for parts of the network where one is asked for."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from medseg.config import TrainingConfig
from medseg.training.schedule import default_learning_rate

__all__ = ["build_optimizer", "is_in", "set_rate"]

FACTOR = "factor"


def build_optimizer(net: nn.Module, training: TrainingConfig) -> torch.optim.Optimizer:
    """The optimizer over the weights of a network that are trained.

    Args:
        net: its frozen weights need no gradient, and are left out.
        training: optimizer, rates, weight decay, momentum.

    Example:
        >>> optimizer = build_optimizer(nn.Conv2d(1, 2, 3), TrainingConfig(layer_rates={"bias": 10}))
        >>> [(len(group["params"]), group["factor"]) for group in optimizer.param_groups]
        [(1, 1.0), (1, 10.0)]
    """
    groups = _groups(net, training.layer_rates)
    rate = default_learning_rate(training)
    if training.optimizer == "sgd":
        decay = 3e-5 if training.weight_decay is None else training.weight_decay
        return torch.optim.SGD(
            groups, rate, momentum=training.momentum, nesterov=training.momentum > 0, weight_decay=decay
        )
    decay = 1e-2 if training.weight_decay is None else training.weight_decay
    return torch.optim.AdamW(groups, rate, weight_decay=decay)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group: `rate` times its factor.

    Args:
        optimizer: of `build_optimizer`, perhaps restored from a checkpoint; those older than factors have none.
        rate: for a factor of 1.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get(FACTOR, 1.0)


def _groups(net: nn.Module, rates: dict[str, float]) -> list[dict[str, Any]]:
    """Parameters by the factor on their rate, in the order of the network; first those without a factor."""
    parts: dict[str, list[nn.Parameter]] = {"": [], **{part: [] for part in rates}}
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            # Of the parts that hold it, the longest name is the most specific one.
            parts[max((part for part in parts if is_in(name, part)), key=len)].append(parameter)
    factors = {"": 1.0, **rates}
    return [{"params": found, FACTOR: float(factors[part])} for part, found in parts.items() if found]


def is_in(name: str, part: str) -> bool:
    """Whether a parameter or module lies in a part of the network, as `backbone.bn1.weight` in `backbone`."""
    return part in ("", name) or name.startswith(f"{part}.")
