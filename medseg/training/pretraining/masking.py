"""Blocks of a patch that a network does not see and has to restore."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["draw_mask", "masked"]


def draw_mask(rng: np.random.Generator, shape: Sequence[int], block: int, share: float) -> Tensor:
    """Which voxels are hidden: whole blocks, of which exactly the share rounded is drawn, at least one.

    Args:
        rng: the only source of randomness.
        shape: (I, J[, K]) of the patch.
        block: edge of a block in voxels; blocks at the far end are cut off.
        share: of the blocks, 0 to 1.

    Returns:
        bool (1, I, J[, K]).

    Source:
        He et al., Masked autoencoders, CVPR 2022, section 3; for convolutions: Tian et al., SparK, ICLR 2023, and as
        in-painting: Zhou et al., Models Genesis, MICCAI 2019.

    Example:
        >>> draw_mask(np.random.default_rng(0), (8, 8), block=4, share=0.5).sum().item()
        32
    """
    counts = [-(-size // block) for size in shape]
    total = int(np.prod(counts))
    hidden = np.zeros(total, bool)
    hidden[rng.permutation(total)[: max(1, round(share * total))]] = True
    mask = torch.from_numpy(hidden).view(1, *counts)
    for axis, size in enumerate(shape, start=1):
        mask = mask.repeat_interleave(block, dim=axis).narrow(axis, 0, size)
    return mask


def masked(images: Tensor, masks: Tensor) -> Tensor:
    """The images with their hidden voxels at 0, the mean of a normalised image.

    Args:
        images: (B, C, I, J[, K]).
        masks: (B, 1, I, J[, K]) bool.
    """
    return images.masked_fill(masks, 0.0)
