"""Former home of the parts, which `medseg.config` gives; its names warn for a release."""

from __future__ import annotations

from typing import Any
from warnings import warn

import medseg.config

__all__: list[str] = []


def __getattr__(name: str) -> Any:
    if name.startswith("_") or not hasattr(medseg.config, name):
        raise AttributeError(f"module 'medseg.config.models' has no attribute {name!r}")
    warn(f"medseg.config.models.{name} has moved to medseg.config", DeprecationWarning, stacklevel=2)
    return getattr(medseg.config, name)
