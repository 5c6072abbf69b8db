"""A torch network on the CPU as a `Network`: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["TorchNetwork"]


class TorchNetwork:
    """A module, or another callable of tensors, that takes and gives numpy arrays; both share their memory with them.

    Args:
        net: (B, C, *patch) -> (B, K, *patch), in eval mode on the CPU.

    Example:
        >>> TorchNetwork(torch.nn.Identity())(np.ones((1, 1, 2, 2), np.float32)).tolist()
        [[[[1.0, 1.0], [1.0, 1.0]]]]
    """

    def __init__(self, net: Callable[[Tensor], Tensor]) -> None:
        self.net = net

    @torch.inference_mode()
    def __call__(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 logits (B, K, *patch) of float32 windows (B, C, *patch)."""
        logits: NDArray[np.float32] = self.net(torch.from_numpy(batch)).float().numpy()
        return logits
