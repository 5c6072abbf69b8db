"""Windows of real cases, as the network sees them, on which 8-bit ranges are measured and their cost is judged."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import DatasetError
from medseg.labels import LabelScheme
from medseg.preparation.normalize import normalize
from medseg.preparation.plan import Plan
from medseg.preparation.store import PreparedCase, case_folder, open_case

__all__ = ["CalibrationCase", "case_from_arrays", "stored_cases", "window_count"]

# Voxels of all windows on which ranges are measured, and the bounds of their number.
VOXELS, FEWEST, MOST = 2**24, 8, 64
# Windows of a case: one around a label, where it has any, and one elsewhere.
PER_CASE = 2


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationCase:
    """Windows of one case.

    Args:
        windows: float32 (n, C, *patch), normalised.
        reference: labels there, as a network's channels: integers (n, *patch), 0 for background; for regions what each
            holds, bool (n, regions, *patch). None: unknown.
        counted: bool (n, *patch), voxels whose label counts; None: all.
    """

    windows: NDArray[np.float32]
    reference: NDArray[Any] | None = None
    counted: NDArray[np.bool_] | None = None


def window_count(patch: Sequence[int]) -> int:
    """How many windows of this size ranges are measured on: 8 to 64.

    Example:
        >>> window_count((128, 128, 128)), window_count((256, 256))
        (8, 64)
    """
    return int(min(MOST, max(FEWEST, VOXELS // math.prod(patch))))


def stored_cases(
    prepared: Path, plan: Plan, scheme: LabelScheme, names: Sequence[str] | None = None
) -> list[CalibrationCase]:
    """Windows of cases of a run's prepared store, in an order that the names of the cases decide.

    Args:
        prepared: the folder `prepared` of a run.
        plan: of the model.
        scheme: of the model's labels, as its networks are trained.
        names: of the cases to take from; None: all.

    Raises:
        DatasetError: no prepared cases, or cases of another number of channels.
    """
    folders = sorted(file.parent for file in prepared.glob("*/case.json"))
    if names is not None:
        wanted_folders = {case_folder(prepared, name) for name in names}
        folders = [folder for folder in folders if folder in wanted_folders]
    if not folders:
        raise DatasetError(f"{prepared} has no prepared cases in it; expected the folder 'prepared' of a run")
    rng = np.random.default_rng(0)
    wanted = 2 * max(1, window_count(plan.patch_size) // PER_CASE)
    chosen = [folders[n] for n in rng.permutation(len(folders))[:wanted]]
    return [_stored_case(open_case(folder), plan, scheme, rng) for folder in chosen]


def case_from_arrays(image: NDArray[np.float32], plan: Plan) -> CalibrationCase:
    """Windows of an image without labels: its middle, and one more where it is larger than a window.

    Args:
        image: (C, *spatial) on the network's grid, normalised.
        plan: of the model.
    """
    size = _size(plan, image.ndim - 1)
    middles = [[n // 2 for n in image.shape[1:]], [n // 3 for n in image.shape[1:]]]
    corners = list(dict.fromkeys(_corner(middle, size, image.shape[1:]) for middle in middles))
    low = float(image.min())
    return CalibrationCase(np.stack([_cut(image, corner, size, low, plan.dims) for corner in corners]))


def _stored_case(case: PreparedCase, plan: Plan, scheme: LabelScheme, rng: np.random.Generator) -> CalibrationCase:
    if len(case.image) != plan.in_channels:
        raise DatasetError(
            f"prepared case {case.name} has {len(case.image)} channels, the model takes {plan.in_channels}; give the "
            "run that the model was trained in"
        )
    image = normalize(case.image, case.scales)
    spatial = image.shape[1:]
    size = _size(plan, len(spatial))
    corners = [_corner(middle, size, spatial) for middle in _middles(case, spatial, rng)]
    low = float(image.min())
    windows = np.stack([_cut(image, corner, size, low, plan.dims) for corner in corners])
    labels = np.asarray(case.labels)[None]
    ignored = scheme.ignored[0] if scheme.ignored else 0
    values = np.stack([_cut(labels, corner, size, ignored, plan.dims)[0] for corner in corners])
    counted = ~np.isin(values, scheme.ignored) if scheme.ignored else None
    known = np.clip(values, 0, max(scheme.known_values)).astype(np.int64)
    if scheme.is_regions:
        return CalibrationCase(windows, np.moveaxis(scheme.region_table()[known] > 0, -1, 1), counted)
    return CalibrationCase(windows, np.maximum(scheme.channel_table()[known], 0), counted)


def _middles(case: PreparedCase, spatial: Sequence[int], rng: np.random.Generator) -> Iterator[list[int]]:
    """One around a voxel of a label, where the case has any, and one anywhere."""
    labels = [places for value, places in sorted(case.foreground.items()) if value and len(places)]
    if labels:
        places = labels[int(rng.integers(len(labels)))]
        yield [int(n) for n in places[int(rng.integers(len(places)))]]
    for _ in range(PER_CASE - bool(labels)):
        yield [int(rng.integers(n)) for n in spatial]


def _size(plan: Plan, axes: int) -> tuple[int, ...]:
    """A 2D network sees one slice of a volume."""
    return (*plan.patch_size, *[1] * (axes - len(plan.patch_size)))


def _corner(middle: Sequence[int], size: Sequence[int], spatial: Sequence[int]) -> tuple[int, ...]:
    return tuple(max(0, min(m - s // 2, n - s)) for m, s, n in zip(middle, size, spatial, strict=True))


def _cut(array: NDArray[Any], corner: Sequence[int], size: Sequence[int], outside: float, dims: int) -> NDArray[Any]:
    """(C, *patch) of an array (C, *spatial), filled up where that ends before the window does."""
    part = array[(slice(None), *(slice(c, c + s) for c, s in zip(corner, size, strict=True)))]
    missing = [(0, s - n) for s, n in zip(size, part.shape[1:], strict=True)]
    filled = np.pad(part, [(0, 0), *missing], constant_values=outside)
    return np.ascontiguousarray(filled.reshape(len(array), *size[:dims]))
