"""Small pictures of bodies, half of them with a bright lesion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIZE = 48


@dataclass(frozen=True)
class Pictures:
    """A folder with lesion/ and normal/, and the true masks of the cases that pseudo-labels get."""

    root: Path
    masks: dict[str, NDArray[np.bool_]]


def picture(rng: np.random.Generator, with_lesion: bool) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """`(SIZE, SIZE)` grey levels and mask."""
    i, j = np.indices((SIZE, SIZE))
    body = (i - SIZE / 2) ** 2 + (j - SIZE / 2) ** 2 < (0.45 * SIZE) ** 2
    (a, b), (r, s) = rng.uniform(18, SIZE - 18, 2), rng.uniform(5, 8, 2)
    mask = (((i - a) / r) ** 2 + ((j - b) / s) ** 2 < 1) & body & with_lesion
    image = np.where(body, 90 + rng.normal(size=body.shape) * 8, 0) + 70 * mask
    return np.clip(image, 0, 255).astype(np.uint8), mask


def write_pictures(root: Path, count: int = 24) -> Pictures:
    """Every second picture shows a lesion."""
    rng, masks = np.random.default_rng(0), {}
    for n in range(count):
        name = "lesion" if n % 2 == 0 else "normal"
        image, mask = picture(rng, name == "lesion")
        (root / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.T).save(root / name / f"p{n:02d}.png")
        masks[f"{name}_p{n:02d}"] = mask
    return Pictures(root, masks)
