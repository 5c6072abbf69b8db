"""A random walk over an image that spreads maps of labels to voxels which look alike, and stops at edges."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from medseg.errors import GeometryError

__all__ = ["random_walk"]


@torch.no_grad()
def random_walk(
    maps: Tensor,
    image: Tensor,
    *,
    steps: int = 20,
    radius: int = 2,
    intensity: float = 0.3,
    power: float = 2.0,
) -> Tensor:
    """`T^steps maps`, where T moves from a voxel to its neighbours in proportion to their affinity `k^power`.

    k is a Gaussian of the difference in grey levels. A constant map stays as it is, and no value leaves the range of
    the map.

    Args:
        maps: `(L, I, J[, K])`, one for each label.
        image: `(channels, I, J[, K])` on the same grid.
        steps: of the walk; 0 returns the input.
        radius: of the neighbourhood, in voxels along each axis.
        intensity: standard deviation of the difference in grey levels, as a share of the image's own.
        power: makes the walk prefer likely moves to unlikely ones.

    Raises:
        GeometryError: if maps and image are not on one grid.

    Source:
        Ahn and Kwak, Learning pixel-level semantic affinity with image-level supervision, CVPR 2018, equations 3 to 5,
        with affinities of grey levels in place of learned ones.

    Example:
        >>> image = torch.tensor([[[0.0, 0.0, 0.0, 9.0, 9.0]] * 3])
        >>> seed = torch.zeros(1, 3, 5)
        >>> seed[0, :, 0] = 1.0
        >>> walked = random_walk(seed, image, steps=20, radius=1)[0, 1]
        >>> bool(walked[2] > 0.2), bool(walked[3] < 1e-3)
        (True, True)
    """
    if maps.shape[1:] != image.shape[1:]:
        raise GeometryError(
            f"maps of shape {tuple(maps.shape)} and an image of {tuple(image.shape)} are not on one grid"
        )
    if not steps:
        return maps.clone()
    axes = tuple(range(1, image.dim()))
    scaled = image.float() / image.float().std(axes, keepdim=True).clamp_min(1e-6)
    moves = []
    weights = torch.ones_like(scaled[0])
    for offset in itertools.product(range(-radius, radius + 1), repeat=len(axes)):
        if not any(offset) or any(abs(o) >= n for o, n in zip(offset, image.shape[1:], strict=True)):
            continue
        here, there = _pair(offset, image.shape[1:])
        difference = (scaled[:, *here] - scaled[:, *there]).square().sum(0)
        affinity = torch.exp(-difference * power / (2 * intensity**2))
        moves.append((here, there, affinity))
        weights[here] += affinity
    current = maps.float()
    for _ in range(steps):
        moved = current.clone()
        for here, there, affinity in moves:
            moved[:, *here] += affinity * current[:, *there]
        current = moved / weights
    return current


def _pair(offset: Sequence[int], shape: Sequence[int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    here = tuple(slice(max(0, -o), n - max(0, o)) for o, n in zip(offset, shape, strict=True))
    there = tuple(slice(max(0, o), n - max(0, -o)) for o, n in zip(offset, shape, strict=True))
    return here, there
