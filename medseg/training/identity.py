"""The settings that must not change between the parts of one training, as a checkpoint's identity holds them."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from torch import nn

from medseg.config import RunConfig
from medseg.preparation.plan_upgrade import hashed_content
from medseg.training.fold import Fold, Setup

__all__ = ["identity_of", "identity_of_settings"]

# Keys younger than checkpoints that may still be resumed: left out where they hold their default, so that those
# checkpoints are recognised.
_YOUNGER = {"loss": ("terms",), "augmentation": ("extra",)}


def identity_of(net: nn.Module, fold: Fold, setup: Setup) -> str:
    """Hash of what must not change between the parts of one training: plan, labels, net, seed, cases and settings."""
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    content = [
        hashed_content(setup.plan),
        repr(setup.scheme.trained),
        repr(shapes),
        setup.config.seed,
        fold.number,
        [case.name for case in fold.training],
        *identity_of_settings(setup.config),
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def identity_of_settings(config: RunConfig) -> list[Any]:
    """Loss, augmentation and optimizer of a configuration, as plain values.

    Example:
        >>> settings = identity_of_settings(RunConfig.model_validate({"data": {"root": "x"}}))
        >>> settings[0], settings[2]
        ({'name': 'dice_ce', 'options': {}}, 'adamw')
    """
    return [_values(config, "loss"), _values(config, "augmentation"), config.training.optimizer]


def _values(config: RunConfig, name: str) -> dict[str, Any]:
    part = getattr(config, name)
    fields = type(part).model_fields
    unused = {key for key in _YOUNGER[name] if getattr(part, key) == fields[key].default}
    values: dict[str, Any] = part.model_dump(mode="json", exclude=unused)
    return values
