"""The data that `tests/fixtures/make_last_release.py` trained on, for the tests that go on with what it made.

Whole numbers, so that no machine rounds them otherwise.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import medseg
from medseg.volume import Volume

CASES = 6
DATA = {"zscore": "volumes", "regions": "ct", "pictures": "pictures", "slices": "ct"}


def write_dataset(kind: str, root: Path) -> None:
    """Six cases as `images/` and `labels/`."""
    suffix = ".png" if kind == "pictures" else ".nii.gz"
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for number in range(CASES):
        image, labels = case_of(kind, number)
        medseg.write(image, root / "images" / f"case{number}{suffix}")
        medseg.write(labels, root / "labels" / f"case{number}{suffix}")


def input_of(kind: str) -> Volume:
    """An image that no training saw, larger than the training images; volumes with other axes and another spacing."""
    return case_of(kind, CASES, new=True)[0]


def case_of(kind: str, number: int, new: bool = False) -> tuple[Volume, Volume]:
    rng = np.random.default_rng([11, number])
    shape: tuple[int, ...] = (40, 36) if kind == "pictures" else (20, 24, 16)
    if new:
        shape = tuple(n + 9 for n in shape)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"))
    labels = np.zeros(shape, dtype=np.uint8)
    left = np.array([n // 4 for n in shape]) + rng.integers(0, 3, len(shape))
    right = np.array(shape) - left - 1 + rng.integers(0, 2, len(shape))
    for value, centre in ((1, left), (2, right)):
        distance = (grid - centre.reshape(-1, *[1] * len(shape))) ** 2
        labels[distance.sum(axis=0) < (36 if value == 1 else 25)] = value
    noise = rng.integers(-12, 13, shape)
    if kind == "pictures":
        labels[labels == 2] = 0
        image = (60 + 120 * labels + noise).astype(np.uint8)
        return Volume(image, np.eye(4), spacing_known=False), Volume(labels, np.eye(4), spacing_known=False)
    levels = (-1000, 60, 220) if kind == "ct" else (0, 300, 600)
    image = (np.take(levels, labels) + (noise if kind == "ct" else noise * (labels > 0) + 40)).astype(np.int16)
    affine = np.diag([1.1, 1.0, 1.4, 1.0]) if new else np.diag([1.0, 1.0, 1.5, 1.0])
    if new:
        # Left, posterior, and the slices first.
        affine = affine @ np.array([[0, -1, 0, shape[1]], [0, 0, -1, shape[2]], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    return Volume(image, affine), Volume(labels, affine)
