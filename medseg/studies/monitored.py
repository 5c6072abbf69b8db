"""The figures of a case by which drift is found: of its image, of its mask, and whether it needs review."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["NEEDS_REVIEW", "monitored_figures"]

NEEDS_REVIEW = "needs review"
_OF_LABELS = {
    "volume_ml": "volume of {} (ml)",
    "mean": "mean grey level in {}",
    "sd": "SD of the grey level in {}",
    "predicted_dice": "predicted Dice of {}",
}


def monitored_figures(
    state: str, figures: Mapping[str, Any], measurements: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """Name -> value of every figure; what is not a finite number is left out.

    Args:
        state: of the ledger.
        figures, measurements: of a row of the ledger.

    Example:
        >>> monitored_figures("done", {"noise": 2}, [{"label": "lung", "voxels": 9, "volume_ml": 3.5, "mean": None}])
        {'needs review': 0.0, 'noise': 2.0, 'volume of lung (ml)': 3.5}
    """
    found: dict[str, Any] = {NEEDS_REVIEW: float(state == "needs_review"), **figures}
    for row in measurements:
        label = row.get("label")
        found |= {name.format(label): row.get(key) for key, name in _OF_LABELS.items()}
        if row.get("volume_ml") is None:
            found[f"voxels of {label}"] = row.get("voxels")
    return {name: float(value) for name, value in found.items() if _is_number(value)}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
