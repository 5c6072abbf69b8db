"""The operations of arrays, or of tensors where values are such."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.inference.array_ops import ArrayOps, Values

__all__ = ["ops_of"]


def ops_of(values: NDArray[Any] | Values) -> ArrayOps:
    """The operations for values of this kind, where they are."""
    if isinstance(values, np.ndarray):
        return ArrayOps()
    from medseg.inference.tensor_ops_cuda import TensorOps

    return TensorOps(values.device, values.device)
