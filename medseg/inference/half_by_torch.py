"""Rounding to half precision by torch, which uses the processor's instruction for it; numpy has none."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["half_by_torch"]


def half_by_torch(values: NDArray[np.float32]) -> NDArray[np.float16]:
    """The nearest numbers of half precision, even ones of two: those of numpy."""
    rounded: NDArray[np.float16] = torch.from_numpy(values).half().numpy()
    return rounded
