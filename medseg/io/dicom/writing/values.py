"""Voxel values as the 16-bit integers, slope and intercept of DICOM images (PS3.3 C.11.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import WriteError

__all__ = ["StoredValues", "stored_values"]

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class StoredValues:
    """value = slope * stored + intercept, with `slope` and `intercept` exactly as in the file.

    Args:
        signed: True if stored values are int16, False for uint16.
        slope: 1 if values are stored exactly.
        intercept: an integer if values are stored exactly.
        exact: whether reading restores each value.
    """

    signed: bool
    slope: float
    intercept: float
    exact: bool

    def encode(self, array: Array) -> Array:
        """The stored integers of some voxels, little endian."""
        dtype = np.dtype("<i2" if self.signed else "<u2")
        if self.exact and array.dtype.kind in "iub":
            return (array.astype(np.int64) - int(self.intercept)).astype(dtype)
        steps = np.rint((array.astype(np.float64) - self.intercept) / self.slope)
        return np.clip(steps, np.iinfo(dtype).min, np.iinfo(dtype).max).astype(dtype)


def stored_values(array: Array, name: str) -> StoredValues:
    """How the values of an array are stored.

    Integers, and floating-point numbers that are all integers, are stored exactly. Others are stored in 65,534 steps
    from the smallest to the largest, with an error of at most half a step.

    Args:
        array: any shape.
        name: what an error message calls the target.

    Raises:
        WriteError: if values are not finite or not real, integers span more than 65,535, or the span is too small
            relative to the values.
    """
    if array.dtype.kind not in "iubf" or array.size == 0:
        raise WriteError(f"cannot write {name}: {array.dtype} values of shape {array.shape} are not grey levels")
    low, high = array.min(), array.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        bad = int(array.size - np.count_nonzero(np.isfinite(array)))
        raise WriteError(f"cannot write {name}: {bad} values are not finite; replace them first, e.g. by the minimum")
    if array.dtype.kind in "iub" or not np.any(array % 1):
        whole = _whole(int(low), int(high))
        if whole is not None:
            return whole
        if array.dtype.kind != "f":
            raise WriteError(
                f"cannot write {name}: integers from {low} to {high} do not fit into the 16 bits of a DICOM image; "
                "write NIfTI, or convert to floating point to have them rounded"
            )
    return _steps(float(low), float(high), name)


def _whole(low: int, high: int) -> StoredValues | None:
    if low >= -(2**15) and high < 2**15:
        return StoredValues(True, 1.0, 0.0, True)
    if low >= 0 and high < 2**16:
        return StoredValues(False, 1.0, 0.0, True)
    if high - low < 2**16:
        return StoredValues(False, 1.0, float(low), True)
    return None


def _steps(low: float, high: float, name: str) -> StoredValues:
    from pydicom.valuerep import format_number_as_ds

    intercept = float(format_number_as_ds(low))
    # One code is spare on either side, because slope and intercept are rounded to 16 characters.
    slope = float(format_number_as_ds((high - low) / 65534.0)) if high > low else 1.0
    if slope <= 0 or abs(intercept - low) > slope / 2 or not np.isfinite(slope):
        raise WriteError(
            f"cannot write {name}: values from {low:g} to {high:g} cannot be distinguished in DICOM's numbers of 16 "
            "characters; write NIfTI, or subtract an offset first"
        )
    return StoredValues(False, slope, intercept, False)
