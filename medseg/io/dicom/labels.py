"""What DICOM Segmentations and RT Structure Sets share: how labels are named, coloured, numbered and checked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medseg.errors import GeometryError, WriteError
from medseg.io.dicom.grid import SeriesGrid
from medseg.labels import LabelScheme
from medseg.volume import Volume

__all__ = ["COLOURS", "MANUFACTURER", "check_grid", "check_labels", "harmless_texts", "plain_text", "value_text"]

MANUFACTURER = "medseg"
_TOLERANCE_MM = 1e-2
# Told apart by people who do not tell red from green.
COLOURS = (
    (230, 97, 0),
    (26, 133, 255),
    (26, 255, 26),
    (212, 17, 89),
    (254, 254, 98),
    (148, 103, 189),
    (64, 224, 208),
    (140, 86, 75),
    (227, 119, 194),
    (188, 189, 34),
)


def plain_text(text: str) -> str:
    """At most 64 characters, without those that DICOM gives a meaning to."""
    return re.sub(r"[\\\x00-\x1f\x7f]+", " ", text).strip()[:64].strip() or "unknown"


def value_text(scheme: LabelScheme, n: int, is_present: bool) -> str:
    """What the description of the n-th label says, for people and for reading the label value back."""
    values = ", ".join(map(str, scheme.values[n]))
    region = f", region of the values {values}" if scheme.is_regions else ""
    return f"label value {scheme.painted[n]}{region}{'' if is_present else '; segmented, none found'}"


def harmless_texts(scheme: LabelScheme) -> frozenset[str]:
    """The texts about labels in our objects: they identify nobody, so de-identification may keep them."""
    described = {value_text(scheme, n, there) for n in range(len(scheme.names)) for there in (True, False)}
    return frozenset(described | set(scheme.names) | {plain_text(name) for name in scheme.names})


def check_grid(label_map: Volume, source: SeriesGrid, path: Path) -> None:
    """Refuse a label map that does not lie on the grid of its source.

    Raises:
        GeometryError: for another size, or voxels more than 0.01 mm away.
    """
    first = source.slices[0]
    shape = (first.columns, first.rows, source.planes)
    if label_map.channels or label_map.shape + (1,) * (3 - label_map.dims) != shape:
        raise GeometryError(
            f"cannot write {path}: the label map is {label_map!r}, its source series holds {shape[2]} slices of "
            f"{shape[0]} x {shape[1]} pixels; resample it to the source first"
        )
    grid = Volume(np.broadcast_to(np.uint8(0), label_map.shape), source.affine, spacing_known=label_map.spacing_known)
    if not label_map.same_geometry(grid, _TOLERANCE_MM):
        raise GeometryError(
            f"cannot write {path}: the label map lies elsewhere than its source series (origins "
            f"{np.round(label_map.affine[:3, 3], 2).tolist()} and {np.round(source.affine[:3, 3], 2).tolist()} mm, "
            f"orientations {label_map.orientation} and {grid.orientation}); resample it to the source first"
        )


def check_labels(values: Sequence[int], scheme: LabelScheme, path: Path) -> None:
    """Refuse label values that cannot be written as what they mean.

    Raises:
        DatasetError: for a value that the scheme does not name.
        WriteError: for voxels that are to be ignored.
    """
    scheme.check_values(values, str(path))
    if scheme.ignore is not None and scheme.ignore in values:
        raise WriteError(
            f"cannot write {path}: the label map holds the value {scheme.ignore}, which is to be ignored and is no "
            "label; set these voxels to 0 or name the label"
        )
