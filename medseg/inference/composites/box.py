"""The box of an image in which the members of a model work, found by one of them; see `CropInfo`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.inference.bundle_parts import CropInfo
from medseg.inference.composites.working_grid import mask_from_grid
from medseg.inference.postprocess import keep_components

__all__ = ["Box", "found_box"]

Box = tuple[slice, ...]
# A row of the largest component counts where more than this share of its plane is labelled: deepbet 1.0.2, bet.py.
BULK_SHARE = 0.02


def found_box(
    found: NDArray[np.bool_], shape: Sequence[int], spacing_mm: Sequence[float], crop: CropInfo
) -> Box | None:
    """Where members work.

    Args:
        found: `(i, j, k)`, what the crop member found, on its grid.
        shape: `(I, J, K)` of the image.
        spacing_mm: of the image.
        crop: the rule.

    Returns:
        A slice of each axis of the image; None where nothing was found.
    """
    if crop.rule == "bulk":
        return _bulk_box(keep_components(found, most=1), shape, crop.margin_share)
    found = mask_from_grid(found.astype(np.uint8), shape, crop.grid) > 0
    box = []
    for axis, (n, spacing) in enumerate(zip(shape, spacing_mm, strict=True)):
        rows = np.flatnonzero(_others(found, axis, np.any))
        if not rows.size:
            return None
        first, last = int(rows[0]), int(rows[-1]) + 1
        margin = int(crop.margin_mm / spacing) + int(crop.margin_share * (last - first))
        box.append(slice(max(0, first - margin), min(n, last + margin)))
    return tuple(box)


def _bulk_box(found: NDArray[np.bool_], shape: Sequence[int], margin: float) -> Box | None:
    box = []
    for axis, n in enumerate(shape):
        rows = np.flatnonzero(_others(found, axis, np.mean) > BULK_SHARE)
        if not rows.size:
            return None
        scale = np.float32(n) / np.float32(found.shape[axis])
        # In single precision and with the rounding of the source, half to even.
        middle = float(np.rint(np.float32((rows[-1] + 1 + rows[0]) / 2) * scale))
        size = float(np.rint(np.float32(rows[-1] + 1 - rows[0]) * scale * (1 + 2 * np.float32(margin))))
        first, last = max(0, int(middle - size / 2)), min(n, int(middle + size / 2))
        if first >= last:
            return None
        box.append(slice(first, last))
    return tuple(box)


def _others(found: NDArray[np.bool_], axis: int, measure: Any) -> NDArray[Any]:
    """Of each row along an axis the measure over its plane."""
    values: NDArray[Any] = measure(found, axis=tuple(a for a in range(found.ndim) if a != axis))
    return values
