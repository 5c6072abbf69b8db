"""TIFF files read with tifffile: any voxel type, pages as slices."""

from __future__ import annotations

import logging
import math
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import ReadError
from medseg.io.library_errors import refuse_own_fault
from medseg.io.voxel_files.pictures import (
    Decoded,
    Role,
    check_decoded_size,
    damaged_picture,
    read_pillow,
    through_palette,
)
from medseg.io.voxel_files.tiff_spacing import tiff_spacing
from medseg.volume import Finding

__all__ = ["read_tiff"]

Array = NDArray[Any]

# None, deflate (two codes) and PackBits. Others are left to libtiff: tifffile takes them from imagecodecs, which may
# be missing, and whose LZW writes beyond its memory on damaged data (2026.3.6).
_OWN_COMPRESSIONS = frozenset({1, 8, 32946, 32773})


def read_tiff(path: Path, role: Role = "") -> Decoded:
    """The pixels of a TIFF file as stored, rows first; pages are the first axis.

    Args:
        path: the file.
        role: what a palette means, see `read_pillow`.

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
            is_turned = turned is not None and turned.value != 1
            findings = _white_is_zero(path) if int(first.photometric) == 0 else ()
            series = tiff.series[0]
            spacing = tiff_spacing(tiff, str(series.axes))
            if is_turned or int(first.compression) not in _OWN_COMPRESSIONS:
                return _by_libtiff(path, first, is_turned, role, spacing)
            check_decoded_size(path, math.prod(map(int, series.shape)) * np.dtype(series.dtype).itemsize)
            pixels = np.asarray(series.asarray())
            axes = str(series.axes)
            palette = _palette_of(first)
    except ReadError:
        raise
    except tifffile.TiffFileError as error:
        raise damaged_picture(path, error) from None
    except Exception as error:
        refuse_own_fault(error)
        # tifffile lets exceptions of its parser through: struct.error, AssertionError, ZeroDivisionError, ...
        raise damaged_picture(path, error) from None
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8)
    if not pixels.dtype.isnative:
        pixels = pixels.astype(pixels.dtype.newbyteorder("="))
    if "S" in axes:
        pixels = np.moveaxis(pixels, axes.index("S"), 0)
        # The fourth sample is alpha; grey with alpha has two samples.
        pixels = pixels[:3] if pixels.shape[0] >= 3 else pixels[:1]
        if pixels.shape[0] == 1:
            return Decoded(pixels[0], 0, findings, spacing)
        return Decoded(pixels, pixels.shape[0], findings, spacing)
    if "C" in axes:
        pixels = np.moveaxis(pixels, axes.index("C"), 0)
        return Decoded(pixels, pixels.shape[0], findings, spacing)
    if palette is not None:
        return replace(through_palette(pixels, palette, role, path), spacing_mm=spacing)
    return Decoded(pixels, 0, findings, spacing)


def _white_is_zero(path: Path) -> tuple[Finding, ...]:
    text = f"{path} is WhiteIsZero, as MONOCHROME1 in DICOM: meant to be displayed inverted; values are kept as stored"
    return (Finding("monochrome1", text, (str(path),)),)


def _palette_of(page: Any) -> Array | None:
    """The palette `(colours, 3)` of a page in 8 bits, None without one."""
    if int(page.photometric) != 3 or page.colormap is None:
        return None
    colours = np.asarray(page.colormap).T
    # TIFF 6.0 has 16 bits per colour; some programs write 8.
    return (colours >> 8 if colours.max(initial=0) > 255 else colours).astype(np.uint8)


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


def _by_libtiff(path: Path, first: Any, is_turned: bool, role: Role, spacing: tuple[float, ...]) -> Decoded:
    decoded = read_pillow(path, role)
    stored, read = np.dtype(first.dtype), decoded.pixels.dtype
    if stored.itemsize > read.itemsize:
        raise ReadError(
            f"{path} has {stored.name} colours in a compression of which only {read.name} can be read; save it "
            "uncompressed or with deflate"
        )
    # Orientations of 5 and more exchange rows and columns.
    if is_turned and spacing and int(first.tags["Orientation"].value) >= 5:
        spacing = (spacing[1], spacing[0], *spacing[2:])
    if int(first.photometric) != 0:
        return replace(decoded, spacing_mm=spacing)
    pixels = decoded.pixels
    if first.bitspersample <= 8:
        # Pillow inverts these.
        pixels = (1 if first.bitspersample == 1 else 255) - pixels
    return Decoded(pixels, decoded.channels, (*decoded.findings, *_white_is_zero(path)), spacing)


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
