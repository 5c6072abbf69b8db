"""Losses: `loss(logits (B, C, ...), labels (B, 1, ...) in dataset values)` -> scalar.

Plain labels: softmax, background in channel 0. Regions: one sigmoid channel each. Voxels whose label is the scheme's
`ignore` value have no part: no gradient, no count. A tuple of logits (auxiliary heads) is weighted 1, 1/2, 1/4, ..., or
as `auxiliary_weights` says.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal

from torch import nn

from medseg.errors import ConfigError
from medseg.labels import LabelScheme
from medseg.lookup import check_option_names, known
from medseg.losses.cldice import ClDiceLoss
from medseg.losses.combined import DeepSupervision, SumLoss
from medseg.losses.cross_entropy import CrossEntropyLoss, inverse_frequency_weights
from medseg.losses.dice import DiceLoss
from medseg.losses.focal import FocalLoss

__all__ = [
    "LOSSES",
    "ClDiceLoss",
    "CrossEntropyLoss",
    "DeepSupervision",
    "DiceLoss",
    "FocalLoss",
    "SumLoss",
    "build_loss",
    "dice_ce",
    "dice_cldice",
    "dice_focal",
    "inverse_frequency_weights",
]


def dice_ce(
    labels: LabelScheme | None = None,
    *,
    dice_weight: float = 1.0,
    ce_weight: float = 1.0,
    background: bool = False,
    batch: bool = True,
    smooth: float = 1.0,
    weights: Sequence[float] | Literal["inverse_frequency"] | None = None,
    frequencies: Sequence[float] | None = None,
) -> SumLoss:
    """Dice + cross-entropy; the options are theirs."""
    dice = DiceLoss(labels, background=background, batch=batch, smooth=smooth)
    return SumLoss(
        [(dice_weight, dice), (ce_weight, CrossEntropyLoss(labels, weights=weights, frequencies=frequencies))]
    )


def dice_focal(
    labels: LabelScheme | None = None,
    *,
    dice_weight: float = 1.0,
    focal_weight: float = 1.0,
    background: bool = False,
    batch: bool = True,
    smooth: float = 1.0,
    gamma: float = 2.0,
    alpha: float | None = None,
    weights: Sequence[float] | Literal["inverse_frequency"] | None = None,
    frequencies: Sequence[float] | None = None,
) -> SumLoss:
    """Dice + focal; the options are theirs."""
    dice = DiceLoss(labels, background=background, batch=batch, smooth=smooth)
    focal = FocalLoss(labels, gamma=gamma, alpha=alpha, weights=weights, frequencies=frequencies)
    return SumLoss([(dice_weight, dice), (focal_weight, focal)])


def dice_cldice(
    labels: LabelScheme | None = None,
    *,
    dice_weight: float = 1.0,
    ce_weight: float = 1.0,
    cldice_weight: float = 1.0,
    iterations: int = 5,
    background: bool = False,
    batch: bool = True,
    smooth: float = 1.0,
    weights: Sequence[float] | Literal["inverse_frequency"] | None = None,
    frequencies: Sequence[float] | None = None,
) -> SumLoss:
    """Dice + cross-entropy + soft clDice, for vessels; the options are theirs.

    Without the cross-entropy (Shit et al., CVPR 2021, equation 4) trainings end with vessel everywhere: what fills the
    image has no skeleton that could lie outside, so clDice finds nothing wrong, and Dice's gradient vanishes.
    """
    dice = DiceLoss(labels, background=background, batch=batch, smooth=smooth)
    lines = ClDiceLoss(labels, iterations=iterations, background=background, batch=batch, smooth=smooth)
    ce = CrossEntropyLoss(labels, weights=weights, frequencies=frequencies)
    return SumLoss([(dice_weight, dice), (ce_weight, ce), (cldice_weight, lines)])


LOSSES: dict[str, Callable[..., nn.Module]] = {
    "dice": DiceLoss,
    "cross_entropy": CrossEntropyLoss,
    "focal": FocalLoss,
    "dice_ce": dice_ce,
    "dice_focal": dice_focal,
    "dice_cldice": dice_cldice,
}


def build_loss(
    name: str,
    labels: LabelScheme | None = None,
    *,
    frequencies: Sequence[float] | None = None,
    auxiliary_weights: Sequence[float] | None = None,
    **options: Any,
) -> nn.Module:
    """The loss called `name`, or one of your own by `"package.module:builder"`.

    Args:
        name: a key of `LOSSES`, or where to import a builder from, called as `builder(labels=labels, **options)`.
        labels: what the label values mean; None: values are channel indices, background included.
        frequencies: how often each channel occurs in training (regions: the fraction inside each); looked at only with
            `weights="inverse_frequency"`, so it can always be given.
        auxiliary_weights: of the auxiliary logits that a net gives beside the main ones, which weigh 1; the sum is
            divided by the sum of the weights. None: 1/2, 1/4, ...
        **options: what the loss itself takes, e.g. `smooth`, `gamma`, `weights`.

    Returns:
        A module called with (logits or tuple of logits, labels); it gives a scalar in float32.

    Raises:
        ConfigError: for an unknown name or option, or a builder that does not give an `nn.Module`.

    Example:
        >>> loss = build_loss("dice_ce")
        >>> loss(torch.zeros(1, 2, 8, 8), torch.zeros(1, 1, 8, 8)).item() > 0
        True
    """
    if ":" in name:
        return DeepSupervision(_build_plugin(name, labels, options), auxiliary_weights)
    builder = known(name, LOSSES, "loss.name", "losses", 'or your own as "package.module:builder"')
    takes = [p for p in inspect.signature(builder).parameters if p != "labels"]
    check_option_names(name, options, takes)
    if frequencies is not None and "frequencies" in takes:
        options["frequencies"] = frequencies
    return DeepSupervision(builder(labels, **options), auxiliary_weights)


def _build_plugin(name: str, labels: LabelScheme | None, options: dict[str, Any]) -> nn.Module:
    from medseg.plugins import resolve

    builder = resolve(name, "loss")
    try:
        inspect.signature(builder).bind(labels=labels, **options)
    except TypeError as error:
        raise ConfigError(f"{name} cannot be called with {', '.join(['labels', *options])}: {error}") from None
    loss = builder(labels=labels, **options)
    if not isinstance(loss, nn.Module):
        raise ConfigError(f"{name} gave a {type(loss).__name__}; expected a torch.nn.Module")
    return loss
