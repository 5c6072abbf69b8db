"""The files a case is made of: reading them onto one grid, their size, and a stamp that changes when they do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medseg.config import DataConfig
from medseg.datasets.cases import Case
from medseg.geometry import check_same_geometry, reorient
from medseg.io.images import read_image
from medseg.io.label_maps import read_label_map
from medseg.labels import LabelScheme
from medseg.volume import Volume

__all__ = ["Reading", "label_name", "read_case", "reading_of", "size_of", "stamp_of", "state_of"]


@dataclass(frozen=True, slots=True)
class Reading:
    """What the configuration asks for when the files of a case are read.

    Args:
        threshold: `data.label_threshold`.
        ignored: the values to ignore; all become the first.
        known: the values that are kept, all others become background; None keeps all, for the checks to refuse.
        nan: the grey level of NaN voxels; None refuses them.
    """

    threshold: float | None = None
    ignored: tuple[int, ...] = ()
    known: tuple[int, ...] | None = None
    nan: float | None = None

    @property
    def stamped(self) -> tuple[Any, ...]:
        """What marks a case read in an unusual way; () for the usual one, whose stamps older versions made too."""
        usual = len(self.ignored) < 2 and self.known is None and self.nan is None
        return () if usual else (self.ignored, self.known, self.nan)


def reading_of(data: DataConfig, labels: LabelScheme) -> Reading:
    """How the cases of a data set are read."""
    known = tuple(sorted(labels.known_values)) if data.others == "background" else None
    return Reading(data.label_threshold, labels.ignored, known, data.nan)


def read_case(case: Case, reading: Reading) -> tuple[Volume, Volume]:
    """Image (with channels) and label map of a case, on one grid.

    A label map on the same grid with its axes in another order or direction is turned to the image's: that moves
    voxels and interpolates nothing.

    Raises:
        ReadError: a file that cannot be read, NaN voxels.
        DatasetError: label values that are not non-negative integers.
        GeometryError: image and label on different grids.
    """
    image = read_image(case.images, reading.nan, case.series or None)
    labels = _relabelled(read_label_map(case.labels, reading.threshold), reading)
    if image.dims == labels.dims == 3 and image.orientation != labels.orientation:
        turned = reorient(labels, image.orientation)
        # What does not fit is reported as it was saved: a mask without its affine is known by that.
        labels = turned if image.same_geometry(turned, tolerance_mm=1e-2) else labels
    check_same_geometry(image, labels, str(case.images[0]), label_name(case))
    return image, labels


def _relabelled(labels: Volume, reading: Reading) -> Volume:
    array = labels.array
    if reading.known is not None:
        array = np.where(np.isin(array, reading.known), array, 0)
    if len(reading.ignored) > 1:
        array = np.where(np.isin(array, reading.ignored[1:]), reading.ignored[0], array)
    if array is labels.array:
        return labels
    return labels.with_array(array.astype(np.min_scalar_type(int(array.max(initial=0)))))


def label_name(case: Case) -> str:
    """The label file of a case, for messages."""
    return str(case.labels[0].path) + (f" (and {len(case.labels) - 1} more)" if len(case.labels) > 1 else "")


def size_of(case: Case) -> int:
    """Bytes of all its files."""
    paths = (*case.images, *(label.path for label in case.labels))
    return sum(file.stat().st_size for path in paths for file in _files(path))


def state_of(case: Case) -> list[tuple[str, int, int, Any]]:
    """(path, bytes, time of change, label value or values by name) of every file: equal lists mean unchanged files."""
    sources: list[tuple[Path, Any]] = [(path, None) for path in case.images]
    sources += [(label.path, label.names if label.study is not None else label.value) for label in case.labels]
    result = []
    for path, value in sources:
        for file in _files(path):
            status = file.stat()
            result.append((str(file.resolve()), status.st_size, status.st_mtime_ns, value))
    return result


def stamp_of(*parts: Any) -> str:
    """A short hash of anything JSON can hold."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def _files(path: Path) -> Iterable[Path]:
    # A DICOM series is a folder.
    return sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]
