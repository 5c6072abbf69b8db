"""Estimates the memory of a case, and limits the total of all cases in progress."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable

import numpy as np

from medseg.errors import MedsegError, ReadError
from medseg.inference.bundle_info import BundleInfo
from medseg.inference.rolling import open_rows
from medseg.io.formats import kind_of
from medseg.io.plausible import spacing_fault
from medseg.io.voxel_files.nifti_header import parse_nifti
from medseg.io.voxel_files.streams import is_gzip, read_start
from medseg.machine import free_memory
from medseg.preparation.plan import Plan
from medseg.studies.sources import Source

__all__ = ["MemoryBudget", "default_budget", "file_bytes", "memory_of_case", "refuse_too_large"]

# Bytes per voxel of an image as stored (16 bit), and of a mask with its intermediate slabs.
_STORED, _MASK = 2, 2
# If the header is not available: gzipped 16-bit images take about half of their size.
_PACKED = 2
_SHARE = 0.5
# Smaller files are read without asking for the free memory, which takes longer than reading them.
_ALWAYS_FITS = 1 << 24


def memory_of_case(source: Source, info: BundleInfo, whole_logits: int = 0) -> int:
    """Approximate peak memory of a case in bytes: image, network input, pending logits, mask; no voxel is read.

    Args:
        source: the case.
        info: of the model.
        whole_logits: number of arrays of the size of the whole image's logits kept at once: a CRF needs one, a quality
            estimate three; with 0 only the pending logits count.

    Example:
        >>> model = medseg.load_model("runs/lung/model")
        >>> round(memory_of_case(Source("ct", (Path("ct.nii.gz"),)), model.info) / 1e6)
        2
    """
    voxels, spacing_mm = _size(source)
    channels = info.net.in_channels
    on_network_grid = voxels * _growth(spacing_mm, info.plan)
    rows = open_rows(sys.maxsize, max(info.plan.patch_size) if info.plan.dims == 3 else 1)
    # The axes are not known here: assume a cube.
    open_ = on_network_grid * whole_logits or min(on_network_grid, rows * on_network_grid ** (2 / 3))
    return int(voxels * (_STORED * channels + _MASK) + 4 * (on_network_grid * channels + open_ * info.net.out_channels))


def file_bytes(source: Source) -> int:
    """Bytes of the files of a case; files inside a zip do not count."""
    total = 0
    for path in source.paths:
        try:
            total += path.stat().st_size
        except OSError:
            continue
    return total


def default_budget() -> int | None:
    """The memory for all cases in progress: half of the memory that is free now; None if that is unknown."""
    free = free_memory()
    return None if free is None else int(free * _SHARE)


class MemoryBudget:
    """Admits cases while all of them fit together; a case larger than the whole budget is admitted alone."""

    def __init__(self, limit: int | None) -> None:
        self._limit = math.inf if limit is None else limit
        self._taken: list[int] = []
        self._changed = threading.Condition()

    def take(self, size: int, stopped: Callable[[], bool]) -> bool:
        """Wait for memory; False if `stopped` meanwhile."""
        with self._changed:
            while self._taken and sum(self._taken) + size > self._limit:
                if stopped():
                    return False
                self._changed.wait(0.2)
            self._taken.append(size)
        return not stopped()

    def give(self, size: int) -> None:
        """Return the memory of a finished case."""
        with self._changed:
            self._taken.remove(size)
            self._changed.notify_all()


def _size(source: Source) -> tuple[int, tuple[float, ...] | None]:
    """Voxels of one channel, and their spacing if it is cheap to read."""
    spacing: tuple[float, ...] | None = None
    if source.series is not None:
        first = source.series.slices[0]
        spacing = (*first.pixel_spacing, first.thickness) if len(first.pixel_spacing) == 2 else None
        return first.rows * first.columns * len(source.series.slices), spacing
    path = source.paths[0]
    if kind_of(path) == "nifti" and path.is_file():
        try:
            stored = parse_nifti(read_start(path, 540, "gzip" if is_gzip(path) else "raw"), path)
        except (MedsegError, OSError, ValueError):
            return _PACKED * file_bytes(source) // _STORED, None
        spacing = (
            tuple(float(s) for s in np.linalg.norm(stored.affine[:3, :3], axis=0)) if stored.spacing_known else None
        )
        return math.prod(stored.shape[:3]), spacing
    return _PACKED * file_bytes(source) // (_STORED * len(source.paths)), None


def _growth(spacing_mm: tuple[float, ...] | None, plan: Plan) -> float:
    """Voxels of the network's grid per voxel of the image."""
    target = plan.spacing_mm
    if spacing_mm is None or target is None or spacing_fault(spacing_mm):
        return 1.0
    # The order of the axes does not change the product. A 2D net does not resample across slices.
    return math.prod(spacing_mm[: len(target)]) / math.prod(target)


def refuse_too_large(source: Source) -> None:
    """Refuse a case whose files are larger than the free memory.

    Raises:
        ReadError: with both sizes.
    """
    # Checked first, because hashing a huge file would take minutes before the reader refuses it.
    size = file_bytes(source)
    if size < _ALWAYS_FITS:
        return
    free = free_memory()
    if free is not None and size > free:
        raise ReadError(
            f"{source.paths[0]} has {size / 1e9:.1f} GB, but only {free / 1e9:.1f} GB of memory are free; crop it "
            "or use a larger machine"
        )
