"""Fingerprint of a data set: shapes, spacings, grey levels and labels of every case, small enough for a JSON file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.disk.atomic import write_text_atomic
from medseg.labels import LabelScheme
from medseg.preparation.background import FrameLevel, frame_level
from medseg.preparation.case_features import CaseFeatures, Feature, GreyLevels, measure_case
from medseg.preparation.deskew import empty_volume, is_orthogonal, straight_grid
from medseg.preparation.grid import holds_whole_numbers
from medseg.preparation.label_places import LabelledVoxels, LabelPlace, measure_places, middle_of_body
from medseg.preparation.label_thickness import measure_thickness
from medseg.preparation.padding import padding_mask
from medseg.volume import Finding, Metadata, Volume

__all__ = [
    "CaseFingerprint",
    "ChannelFingerprint",
    "Fingerprint",
    "count_labels",
    "fingerprint_case",
    "labelled_box",
    "load_fingerprint",
]

FORMAT_VERSION = 6
QUANTILES = 200
SAMPLES = 1_000_000
BLOCK = 1 << 22
# World axis (R, A, S of RAS) that a letter of an orientation lies on.
WORLD_AXIS = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}


@dataclass(frozen=True, slots=True)
class ChannelFingerprint:
    """Grey levels of one channel of one case.

    Args:
        minimum, maximum: over the whole image.
        whole_numbers: whether every grey level is an integer.
        mean, std: over labelled voxels that are not padding; None where nothing is labelled.
        quantiles: 200 grey levels of these voxels at the cumulative shares (n + 0.5) / 200; empty where none.
        frame: the grey level around what the image shows, see `medseg.preparation.background.frame_level`.
        frame_share: of the image that has this level.
    """

    minimum: float
    maximum: float
    whole_numbers: bool
    mean: float | None
    std: float | None
    quantiles: tuple[float, ...]
    frame: float | None = None
    frame_share: float = 0.0


@dataclass(frozen=True, slots=True)
class CaseFingerprint:
    """One case.

    Args:
        name: of the case.
        stamp: hash of the files it was read from and how; another stamp means: read again.
        shape, spacing_mm, spacing_known, orientation: of the native grid; of a sheared one (gantry tilt): of the
            orthogonal grid that covers it.
        modality: DICOM Modality, '' where the file has none.
        channels: grey levels per channel.
        label_voxels: label value -> voxels, background (0) included.
        centroids_mm: label value -> centre of mass in RAS+ mm, 3D only.
        features: for the reference ranges that new cases are compared with.
        findings: irregularities met while reading.
        places: label value -> where it lies, to find twins.
        middle_mm: where the middle between the body's sides lies, along the first axis of `places`.
        thickness_mm: label value -> how thick its structures are, see `measure_thickness`; pixels where no spacing is
            known.
    """

    name: str
    stamp: str
    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    spacing_known: bool
    orientation: str
    modality: str
    channels: tuple[ChannelFingerprint, ...]
    label_voxels: Mapping[int, int]
    centroids_mm: Mapping[int, tuple[float, float, float]]
    features: CaseFeatures
    findings: tuple[Finding, ...] = ()
    places: Mapping[int, LabelPlace] = field(default_factory=dict)
    middle_mm: float = 0.0
    thickness_mm: Mapping[int, float] = field(default_factory=dict)

    def along(self, orientation: str | None) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """(shape, spacing) with the axes in the order of `orientation`; as they are for None."""
        if orientation is None:
            return self.shape, self.spacing_mm
        world = [WORLD_AXIS[letter] for letter in self.orientation]
        axes = [world.index(WORLD_AXIS[letter]) for letter in orientation]
        return tuple(self.shape[a] for a in axes), tuple(self.spacing_mm[a] for a in axes)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A data set: its cases, sorted by name, and the names of its channels."""

    cases: tuple[CaseFingerprint, ...]
    channel_names: tuple[str, ...]

    @property
    def dims(self) -> int:
        """Spatial axes of the images, 2 or 3."""
        return len(self.cases[0].shape)

    @property
    def in_channels(self) -> int:
        """Channels of the images."""
        return len(self.cases[0].channels)

    @property
    def spacing_known(self) -> bool:
        """Whether every case has a physical scale."""
        return all(c.spacing_known for c in self.cases)

    def foreground(self, channel: int) -> tuple[float, float, float, float]:
        """(0.5 and 99.5 percentile, mean, std) of a channel over labelled voxels; every case counts the same."""
        of_cases = [c.channels[channel] for c in self.cases if c.channels[channel].quantiles]
        pooled = np.concatenate([c.quantiles for c in of_cases])
        low, high = np.percentile(pooled, [0.5, 99.5])
        means = np.array([c.mean for c in of_cases], dtype=float)
        stds = np.array([c.std for c in of_cases], dtype=float)
        mean = float(means.mean())
        # Law of total variance.
        std = float(np.sqrt(max(0.0, (stds**2 + means**2).mean() - mean**2)))
        return float(low), float(high), mean, std

    def frames(self, channel: int) -> tuple[FrameLevel, ...]:
        """The grey level of each case around what a channel shows."""
        of_cases = [c.channels[channel] for c in self.cases]
        return tuple(FrameLevel(each.frame, each.frame_share, each.minimum, each.maximum) for each in of_cases)

    def save(self, path: Path) -> None:
        """Write as JSON.

        Raises:
            WriteError: if the file cannot be written.
        """
        cases = [asdict(case) for case in self.cases]
        content = {"format_version": FORMAT_VERSION, "channel_names": self.channel_names, "cases": cases}
        write_text_atomic(path, json.dumps(content) + "\n")


def load_fingerprint(path: Path) -> Fingerprint | None:
    """A saved fingerprint; None where there is none or it is from another version or damaged: it is only a cache."""
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format_version"] != FORMAT_VERSION:
            return None
        cases = tuple(_case_from_json(case) for case in content["cases"])
        return Fingerprint(cases, tuple(content["channel_names"]))
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return None


def fingerprint_case(name: str, stamp: str, image: Volume, labels: Volume, scheme: LabelScheme) -> CaseFingerprint:
    """Measure one case.

    Args:
        name: of the case.
        stamp: what identifies its sources.
        image: with channels.
        labels: integers on the same grid, without channels.
        scheme: what the labels mean.

    Returns:
        Its fingerprint.

    Raises:
        GeometryError: for an absurdly sheared grid.
    """
    # NIfTI arrays come with the first axis fastest; their transpose can be walked through without a copy.
    turned = labels.array.flags.f_contiguous and not labels.array.flags.c_contiguous
    label_map = labels.array.T if turned else labels.array
    positions = np.flatnonzero(label_map)
    values = label_map.reshape(-1)[positions]
    found, counts = count_labels(values)
    index = np.searchsorted(found, values)
    voxels = {0: int(label_map.size - positions.size)}
    voxels.update({int(v): int(n) for v, n in zip(found, counts, strict=True)})
    centroids: dict[int, tuple[float, float, float]] = {}
    if labels.dims == 3 and labels.spacing_known and found.size:
        sums = [np.bincount(index, weights=axis) for axis in np.unravel_index(positions, label_map.shape)]
        centres = np.stack(sums[::-1] if turned else sums) / counts
        world = labels.affine[:3, :3] @ centres + labels.affine[:3, 3:]
        centroids = {int(v): (float(x), float(y), float(z)) for v, (x, y, z) in zip(found, world.T, strict=True)}
    labelled = positions if scheme.ignore is None else positions[values != scheme.ignore]
    channels = tuple(
        _channel(channel.T if turned else channel, labelled, image.metadata, image.channels) for channel in image.array
    )
    where = LabelledVoxels(positions, values, label_map.shape, turned)
    of_labels = {v: n for v, n in voxels.items() if v not in (0, scheme.ignore)}
    grid = image
    if image.dims == 3 and image.spacing_known and not is_orthogonal(image.affine, image.shape):
        affine, shape = straight_grid(image)
        grid = empty_volume(shape, affine)
    return CaseFingerprint(
        name=name,
        stamp=stamp,
        shape=grid.shape,
        spacing_mm=grid.spacing_mm,
        spacing_known=image.spacing_known,
        orientation=grid.orientation,
        modality=image.metadata.modality,
        channels=channels,
        label_voxels=voxels,
        centroids_mm=centroids,
        features=measure_case(image, labels, scheme),
        findings=(*image.findings, *labels.findings),
        places=measure_places(image, where, of_labels),
        middle_mm=middle_of_body(image),
        thickness_mm=_thickness(labels, of_labels),
    )


def _thickness(labels: Volume, counts: Mapping[int, int]) -> dict[int, float]:
    if not counts:
        return {}
    return measure_thickness(labels.array, labels.spacing_mm, counts, labelled_box(labels.array))


def count_labels(values: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(values that occur, how often) of unsigned integers; without the sort of `np.unique` where they are small."""
    flat = values.ravel(order="K")
    largest = int(flat.max()) if flat.size else 0
    if largest < 65536:
        counts = np.zeros(largest + 1, dtype=np.int64)
        # bincount works on a copy of 8 bytes per voxel, so not on all at once.
        for start in range(0, flat.size, BLOCK):
            counts += np.bincount(flat[start : start + BLOCK], minlength=largest + 1)
        found = np.flatnonzero(counts)
        return found, counts[found]
    found, counts = np.unique(flat, return_counts=True)
    return found.astype(np.int64), counts


def labelled_box(labels: NDArray[Any]) -> tuple[slice, ...]:
    """The smallest box around all voxels that are not 0; an empty one where there are none.

    Args:
        labels: `(I, J[, K])`, in any order of memory.

    Example:
        >>> labelled_box(np.array([[0, 0, 0, 0], [0, 3, 1, 0]]))
        (slice(1, 2, None), slice(1, 3, None))
    """
    box = [slice(0, n) for n in labels.shape]
    # Planes that lie together in memory come first, so that what is left for the others is small.
    for axis in np.argsort(labels.strides)[::-1]:
        planes = np.flatnonzero(labels[tuple(box)].any(axis=tuple(a for a in range(labels.ndim) if a != axis)))
        if not planes.size:
            return (slice(0, 0),) * labels.ndim
        box[axis] = slice(int(planes[0]), int(planes[-1]) + 1)
    return tuple(box)


def _channel(
    channel: NDArray[Any], labelled: NDArray[np.intp], metadata: Metadata, channels: int
) -> ChannelFingerprint:
    whole = holds_whole_numbers(channel)
    within = np.zeros(channel.shape, dtype=bool)
    within.reshape(-1)[labelled] = True
    padded = padding_mask(channel, metadata, channels, within)
    if padded is not None:
        # Labels that lie on padding only are measured all the same, so that there is a plan.
        measured = labelled[~padded.reshape(-1)[labelled]]
        labelled = measured if measured.size else labelled
    mean = std = None
    quantiles: tuple[float, ...] = ()
    if labelled.size:
        # Every n-th labelled voxel: percentiles of a million samples are as good as those of a hundred million.
        sample = channel.reshape(-1)[labelled[:: -(-labelled.size // SAMPLES)]].astype(np.float64)
        mean, std = float(sample.mean()), float(sample.std())
        shares = (np.arange(QUANTILES) + 0.5) / QUANTILES
        quantiles = tuple(float(q) for q in np.quantile(sample, shares).round(4))
    frame = frame_level(channel)
    return ChannelFingerprint(frame.minimum, frame.maximum, whole, mean, std, quantiles, frame.value, frame.share)


def _features_from_json(values: dict[str, Any]) -> CaseFeatures:
    # Both were called figures once.
    features = values["features"] if "features" in values else values["figures"]
    return CaseFeatures(
        features=tuple(Feature(**feature) for feature in features),
        pictures=tuple(tuple(picture) for picture in values["pictures"]),
        present=tuple(values["present"]),
        levels=tuple(GreyLevels(**levels) for levels in values["levels"]),
        background=values["background"],
    )


def _place_from_json(place: dict[str, Any]) -> LabelPlace:
    levels = tuple(tuple(channel) for channel in place["levels"])
    return LabelPlace(place["volume"], tuple(place["centre"]), tuple(place["covariance"]), levels)


def _case_from_json(case: dict[str, Any]) -> CaseFingerprint:
    return CaseFingerprint(
        name=case["name"],
        stamp=case["stamp"],
        shape=tuple(case["shape"]),
        spacing_mm=tuple(case["spacing_mm"]),
        spacing_known=case["spacing_known"],
        orientation=case["orientation"],
        modality=case["modality"],
        channels=tuple(ChannelFingerprint(**{**c, "quantiles": tuple(c["quantiles"])}) for c in case["channels"]),
        label_voxels={int(k): v for k, v in case["label_voxels"].items()},
        centroids_mm={int(k): (v[0], v[1], v[2]) for k, v in case["centroids_mm"].items()},
        features=_features_from_json(case["features"] if "features" in case else case["figures"]),
        findings=tuple(Finding(f["kind"], f["message"], tuple(f["files"])) for f in case["findings"]),
        places={int(value): _place_from_json(place) for value, place in case["places"].items()},
        middle_mm=case["middle_mm"],
        thickness_mm={int(value): thickness for value, thickness in case["thickness_mm"].items()},
    )
