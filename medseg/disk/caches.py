"""The user's folder for what can be made again."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """`MEDSEG_CACHE`, else `medseg` in the user's folder for caches (XDG base directory specification)."""
    given = os.environ.get("MEDSEG_CACHE")
    if given:
        return Path(given)
    root = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (root if root.is_absolute() else Path.home() / ".cache") / "medseg"
