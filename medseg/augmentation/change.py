"""Base of the intensity changes: how they are drawn, and what each must implement."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["DrawnChange", "IntensityChange"]


class _Settings(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def probability(self) -> float: ...


SettingsT = TypeVar("SettingsT", bound=_Settings)


@dataclass(frozen=True, slots=True)
class DrawnChange:
    """One change as it was drawn: applying it again gives the same image.

    Attributes:
        strengths: one per channel; what they mean and in which unit is said by the change.
        variant: a further random number for changes that need one, such as the seed of the noise; else 0.
        shifts: a second number per channel for changes that have two, such as the move of a window; else ().

    Example:
        >>> DrawnChange((0.1, -0.2)).variant
        0
    """

    strengths: tuple[float, ...]
    variant: int = 0
    shifts: tuple[float, ...] = ()


class IntensityChange(ABC, Generic[SettingsT]):
    """Base of the intensity changes: drawn once per sample, with a strength for each channel.

    Channels of one study (T1 and T2, say) change together but differently strongly.

    Attributes:
        on_range: False: it changes normalised images. True: it acts before normalisation, on grey levels of which 0 and
            1 are the ends of the channel's range (a window, the range that is kept, or 0 and 255) and which may lie
            beyond it.

    Args:
        settings: from `medseg.config`; it states the defaults and their bounds.

    Example:
        >>> from medseg.augmentation import Noise
        >>> from medseg.config import NoiseConfig
        >>> drawn = Noise(NoiseConfig(probability=1.0)).draw(np.random.default_rng(0), channels=2)
        >>> len(drawn.strengths)
        2
    """

    on_range: ClassVar[bool] = False

    def __init__(self, settings: SettingsT) -> None:
        self.settings = settings

    @property
    @abstractmethod
    def strength(self) -> tuple[float, float]:
        """Range that the strengths are drawn from, as the settings give it."""

    @abstractmethod
    def apply(self, image: Tensor, drawn: DrawnChange) -> Tensor:
        """The changed image (C, I, J[, K]) float32; `image`, of the same shape and type, may be overwritten."""

    def draw(self, rng: np.random.Generator, channels: int) -> DrawnChange | None:
        """The change for a sample of that many channels, or None where it is left out."""
        strengths = self.draw_strengths(rng, channels)
        if strengths is None:
            return None
        return DrawnChange(strengths, self.draw_variant(rng), self.draw_shifts(rng, channels))

    def draw_strengths(self, rng: np.random.Generator, channels: int) -> tuple[float, ...] | None:
        """A strength per channel, or None where the change is left out."""
        if rng.random() >= self.settings.probability:
            return None
        return tuple(float(value) for value in self.draw_between(rng, *self.strength, channels))

    def draw_between(self, rng: np.random.Generator, low: float, high: float, count: int) -> NDArray[np.float64]:
        """That many numbers of a range, uniformly unless a change says otherwise."""
        return rng.uniform(low, high, count)

    def draw_variant(self, rng: np.random.Generator) -> int:
        """What the change needs beside its strengths; most need nothing, and draw nothing."""
        return 0

    def draw_shifts(self, rng: np.random.Generator, channels: int) -> tuple[float, ...]:
        """A second number per channel; most changes have none, and draw nothing."""
        return ()
