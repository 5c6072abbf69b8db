"""A researcher's own augmentation by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

import numpy as np
from torch import Tensor

from medseg.errors import ConfigError
from medseg.plugins import resolve

__all__ = ["CustomAugment", "load_custom"]


class CustomAugment(Protocol):
    """What `augmentation.custom` builds; it runs after the built-in augmentations, on samples of patch size."""

    def draw(self, rng: np.random.Generator, shape: Sequence[int]) -> Any:
        """Parameters for a sample of this spatial shape; `rng` is to be the only source of randomness."""

    def apply(self, image: Tensor, labels: Tensor, params: Any) -> tuple[Tensor, Tensor]:
        """Image (C, I, J[, K]) float32 and labels (1, I, J[, K]), changed; shapes and types are kept."""


def load_custom(name: str) -> CustomAugment:
    """The augmentation that the builder `"package.module:builder"` returns, called without arguments.

    Raises:
        ConfigError: a name that cannot be resolved, or an object without `draw` and `apply`.

    Example (with a package of your own):
        >>> load_custom("my_package.augmentations:Ghosting")  # doctest: +SKIP
    """
    built = resolve(name, "augmentation.custom")()
    for method in ("draw", "apply"):
        if not callable(getattr(built, method, None)):
            raise ConfigError(
                f"augmentation.custom: {name!r} built a {type(built).__name__} without {method}(); "
                "expected draw(rng, shape) -> params and apply(image, labels, params) -> (image, labels)"
            )
    return cast(CustomAugment, built)
