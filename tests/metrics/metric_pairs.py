"""Random pairs of masks to compare implementations on: blobs, specks, empty and equal ones, in 2D and 3D."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from scipy import ndimage

__all__ = ["FEW_AND_ALL", "MaskPair", "mask_pair"]

FEW_AND_ALL = pytest.mark.parametrize(
    "numbers", [pytest.param(range(60), id="60"), pytest.param(range(300), id="300", marks=pytest.mark.slow)]
)
"""60 pairs in the default run, all 300 with `-m slow`."""

_SPACINGS = ((1.0, 1.0, 1.0), (0.7, 0.7, 5.0), (3.0, 0.9, 0.9), (0.45, 1.3, 2.6))


@dataclass(frozen=True)
class MaskPair:
    """Two masks of one shape, 16 to 40 voxels a side (3D: to 26), and the spacing."""

    number: int
    pred: np.ndarray
    ref: np.ndarray
    spacing: tuple[float, ...]

    @property
    def dims(self) -> int:
        return self.ref.ndim

    @property
    def both_hold_something(self) -> bool:
        return bool(self.pred.any() and self.ref.any())


def mask_pair(number: int) -> MaskPair:
    """The pair of that number: even ones are 2D, odd ones 3D; of 20, one has an empty reference, one an empty
    prediction, one both, one equal masks, one masks of single voxels; every third consists of specks."""
    rng = np.random.default_rng([6, number])
    dims, kind = 2 + number % 2, number % 20
    shape = tuple(int(n) for n in rng.integers(16, 41 if dims == 2 else 27, dims))
    spacing = _SPACINGS[int(rng.integers(len(_SPACINGS)))][3 - dims :]
    if rng.random() < 0.5:
        spacing = tuple(float(s) for s in rng.uniform(0.4, 4.0, dims))
    field, noise = _field(rng, shape, 1.0 if number % 3 == 0 else 2.5), _field(rng, shape, 1.2)
    level = rng.uniform(0.6, 1.8)
    ref, pred = field > level, field + rng.uniform(0.1, 0.8) * noise > level
    if kind in (6, 13):
        ref = np.zeros(shape, bool)
    if kind in (7, 13):
        pred = np.zeros(shape, bool)
    if kind == 9:
        pred = ref.copy()
    if kind == 4:
        pred, ref = (rng.permutation(ref.size).reshape(shape) == 0 for _ in range(2))
    return MaskPair(number, pred, ref, spacing)


def _field(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> np.ndarray:
    field = ndimage.gaussian_filter(rng.standard_normal(shape), sigma)
    return np.asarray(field / field.std())
