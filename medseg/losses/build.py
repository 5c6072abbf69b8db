"""Losses by name: the table of ours, single losses and weighted sums of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from medseg.errors import ConfigError
from medseg.labels import LabelScheme
from medseg.lookup import check_option_names, known
from medseg.losses.boundary import BoundaryLoss
from medseg.losses.cldice import ClDiceLoss
from medseg.losses.combined import DeepSupervision, SumLoss, SumOf
from medseg.losses.cross_entropy import CrossEntropyLoss
from medseg.losses.dice import DiceLoss
from medseg.losses.focal import FocalLoss
from medseg.losses.gated_crf import GatedCrfLoss
from medseg.losses.generalized_dice import GeneralizedDiceLoss
from medseg.losses.topk import TopKCrossEntropyLoss
from medseg.losses.tversky import TverskyLoss
from medseg.losses.voxels import VoxelLoss
from medseg.plugins import is_plugin, resolve
from medseg.sample_labels import SampleLabels

__all__ = ["LOSSES", "build_loss", "build_loss_sum", "dice_ce", "dice_cldice", "dice_focal", "takes_weights"]

dice_ce = SumOf(dice=DiceLoss, ce=CrossEntropyLoss)
"""Dice + cross-entropy (Isensee et al., Nature Methods 2021)."""

dice_focal = SumOf(dice=DiceLoss, focal=FocalLoss)
"""Dice + focal (Zhu et al., AnatomyNet, Medical Physics 2019)."""

dice_cldice = SumOf(dice=DiceLoss, ce=CrossEntropyLoss, cldice=ClDiceLoss)
"""Dice + cross-entropy + soft clDice, for vessels.

Without the cross-entropy (Shit et al., CVPR 2021, equation 4) trainings end with vessel everywhere: a mask that fills
the image has no skeleton outside the label, so clDice sees no error, and the gradient of Dice vanishes.
"""

LOSSES: dict[str, Callable[..., nn.Module]] = {
    "dice": DiceLoss,
    "cross_entropy": CrossEntropyLoss,
    "focal": FocalLoss,
    "generalized_dice": GeneralizedDiceLoss,
    "tversky": TverskyLoss,
    "boundary": BoundaryLoss,
    "topk_cross_entropy": TopKCrossEntropyLoss,
    "gated_crf": GatedCrfLoss,
    "dice_ce": dice_ce,
    "dice_focal": dice_focal,
    "dice_cldice": dice_cldice,
}
"""Name, as in `loss.name` -> what builds it, called as `builder(labels, **options)`."""


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
        frequencies: how often each channel occurs in training (regions: the fraction inside each); used only with
            `weights="inverse_frequency"`, so it can always be given.
        auxiliary_weights: of the auxiliary logits that a net gives beside the main ones, which weigh 1; the sum is
            divided by the sum of the weights. None: 1/2, 1/4, ...
        **options: what the loss itself takes, e.g. `smooth`, `gamma`, `weights`.

    Returns:
        A module called with (logits or tuple of logits, labels); it gives a scalar in float32.

    Raises:
        ConfigError: for an unknown name or option, with the nearest one; for a value out of range; or for a builder
            that does not give an `nn.Module`.

    Example:
        >>> loss = build_loss("dice_ce")
        >>> loss(torch.zeros(1, 2, 8, 8), torch.zeros(1, 1, 8, 8)).item() > 0
        True
    """
    return DeepSupervision(_single(name, labels, frequencies, options), auxiliary_weights)


def build_loss_sum(
    terms: Sequence[tuple[str, float, Mapping[str, Any]]],
    labels: LabelScheme | None = None,
    *,
    frequencies: Sequence[float] | None = None,
    auxiliary_weights: Sequence[float] | None = None,
) -> nn.Module:
    """A weighted sum of losses, as `loss.terms` of a configuration gives it.

    Args:
        terms: of each name (as for `build_loss`), weight >= 0, and options.
        labels, frequencies, auxiliary_weights: as for `build_loss`.

    Returns:
        A module called with (logits or tuple of logits, labels); it gives a scalar in float32.

    Raises:
        ConfigError: as `build_loss`; or no weight is above 0, or one is negative.

    Example:
        >>> loss = build_loss_sum([("dice", 1.0, {}), ("focal", 0.5, {"gamma": 1.0})])
        >>> loss(torch.zeros(1, 2, 8, 8), torch.zeros(1, 1, 8, 8)).item() > 0
        True
    """
    built = [(weight, _single(name, labels, frequencies, options)) for name, weight, options in terms]
    return DeepSupervision(SumLoss(built), auxiliary_weights)


def takes_weights(name: str) -> bool:
    """Whether a loss has the option `weights`, a number for each class.

    Raises:
        ConfigError: for an unknown name, with the nearest one.

    Example:
        >>> takes_weights("dice_ce"), takes_weights("dice")
        (True, False)
    """
    return "weights" in inspect.signature(_builder(name)).parameters


def _builder(name: str) -> Callable[..., nn.Module]:
    if is_plugin(name):
        builder: Callable[..., nn.Module] = resolve(name, "loss.name")
        return builder
    return known(name, LOSSES, "loss.name", "losses", 'or your own as "package.module:builder"')


def _single(
    name: str, labels: LabelScheme | None, frequencies: Sequence[float] | None, options: Mapping[str, Any]
) -> nn.Module:
    if is_plugin(name):
        return _build_plugin(name, labels, dict(options))
    builder = _builder(name)
    takes = [p for p in inspect.signature(builder).parameters if p != "labels"]
    check_option_names(name, options, takes)
    if frequencies is not None and "frequencies" in takes:
        options = {"frequencies": frequencies, **options}
    return builder(labels, **options)


def _build_plugin(name: str, labels: LabelScheme | None, options: dict[str, Any]) -> nn.Module:
    builder = resolve(name, "loss.name")
    try:
        inspect.signature(builder).bind(labels=labels, **options)
    except TypeError as error:
        raise ConfigError(f"{name} cannot be called with {', '.join(['labels', *options])}: {error}") from None
    except ValueError:
        pass  # A builder written in C may have no signature to check.
    loss = builder(labels=labels, **options)
    if not isinstance(loss, nn.Module):
        raise ConfigError(f"{name} gave a {type(loss).__name__}; expected a torch.nn.Module")
    if isinstance(labels, SampleLabels) and not isinstance(loss, VoxelLoss):
        raise ConfigError(
            f"{name} cannot train on cases that lack labels (data.annotated), because it would have to know which; "
            "derive it from medseg.losses.VoxelLoss, which does"
        )
    return loss
