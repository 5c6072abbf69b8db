"""The label map of a case: integers, from one file or from one mask per label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import DatasetError
from medseg.geometry import check_same_geometry
from medseg.io import read_as
from medseg.io.dicom.objects import read_object
from medseg.io.voxel_files.nrrd_segments import join_layers
from medseg.volume import Volume

__all__ = ["LabelSource", "read_label_map"]


@dataclass(frozen=True, slots=True)
class LabelSource:
    """A label file; with a `value`, every nonzero voxel gets that value.

    A DICOM Segmentation or RT Structure Set has a `study`, whose series it was drawn on, and `names`: the value of each
    segment or ROI that is read. Of overlapping ones the largest value is kept.
    """

    path: Path
    value: int | None = None
    study: Path | None = None
    names: tuple[tuple[str, int], ...] = ()


def read_label_map(sources: Sequence[LabelSource], threshold: float | None = None) -> Volume:
    """The label map of a case, unsigned integers `(I, J, K)` or `(I, J)`, no channels.

    Args:
        sources: files; if a value is given, every nonzero voxel of the file gets that value. Later files are painted
            over earlier ones; of overlapping labels of DICOM objects the largest value is kept, as within one object.
        threshold: for masks such as 0/255: voxels above it are foreground; without a value in the source they become 1.
            A file with only the integers 0 and 1 is unchanged.

    Raises:
        ReadError: if a file is unreadable.
        DatasetError: if values are negative, non-integer or NaN, or the file contains colours.
        GeometryError: if the files have different grids.
    """
    if not sources:
        raise DatasetError("a case without label files has no label map")
    result: Volume | None = None
    painted: NDArray[Any] | None = None
    for source in sources:
        volume = _one_channel(_read(source), source.path)
        if result is not None:
            check_same_geometry(result, volume, str(sources[0].path), str(source.path))
        values = _label_values(volume.array, source, None if source.study is not None else threshold)
        if painted is None or result is None:
            result, painted = volume, values
            continue
        painted = painted.astype(np.result_type(painted, values), copy=painted is not values)
        if source.study is None:
            np.copyto(painted, values, where=values != 0)
        else:
            np.maximum(painted, values, out=painted)
    assert result is not None and painted is not None
    return result.with_array(painted)


def _read(source: LabelSource) -> Volume:
    if source.study is None:
        return read_as("labels", source.path)
    return read_object(source.path, source.study, values=dict(source.names))[0]


def _one_channel(volume: Volume, path: Path) -> Volume:
    if not volume.channels:
        return volume
    joined = join_layers(volume, path) if path.suffix.lower() in (".nrrd", ".nhdr") else None
    if joined is not None:
        return joined
    first = volume.array[0]
    if volume.channels in (1, 3) and all(np.array_equal(first, other) for other in volume.array[1:]):
        return volume.with_array(first)
    raise DatasetError(
        f"{path} has {volume.channels} different channels; expected one integer per voxel: convert colours to label "
        "values first"
    )


def _label_values(array: NDArray[Any], source: LabelSource, threshold: float | None) -> NDArray[Any]:
    if array.dtype == bool:
        array = array.astype(np.uint8)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DatasetError(f"{source.path} contains NaN or infinite values; expected one integer per voxel")
    # A file with two values is read as 0 and 1 anyway; a threshold meant for 0/255 would empty it.
    two_level = array.dtype.kind != "f" and array.max(initial=0) <= 1
    if threshold is not None and not (two_level and threshold >= 1):
        return _painted(array > threshold, 1 if source.value is None else source.value)
    if source.value is not None:
        return _painted(array != 0, source.value)
    if array.dtype.kind == "f":
        rounded = np.rint(array)
        apart = np.abs(array - rounded)
        if apart.size and apart.max() > 1e-3:
            example = array.flat[int(np.argmax(apart))]
            raise DatasetError(
                f"{source.path} contains the value {example:.4g}; expected integers: is it an image, or a probability "
                "map? For a mask with soft edges set data.label_threshold"
            )
        largest = float(np.abs(rounded).max(initial=0))
        if array.dtype.itemsize <= 4 and largest >= 2**24:
            raise DatasetError(
                f"{source.path} contains the label value {largest:.0f} in single precision, where neighbouring values "
                f"from {2**24} on are the same; save the label map as integers"
            )
        array = rounded
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    if low < 0:
        raise DatasetError(f"{source.path} contains the value {low}; label maps contain 0 and positive integers")
    if high >= 2**32:
        raise DatasetError(f"{source.path} contains the value {high}; expected label values below 2**32")
    return array.astype(_smallest(high), copy=False)


def _painted(mask: NDArray[np.bool_], value: int) -> NDArray[Any]:
    painted = mask.astype(_smallest(value))
    painted *= value
    return painted


def _smallest(value: int) -> type[np.unsignedinteger[Any]]:
    return np.uint8 if value < 256 else np.uint16 if value < 65536 else np.uint32
