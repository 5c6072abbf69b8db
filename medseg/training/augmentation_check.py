"""Whether the augmentation asked for suits the images of a plan, and the range of grey levels that it works on."""

from __future__ import annotations

import math
from collections.abc import Sequence

from medseg.config import AugmentationConfig, HueConfig, RandomWindowConfig, RunConfig, SaturationConfig
from medseg.errors import ConfigError
from medseg.preparation.channel_plans import are_photographs
from medseg.preparation.fingerprint import Fingerprint
from medseg.preparation.normalize import Scale
from medseg.preparation.plan import Plan

__all__ = ["check_augmentation", "colours_are_shown", "grey_ranges"]

# Modalities of DICOM (PS3.3 C.7.3.1.1.1) and usual names whose three channels are not red, green and blue.
RADIOLOGY = frozenset(
    ("CT", "CBCT", "MR", "MRI", "MRA", "PT", "PET", "NM", "SPECT", "US", "IVUS", "XA", "XR", "RF", "CR", "DX", "MG")
)
BRIGHTEST = 255.0


def colours_are_shown(config: RunConfig, fingerprint: Fingerprint) -> bool:
    """Whether the images of a data set are colour photographs: red, green and blue, of no radiological modality."""
    modality = config.data.modality
    stated = (modality,) if isinstance(modality, str) else modality or ()
    return are_photographs(fingerprint) and RADIOLOGY.isdisjoint(name.upper() for name in stated)


def check_augmentation(config: AugmentationConfig, plan: Plan, colours: bool) -> None:
    """Refuse augmentations that the images or the batches of a plan do not allow.

    Args:
        config: of the run.
        plan: of its data set.
        colours: whether the images are colour photographs, see `colours_are_shown`.

    Raises:
        ConfigError: for hue or saturation of what is not a photograph, a window where the plan has no range, and
            mixing in batches of one sample.

    Example:
        >>> check_augmentation(AugmentationConfig(), medseg.load_model("runs/lung/model").info.plan, colours=False)
    """
    if not config.enabled:
        return
    for number, entry in enumerate(config.extra):
        where = f"augmentation.extra.{number}: {entry.name}"
        if isinstance(entry, HueConfig | SaturationConfig):
            _check_colours(where, plan, colours)
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


def _check_colours(where: str, plan: Plan, colours: bool) -> None:
    if not colours:
        raise ConfigError(
            f"{where} is for colour photographs (2D images of red, green and blue, 8 bits each), but these images, "
            f"with {plan.in_channels} channel(s), are not; remove the entry"
        )
    kinds = {channel.kind for channel in plan.normalization}
    if not kinds <= {"rgb", "zscore", "none"}:
        raise ConfigError(
            f"{where} needs the grey levels from 0 to 255, but the plan normalizes by {', '.join(sorted(kinds))}; "
            "remove the entry, or set data.normalization to rgb, imagenet or zscore"
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
    """Per channel of a case, the grey levels that the plan's window spans, or those of a photograph.

    Args:
        plan: with channels of kind window, clip or unit, or of colour photographs.
        scales: of the case.

    Example:
        >>> plan = medseg.load_model("runs/lung/model").info.plan
        >>> low, high = grey_ranges(plan, [Scale(-1000, 400, -300, 500)])[0]
    """
    ranges = []
    for channel, scale in zip(plan.normalization, scales, strict=True):
        if channel.kind in ("rgb", "zscore", "none"):
            ranges.append((0.0, BRIGHTEST))
        elif math.isfinite(scale.low) and math.isfinite(scale.high):
            ranges.append((scale.low, scale.high))
        else:
            # 'unit': from the minimum of the case, `std` grey levels.
            ranges.append((scale.mean, scale.mean + scale.std))
    return ranges
