"""Names, colours, numbers and checks of labels that DICOM Segmentations and RT Structure Sets share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medseg.errors import ConfigError, GeometryError, WriteError
from medseg.io.dicom.grid import SeriesGrid
from medseg.labels import LARGEST_VALUE, LabelScheme
from medseg.volume import Volume

__all__ = [
    "COLOURS",
    "MANUFACTURER",
    "check_grid",
    "check_labels",
    "described_values",
    "harmless_texts",
    "painted_regions",
    "plain_text",
    "value_text",
]

MANUFACTURER = "medseg"
_TOLERANCE_MM = 1e-2
# Distinguishable with red-green colour blindness.
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
    """At most 64 characters, without backslashes and control characters, which are special in DICOM."""
    return re.sub(r"[\\\x00-\x1f\x7f]+", " ", text).strip()[:64].strip() or "unknown"


def value_text(scheme: LabelScheme, n: int, is_present: bool) -> str:
    """The description of the n-th label: readable, and parsed again for the label value."""
    values = ", ".join(map(str, scheme.values[n]))
    region = f", region of the values {values}" if scheme.is_regions else ""
    return f"label value {scheme.painted[n]}{region}{'' if is_present else '; segmented, none found'}"


def described_values(text: str) -> tuple[int | None, tuple[int, ...]]:
    """The label value, and the values of a region, that `value_text` wrote; None and () where a text names none."""
    match = re.match(r"label value (\d{1,5})(?:, region of the values ([\d, ]{1,1024}))?(?:;|$)", text)
    if match is None:
        return None, ()
    region = tuple(int(v) for v in (match[2] or "").split(",") if v.strip().isdigit())
    return int(match[1]), region if all(0 < v <= LARGEST_VALUE for v in region) else ()


def painted_regions(regions: Sequence[tuple[str, tuple[int, ...]]]) -> list[NDArray[np.int64]]:
    """How overlapping regions of one of our objects become a label map again.

    Args:
        regions: name and values of each.

    Returns:
        Of each region, value -> value after it was painted; [] if not all are regions of a scheme of ours.
    """
    if not all(values for _, values in regions):
        return []
    try:
        scheme = LabelScheme.from_mapping(dict(regions))
        return [scheme.painting(n) for n in range(len(scheme.names))]
    except ConfigError:
        # The description was edited by another program.
        return []


def harmless_texts(scheme: LabelScheme) -> frozenset[str]:
    """The texts about labels in our objects. They identify no patient, so de-identification may keep them."""
    described = {value_text(scheme, n, there) for n in range(len(scheme.names)) for there in (True, False)}
    return frozenset(described | set(scheme.names) | {plain_text(name) for name in scheme.names})


def check_grid(label_map: Volume, source: SeriesGrid, path: Path) -> None:
    """Refuse a label map that is not on the grid of its source.

    Raises:
        GeometryError: if its shape differs, or a voxel is more than 0.01 mm away.
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
            f"cannot write {path}: the label map has another position than its source series (origins "
            f"{np.round(label_map.affine[:3, 3], 2).tolist()} and {np.round(source.affine[:3, 3], 2).tolist()} mm, "
            f"orientations {label_map.orientation} and {grid.orientation}); resample it to the source first"
        )


def check_labels(values: Sequence[int], scheme: LabelScheme, path: Path) -> None:
    """Refuse label values that the object cannot represent.

    Raises:
        DatasetError: for a value that the scheme does not name.
        WriteError: for voxels of the ignore value.
    """
    scheme.check_values(values, str(path))
    ignored = [value for value in scheme.ignored if value in values]
    if ignored:
        raise WriteError(
            f"cannot write {path}: the label map contains the value {ignored[0]}, which marks voxels to ignore and "
            "is not a label; set these voxels to 0 or name the label"
        )
