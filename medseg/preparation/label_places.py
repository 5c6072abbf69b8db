"""Where the labels of a case lie and how grey they are: what tells twins, without looking at the case again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.preparation.body import body_box
from medseg.volume import Volume

__all__ = ["LabelPlace", "LabelledVoxels", "joined_place", "measure_places", "middle_of_body"]

# Voxels that are looked at: of all labels together, and the fewest of one label that has as many.
SAMPLES = 1_000_000
FEWEST = 200
LEVELS = 10
# Voxels along an axis in which the body is looked for.
COARSE = 128


@dataclass(frozen=True, slots=True)
class LabelPlace:
    """One label in one case.

    Args:
        volume: mm^3, or mm^2 in 2D; pixels where the spacing is not known.
        centre: centre of mass in mm, RAS+; of 2D images along the axes of the file.
        covariance: of the places of its voxels with their own extent, `n * n` numbers in mm^2, row by row.
        levels: per channel, 10 grey levels at the cumulative shares (n + 0.5) / 10.
    """

    volume: float
    centre: tuple[float, ...]
    covariance: tuple[float, ...]
    levels: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class LabelledVoxels:
    """The labelled voxels of a label map.

    Args:
        positions: flat, in the order of memory of an array of `shape`.
        values: of the label map at these positions.
        shape: of the label map, or of its transpose where that is how it lies in memory (`turned`).
    """

    positions: NDArray[np.intp]
    values: NDArray[Any]
    shape: tuple[int, ...]
    turned: bool

    def some_of(self, value: int, count: int, step: int) -> NDArray[np.intp]:
        """`(axes, n)` voxel indices of every `step`-th labelled voxel that holds a value; more where these are few."""
        picked = self.positions[::step][self.values[::step] == value]
        if picked.size < min(FEWEST, count):
            of_value = self.positions[self.values == value]
            picked = of_value[:: max(1, of_value.size // FEWEST)]
        index = np.unravel_index(picked, self.shape)
        return np.stack(index[::-1] if self.turned else index)


def measure_places(image: Volume, labelled: LabelledVoxels, counts: dict[int, int]) -> dict[int, LabelPlace]:
    """Label value -> where it lies.

    Args:
        image: with channels.
        labelled: its labelled voxels.
        counts: label value -> voxels, without background.
    """
    to_mm, origin = _to_mm(image)
    step = -(-labelled.positions.size // SAMPLES) or 1
    shares = (np.arange(LEVELS) + 0.5) / LEVELS
    found = {}
    for value, count in counts.items():
        index = labelled.some_of(value, count, step)
        places = to_mm @ index + origin[:, None]
        covariance = np.atleast_2d(np.cov(places, bias=True)) + to_mm @ to_mm.T / 12
        levels = np.quantile(image.array[(slice(None), *index)].astype(np.float64), shares, axis=1).T
        found[value] = LabelPlace(
            volume=_short(count * abs(np.linalg.det(to_mm))),
            centre=tuple(_short(v) for v in places.mean(axis=1)),
            covariance=tuple(_short(v) for v in covariance.reshape(-1)),
            levels=tuple(tuple(_short(v) for v in channel) for channel in levels),
        )
    return found


def middle_of_body(image: Volume) -> float:
    """Where the middle between the body's left and right side lies, in mm along the axis of `LabelPlace.centre`."""
    steps = [-(-n // COARSE) for n in image.shape]
    few = image.array[(slice(None), *(slice(None, None, step) for step in steps))]
    # Only the middle is wanted, so where no modality is known dark voxels count as air.
    box = body_box(few, (image.metadata.modality in ("CT", ""),) * len(few), margin=0)
    centre = [step * (part.start + part.stop - 1) / 2 for step, part in zip(steps, box, strict=True)]
    to_mm, origin = _to_mm(image)
    return float((to_mm @ centre + origin)[0])


def joined_place(places: Sequence[LabelPlace]) -> LabelPlace:
    """Several labels as one: a region of several values."""
    if len(places) == 1:
        return places[0]
    dims = len(places[0].centre)
    weights = np.array([place.volume for place in places])
    centres = np.array([place.centre for place in places])
    middle = np.average(centres, axis=0, weights=weights)
    spread = [
        np.reshape(place.covariance, (dims, dims)) + np.outer(offset, offset)
        for place, offset in zip(places, centres - middle, strict=True)
    ]
    shares = np.repeat(weights / weights.sum() / LEVELS, LEVELS)
    levels = []
    for channel in zip(*(place.levels for place in places), strict=True):
        pooled = np.concatenate(channel)
        order = np.argsort(pooled, kind="stable")
        reached = np.cumsum(shares[order]) - shares[order] / 2
        wanted = np.interp((np.arange(LEVELS) + 0.5) / LEVELS, reached, pooled[order])
        levels.append(tuple(float(v) for v in wanted))
    return LabelPlace(
        volume=float(weights.sum()),
        centre=tuple(float(v) for v in middle),
        covariance=tuple(float(v) for v in np.average(spread, axis=0, weights=weights).reshape(-1)),
        levels=tuple(levels),
    )


def _to_mm(image: Volume) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if image.dims == 3:
        return image.affine[:3, :3], image.affine[:3, 3]
    return np.diag(image.spacing_mm), np.zeros(2)


def _short(value: float) -> float:
    # Six digits, whatever the unit: voxels of a microscope are 1e-6 mm wide.
    return float(f"{value:.6g}")
