"""Whether a model is not worse than another by more than a margin, from the interval of their difference.

A model is non-inferior where the worse end of the two-sided 95% interval of the difference, which is a one-sided bound
of 97.5%, lies within the margin; where both are, the models are equivalent within the margin (at 97.5% each).
Source: ICH E9 (1998), section 3.3.2; G. Piaggio et al., JAMA 308 (2012), 2594-2604 (CONSORT for non-inferiority).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from medseg.errors import ConfigError
from medseg.evaluation.columns import record_of, title_of

__all__ = ["NonInferiority", "columns_with_margin", "non_inferiority"]


@dataclass(frozen=True, slots=True)
class NonInferiority:
    """One direction of a comparison.

    Args:
        model, other: whether `model` is non-inferior to `other`.
        margin: how much worse it may be, in the unit of the metric.
        bound: how much worse it is at most, with one-sided confidence of 97.5%: below 0 it is better.
        shown: `bound` lies below `margin`.
    """

    model: str
    other: str
    margin: float
    bound: float
    shown: bool

    def text(self) -> str:
        """In words.

        Example:
            >>> NonInferiority("unet", "deeplab", 0.005, 0.002, True).text()
            'unet is non-inferior to deeplab: worse by less than 0.002 (margin 0.005)'
        """
        verdict = "is non-inferior to" if self.shown else "is not shown to be non-inferior to"
        by = f"worse by less than {self.bound:.3g}" if self.bound > 0 else f"better by more than {abs(self.bound):.3g}"
        by = by if self.shown else f"it may be worse by up to {self.bound:.3g}"
        return f"{self.model} {verdict} {self.other}: {by} (margin {self.margin:g})"


def non_inferiority(
    column: str, models: tuple[str, str], interval: tuple[float, float], margin: float
) -> tuple[NonInferiority, NonInferiority]:
    """Whether the first model is non-inferior to the second, and the second to the first.

    Args:
        column: a metric that says which way is better.
        models: their names.
        interval: two-sided 95% interval of the first one's mean less the second one's; of signed differences, of their
            sizes.
        margin: positive, in the unit of the metric.

    Example:
        >>> [each.shown for each in non_inferiority("dice", ("a", "b"), (-0.001, 0.02), 0.005)]
        [True, False]
    """
    low, high = interval if record_of(column).better == "higher" else (-interval[1], -interval[0])
    first, second = models
    return (
        NonInferiority(first, second, margin, -low, -low < margin),
        NonInferiority(second, first, margin, high, high < margin),
    )


def columns_with_margin(columns: Sequence[str], margin: float) -> tuple[str, ...]:
    """The metrics that a margin is for: the only one there is, or those on a scale from 0 to 1.

    Raises:
        ConfigError: a margin that is not a positive number, or metrics in several units.
    """
    if not (math.isfinite(margin) and margin > 0):
        raise ConfigError(f"margin is {margin}; it must be a positive number in the unit of the metric, such as 0.01")
    if len(columns) == 1:
        return tuple(columns)
    shares = tuple(name for name in columns if record_of(name).limits == (0.0, 1.0))
    if not shares:
        named = ", ".join(title_of(name) for name in columns)
        raise ConfigError(f"a margin needs one unit, and {named} have several; choose one metric with --metrics")
    return shares
