"""The image of a case: channels first, one file per channel or one file with several, one patient, one grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from medseg.errors import GeometryError, ReadError
from medseg.geometry import check_same_geometry
from medseg.io import read_as
from medseg.volume import Finding, Volume

__all__ = ["channels_first", "read_image"]


def channels_first(volume: Volume) -> Volume:
    """The volume with at least one leading channel."""
    return volume if volume.channels else volume.with_array(volume.array[None], channels=1)


def read_image(paths: Sequence[Path], nan: float | None = None, series: str | None = None) -> Volume:
    """The image of a case, `(C, I, J, K)` or `(C, I, J)`, C >= 1, from one path per channel or one path with several.

    Colour images give three channels. Integers stay integers, doubles become float32.

    Args:
        paths: the files or studies.
        nan: the grey level that NaN voxels get, which becomes a finding; None refuses them. Infinite ones are refused.
        series: SeriesInstanceUID of the series to take, where the paths are DICOM studies of several.

    Raises:
        ReadError: if a file is unreadable, or contains NaN or infinite voxels.
        GeometryError: if channels have different grids, patients, studies or frames of reference.
    """
    if not paths:
        raise ReadError("a case without image files cannot be read")
    parts: list[Volume] = []
    for path in paths:
        part = channels_first(read_as("image", path, series))
        if part.array.dtype.kind == "f":
            part = part if nan is None else _without_nan(part, nan, path)
            bad = int(part.array.size - np.count_nonzero(np.isfinite(part.array)))
            if bad:
                raise ReadError(
                    f"{path} contains {bad} NaN or infinite voxel(s); replace them by a number (data.nan for NaN), "
                    "or leave the case out"
                )
            if part.array.dtype == np.float64:
                part = part.with_array(part.array.astype(np.float32), part.channels)
        if parts:
            check_same_geometry(parts[0], part, str(paths[0]), str(path))
            _check_same_patient(parts[0], part, paths[0], path)
        parts.append(part)
    if len(parts) == 1:
        return parts[0]
    array = np.concatenate([p.array for p in parts])
    findings = tuple(f for p in parts for f in p.findings)
    return replace(parts[0], array=array, channels=array.shape[0], findings=findings)


def _without_nan(volume: Volume, value: float, path: Path) -> Volume:
    missing = np.isnan(volume.array)
    if not missing.any():
        return volume
    share = f"{missing.sum()} of {missing.size} voxels of {path} hold no number (NaN); they count as {value:g}"
    filled = volume.with_array(np.where(missing, volume.array.dtype.type(value), volume.array), volume.channels)
    return replace(filled, findings=(*volume.findings, Finding("nan", share, (str(path),))))


def _check_same_patient(first: Volume, other: Volume, first_path: Path, other_path: Path) -> None:
    for what in ("patient_id", "study_instance_uid", "frame_of_reference_uid"):
        a, b = getattr(first.metadata, what), getattr(other.metadata, what)
        if a and b and a != b:
            raise GeometryError(f"{first_path} and {other_path} differ in {what}; channels must belong together")
