"""The images as a classifier sees them: small, normalised, with what is surely background; a volume may give slices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.config import DataConfig, RunConfig
from medseg.datasets.cases import Case
from medseg.errors import ConfigError, DatasetError
from medseg.io.images import read_image
from medseg.labels import LabelScheme
from medseg.preparation.background import frame_level, other_than
from medseg.preparation.sources import Reading, read_case, reading_of
from medseg.progress import ProgressCallback
from medseg.resampling import average_array
from medseg.training.weak.image_labels import Shown, WeakCases
from medseg.volume import Volume
from medseg.windowing import window

__all__ = [
    "Levels",
    "Picture",
    "dims_of",
    "empty_places",
    "levels_of",
    "load_pictures",
    "part_of",
    "picture_of",
    "read_weak_case",
    "slices_of",
]

# Hounsfield units between air and the patient's skin.
AIR_HU = -500.0
# Of the span of an image: compression changes a frame of 0 to 1 or 2.
FRAME_SLACK = 0.02
# Grey levels are cut at so many standard deviations, so that a marker or a needle decides nothing.
FARTHEST = 5.0


Place = tuple[str, int | None]
"""A case, and the slice of it along the last axis, or None for the whole image."""


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """An image, or a slice of one, with its image-level labels.

    Args:
        case: name of the case.
        index: of the slice along the last axis; None: the whole image.
        shown: names of the labels that it shows.
        image: `(C, I, J[, K])` float16; of the whole volume, what is not background has mean 0 and deviation 1.
        empty: `(I, J[, K])` where no label can be.
    """

    case: str
    index: int | None
    shown: frozenset[str]
    image: NDArray[np.float16]
    empty: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Levels:
    """Mean and standard deviation of what a channel shows, after a window where one is given."""

    mean: float
    deviation: float


def load_pictures(found: WeakCases, config: RunConfig, progress: ProgressCallback) -> list[Picture]:
    """The images whose labels are known; with `net.dims=2` each slice of a volume is an image of its own.

    Raises:
        ConfigError: `net.dims` does not fit the images or their image-level labels.
        DatasetError: images of different dimensions or channels, or a slice that a volume does not have.
        ReadError, GeometryError: an image or label map that cannot be read or does not fit the other.
    """
    cases = [case for case in found.dataset.cases if case.split != "test"]
    reading = reading_of(config.data, found.dataset.labels)
    pictures: list[Picture] = []
    for number, case in enumerate(cases):
        image, labels = read_weak_case(case, reading)
        dims = dims_of(image, case.name, config)
        shown = found.shown.get(case.name, {})
        if labels is not None and not shown:
            shown = _occurring(labels, found.dataset.labels, dims)
        _check_slices(shown, image, dims, case.name)
        levels = levels_of(image, config.data)
        for index, names in shown.items():
            array = part_of(image.array, index)
            pictures.append(picture_of((case.name, index), names, array, levels, config))
        progress(number + 1, len(cases), f"read {case.name}")
    for what, each_has in (("axes", {p.image.ndim for p in pictures}), ("channels", {len(p.image) for p in pictures})):
        if len(each_has) > 1:
            raise DatasetError(f"{config.data.root}: images differ in their number of {what}; all need the same")
    return pictures


def dims_of(image: Volume, name: str, config: RunConfig) -> int:
    """2 or 3, the axes of the pictures of an image.

    Raises:
        ConfigError: 3 for a 2D image.
    """
    dims = config.net.dims or image.dims
    if dims > image.dims:
        raise ConfigError(f"net.dims is 3, but the image of case {name} is 2D; leave net.dims out")
    return dims


def slices_of(image: Volume, dims: int) -> list[int | None]:
    """The slices that are pictures of their own; None: the image as a whole."""
    return [*range(image.shape[2])] if dims < image.dims else [None]


def part_of(array: NDArray[Any], index: int | None) -> NDArray[Any]:
    """A slice along the last axis, or the whole."""
    return array if index is None else array[..., index]


def _occurring(labels: Volume, scheme: LabelScheme, dims: int) -> Shown:
    values = dict(zip(scheme.names, scheme.painted, strict=True))
    found = {}
    for index in slices_of(labels, dims):
        there = np.unique(part_of(labels.array, index))
        found[index] = frozenset(name for name, value in values.items() if value in there)
    return found


def _check_slices(shown: Shown, image: Volume, dims: int, name: str) -> None:
    if None in shown and dims < image.dims:
        raise ConfigError(
            f"net.dims is 2, but case {name} is a volume with one image-level label for all its slices; leave net.dims "
            "out, or give a column slice with the labels of each slice"
        )
    numbers = [index for index in shown if index is not None]
    if numbers and (dims == 3 or image.dims == 2):
        raise ConfigError(f"case {name} has image-level labels of slices; give net.dims=2, and volumes as images")
    if numbers and max(numbers) >= image.shape[2]:
        raise DatasetError(
            f"case {name} has an image-level label of slice {max(numbers)}, but its slices are 0 to "
            f"{image.shape[2] - 1}; correct the table"
        )


def read_weak_case(case: Case, reading: Reading) -> tuple[Volume, Volume | None]:
    """The image of a case, channels first, and its label map where it has one.

    Raises:
        ReadError, DatasetError, GeometryError: as `read_case`.
    """
    if case.labels:
        return read_case(case, reading)
    return read_image(case.images, reading.nan, case.series or None), None


def small_shape(shape: Sequence[int], longest: int) -> tuple[int, ...]:
    """The shape whose longest side has at most so many voxels, in the same proportions."""
    factor = min(1.0, longest / max(shape))
    return tuple(max(1, round(n * factor)) for n in shape)


def is_ct(data: DataConfig) -> bool:
    """Whether the grey levels are Hounsfield units."""
    modality = data.modality if isinstance(data.modality, str) or data.modality is None else data.modality[0]
    return modality is not None and modality.upper() == "CT"


def empty_places(array: NDArray[Any], rule: str) -> NDArray[np.bool_]:
    """Where no label can be: what is connected to the border of the image, slice by slice, and is air or frame.

    Args:
        array: `(C, I, J[, K])` grey levels.
        rule: air (below -500 HU), frame (the grey level of the corners), or none.
    """
    shape = array.shape[1:]
    if rule == "none":
        return np.zeros(shape, bool)
    if rule == "air":
        dark = array[0] < AIR_HU
    else:
        dark = np.ones(shape, bool)
        for channel in array:
            level = frame_level(channel)
            if level.value is None or not level.is_darkest:
                return np.zeros(shape, bool)
            dark &= channel <= level.value + FRAME_SLACK * (level.maximum - level.minimum)
    result = np.zeros(shape, bool)
    for there, mask in _planes(dark):
        numbers, _ = ndimage.label(mask)
        edge = np.unique(np.concatenate([numbers[0], numbers[-1], numbers[:, 0], numbers[:, -1]]))
        result[there] = np.isin(numbers, edge[edge > 0])
    return result


def _planes(mask: NDArray[np.bool_]) -> Iterator[tuple[Any, NDArray[np.bool_]]]:
    # A windpipe leaves a chest by its first or last slice, so only borders within a slice count.
    if mask.ndim == 2:
        yield (), mask
        return
    for k in range(mask.shape[2]):
        yield (..., k), mask[..., k]


def levels_of(image: Volume, data: DataConfig) -> list[Levels]:
    """Of each channel, what normalises it: of a volume as a whole, so that its slices stay comparable."""
    found = []
    for channel in image.array:
        inside = other_than(values := _windowed(channel, data), frame_level(values).value)
        found.append(Levels(float(inside.mean()), max(float(inside.std()), 1e-6)))
    return found


def picture_of(
    place: Place, shown: frozenset[str], array: NDArray[Any], levels: Sequence[Levels], config: RunConfig
) -> Picture:
    """A slice of an image, or the whole, as the classifier sees it.

    Args:
        place: case, and slice or None.
        shown: names of its labels.
        array: `(C, I, J[, K])` its grey levels.
        levels: of the whole image, see `levels_of`.
        config: `data` and `weak` count.
    """
    rule = config.weak.background
    rule = ("air" if is_ct(config.data) else "frame") if rule == "auto" else rule
    shape = small_shape(array.shape[1:], config.weak.longest)
    empty = average_array(empty_places(array, rule).astype(np.float32), shape) > 0.5
    scaled = [
        np.clip((_windowed(channel, config.data) - each.mean) / each.deviation, -FARTHEST, FARTHEST)
        for channel, each in zip(array, levels, strict=True)
    ]
    return Picture(*place, shown, average_array(np.stack(scaled), shape).astype(np.float16), empty)


def _windowed(channel: NDArray[Any], data: DataConfig) -> NDArray[np.float32]:
    values = np.asarray(channel, np.float32)
    if data.window is None:
        return np.clip(values, -1000.0, 1000.0) if is_ct(data) else values
    chosen = data.window
    if isinstance(chosen, str):
        return np.asarray(window(values, chosen))
    return np.asarray(window(values, center=chosen.center, width=chosen.width, function=chosen.function))
