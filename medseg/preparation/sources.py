"""The files a case is made of: reading them onto one grid, their size, and a stamp that changes when they do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from medseg.datasets.cases import Case
from medseg.geometry import check_same_geometry, reorient
from medseg.io.images import read_image
from medseg.io.label_maps import read_label_map
from medseg.volume import Volume

__all__ = ["label_name", "read_case", "size_of", "stamp_of", "state_of"]


def read_case(case: Case, threshold: float | None) -> tuple[Volume, Volume]:
    """Image (with channels) and label map of a case, on one grid.

    A label map on the same grid with its axes in another order or direction is turned to the image's: that moves
    voxels and interpolates nothing.

    Raises:
        ReadError: a file that cannot be read, NaN voxels.
        DatasetError: label values that are not non-negative integers.
        GeometryError: image and label on different grids.
    """
    image = read_image(case.images)
    labels = read_label_map(case.labels, threshold)
    if image.dims == labels.dims == 3 and image.orientation != labels.orientation:
        labels = reorient(labels, image.orientation)
    check_same_geometry(image, labels, str(case.images[0]), label_name(case))
    return image, labels


def label_name(case: Case) -> str:
    """The label file of a case, for messages."""
    return str(case.labels[0].path) + (f" (and {len(case.labels) - 1} more)" if len(case.labels) > 1 else "")


def size_of(case: Case) -> int:
    """Bytes of all its files."""
    paths = (*case.images, *(label.path for label in case.labels))
    return sum(file.stat().st_size for path in paths for file in _files(path))


def state_of(case: Case) -> list[tuple[str, int, int, int | None]]:
    """(path, bytes, time of change, label value) of every file: equal lists mean unchanged files."""
    sources: list[tuple[Path, int | None]] = [(path, None) for path in case.images]
    sources += [(label.path, label.value) for label in case.labels]
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
