"""Whether the augmentation asked for suits the images of a plan, and the range of grey levels that it works on."""

from __future__ import annotations

import math
from collections.abc import Sequence

from medseg.config import AugmentationConfig, HueConfig, RandomWindowConfig, SaturationConfig
from medseg.errors import ConfigError
from medseg.preparation.normalize import Scale
from medseg.preparation.plan import Plan

__all__ = ["check_augmentation", "grey_ranges"]

BRIGHTEST = 255.0


def check_augmentation(config: AugmentationConfig, plan: Plan) -> None:
    """Refuse augmentations that the images or the batches of a plan do not allow.

    Raises:
        ConfigError: for hue or saturation of what is not a photograph, a window where the plan has no range, and
            mixing in batches of one sample.

    Example:
        >>> check_augmentation(AugmentationConfig(), medseg.load_model("runs/lung/model").info.plan)
    """
    if not config.enabled:
        return
    kinds = tuple(channel.kind for channel in plan.normalization)
    for number, entry in enumerate(config.extra):
        where = f"augmentation.extra.{number}: {entry.name}"
        if isinstance(entry, HueConfig | SaturationConfig) and kinds != ("rgb",) * 3:
            raise ConfigError(
                f"{where} is for photographs of red, green and blue, but the plan has {len(kinds)} channel(s), "
                f"normalized by {', '.join(sorted(set(kinds)))}; remove the entry, or, for photographs, set "
                "data.normalization to rgb or imagenet"
            )
        if isinstance(entry, RandomWindowConfig):
            _check_window(where, plan)
        if isinstance(entry, HueConfig | SaturationConfig | RandomWindowConfig) and plan.normalize_on == "native":
            raise ConfigError(
                f"{where} acts before normalization, but this plan normalizes images before they are resampled "
                "(normalize_on: native); remove the entry"
            )
    for key in ("cutmix_probability", "mixup_probability"):
        if getattr(config, key) > 0 and plan.batch_size < 2:
            raise ConfigError(
                f"augmentation.{key} mixes the samples of a batch, but batches have one sample; set "
                "training.batch_size to 2 or more, or remove the key"
            )


def _check_window(where: str, plan: Plan) -> None:
    for number, channel in enumerate(plan.normalization):
        if channel.kind in ("zscore", "none"):
            raise ConfigError(
                f"{where} draws a window around the plan's, but channel {number} is normalized by {channel.kind}, "
                "without a range; remove the entry (brightness and contrast serve there), or set data.normalization "
                "to window, clip or unit"
            )


def grey_ranges(plan: Plan, scales: Sequence[Scale]) -> list[tuple[float, float]]:
    """Per channel of a case, the grey levels that a window of the plan spans.

    Args:
        plan: with channels of kind window, clip, unit or rgb.
        scales: of the case.

    Example:
        >>> plan = medseg.load_model("runs/lung/model").info.plan
        >>> low, high = grey_ranges(plan, [Scale(-1000, 400, -300, 500)])[0]
    """
    ranges = []
    for channel, scale in zip(plan.normalization, scales, strict=True):
        if channel.kind == "rgb":
            ranges.append((0.0, BRIGHTEST))
        elif math.isfinite(scale.low) and math.isfinite(scale.high):
            ranges.append((scale.low, scale.high))
        else:
            # 'unit': from the minimum of the case, `std` grey levels.
            ranges.append((scale.mean, scale.mean + scale.std))
    return ranges
