"""Some dozens of features of a case, measured in the same way on training cases and on new cases.

The image is read on every n-th voxel per axis, so that the largest CT takes a fraction of a second. Grey levels are
measured as stored, since the plan is made after the training cases are measured; `CaseFeatures.normalized` then gives
those of z-scored channels as the network sees them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.labels import LabelScheme
from medseg.preparation.background import Rule, frame_level, other_than
from medseg.preparation.normalize import BACKGROUND_SHARE, background_value, mean_and_std
from medseg.volume import Volume

__all__ = ["CaseFeatures", "Feature", "GreyLevels", "measure_case"]

# Voxels that are looked at along one axis.
SAMPLES = 128
# Grey levels that differ by this share of the image's spread are the same.
SLACK = 0.15
# Blocks per axis of the coarse picture.
PICTURE = 8
AXES = {"R": "left-right", "A": "front-back", "S": "body"}
# Hounsfield units: fat, unenhanced soft tissue, blood with contrast medium and organs full of it, bone and metal.
TISSUES = {
    "fat": (-150, -20),
    "soft tissue": (-20, 80),
    "bright tissue": (80, 250),
    "bone or contrast": (250, math.inf),
}
AIR = -500.0
# Air in a CT is near -1000; what never goes below this is not in Hounsfield units, or shows no air.
LOWEST_OF_HU = -200.0
# Kinds in the unit of the grey levels, and kinds in widths of the grey levels.
LEVELS = frozenset({"level", "label_level"})
IN_WIDTHS = frozenset({"shape", "tails", "grain", "contrast"})


@dataclass(frozen=True, slots=True)
class Feature:
    """One number about a case.

    Args:
        kind: a key of `medseg.preparation.training_range.KINDS`: says how it is compared.
        what: in words, without channel and label.
        value: in the kind's unit.
        channel, label: index among channels and labels, -1 where it concerns none.
        slack: a difference that says nothing, in the unit of `value`; 0 where the kind knows it.
        least: values below it are alike; None where all differ.
    """

    kind: str
    what: str
    value: float
    channel: int = -1
    label: int = -1
    slack: float = 0.0
    least: float | None = None

    @property
    def key(self) -> tuple[str, int, int]:
        """Which feature it is."""
        return self.what, self.channel, self.label


@dataclass(frozen=True, slots=True)
class GreyLevels:
    """What z-score makes of one channel of a case.

    Args:
        mean, std: of what is not background.
        width: between the grey levels at 10% and 90%, in standard deviations.
        stretch: factor on features in widths; 1 unless the grey levels hardly differ and the width is a convention.
    """

    mean: float
    std: float
    width: float
    stretch: float


@dataclass(frozen=True, slots=True)
class CaseFeatures:
    """All features of a case.

    Args:
        features: in a fixed order; those that cannot be measured (the size of an absent label) are left out.
        pictures: per channel 8^n block means along the patient's axes, with mean 0 and standard deviation 1.
        present: which labels the label map holds.
        levels: per channel, for `normalized`.
        background: how background was separated from the rest, see `measure_case`.
    """

    features: tuple[Feature, ...]
    pictures: tuple[tuple[float, ...], ...]
    present: tuple[bool, ...]
    levels: tuple[GreyLevels, ...] = ()
    background: Rule = "frame"

    def normalized(self, zscored: Sequence[bool]) -> CaseFeatures:
        """The features after the normalisation of z-scored channels, of which the network knows neither scale nor unit.

        Grey levels are then in standard deviations from the mean, under names of their own, so that they are never
        held against grey levels as stored; there are no Hounsfield units. Other channels are left as they are.

        Args:
            zscored: per channel of the plan.

        Example:
            >>> image = Volume(np.arange(27.0).reshape(3, 3, 3), np.eye(4))
            >>> case = measure_case(image, image.with_array(image.array > 20), LabelScheme.from_mapping({"a": 1}))
            >>> [(f.what, f.value) for f in case.normalized([True]).features if f.what.endswith("at 50%")]
            [('normalised grey level at 50%', 0.0)]
        """
        kept = []
        for feature in self.features:
            if feature.channel < 0 or not zscored[feature.channel]:
                kept.append(feature)
            elif feature.kind != "tissue":
                kept.append(_normalized(feature, self.levels[feature.channel]))
        known = {feature.key for feature in _tissue_between(kept, len(zscored))}
        return replace(self, features=tuple(f for f in kept if f.kind != "between" or f.key in known))


def measure_case(image: Volume, labels: Volume, scheme: LabelScheme, background: Rule = "frame") -> CaseFeatures:
    """Measure a case.

    Args:
        image: as read, with or without channels.
        labels: integers on the same grid.
        scheme: which labels to measure.
        background: 'frame': the grey level of the corners, else the minimum; 'common', as older reference ranges have
            it: the most common grey level if it fills a fifth of the image.

    Example:
        >>> image = Volume(np.arange(27.0).reshape(3, 3, 3), np.diag([1, 1, 2.5, 1]))
        >>> scheme = LabelScheme.from_mapping({"a": 1})
        >>> [f.value for f in measure_case(image, image.with_array(np.zeros((3, 3, 3), int)), scheme).features[:3]]
        [1.0, 1.0, 2.5]
    """
    array = image.array if image.channels else image.array[None]
    grid = _Grid.of(image)
    steps = tuple(-(-n // SAMPLES) for n in image.shape)
    few = tuple(slice(s // 2, None, s) for s in steps)
    channels = [_Channel.of(channel, few, background) for channel in array]
    features = [*grid.features()]
    for number, channel in enumerate(channels):
        features += channel.features(number, grid, steps)
    if len(channels) > 1:
        features += [*_between(channels), *_tissue_between(features, len(channels))]
    present = []
    native = labels.array
    for number, name in enumerate(scheme.names):
        mask = scheme.mask(native[few], name)
        voxels = int(mask.sum()) * math.prod(steps)
        # A lesion of a few voxels may fall between those that are looked at.
        present.append(voxels > 0 or any(bool((native == v).any()) for v in scheme.values[number]))
        if voxels:
            features += _of_label(number, mask, voxels, _faces(native, scheme, name), channels, grid, steps)
    pictures = tuple(grid.picture(channel.sample) for channel in channels)
    levels = tuple(channel.grey_levels() for channel in channels)
    return CaseFeatures(tuple(features), pictures, tuple(present), levels, background)


def _normalized(feature: Feature, channel: GreyLevels) -> Feature:
    if feature.kind in LEVELS:
        value = (feature.value - channel.mean) / channel.std
        return replace(feature, what=f"normalised {feature.what}", value=value, slack=SLACK * channel.width)
    if feature.kind == "empty":
        # A narrow frame says nothing about an image; the most common level counts from this share on only.
        return replace(feature, least=BACKGROUND_SHARE)
    return replace(feature, value=feature.value * channel.stretch) if feature.kind in IN_WIDTHS else feature


@dataclass(frozen=True, slots=True)
class _Grid:
    """Spacing and place of the axes: `order[n]` is the array axis along the n-th of the patient's axes."""

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    order: tuple[int, ...]
    flipped: tuple[bool, ...]
    names: tuple[str, ...]

    @classmethod
    def of(cls, volume: Volume) -> _Grid:
        if volume.dims == 2:
            return cls(volume.shape, volume.spacing_mm, (0, 1), (False, False), ("x", "y"))
        letters = volume.orientation
        order = tuple(next(n for n, letter in enumerate(letters) if letter in pair) for pair in ("RL", "AP", "SI"))
        flipped = tuple(letters[n] in "LPI" for n in order)
        return cls(volume.shape, volume.spacing_mm, order, flipped, tuple(AXES.values()))

    def features(self) -> Iterator[Feature]:
        for axis, name in zip(self.order, self.names, strict=True):
            yield Feature("spacing", f"spacing along the {name} axis", self.spacing[axis])
        for axis, name in zip(self.order, self.names, strict=True):
            yield Feature("extent", f"field of view along the {name} axis", self.spacing[axis] * self.shape[axis])

    def along_patient(self, array: NDArray[Any]) -> NDArray[Any]:
        turned = array.transpose(self.order)
        return turned[tuple(slice(None, None, -1 if flip else 1) for flip in self.flipped)]

    def picture(self, sample: NDArray[np.float32]) -> tuple[float, ...]:
        low, high = np.quantile(sample, [0.01, 0.99])
        blocks = np.clip(self.along_patient(sample), low, high)
        for axis in range(blocks.ndim):
            edges = np.linspace(0, blocks.shape[axis], PICTURE + 1).astype(int)[:-1]
            counts = np.diff(np.append(edges, blocks.shape[axis])).clip(1)
            sums = np.add.reduceat(blocks, edges.clip(max=blocks.shape[axis] - 1), axis=axis, dtype=np.float64)
            blocks = sums / counts.reshape([-1 if n == axis else 1 for n in range(blocks.ndim)])
        flat = blocks.reshape(-1)
        std = flat.std()
        return tuple(float(v) for v in np.round((flat - flat.mean()) / std if std > 1e-9 else flat * 0, 3))


@dataclass(frozen=True, slots=True)
class _Channel:
    """A channel on every n-th voxel, and its grey levels at 1, 10, 50, 90 and 99% of what is not background."""

    full: NDArray[Any]
    sample: NDArray[np.float32]
    background: float | None
    levels: tuple[float, ...]

    @classmethod
    def of(cls, full: NDArray[Any], few: tuple[slice, ...], rule: Rule) -> _Channel:
        sample = np.ascontiguousarray(full[few], dtype=np.float32)
        background = frame_level(full).value if rule == "frame" else background_value(sample.reshape(-1))
        levels = np.quantile(other_than(sample, background), [0.01, 0.1, 0.5, 0.9, 0.99])
        return cls(full, sample, background, tuple(float(v) for v in levels))

    @property
    def width(self) -> float:
        """Between the grey levels at 10% and 90%."""
        return _width(self.levels)

    def grey_levels(self) -> GreyLevels:
        mean, std = mean_and_std(other_than(self.sample, self.background))
        width = _width([(level - mean) / std for level in self.levels])
        return GreyLevels(mean, std, width, self.width / (std * width))

    def features(self, number: int, grid: _Grid, steps: tuple[int, ...]) -> Iterator[Feature]:
        low, below, middle, above, high = self.levels
        for share, level in zip((1, 10, 50, 90, 99), self.levels, strict=True):
            yield Feature("level", f"grey level at {share}%", level, number, slack=SLACK * self.width)
        yield Feature("shape", "lopsidedness of the grey levels", (above + below - 2 * middle) / self.width, number)
        yield Feature("tails", "length of the tails of the grey levels", (high - low) / self.width, number)
        yield Feature("grain", "difference of neighbouring voxels", self._grain(), number)
        empty = 0.0 if self.background is None else float((self.sample == self.background).mean())
        yield Feature("empty", "share of background", empty, number)
        if self.sample.min() < LOWEST_OF_HU:
            solid = self.sample[self.sample > AIR]
            yield Feature("tissue", "share of air", 1 - solid.size / self.sample.size, number)
            for name, (start, stop) in TISSUES.items():
                part = float(((solid >= start) & (solid < stop)).mean()) if solid.size else 0.0
                yield Feature("tissue", f"share of {name} in what is not air", part, number)

    def _grain(self) -> float:
        """Median difference of neighbours along all axes, in widths of the grey levels."""
        differences = []
        for axis in range(self.full.ndim):
            step = [-(-n // SAMPLES) for n in self.full.shape]
            pick = [slice(s // 2, None, s) for s in step]
            first, second = list(pick), list(pick)
            count = (self.full.shape[axis] - 1) // step[axis]
            first[axis] = slice(0, count * step[axis], step[axis])
            second[axis] = slice(1, 1 + count * step[axis], step[axis])
            one, two = (self.full[tuple(p)].astype(np.float32) for p in (first, second))
            each = np.abs(two - one)
            differences.append(each[one != self.background] if self.background is not None else each.reshape(-1))
        pooled = np.concatenate(differences)
        return float(np.median(pooled)) / self.width if pooled.size else 0.0


def _width(levels: Sequence[float]) -> float:
    return max(levels[3] - levels[1], 1e-6 * max(1.0, abs(levels[2])))


def _between(channels: list[_Channel]) -> Iterator[Feature]:
    for first in range(len(channels)):
        for second in range(first + 1, len(channels)):
            one, two = (channels[n].sample.reshape(-1) for n in (first, second))
            spread = float(one.std() * two.std())
            together = float(np.mean((one - one.mean()) * (two - two.mean()))) / spread if spread > 1e-12 else 0.0
            yield Feature("correlation", f"correlation of channels {first + 1} and {second + 1}", together)


def _tissue_between(features: Sequence[Feature], channels: int) -> Iterator[Feature]:
    """How much more of a tissue one CT shows than another of the same patient: phases differ by less than patients."""
    shares = {(f.channel, f.what): f.value for f in features if f.kind == "tissue"}
    for first in range(channels):
        for second in range(first + 1, channels):
            for name in TISSUES:
                what = f"share of {name} in what is not air"
                if (first, what) in shares and (second, what) in shares:
                    more = shares[second, what] - shares[first, what]
                    yield Feature("between", f"{what}, channel {second + 1} less channel {first + 1}", more)


def _faces(labels: NDArray[Any], scheme: LabelScheme, name: str) -> int:
    """Voxels of a label on the outer faces of the image."""
    sides = (labels[(slice(None),) * axis + (end,)] for axis in range(labels.ndim) for end in (0, -1))
    return sum(int(scheme.mask(side, name).sum()) for side in sides)


def _of_label(
    number: int,
    mask: NDArray[np.bool_],
    voxels: int,
    on_faces: int,
    channels: list[_Channel],
    grid: _Grid,
    steps: tuple[int, ...],
) -> Iterator[Feature]:
    size = voxels * math.prod(grid.spacing) / (1000 if mask.ndim == 3 else 1)
    yield (
        Feature("size", "volume", size, label=number) if mask.ndim == 3 else Feature("area", "area", size, label=number)
    )
    surface = voxels ** (1 - 1 / mask.ndim)
    yield Feature("cut", "share of its surface on the border of the image", on_faces / surface, label=number)
    where = np.nonzero(mask)
    for axis, flip, name in zip(grid.order, grid.flipped, grid.names, strict=True):
        place = float(where[axis].mean() + 0.5) / mask.shape[axis]
        yield Feature("place", f"place along the {name} axis", 1 - place if flip else place, label=number)
        length = (int(where[axis].max() - where[axis].min()) + 1) * steps[axis] * grid.spacing[axis]
        yield Feature("length", f"length along the {name} axis", length, label=number)
    box = tuple(slice(int(w.min()), int(w.max()) + 1) for w in where)
    parts, count = ndimage.label(mask[box])
    largest = float(np.bincount(parts.reshape(-1))[1:].max() / len(where[0])) if count > 1 else 1.0
    yield Feature("largest", "share of its largest part", largest, label=number)
    for index, channel in enumerate(channels):
        inside = channel.sample[box][mask[box]]
        level = float(np.median(inside))
        yield Feature("label_level", "median grey level", level, index, number, SLACK * channel.width)
        yield Feature("contrast", "contrast to the image", (level - channel.levels[2]) / channel.width, index, number)
