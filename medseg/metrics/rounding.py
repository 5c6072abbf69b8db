"""Comparisons with a limit where a spacing such as 0.7 mm is exact neither in binary nor in a file's float32."""

from __future__ import annotations

from typing import overload

import numpy as np
from numpy.typing import NDArray

__all__ = ["ROUNDING", "is_below"]

ROUNDING = 1e-6
"""Share by which rounding alone may move a length or a volume: float32, in which files keep spacings, has 6e-8."""


@overload
def is_below(value: float, limit: float) -> bool: ...
@overload
def is_below(value: NDArray[np.float64], limit: float) -> NDArray[np.bool_]: ...
def is_below(value: float | NDArray[np.float64], limit: float) -> bool | NDArray[np.bool_]:
    """Whether a value is below a limit by more than rounding; a value that equals it is not.

    Args:
        value: a length or a volume, or an array of them.
        limit: 0 or more, in the same unit; infinity: only infinite values are not below it.

    Example:
        >>> is_below(3 * 0.1 - 1e-17, 0.3), is_below(0.29, 0.3)
        (False, True)
    """
    return value < limit * (1.0 - ROUNDING)
