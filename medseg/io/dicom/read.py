"""A DICOM series as one `Volume`: headers first, then pixels directly into the final array.

Axes are ITK's: i = column index, j = row index, k along the normal (row x column cosines), never flipped.
"""

from __future__ import annotations

import contextlib
import math
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import ReadError
from medseg.io.dicom.datasets import DatasetCache
from medseg.io.dicom.grid import Irregular, SeriesGrid, grid_of
from medseg.io.dicom.pixels import apply_modality_lut, is_plain, read_bytes, stored_pixels, to_stored_values
from medseg.io.dicom.series import Series
from medseg.io.dicom.slice import SliceHeader
from medseg.io.library_errors import naming_file
from medseg.machine import free_memory
from medseg.volume import Finding, Metadata, Volume

__all__ = ["read_series"]

Array = NDArray[Any]


_EXACT_IN_FLOAT32 = 2**24
# Air is -1000 HU; noise around it stays well above the fill values of scanners, -1500 to -3024.
_BELOW_AIR_HU, _OUTSIDE_SHARE, _FAR_HU = -1200.0, 0.01, 200.0
# The slices `[k, j, i]`, the lowest and highest value of padding, and findings.
_Loaded = tuple[Array, tuple[float, ...], list[Finding]]


class _DoesNotFit(Exception):
    """Rescaled values exceed the range in which the array's data type is exact."""


def read_series(series: Series, source: str | None = None, irregular: Irregular = "error") -> Volume:
    """The volume of a series; a single slice gives a 2D image.

    The array is int16 if every slope is 1, every intercept an integer and all values fit; otherwise float32, or float64
    for whole numbers beyond 2**24. Values are slope * stored + intercept, per slice (DICOM PS3.3 C.11.1). Colour gives
    uint8 with three channels.

    Args:
        series: headers of one series, from `find_series`.
        source: the value of `Volume.metadata.source`; the folder of the series by default.
        irregular: 'error', 'resample' or 'allow' for missing and unevenly spaced slices, see `grid_of`.

    Raises:
        ReadError: if tags are missing, or no installed decoder reads the pixels.
        GeometryError: if the slices do not form one grid.
    """
    grid = grid_of(series, irregular)
    first = grid.slices[0]
    try:
        with naming_file(first.path.parent):
            stack, padding, padded = _load(grid)
    except MemoryError:
        size = len(grid.slices) * first.rows * first.columns
        raise ReadError(f"{first.path.parent}: {size} voxels of {series.title} do not fit into memory") from None
    if grid.places:
        stack = _interpolated(stack, grid.places, grid.planes)
    # [k, j, i (, c)] in memory, so that every slice is one contiguous block; [(c,) i, j, k] for the caller.
    channels = 3 if first.is_colour else 0
    if channels:
        stack = np.moveaxis(stack, -1, 0)
    array = stack.transpose(*range(bool(channels)), *range(stack.ndim - 1, int(bool(channels)) - 1, -1))
    if len(grid.slices) == 1:
        array = array[..., 0]
    metadata = Metadata(
        source=source or str(first.path.parent),
        modality=first.modality,
        patient_id=first.patient_id,
        study_instance_uid=first.study_instance_uid,
        series_instance_uid=first.series_instance_uid,
        frame_of_reference_uid=first.frame_of_reference_uid,
        series_description=first.description,
        padding=padding,
    )
    return Volume(array, grid.affine, channels, metadata, (*grid.findings, *padded), grid.spacing_known)


def _load(grid: SeriesGrid) -> _Loaded:
    """The slices `[k, j, i]` after rescaling, the range of values that are padding, and a finding if there are any."""
    kinds: list[type[np.generic]] = [np.float32, np.float64]
    if grid.slices[0].is_colour:
        kinds = [np.uint8]
    elif all(s.slope == 1.0 and s.intercept.is_integer() and not s.has_modality_lut for s in grid.slices):
        kinds = [np.int16, np.float32, np.float64]
    for kind in kinds[:-1]:
        with contextlib.suppress(_DoesNotFit):
            return _fill(grid, np.dtype(kind))
    return _fill(grid, np.dtype(kinds[-1]))


def _fill(grid: SeriesGrid, dtype: np.dtype[Any]) -> _Loaded:
    first = grid.slices[0]
    colours = (3,) if first.is_colour else ()
    shape = (len(grid.slices), first.rows, first.columns, *colours)
    needed, free = math.prod(shape) * dtype.itemsize, free_memory()
    if free is not None and needed > free:
        # Linux grants memory it does not have, and kills the process when it is used.
        raise ReadError(
            f"{first.path.parent} needs {needed / 1e9:.1f} GB for voxels ({len(grid.slices)} slices of {first.rows} x "
            f"{first.columns}), but only {free / 1e9:.1f} GB are free; crop the series or use a larger machine"
        )
    stack = np.empty(shape, dtype)
    cache = DatasetCache()

    def fill(n: int) -> tuple[int, float]:
        header, out = grid.slices[n], stack[n]
        if dtype == np.uint8:
            out[...] = _in_8_bits(stored_pixels(header, cache), header)
            return 0, 0.0
        if dtype == np.int16 and is_plain(header) and header.bits_allocated == 16:
            # Read in place: the final array is the buffer.
            words = out.view(np.uint16)
            read_bytes(header, words)
            pixels = to_stored_values(words, header)
        else:
            pixels = stored_pixels(header, cache)
        padded = _padded(pixels, header)
        if dtype == np.int16:
            _shift_into(out, pixels, int(header.intercept))
        elif header.has_modality_lut:
            out[...] = apply_modality_lut(pixels, header, cache)
        else:
            _rescale_into(out, pixels, header)
        return padded, float(out.min()) if first.modality == "CT" else 0.0

    # Decoders warn about headers that contradict their streams; their results are checked here.
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        warnings.simplefilter("ignore")
        # Consuming the results raises the first error.
        filled = list(pool.map(fill, range(len(grid.slices))))
    padded, lowest = sum(count for count, _ in filled), min(low for _, low in filled)
    if padded:
        text = f"{padded} voxels are padding (PixelPaddingValue), not measurements; they keep their stored value"
        return stack, _padding_range(grid), [Finding("padding", text)]
    if lowest < _BELOW_AIR_HU and (outside := _count_outside(stack, lowest)):
        text = (
            f"{outside} voxels hold {lowest:g}, far below air: they lie outside the field of view and keep their value"
        )
        return stack, (lowest, lowest), [Finding("padding", text)]
    return stack, (), []


def _count_outside(stack: Array, lowest: float) -> int:
    """How many voxels hold a fill value: the lowest one, if it is common and far below all measured ones."""
    is_fill = stack == lowest
    count = int(np.count_nonzero(is_fill))
    if not _OUTSIDE_SHARE * stack.size <= count < stack.size:
        return 0
    return count if float(stack[~is_fill].min()) - lowest >= _FAR_HU else 0


def _in_8_bits(pixels: Array, header: SliceHeader) -> Array:
    """Colours in 8 bits, of which the highest are kept."""
    width = 8 * pixels.dtype.itemsize
    return pixels if width == 8 else pixels >> max(0, min(width, header.bits_stored) - 8)


def _padding_range(grid: SeriesGrid) -> tuple[float, ...]:
    """The lowest and highest voxel value that is padding; () if the slices do not agree."""
    ranges = {tuple(sorted(v * s.slope + s.intercept for v in s.padding)) for s in grid.slices}
    return ranges.pop() if len(ranges) == 1 and not grid.slices[0].has_modality_lut else ()


def _shift_into(out: Array, pixels: Array, intercept: int) -> None:
    """`out = pixels + intercept` in int16; `out` may share its memory with `pixels`."""
    if intercept == 0 and pixels.dtype == np.int16:
        if not np.shares_memory(out, pixels):
            out[...] = pixels
        return
    if pixels.dtype.kind not in "iu":
        raise _DoesNotFit
    if int(pixels.min()) + intercept < -(2**15) or int(pixels.max()) + intercept >= 2**15:
        raise _DoesNotFit
    # Modulo 2**16, which is exact because the sums fit.
    np.add(pixels.astype(np.uint16, copy=False), np.uint16(intercept % 2**16), out=out.view(np.uint16))


def _rescale_into(out: Array, pixels: Array, header: SliceHeader) -> None:
    whole = pixels.dtype.kind in "iu" and header.slope == 1.0 and header.intercept.is_integer()
    if whole and out.dtype == np.float32:
        largest = max(abs(int(pixels.min()) + int(header.intercept)), abs(int(pixels.max()) + int(header.intercept)))
        if largest > _EXACT_IN_FLOAT32:
            raise _DoesNotFit
    out[...] = pixels.astype(np.float64) * header.slope + header.intercept


def _padded(pixels: Array, header: SliceHeader) -> int:
    if not header.padding:
        return 0
    low, high = header.padding
    return int(np.count_nonzero(pixels == low if low == high else (pixels >= low) & (pixels <= high)))


def _interpolated(stack: Array, places: tuple[float, ...], planes: int) -> Array:
    """Slices at `places` interpolated linearly to the planes 0, 1, ...; integers stay integers."""
    at = np.array(places)
    out = np.empty((planes, *stack.shape[1:]), stack.dtype)
    for k in range(planes):
        n = int(np.clip(np.searchsorted(at, k, side="right") - 1, 0, len(at) - 2))
        share = float(np.clip((k - at[n]) / (at[n + 1] - at[n]), 0, 1))
        plane = stack[n] * np.float32(1 - share) + stack[n + 1] * np.float32(share)
        out[k] = np.rint(plane) if stack.dtype.kind in "iu" else plane
    return out
