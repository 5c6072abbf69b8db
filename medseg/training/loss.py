"""The loss that a configuration asks for, for the labels of a data set and the heads of a net."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from torch import nn

from medseg.config import LossConfig
from medseg.labels import LabelScheme
from medseg.losses import build_loss, build_loss_sum
from medseg.preparation.prepare import Preparation
from medseg.training.net import auxiliary_weights

__all__ = ["check_loss", "loss_for"]


def loss_for(config: LossConfig, preparation: Preparation, net: nn.Module) -> nn.Module:
    """The loss to train with.

    Args:
        config: name and options, or terms.
        preparation: gives the labels, and how often each occurs for weights by inverse frequency.
        net: gives the weights of its auxiliary logits.

    Raises:
        ConfigError: for an unknown loss or option, or an impossible value.
    """
    frequencies = _frequencies(preparation) if _needs_frequencies(config) else None
    return _built(config, preparation.dataset.labels, frequencies, net)


def check_loss(config: LossConfig, net: nn.Module) -> None:
    """Build the loss without a data set, so that a wrong name or option shows before one is read.

    Raises:
        ConfigError: for an unknown loss or option, or an impossible value.
    """
    _built(config, None, (1.0, 1.0) if _needs_frequencies(config) else None, net)


def _needs_frequencies(config: LossConfig) -> bool:
    given: list[dict[str, Any]] = [term.options for term in config.terms] or [config.options]
    return any(options.get("weights") == "inverse_frequency" and "frequencies" not in options for options in given)


def _built(
    config: LossConfig, labels: LabelScheme | None, frequencies: Sequence[float] | None, net: nn.Module
) -> nn.Module:
    weights = auxiliary_weights(net)
    if config.terms:
        terms = [(term.name, term.weight, term.options) for term in config.terms]
        return build_loss_sum(terms, labels, frequencies=frequencies, auxiliary_weights=weights)
    options = {"auxiliary_weights": weights, **config.options}
    if frequencies is not None:
        options["frequencies"] = frequencies
    return build_loss(config.name, labels, **options)


def _frequencies(preparation: Preparation) -> list[float]:
    """Fraction of voxels per output channel: background and labels, or each region."""
    scheme = preparation.dataset.labels
    counts: Counter[int] = Counter()
    for case in preparation.fingerprint.cases:
        counts.update(case.label_voxels)
    total = sum(n for value, n in counts.items() if value != scheme.ignore) or 1
    inside = [sum(counts[v] for v in values) / total for values in scheme.values]
    return inside if scheme.is_regions else [counts[0] / total, *inside]
