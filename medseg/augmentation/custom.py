"""Augmentations of a researcher's own, named in the configuration."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

import numpy as np
from torch import Tensor

from medseg.errors import ConfigError
from medseg.plugins import resolve

__all__ = ["CustomAugment", "load_custom"]


class CustomAugment(Protocol):
    """What a builder named in the configuration must return; it runs on samples of patch size.

    Example:
        >>> class Inverted:
        ...     def draw(self, rng, shape):
        ...         return rng.random() < 0.5
        ...     def apply(self, image, labels, params):
        ...         return (-image if params else image), labels
        >>> augment = Inverted()
        >>> augment.apply(torch.ones(1, 2, 2), torch.zeros(1, 2, 2), True)[0].sum().item()
        -4.0
    """

    def draw(self, rng: np.random.Generator, shape: Sequence[int]) -> Any:
        """Parameters for a sample of this spatial shape; `rng` is to be the only source of randomness."""

    def apply(self, image: Tensor, labels: Tensor, params: Any) -> tuple[Tensor, Tensor]:
        """Image (C, I, J[, K]) float32 and labels (1, I, J[, K]), changed; shapes and types are kept."""


def load_custom(name: str, options: Mapping[str, Any] | None = None, key: str = "augmentation.custom") -> CustomAugment:
    """The augmentation that the builder `"package.module:builder"` returns.

    Args:
        name: where to import the builder from.
        options: its keyword arguments.
        key: of the configuration that holds the name, for messages.

    Raises:
        ConfigError: a name that cannot be resolved, options that the builder does not take, or an object without
            `draw` and `apply`.

    Example (with a package of your own):
        >>> load_custom("my_package.augmentations:Ghosting")  # doctest: +SKIP
    """
    builder = resolve(name, key)
    given = dict(options or {})
    try:
        inspect.signature(builder).bind(**given)
    except TypeError as error:
        raise ConfigError(f"{key}: {name!r} cannot be called with the options {', '.join(given)}: {error}") from None
    except ValueError:
        pass  # A builder written in C may have no signature to check.
    built = builder(**given)
    for method in ("draw", "apply"):
        if not callable(getattr(built, method, None)):
            raise ConfigError(
                f"{key}: {name!r} built a {type(built).__name__} without {method}(); "
                "expected draw(rng, shape) -> params and apply(image, labels, params) -> (image, labels)"
            )
    return cast(CustomAugment, built)
