"""Options of the dense CRF (`medseg.nets.crf`), as a bundle stores them; they need no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from medseg.errors import ConfigError

__all__ = ["CrfOptions"]

# Of each option; beyond them the sums take hours or their numbers overflow.
WEIGHTS, LENGTHS = (0.0, 1e4), (1e-6, 1e6)
BOUNDS = {
    "iterations": (0, 100),
    "smooth_weight": WEIGHTS,
    "appearance_weight": WEIGHTS,
    "appearance_intensity": (0.01, 1e3),
}


@dataclass(frozen=True, slots=True)
class CrfOptions:
    """Strength and range of the pairwise terms.

    Args:
        iterations: of the mean field; 0 returns the input.
        smooth_weight: of the smoothness kernel; 0 leaves it out.
        smooth_mm: its standard deviation.
        appearance_weight: of the appearance kernel; 0 leaves it out.
        appearance_mm: its standard deviation in space.
        appearance_intensity: its standard deviation in grey levels, as a multiple of the standard deviation of the
            image's channel, so that units and normalisation do not matter.
        window_mm: radius at which the appearance kernel ends. None: nowhere, for an image of one channel, which is
            exact and usually faster; at two `appearance_mm` for an image of several channels.

    Raises:
        ConfigError: for a number that is not finite, negative, or zero where it is a length; for more than 100
            iterations, weights above 10^4, lengths above 10^6 mm, or an intensity outside 0.01 to 1000.

    Example:
        >>> CrfOptions(iterations=10).smooth_mm
        1.0
    """

    iterations: int = 5
    smooth_weight: float = 3.0
    smooth_mm: float = 1.0
    appearance_weight: float = 2.0
    appearance_mm: float = 10.0
    appearance_intensity: float = 0.3
    window_mm: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value: Any = getattr(self, field.name)
            if field.name == "window_mm" and value is None:
                continue
            may_be_zero = field.name in ("iterations", "smooth_weight", "appearance_weight")
            whole = field.name == "iterations"
            number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or value < 0 or (value == 0 and not may_be_zero):
                kind = "a whole number" if whole else "a finite number"
                raise ConfigError(f"crf.{field.name} is {value!r}; expected {kind} {'>=' if may_be_zero else '>'} 0")
            least, most = BOUNDS.get(field.name, LENGTHS)
            if not least <= value <= most:
                raise ConfigError(f"crf.{field.name} is {value!r}; expected {least:g} to {most:g}")
