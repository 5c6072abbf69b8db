"""Settings for a few minutes on a processor: a small network takes many more steps, and learns sooner."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from medseg.config import load_config

__all__ = ["quick"]

_MINUTES = 30.0
# Voxels along the longest axis of a volume that few steps can learn; a finer one is seen at a coarser spacing.
_LONGEST = 128


def quick(
    config: str, shape: Sequence[int], minutes: float, spacing_mm: Sequence[float] = (), large: bool = False
) -> dict[str, Any]:
    """Overrides for a run of at most half an hour of a U-Net; none for longer ones, other nets, or a chosen size.

    Args:
        config: preset or file.
        shape: of an image without channels.
        minutes: training time of all folds.
        spacing_mm: of that image, along its axes; where it is given, large volumes are seen at a coarser one.
        large: what is looked for fills the picture, as lungs do: only a whole picture tells them from the air outside.
    """
    net = load_config(config, {"data.root": "."}).net
    if minutes > _MINUTES or net.name != "unet" or net.channels is not None:
        return {}
    flat = len(shape) == 2
    coarse: dict[str, Any] = {}
    if not flat and spacing_mm:
        extents = [n * s for n, s in zip(shape, spacing_mm, strict=True)]
        wanted = max(extents) / _LONGEST
        # Thick slices stay: there is nothing to be gained along them.
        if wanted > max(spacing_mm):
            shape = [math.ceil(extent / wanted) for extent in extents]
            coarse = {"plan.spacing_mm": (round(wanted, 3),) * 3}
    if flat:
        channels, patch = ((8, 16, 32, 64, 128, 128), 512) if large else ((16, 32, 64, 128, 128), 256)
    else:
        channels, patch = (8, 16, 32, 64), 48
    multiple = 2 ** (len(channels) - 1)
    return coarse | {
        "net.channels": channels,
        # No larger than the image, rounded up to what the halvings between stages need.
        "plan.patch_size": tuple(min(patch, -(-n // multiple) * multiple) for n in shape),
        "training.batch_size": 2,
        "training.learning_rate": 0.005,
        "training.ema_decay": 0.98,
    }
