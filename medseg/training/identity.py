"""The settings that must not change between the parts of one training, as a checkpoint's identity holds them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from torch import nn

from medseg.config import RunConfig
from medseg.preparation.plan_upgrade import hashed_content
from medseg.preparation.store import PreparedCase
from medseg.training.fold import Fold, Setup

__all__ = ["identity_of", "identity_of_annotation", "identity_of_settings"]

# Keys younger than checkpoints that may still be resumed: left out where they hold their default, so that those
# checkpoints are recognised.
_YOUNGER = {
    "loss": ("terms", "weights"),
    "augmentation": ("extra", "cutmix_probability", "cutmix_alpha", "mixup_probability", "mixup_alpha"),
}
# What a default was called in these checkpoints, where it is planned now.
_BEFORE = {"augmentation": {"scale": [0.75, 1.33]}}


def identity_of(net: nn.Module, fold: Fold, setup: Setup) -> str:
    """Hash of what stays between the parts of one training: plan, labels, net, seed, cases, settings, teacher."""
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    content = [
        hashed_content(setup.plan),
        repr(setup.scheme.trained),
        repr(shapes),
        setup.config.seed,
        fold.number,
        [case.name for case in fold.training],
        *identity_of_settings(setup.config),
        *identity_of_annotation(fold.training),
        *([] if setup.teacher is None else [setup.teacher.identity]),
        *_of_unlabelled(fold, setup.config),
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def identity_of_settings(config: RunConfig) -> list[Any]:
    """Loss, augmentation and optimizer of a configuration, as plain values.

    Example:
        >>> settings = identity_of_settings(RunConfig.model_validate({"data": {"root": "x"}}))
        >>> settings[0], settings[2]
        ({'name': 'dice_ce', 'options': {}}, 'adamw')
    """
    return [_values(config, "loss"), _values(config, "augmentation"), config.training.optimizer, *_of_parts(config)]


def _of_parts(config: RunConfig) -> list[Any]:
    """What is frozen and which rates parts of the network have; nothing where all are trained alike."""
    training = config.training
    return [sorted(training.frozen), training.layer_rates] if training.frozen or training.layer_rates else []


def identity_of_annotation(cases: Sequence[PreparedCase]) -> list[Any]:
    """Which labels each training case has annotated; nothing where all cases have all."""
    annotated = {case.name: list(case.annotated) for case in cases if case.annotated is not None}
    return [annotated] if annotated else []


def _of_unlabelled(fold: Fold, config: RunConfig) -> list[Any]:
    """How images without labels train, and which; nothing where there are none."""
    if not fold.unlabelled:
        return []
    return [config.semi.model_dump(mode="json", exclude={"unlabelled"}), [case.name for case in fold.unlabelled]]


def _values(config: RunConfig, name: str) -> dict[str, Any]:
    part = getattr(config, name)
    fields = type(part).model_fields
    unused = {key for key in _YOUNGER[name] if getattr(part, key) == fields[key].default}
    values: dict[str, Any] = part.model_dump(mode="json", exclude=unused)
    before = _BEFORE.get(name, {})
    return {key: before.get(key) if each is None and key in before else each for key, each in values.items()}
