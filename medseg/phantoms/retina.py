"""Synthetic retinal photographs with their vessels, drawn from discs along branching lines. No patient is in them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medseg.phantoms.chest import smooth_noise

__all__ = ["make_retina"]


def make_retina(seed: int, size: int = 128) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One synthetic retinal photograph, `(i, j, 3)`, and its vessels, `(i, j)` of 0 and 1; same seed, same bytes.

    A bright disc on black with a brighter one where trees of dark vessels begin, thin ones hardly darker than the
    ground, whose brightness varies as much.
    """
    rng = np.random.default_rng([seed, 0x726574])
    i, j = np.mgrid[:size, :size].astype(np.float64)
    middle = size / 2
    start = np.array([middle + rng.choice([-1, 1]) * 0.25 * size, middle + rng.uniform(-5, 5)])
    ground = 1 + 0.12 * smooth_noise((size, size), 10.0, rng) + 0.4 * np.exp(-np.hypot(i - start[0], j - start[1]) / 8)
    vessels, depth = np.zeros((size, size), dtype=bool), np.zeros((size, size))
    branches = [(start, angle, 2.6) for angle in rng.uniform(0, 2 * np.pi) + np.arange(4) * np.pi / 2]
    while branches:
        point, angle, radius = branches.pop()
        for _ in range(int(rng.uniform(20, 40))):
            far = np.hypot(i - point[0], j - point[1])
            vessels |= far < max(radius, 0.9)
            depth = np.maximum(depth, np.clip(radius + 0.7 - far, 0, 1) * (0.12 + 0.1 * radius))
            angle += rng.normal(0, 0.09)
            point = point + 0.9 * np.array([np.cos(angle), np.sin(angle)])
        if radius > 0.8:
            branches += [(point, angle + turn * rng.uniform(0.3, 0.7), radius * 0.75) for turn in (-1, 1)]
    view = np.hypot(i - middle, j - middle) < 0.46 * size
    light = np.where(view, ground * (1 - depth), 0)[..., None] * [165.0, 85.0, 40.0]
    # A few grey levels only: noise in full would make the files large.
    picture = 4 * np.round(np.clip(light + 3 * rng.standard_normal((size, size, 1)) * view[..., None], 0, 250) / 4)
    return picture.astype(np.uint8), (vessels & view).astype(np.uint8)
