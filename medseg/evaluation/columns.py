"""The columns of an evaluation: how a score is called, which end is better, what range it has."""

from __future__ import annotations

import math
from typing import Literal

from medseg.metrics.definitions import ALL_INFO
from medseg.metrics.empty import DISTANCES

__all__ = ["TITLES", "Better", "badness", "better_of", "column", "limits_of"]

Better = Literal["higher", "lower", "zero"]

_PIXELS = "_px"

TITLES = {name: info.title + (f" ({info.unit})" if info.unit else "") for name, info in ALL_INFO.items()} | {
    f"{name}{_PIXELS}": f"{ALL_INFO[name].title} (pixels)" for name in DISTANCES
}
"""Column -> heading."""


def column(metric: str, spacing_known: bool) -> str:
    """The name a metric is written under: distances in pixels are told apart from those in mm."""
    return metric if spacing_known or metric not in DISTANCES else f"{metric}{_PIXELS}"


def better_of(name: str) -> Better | None:
    """Which end of a column is better; None where it only describes (a volume, a length).

    Columns that a task adds follow their names: differences are best at zero, variants of a metric (`nsd_left`,
    `dice_fov`) like the metric, recalls high.

    Example:
        >>> better_of("hd95_px"), better_of("nsd_left"), better_of("length_difference_mm"), better_of("volume_ml_left")
        ('lower', 'higher', 'zero', None)
    """
    plain = name.removesuffix(_PIXELS)
    if plain in ALL_INFO:
        return ALL_INFO[plain].better
    if "_difference" in name:
        return "zero"
    if name.endswith(("_prediction", "_reference")):
        return None
    first = name.split("_")[0]
    if first == "recall":
        return "higher"
    return ALL_INFO[first].better if first in ALL_INFO else None


def badness(name: str, value: float) -> float | None:
    """A number that grows as a score gets worse; None where the column only describes.

    Example:
        >>> badness("dice", 0.75), badness("hd95", 3.0), badness("volume_difference_ml", -2.0)
        (-0.75, 3.0, 2.0)
    """
    better = better_of(name)
    if better is None:
        return None
    return -value if better == "higher" else value if better == "lower" else abs(value)


def limits_of(name: str) -> tuple[float, float]:
    """Smallest and largest value that a column can hold, as far as its name tells."""
    plain = name.removesuffix(_PIXELS)
    if plain in ALL_INFO:
        return ALL_INFO[plain].limits
    return (0.0, 1.0) if better_of(name) == "higher" else (-math.inf, math.inf)
