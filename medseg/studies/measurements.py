"""`measurements.csv`: size, long axis, mean grey value and number of components of each label of each mask."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.disk.atomic import write_text_atomic
from medseg.labels import LabelScheme
from medseg.preparation.padding import padding_mask
from medseg.studies.ledger import LedgerRow
from medseg.tasks.diameters import axial_diameters
from medseg.tasks.lesions import label_lesions
from medseg.volume import Finding, Volume

__all__ = ["Measurement", "findings_of_padding", "measure", "measurements_csv", "write_measurements"]

_DIGITS = 4
# A mask may reach over the rim of the field of view by half a voxel; more was drawn where nothing is known.
_LARGEST_SHARE = 0.01
# Ledgers of earlier versions use the old key, which called the pieces of any label lesions.
_OLD_KEYS = {"components": "lesions"}


@dataclass(frozen=True, slots=True)
class Measurement:
    """One label or region of one mask; None where a value is not defined.

    Args:
        label: its name.
        voxels: how many.
        volume_ml: None in 2D and where the spacing is not known.
        components: connected components; voxels touch by a face, edge or corner.
        long_axis_mm, short_axis_mm: of the largest part in an axial slice (RECIST 1.1); None without spacing.
        mean, sd: grey values of the image's first channel inside, Hounsfield units in CT, without padding.
        unit: 'HU' for CT, else ''.
        predicted_dice: of `--estimate-quality`; None without it, and where nothing was found that may be absent.
        padding_voxels: how many lie on padding or outside the scanner's field of view. They count in the volume.
    """

    label: str
    voxels: int
    volume_ml: float | None
    components: int
    long_axis_mm: float | None
    short_axis_mm: float | None
    mean: float | None
    sd: float | None
    unit: str
    predicted_dice: float | None = None
    padding_voxels: int = 0


def measure(mask: Volume, scheme: LabelScheme, image: Volume) -> tuple[Measurement, ...]:
    """Measure every label of a mask, absent ones too.

    Args:
        mask: integers `(I, J[, K])`.
        scheme: what they mean.
        image: on the same grid, with or without channels.
    """
    grey = image.array[0] if image.channels else image.array
    unit = "HU" if image.metadata.modality == "CT" else ""
    padded = padding_mask(grey, image.metadata, image.channels, within=mask.array != 0)
    return tuple(_measured(name, mask, scheme, _Grey(grey, padded, unit)) for name in scheme.names)


def findings_of_padding(measurements: Iterable[Measurement]) -> tuple[Finding, ...]:
    """A finding per label that lies on padding; one of more than 1% of its voxels asks for review."""
    found = []
    for each in measurements:
        if each.padding_voxels:
            text = (
                f"{each.padding_voxels} of {each.voxels} voxels of {each.label} lie on padding or outside the "
                "scanner's field of view; they count in its volume, not in its mean and SD"
            )
            kind = "review_padding" if each.padding_voxels > _LARGEST_SHARE * each.voxels else "padding_in_mask"
            found.append(Finding(kind, text))
    return tuple(found)


@dataclass(frozen=True, slots=True, eq=False)
class _Grey:
    """Grey values of one channel, which of them are padding, and their unit."""

    values: NDArray[Any]
    padded: NDArray[np.bool_] | None
    unit: str


def _measured(name: str, mask: Volume, scheme: LabelScheme, grey: _Grey) -> Measurement:
    values = scheme.values[scheme.names.index(name)]
    inside = mask.array == values[0] if len(values) == 1 else np.isin(mask.array, values)
    box = _box(inside)
    if box is None:
        no_size = 0.0 if mask.dims == 3 and mask.spacing_known else None
        return Measurement(name, 0, no_size, 0, None, None, None, None, grey.unit)
    # Where the box lies does not change a length.
    inside = inside[box]
    parts = label_lesions(inside, mask.affine)
    voxels = int(np.count_nonzero(inside))
    measured = inside if grey.padded is None else inside & ~grey.padded[box]
    found = grey.values[box][measured].astype(np.float64)
    size = axial_diameters(parts == 1, mask.affine) if mask.spacing_known else None
    volume = voxels * abs(float(np.linalg.det(mask.affine[:3, :3]))) / 1000.0
    return Measurement(
        label=name,
        voxels=voxels,
        volume_ml=round(volume, _DIGITS) if mask.dims == 3 and mask.spacing_known else None,
        components=int(parts.max()),
        long_axis_mm=None if size is None else round(size.long_mm, _DIGITS),
        short_axis_mm=None if size is None else round(size.short_mm, _DIGITS),
        mean=round(float(found.mean()), _DIGITS) if found.size else None,
        sd=round(float(found.std()), _DIGITS) if found.size else None,
        unit=grey.unit,
        padding_voxels=voxels - found.size,
    )


def _box(mask: NDArray[np.bool_]) -> tuple[slice, ...] | None:
    box = []
    for axis in range(mask.ndim):
        held = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        if not held.size:
            return None
        box.append(slice(int(held[0]), int(held[-1]) + 1))
    return tuple(box)


def measurements_csv(cases: Iterable[tuple[str, str, Iterable[Mapping[str, Any]]]]) -> str:
    """The table: a line per case and label, sorted by case; the same masks give the same bytes.

    Args:
        cases: (name, state in the ledger, a mapping of `Measurement` per label) of each case; mappings of earlier
            versions, which call `components` `lesions`, are read too.
    """
    names = [f.name for f in fields(Measurement) if f.name != "padding_voxels"]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["case", *names, "state"])
    for case, state, rows in sorted(cases, key=lambda each: each[0]):
        writer.writerows([case, *(row.get(n, row.get(_OLD_KEYS.get(n, n))) for n in names), state] for row in rows)
    return buffer.getvalue()


def write_measurements(rows: Sequence[LedgerRow], folder: Path) -> None:
    """Write `measurements.csv` of all cases that the ledger knows, in one step.

    Raises:
        WriteError: disk full, no permission.
    """
    text = measurements_csv((row.case, row.state, row.measurements) for row in rows if row.state != "failed")
    write_text_atomic(folder / "measurements.csv", text)
