"""The cases of a dataset, and reading their images and label maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.config import DataConfig
from medseg.errors import ConfigError, DatasetError, GeometryError, ReadError
from medseg.geometry import check_same_geometry
from medseg.io import read
from medseg.io.layouts import find_layout
from medseg.io.records import Case, LabelSource, Layout
from medseg.labels import LabelScheme
from medseg.volume import Volume

__all__ = [
    "Case",
    "Dataset",
    "LabelSource",
    "channels_first",
    "find_cases",
    "read_image",
    "read_label_map",
]


@dataclass(frozen=True, slots=True)
class Dataset:
    """The cases of a dataset, sorted by name, and what their labels and channels mean.

    Args:
        cases: at least one, names unique.
        labels: from `data.labels`, else from the dataset's own `dataset.json`.
        channel_names: modality or name of each channel, () where neither the config nor the dataset names them.
        folds: names of the validation cases of each fold, from `splits_final.json`; () without one.
    """

    cases: tuple[Case, ...]
    labels: LabelScheme
    channel_names: tuple[str, ...]
    folds: tuple[tuple[str, ...], ...] = ()


def find_cases(data: DataConfig) -> Dataset:
    """The cases of the dataset at `data.root`. No image is opened.

    Layouts: MSD and nnU-Net raw (`imagesTr`, `labelsTr`, `dataset.json`), `images/` with `labels/` or `masks/`, CSV.

    Raises:
        DatasetError: no cases, a missing file or column, two cases of one name, differing numbers of channels.
        ConfigError: neither `data.labels` nor a `dataset.json` names the labels.

    Example:
        >>> dataset = find_cases(DataConfig(root="hippocampus", labels={"anterior": 1, "posterior": 2}))
        >>> len(dataset.cases), dataset.labels.names
        (60, ('anterior', 'posterior'))
    """
    layout = find_layout(data)
    if not layout.cases:
        raise DatasetError(f"{data.root} holds no cases ({layout.name} layout); check data.root and data.layout")
    names = [c.name for c in layout.cases]
    twice = sorted({n for n in names if names.count(n) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise DatasetError(f"{data.root}: two cases are called {twice[0]!r}; give each a name of its own")
    counts = {len(c.images): c for c in layout.cases}
    if len(counts) > 1:
        (a, first), (b, second), *_ = sorted(counts.items())
        raise DatasetError(
            f"{data.root}: case {first.name!r} has {a} channel file(s), case {second.name!r} has {b}; every case needs "
            "the same channels"
        )
    known = set(names)
    for fold, validation in enumerate(layout.folds):
        missing = sorted(set(validation) - known)
        if missing:
            raise DatasetError(f"splits_final.json of {data.root}: fold {fold} names {missing[0]!r}, which is no case")
    cases = tuple(sorted(layout.cases, key=lambda c: c.name))
    return Dataset(cases, _scheme(data, layout), _channel_names(data, layout), layout.folds)


def _scheme(data: DataConfig, layout: Layout) -> LabelScheme:
    if data.labels is not None:
        return LabelScheme.from_mapping(data.labels, data.ignore)
    if layout.labels:
        return LabelScheme.from_mapping(layout.labels, layout.ignore if data.ignore is None else data.ignore)
    raise ConfigError(
        f"nothing says what the labels of {data.root} mean; write e.g. 'data: {{labels: {{lung: 1, tumour: 2}}}}' into "
        "the config (name: integer in the label maps), as codes are never guessed"
    )


def _channel_names(data: DataConfig, layout: Layout) -> tuple[str, ...]:
    if data.modality is None:
        return layout.channel_names
    names = (data.modality,) if isinstance(data.modality, str) else data.modality
    files = len(layout.cases[0].images)
    if len(names) == 1:
        return names * max(len(layout.channel_names), files)
    if files > 1 and len(names) != files:
        raise ConfigError(f"data.modality names {len(names)} channels, the cases of {data.root} have {files}")
    return names


def channels_first(volume: Volume) -> Volume:
    """The volume with at least one leading channel."""
    return volume if volume.channels else volume.with_array(volume.array[None], channels=1)


def read_image(paths: Sequence[Path]) -> Volume:
    """The image of a case, `(C, I, J, K)` or `(C, I, J)`, C >= 1, one path per channel (or a path with several).

    Colour pictures give three channels. Integers stay integers, doubles become float32.

    Raises:
        ReadError: an unreadable file, or NaN or infinite voxels in it.
        GeometryError: channels on different grids, or from different patients, studies or frames of reference.
    """
    if not paths:
        raise ReadError("a case without image files cannot be read")
    parts: list[Volume] = []
    for path in paths:
        part = channels_first(read(path))
        if part.array.dtype.kind == "f":
            bad = int(part.array.size - np.count_nonzero(np.isfinite(part.array)))
            if bad:
                raise ReadError(
                    f"{path} holds {bad} NaN or infinite voxel(s); replace them by a number or leave it out"
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


def _check_same_patient(first: Volume, other: Volume, first_path: Path, other_path: Path) -> None:
    for what in ("patient_id", "study_instance_uid", "frame_of_reference_uid"):
        a, b = getattr(first.metadata, what), getattr(other.metadata, what)
        if a and b and a != b:
            raise GeometryError(f"{first_path} and {other_path} differ in {what}; channels must belong together")


def read_label_map(sources: Sequence[LabelSource], threshold: float | None = None) -> Volume:
    """The label map of a case, unsigned integers `(I, J, K)` or `(I, J)`, no channels.

    Args:
        sources: files; where a value is given, every voxel that is set in the file gets that value. Later files are
            painted over earlier ones.
        threshold: for masks such as 0/255: voxels above it are set; without a value in the source they become 1. A file
            of integers 0 and 1 is left as it is.

    Raises:
        ReadError: an unreadable file.
        DatasetError: negative, non-integer or NaN values, or colours.
        GeometryError: files on different grids.
    """
    if not sources:
        raise DatasetError("a case without label files has no label map")
    result: Volume | None = None
    painted: NDArray[Any] | None = None
    for source in sources:
        volume = _one_channel(read(source.path), source.path)
        if result is not None:
            check_same_geometry(result, volume, str(sources[0].path), str(source.path))
        values = _label_values(volume.array, source, threshold)
        if painted is None or result is None:
            result, painted = volume, values
            continue
        painted = painted.astype(np.result_type(painted, values), copy=painted is not values)
        np.copyto(painted, values, where=values != 0)
    assert result is not None and painted is not None
    return result.with_array(painted)


def _one_channel(volume: Volume, path: Path) -> Volume:
    if not volume.channels:
        return volume
    first = volume.array[0]
    if volume.channels in (1, 3) and all(np.array_equal(first, other) for other in volume.array[1:]):
        return volume.with_array(first)
    raise DatasetError(
        f"{path} has {volume.channels} channels that differ; expected one integer per voxel: convert colours to label "
        "values first"
    )


def _label_values(array: NDArray[Any], source: LabelSource, threshold: float | None) -> NDArray[Any]:
    if array.dtype == bool:
        array = array.astype(np.uint8)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DatasetError(f"{source.path} holds NaN or infinite values; expected one integer per voxel")
    # A two-level file is read as 0 and 1, whatever its colours; a threshold meant for 0/255 would empty it.
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
                f"{source.path} holds the value {example:.4g}; expected integers: is this an image, or a probability "
                "map? For a mask with soft edges set data.label_threshold"
            )
        if array.dtype.itemsize <= 4 and np.abs(rounded).max(initial=0) >= 2**24:
            raise DatasetError(
                f"{source.path} holds label values of 2**24 and more in single precision, which cannot tell them "
                "apart; save the label map as integers"
            )
        array = rounded
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    if low < 0:
        raise DatasetError(f"{source.path} holds the value {low}; label maps hold 0 and positive integers")
    if high >= 2**32:
        raise DatasetError(f"{source.path} holds the value {high}; expected label values below 2**32")
    return array.astype(_smallest(high), copy=False)


def _painted(mask: NDArray[np.bool_], value: int) -> NDArray[Any]:
    painted = mask.astype(_smallest(value))
    painted *= value
    return painted


def _smallest(value: int) -> type[np.unsignedinteger[Any]]:
    return np.uint8 if value < 256 else np.uint16 if value < 65536 else np.uint32
