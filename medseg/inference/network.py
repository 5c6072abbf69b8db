"""What prediction asks of a network, whatever runs it."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Network"]


class Network(Protocol):
    """A network in eval mode: windows in, logits out, all in numpy."""

    def __call__(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 logits (B, K, *patch) of float32 windows (B, C, *patch)."""
        ...
