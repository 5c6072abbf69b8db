"""TIFF files read with tifffile: any voxel type, pages as slices."""

from __future__ import annotations

import logging
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np

from medseg.errors import ReadError
from medseg.io.library_errors import refuse_own_fault
from medseg.io.voxel_files.pictures import Decoded, check_decoded_size, damaged_picture, read_pillow

__all__ = ["read_tiff"]

# None, deflate (two codes) and PackBits. Others are left to libtiff: tifffile takes them from imagecodecs, which may
# be missing, and whose LZW writes beyond its memory on damaged data (2026.3.6).
_OWN_COMPRESSIONS = frozenset({1, 8, 32946, 32773})


def read_tiff(path: Path) -> Decoded:
    """The pixels of a TIFF file, rows first; pages are the first axis.

    Raises:
        ReadError: if the file is damaged, has images of different kinds, or claims more pixels than it can contain.
    """
    import tifffile

    _check_chain(path)
    # Faults of a file are reported by one error, not by lines on the terminal as well.
    logger = logging.getLogger("tifffile")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    try:
        # Other files named in an OME header are not opened.
        with tifffile.TiffFile(path, _multifile=False) as tiff:
            for page in tiff.pages:
                _check_page(path, page)
            if not tiff.series:
                raise ReadError(f"{path} contains no image")
            if len(tiff.series) > 1:
                sizes = ", ".join(str(s.shape) for s in tiff.series[:4])
                raise ReadError(f"{path} has {len(tiff.series)} images of different kinds ({sizes}); split it")
            first: Any = tiff.pages[0]
            turned = first.tags.get("Orientation", None)
            if turned is not None and turned.value != 1:
                return read_pillow(path)
            if int(first.compression) not in _OWN_COMPRESSIONS:
                return _by_libtiff(path, first)
            series = tiff.series[0]
            check_decoded_size(path, math.prod(map(int, series.shape)) * np.dtype(series.dtype).itemsize)
            pixels = np.asarray(series.asarray())
            axes = str(series.axes)
            white_is_zero = int(first.photometric) == 0
    except ReadError:
        raise
    except tifffile.TiffFileError as error:
        raise damaged_picture(path, error) from None
    except Exception as error:
        refuse_own_fault(error)
        # tifffile lets exceptions of its parser through: struct.error, AssertionError, ZeroDivisionError, ...
        raise damaged_picture(path, error) from None
    if pixels.dtype == bool:
        pixels = (pixels != white_is_zero).astype(np.uint8)
    elif white_is_zero and pixels.dtype.kind == "u":
        pixels = np.iinfo(pixels.dtype).max - pixels
    if not pixels.dtype.isnative:
        pixels = pixels.astype(pixels.dtype.newbyteorder("="))
    if "S" in axes:
        pixels = np.moveaxis(pixels, axes.index("S"), 0)
        # The fourth sample is alpha; grey with alpha has two samples.
        pixels = pixels[:3] if pixels.shape[0] >= 3 else pixels[:1]
        return (pixels[0], 0, ()) if pixels.shape[0] == 1 else (pixels, pixels.shape[0], ())
    if "C" in axes:
        pixels = np.moveaxis(pixels, axes.index("C"), 0)
        return pixels, pixels.shape[0], ()
    return pixels, 0, ()


def _check_chain(path: Path) -> None:
    """Refuse pages that point back to earlier ones, which tifffile would follow forever."""
    try:
        with path.open("rb") as file:
            start = file.read(16)
            order = {b"II": "<", b"MM": ">"}.get(start[:2])
            if order is None or len(start) < 16:
                return
            # TIFF 6.0, and BigTIFF with 8-byte offsets.
            big = struct.unpack_from(f"{order}H", start, 2)[0] == 43
            kind, width, entry = (f"{order}Q", 8, 20) if big else (f"{order}I", 4, 12)
            (place,) = struct.unpack_from(kind, start, 8 if big else 4)
            seen: set[int] = set()
            while place:
                if place in seen:
                    raise ReadError(f"{path} is damaged: its pages point at one another in a circle")
                seen.add(place)
                file.seek(place)
                count = struct.unpack(f"{order}Q" if big else f"{order}H", file.read(8 if big else 2))[0]
                file.seek(place + (8 if big else 2) + count * entry)
                (place,) = struct.unpack(kind, file.read(width))
    except FileNotFoundError:
        raise ReadError(f"{path} does not exist") from None
    except ReadError:
        raise
    except OSError as error:
        raise ReadError(f"{path} cannot be read: {error.strerror or error}") from None
    except (struct.error, OverflowError, ValueError):
        # A chain that leads out of the file ends there.
        return


def _by_libtiff(path: Path, first: Any) -> Decoded:
    decoded = read_pillow(path)
    stored, read = np.dtype(first.dtype), decoded[0].dtype
    if stored.itemsize > read.itemsize:
        raise ReadError(
            f"{path} has {stored.name} colours in a compression of which only {read.name} can be read; save it "
            "uncompressed or with deflate"
        )
    return decoded


def _check_page(path: Path, page: Any) -> None:
    """Check a page's size and its number of strips or tiles before anything is allocated."""
    if not hasattr(page, "chunks"):
        return
    sizes, parts = (tuple(page.shape), tuple(page.chunks))
    if not all(isinstance(n, int | np.integer) for n in (*sizes, *parts)):
        raise ReadError(f"{path} is damaged: a page of shape {sizes} in parts of {parts}")
    shape, chunks = [int(n) for n in sizes], [int(n) for n in parts]
    if min(shape, default=0) < 1 or min(chunks, default=0) < 1:
        raise ReadError(f"{path} is damaged: a page of shape {tuple(shape)} in parts of {tuple(chunks)}")
    check_decoded_size(path, math.prod(shape) * np.dtype(page.dtype).itemsize)
    count = math.prod(map(int, page.chunked))
    # Each strip or tile has an entry of at least two bytes in the file.
    if count > path.stat().st_size:
        raise ReadError(f"{path} is damaged: a page of {count} strips in a file of {path.stat().st_size} bytes")
