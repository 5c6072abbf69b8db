"""The spacing of ultrasound images, which is that of their regions (PS3.3 C.8.5.5)."""

from __future__ import annotations

import math
from typing import Any

from medseg.io.dicom.tags import impossible

__all__ = ["region_spacing"]

_CENTIMETRES, _IN_TWO_DIMENSIONS = 3, 1
_SAME = 0.01


def region_spacing(dataset: Any) -> tuple[tuple[float, ...], str]:
    """The spacing (row, column) in mm of the two-dimensional regions measured in centimetres, and why there is none.

    Regions of spectra, M-mode and ECG measure time or velocity and do not count.

    Args:
        dataset: pydicom data set.

    Returns:
        Two positive numbers and '', or () and a reason; () and '' for an image without regions.

    Raises:
        ValueError: for a distance that is not a finite number.
    """
    found = []
    for region in dataset.get("SequenceOfUltrasoundRegions") or ():
        units = [region.get(f"PhysicalUnits{axis}Direction") for axis in "XY"]
        if units != [_CENTIMETRES] * 2 or region.get("RegionSpatialFormat", _IN_TWO_DIMENSIONS) != _IN_TWO_DIMENSIONS:
            continue
        # The sign tells in which direction a value grows.
        row, column = (_distance(region, f"PhysicalDelta{axis}") for axis in "YX")
        if row > 0 and column > 0:
            found.append((10.0 * row, 10.0 * column))
    if not found:
        return (), ""
    for other in found[1:]:
        if any(abs(a - b) > _SAME * a for a, b in zip(found[0], other, strict=True)):
            shown = " and ".join(f"{row:.4g} x {column:.4g}" for row, column in (found[0], other))
            return (), f"the image has regions of different spacing ({shown} mm), so its spacing is unknown"
    return found[0], ""


def _distance(region: Any, keyword: str) -> float:
    value = region.get(keyword)
    number = 0.0 if value in (None, "") else abs(float(value))
    if not math.isfinite(number):
        raise ValueError(impossible(keyword, number, "a finite number"))
    return number
