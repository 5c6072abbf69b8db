"""Weighted sums of numpy arrays by torch: in one pass over the memory, where numpy needs two."""

from __future__ import annotations

import torch

from medseg.inference.array_ops import ArrayOps, Values

__all__ = ["FusedSums"]


class FusedSums(ArrayOps):
    """`ArrayOps` beside a torch network, which has torch loaded anyway; sums differ from numpy's by their last bit."""

    def add_product(self, target: Values, part: Values, weights: Values) -> None:
        """Add `part` (channels, *size) times `weights` (*size) to `target`, without rounding the product first."""
        torch.from_numpy(target).addcmul_(torch.from_numpy(part), torch.from_numpy(weights))
