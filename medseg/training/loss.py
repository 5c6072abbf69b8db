"""The loss that a configuration asks for, for the labels of a data set and the heads of a net."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from medseg.config import DistillConfig, LossConfig
from medseg.errors import ConfigError
from medseg.labels import LabelScheme
from medseg.losses import DistillationLoss, DistilledLoss, KeptLabelsLoss, build_loss, build_loss_sum, takes_weights
from medseg.preparation.annotation import channel_frequencies
from medseg.preparation.prepare import Preparation
from medseg.training.net import auxiliary_weights

__all__ = ["check_loss", "loss_for"]


def loss_for(
    config: LossConfig,
    preparation: Preparation,
    net: nn.Module,
    distill: DistillConfig | None = None,
    kept: int = 0,
) -> nn.Module:
    """The loss to train with.

    Args:
        config: name and options, or terms.
        preparation: gives the labels, and how often each occurs for weights by inverse frequency.
        net: gives the weights of its auxiliary logits.
        distill: of a training with a teacher, whose logits the loss then takes as well, see `DistilledLoss`.
        kept: the labels that the network had before, see `KeptLabelsLoss`; 0 for other trainings.

    Raises:
        ConfigError: for an unknown loss or option, or an impossible value.
    """
    frequencies = _frequencies(preparation) if _needs_frequencies(config) else None
    loss = _built(config, preparation.sample_labels, frequencies, net)
    if kept and distill is not None:
        return KeptLabelsLoss(loss, preparation.sample_labels, old=kept, weight=distill.weight)
    if distill is None or distill.teacher is None:
        return loss
    distillation = DistillationLoss(preparation.sample_labels, temperature=distill.temperature)
    return DistilledLoss(loss, distillation, distill.weight)


def check_loss(config: LossConfig, net: nn.Module) -> None:
    """Build the loss without a data set, so that a wrong name or option shows before one is read.

    Raises:
        ConfigError: for an unknown loss or option, or an impossible value.
    """
    _built(config, None, (1.0, 1.0) if _needs_frequencies(config) else None, net)


def _terms(config: LossConfig) -> list[tuple[str, float, dict[str, Any]]]:
    """Name, weight and options of each loss, `loss.weights` among the options of those that take them."""
    terms = [(term.name, term.weight, term.options) for term in config.terms] or [(config.name, 1.0, config.options)]
    if config.weights is None:
        return terms
    takes = [takes_weights(name) for name, _, _ in terms]
    if not any(takes):
        raise ConfigError(
            f"loss.weights is given, but {', '.join(name for name, _, _ in terms)} has no weights of classes; they are "
            "an option of losses made of cross-entropy, such as dice_ce"
        )
    return [
        (name, weight, {**options, "weights": config.weights} if able else options)
        for (name, weight, options), able in zip(terms, takes, strict=True)
    ]


def _needs_frequencies(config: LossConfig) -> bool:
    return any(
        options.get("weights") == "inverse_frequency" and "frequencies" not in options
        for _, _, options in _terms(config)
    )


def _built(
    config: LossConfig, labels: LabelScheme | None, frequencies: Sequence[float] | None, net: nn.Module
) -> nn.Module:
    weights, terms = auxiliary_weights(net), _terms(config)
    if config.terms:
        return build_loss_sum(terms, labels, frequencies=frequencies, auxiliary_weights=weights)
    options = {"auxiliary_weights": weights, **terms[0][2]}
    if frequencies is not None:
        options["frequencies"] = frequencies
    return build_loss(config.name, labels, **options)


def _frequencies(preparation: Preparation) -> list[float]:
    """Fraction of voxels per output channel: background and labels, or each region."""
    dataset = preparation.dataset
    return channel_frequencies(dataset.cases, preparation.fingerprint.cases, dataset.labels)
