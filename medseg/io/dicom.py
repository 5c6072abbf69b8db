"""A regular DICOM series as one `Volume`: headers first, then pixels straight into the final array.

Axes are ITK's: i = column index, j = row index, k along the normal (row x column cosines), never flipped.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import ReadError
from medseg.io.dicom_grid import SeriesGrid, grid_of
from medseg.io.dicom_headers import Series, SliceHeader
from medseg.volume import Metadata, Volume

__all__ = ["read_series"]

# CharLS reads JPEG-LS faster and in more variants than GDCM.
_PREFERRED_PLUGINS = {"1.2.840.10008.1.2.4.80": "pyjpegls", "1.2.840.10008.1.2.4.81": "pyjpegls"}


class _DoesNotFit(Exception):
    """A rescaled slice leaves the range of int16."""


def read_series(series: Series, source: str | None = None) -> Volume:
    """The volume of a series; a single slice gives a 2D image.

    The array is int16 where every slope is 1, every intercept an integer and the values fit, else float32:
    slope * stored + intercept per slice (DICOM PS3.3 C.11.1).

    Args:
        series: headers of one series, from `find_series`.
        source: what `Volume.metadata.source` says; the series' folder by default.

    Raises:
        ReadError: an irregular image type, missing tags, or pixels that no installed decoder reads.
        GeometryError: slices that do not form one regular grid.
    """
    grid = grid_of(series)
    whole = all(s.slope == 1.0 and s.intercept.is_integer() for s in grid.slices)
    try:
        stack = _load(grid, np.dtype(np.int16 if whole else np.float32))
    except _DoesNotFit:
        stack = _load(grid, np.dtype(np.float32))
    # [k, j, i] in memory, so that every slice is one contiguous block; [i, j, k] to the reader.
    array = stack[0].T if len(grid.slices) == 1 else stack.transpose(2, 1, 0)
    first = grid.slices[0]
    metadata = Metadata(
        source=source or str(first.path.parent),
        modality=first.modality,
        patient_id=first.patient_id,
        study_instance_uid=first.study_instance_uid,
        series_instance_uid=first.series_instance_uid,
        frame_of_reference_uid=first.frame_of_reference_uid,
        series_description=first.description,
    )
    return Volume(array, grid.affine, 0, metadata, grid.findings, spacing_known=grid.spacing_known)


def _load(grid: SeriesGrid, dtype: np.dtype[Any]) -> NDArray[Any]:
    import pydicom.config

    first = grid.slices[0]
    stack = np.empty((len(grid.slices), first.rows, first.columns), dtype)

    def fill(n: int) -> None:
        header = grid.slices[n]
        pixels = _decode(header)
        if pixels.shape != stack.shape[1:]:
            raise ReadError(f"{header.path} holds {pixels.shape} pixels, its header says {stack.shape[1:]}")
        if dtype == np.int16:
            intercept = int(header.intercept)
            if pixels.dtype.kind == "f":
                raise _DoesNotFit
            if int(pixels.min()) + intercept < -(2**15) or int(pixels.max()) + intercept >= 2**15:
                raise _DoesNotFit
            np.add(pixels, intercept, out=stack[n], dtype=np.int32, casting="unsafe")
        else:
            stack[n] = pixels.astype(np.float64) * header.slope + header.intercept

    with pydicom.config.disable_value_validation(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        # Reading the results one by one lets the first error through.
        for _ in pool.map(fill, range(len(grid.slices))):
            pass
    return stack


def _decode(header: SliceHeader) -> NDArray[Any]:
    import pydicom
    from pydicom.errors import BytesLengthException
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.pixels.utils import pixel_array

    path: Path = header.path
    plugin = _PREFERRED_PLUGINS.get(header.transfer_syntax, "")
    try:
        if plugin and plugin not in get_decoder(header.transfer_syntax).available_plugins:
            plugin = ""
        data = pydicom.dcmread(path, force=True)
        if not header.transfer_syntax:
            # A file without a preamble names no transfer syntax; implicit little endian is DICOM's default.
            data.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        return np.asarray(pixel_array(data, raw=True, decoding_plugin=plugin))
    except OSError as error:
        raise ReadError(f"{path} cannot be read: {error.strerror or error}") from None
    except (
        BytesLengthException,
        ValueError,
        TypeError,
        AttributeError,
        KeyError,
        IndexError,
        RuntimeError,
        EOFError,
        MemoryError,
    ) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ReadError(f"the pixels of {path} cannot be decoded ({reason}); export it again, uncompressed") from None
