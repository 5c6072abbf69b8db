"""Strides and kernels of nnU-Net's networks, by nnU-Net's rules for pooling and anisotropic kernels."""

from __future__ import annotations

import math
from collections.abc import Sequence

from medseg.preparation.patch import SMALLEST_MAP, total_stride

__all__ = ["kernels_for", "pooled_strides", "rounded_up"]

# Axes whose spacing is below this many times the finest are halved, and have kernels of three voxels.
ALIKE = 2.0
# An axis that alone can be halved is so only while it has this many times the voxels of the smallest map.
ALONE = 3


def pooled_strides(patch: Sequence[int], spacing: Sequence[float], exact: bool = False) -> tuple[tuple[int, ...], ...]:
    """Strides of each stage, the first all 1, as many stages as the patch allows.

    Args:
        patch: voxels per axis.
        spacing: per axis, in any one unit.
        exact: halve only where the size is even, so that `patch` itself stays divisible.

    Source:
        `get_pool_and_conv_props` of nnU-Net 2.8.1 (Isensee et al., Nature Methods 18, 2021, supplementary note 2).

    Example:
        >>> pooled_strides((256, 256, 12), (0.8, 0.8, 5.0))[:4]
        ((1, 1, 1), (2, 2, 1), (2, 2, 1), (2, 2, 2))
    """
    size, current = list(patch), list(spacing)
    axes = range(len(size))
    strides: list[tuple[int, ...]] = [(1,) * len(size)]
    while True:
        able = [a for a in axes if size[a] >= 2 * SMALLEST_MAP and not (exact and size[a] % 2)]
        if not able:
            break
        finest = min(current[a] for a in able)
        able = [a for a in able if current[a] / finest < ALIKE]
        if len(able) == 1 and size[able[0]] < ALONE * SMALLEST_MAP:
            break
        strides.append(tuple(2 if a in able else 1 for a in axes))
        size = [math.ceil(n / s) for n, s in zip(size, strides[-1], strict=True)]
        current = [n * s for n, s in zip(current, strides[-1], strict=True)]
    return tuple(strides)


def kernels_for(spacing: Sequence[float], strides: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    """Kernels of each stage: 1 along an axis until its voxels are less than twice the finest's length, else 3.

    The last stage has 3 everywhere.

    Args:
        spacing: per axis, in any one unit.
        strides: of each stage.

    Source:
        As `pooled_strides`.

    Example:
        >>> kernels_for((1.0, 1.0, 4.0), ((1, 1, 1), (2, 2, 1), (2, 2, 1), (2, 2, 2)))
        ((3, 3, 1), (3, 3, 1), (3, 3, 3), (3, 3, 3))
    """
    current, kernel = list(spacing), [1] * len(spacing)
    kernels = []
    for stride in strides[1:]:
        finest = min(current)
        kernel = [3 if k == 3 or n / finest < ALIKE else 1 for k, n in zip(kernel, current, strict=True)]
        kernels.append(tuple(kernel))
        current = [n * s for n, s in zip(current, stride, strict=True)]
    return (*kernels, (3,) * len(spacing))


def rounded_up(patch: Sequence[int], strides: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The next sides that are divisible by the product of the strides.

    Example:
        >>> rounded_up((36, 50), ((1, 1), (2, 2), (2, 2)))
        (36, 52)
    """
    return tuple(math.ceil(n / s) * s for n, s in zip(patch, total_stride(strides), strict=True))
