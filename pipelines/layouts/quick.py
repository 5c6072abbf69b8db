"""Settings for a few minutes on a processor: a small network takes many more steps, and learns sooner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medseg.config import load_config

__all__ = ["quick"]

_MINUTES = 30.0


def quick(config: str, data: Path, minutes: float) -> dict[str, Any]:
    """Overrides for a run of at most half an hour of a U-Net; none for longer ones, other nets, or a chosen size.

    Args:
        config: preset or file.
        data: as `data.root`.
        minutes: training time of all folds.
    """
    net = load_config(config, {"data.root": str(data)}).net
    if minutes > _MINUTES or net.name != "unet" or net.channels is not None:
        return {}
    small = {2: (16, 32, 64, 128), 3: (8, 16, 32, 64)}[net.dims or 3]
    patch = {2: (192, 192), 3: (48, 48, 48)}[net.dims or 3]
    return {
        "net.channels": small,
        "plan.patch_size": patch,
        "training.batch_size": 4,
        "training.learning_rate": 0.005,
        "training.ema_decay": 0.98,
    }
