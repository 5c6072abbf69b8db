"""The stored pixels of one DICOM frame: integers before rescaling, or 8-bit colours.

Uncompressed pixels are read straight from the file. Compressed ones are decoded by imagecodecs, which releases the
interpreter lock; pydicom and its plugins handle the rest: colour, palettes, big-endian, deflated, unusual bit depths.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import ReadError
from medseg.io.dicom.datasets import DatasetCache, parse_file
from medseg.io.dicom.decode_errors import damage, reason_of
from medseg.io.dicom.slice import SliceHeader
from medseg.io.dicom.tags import tagged
from medseg.io.library_errors import refuse_own_fault

__all__ = [
    "LITTLE_ENDIAN",
    "apply_modality_lut",
    "check_bits",
    "check_size",
    "is_plain",
    "read_bytes",
    "stored_pixels",
    "to_stored_values",
]

Array = NDArray[Any]
LITTLE_ENDIAN = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1"})
_RLE = "1.2.840.10008.1.2.5"
_UNSIGNED = {8: np.uint8, 16: np.uint16, 32: np.uint32}
_DECODERS = {
    _RLE: "dicomrle",
    "1.2.840.10008.1.2.4.50": "jpeg8",
    "1.2.840.10008.1.2.4.51": "jpeg8",
    "1.2.840.10008.1.2.4.57": "jpeg8",
    "1.2.840.10008.1.2.4.70": "jpeg8",
    "1.2.840.10008.1.2.4.80": "jpegls",
    "1.2.840.10008.1.2.4.81": "jpegls",
    "1.2.840.10008.1.2.4.90": "jpeg2k",
    "1.2.840.10008.1.2.4.91": "jpeg2k",
    "1.2.840.10008.1.2.4.201": "jpeg2k",
    "1.2.840.10008.1.2.4.202": "jpeg2k",
    "1.2.840.10008.1.2.4.203": "jpeg2k",
}
# No scanner's compressed frames expand this much; only damaged headers claim it.
_LARGE, _RATIO = 2**27, 2000


def is_plain(header: SliceHeader) -> bool:
    """Whether the pixels are uncompressed in the file, in whole bytes, one value per pixel."""
    return (
        header.pixel_offset >= 0
        and header.pixel_length >= 0
        and header.transfer_syntax in LITTLE_ENDIAN
        and header.samples == 1
        and header.photometric != "PALETTE COLOR"
        and header.bits_allocated in _UNSIGNED
        and sys.byteorder == "little"
    )


def read_bytes(header: SliceHeader, out: Array) -> None:
    """Read the frame of a file for which `is_plain` is true into `out`, a contiguous array of its size.

    Raises:
        ReadError: if the file holds fewer bytes than its header promises.
    """
    offset = header.pixel_offset + header.frame * out.nbytes
    # A file may end in a padding byte; if it is shorter than its frames, it was truncated.
    if (header.frame + 1) * out.nbytes > header.pixel_length:
        raise ReadError(
            f"{header.path} holds {header.pixel_length} bytes of pixels, its header promises "
            f"{header.frames * out.nbytes} ({header.frames} x {header.rows} x {header.columns}); export it again"
        )
    try:
        with header.path.open("rb", buffering=0) as file:
            file.seek(offset)
            view = out.reshape(-1).view(np.uint8).data
            done = 0
            while done < len(view):
                read = file.readinto(view[done:])
                if not read:
                    raise ReadError(f"{header.path} is cut short; export or copy it again")
                done += read
    except OSError as error:
        if isinstance(error, ReadError):
            raise
        raise ReadError(f"{header.path} cannot be read: {reason_of(error)}") from None


def check_bits(header: SliceHeader, width: int) -> None:
    """Refuse an impossible bit layout.

    Args:
        header: `bits_stored` and `high_bit` are checked.
        width: bits of a word.

    Raises:
        ReadError: naming tags and values.
    """
    stored, high = header.bits_stored, header.high_bit
    if not (0 < stored <= high + 1 <= width):
        raise ReadError(
            f"{header.path} claims to store {stored} bits up to bit {high} in {width}-bit words, which is impossible "
            f"({tagged('BitsStored')}, {tagged('HighBit')}, {tagged('BitsAllocated')}); export it again"
        )


def to_stored_values(pixels: Array, header: SliceHeader) -> Array:
    """Stored values with unused bits removed and the sign applied (PS3.5 section 8.1.1).

    Args:
        pixels: unsigned integers as stored in the file.
        header: `bits_stored`, `high_bit` and `signed` define which bits count.

    Returns:
        Integers of the same size; the input array itself if nothing had to be done.

    Raises:
        ReadError: for an impossible bit layout.
    """
    width = pixels.dtype.itemsize * 8
    check_bits(header, width)
    stored, high = header.bits_stored, header.high_bit
    if header.signed:
        signed = pixels.view(np.dtype(f"i{pixels.dtype.itemsize}"))
        if stored == width:
            return signed
        return np.asarray(np.right_shift(np.left_shift(signed, width - high - 1), width - stored))
    if stored == width or (high == stored - 1 and int(pixels.max(initial=0)) < 1 << stored):
        return pixels
    mask = np.array((1 << stored) - 1, dtype=pixels.dtype)
    return np.asarray(np.bitwise_and(np.right_shift(pixels, high + 1 - stored), mask))


def stored_pixels(header: SliceHeader, cache: DatasetCache | None = None) -> Array:
    """The frame's pixels before rescaling, `(rows, columns)`; `(rows, columns, 3)` RGB for colour.

    Args:
        header: of the frame.
        cache: where the parsed file is kept for its other frames.

    Raises:
        ReadError: if no installed decoder reads the pixels, or they do not fill the frame.
    """
    shape = (header.rows, header.columns)
    check_size(header)
    if is_plain(header):
        plain = np.empty(shape, _UNSIGNED[header.bits_allocated])
        read_bytes(header, plain)
        return to_stored_values(plain, header)
    pixels = None
    if header.transfer_syntax in _DECODERS and not header.is_colour and header.pixel_offset >= 0:
        pixels = _decoded(header)
    if pixels is None:
        pixels = _by_pydicom(header, cache)
    if pixels.shape[:2] != shape or pixels.ndim != 2 + header.is_colour:
        raise ReadError(f"{header.path} holds {pixels.shape} pixels, its header says {shape}; export it again")
    return pixels


def check_size(header: SliceHeader) -> None:
    """Refuse a header that claims more pixels than its file can contain, before memory is allocated.

    Raises:
        ReadError: naming tags and values, or if the file cannot be accessed.
    """
    size = header.frames * header.rows * header.columns * header.samples * max(1, header.bits_allocated // 8)
    if size <= _LARGE:
        return
    try:
        room = header.path.stat().st_size
    except OSError as error:
        raise ReadError(f"{header.path} cannot be read: {reason_of(error)}") from None
    if size > _RATIO * room:
        frames = f"{header.frames} frames ({tagged('NumberOfFrames')})" if header.frames > 1 else "a frame"
        raise ReadError(
            f"{header.path} promises {frames} of {header.rows} x {header.columns} pixels ({tagged('Rows')}, "
            f"{tagged('Columns')}), but is only {room} bytes long"
        )


def _decoded(header: SliceHeader) -> Array | None:
    """The frame decoded by imagecodecs; None if imagecodecs cannot read it."""
    import imagecodecs

    try:
        frame = _frame_bytes(header)
        decoder: Callable[..., Any] = getattr(imagecodecs, f"{_DECODERS[header.transfer_syntax]}_decode")
        if header.transfer_syntax == _RLE:
            if header.bits_allocated not in _UNSIGNED:
                return None
            dtype = np.dtype(_UNSIGNED[header.bits_allocated])
            pixels = np.frombuffer(decoder(frame, dtype), dtype)
            return to_stored_values(pixels.reshape(header.rows, header.columns).copy(), header)
        pixels = np.asarray(decoder(frame))
    except ReadError:
        raise
    except OSError as error:
        raise ReadError(f"{header.path} cannot be read: {reason_of(error)}") from None
    except damage() as error:
        refuse_own_fault(error)
        return None
    if pixels.ndim != 2 or pixels.dtype.kind not in "iu":
        return None
    if pixels.dtype.kind == "i" or not header.signed:
        return pixels
    # The stream carries its own depth; HighBit does not apply to it.
    width = pixels.dtype.itemsize * 8
    signed = pixels.view(np.dtype(f"i{pixels.dtype.itemsize}"))
    empty = max(0, width - header.bits_stored)
    return np.asarray(np.right_shift(np.left_shift(signed, empty), empty))


def _frame_bytes(header: SliceHeader) -> bytes:
    from pydicom.encaps import generate_fragments, get_frame, parse_basic_offsets

    with header.path.open("rb") as file:
        file.seek(header.pixel_offset)
        if header.frames > 1:
            offsets = parse_basic_offsets(file)
            fragments = file.tell()
            rising = all(a < b for a, b in itertools.pairwise(offsets))
            if offsets and not (rising and offsets[0] == 0 and len(offsets) == header.frames):
                # An impossible offset table is ignored; without one, each fragment must be a frame.
                file.seek(fragments)
                found = list(generate_fragments(file))
                if len(found) != header.frames:
                    raise ReadError(
                        f"{header.path} has {header.frames} frames in {len(found)} fragments and a damaged table "
                        "(Basic Offset Table), so the start of each frame is unknown; export it again"
                    )
                return found[header.frame]
            file.seek(header.pixel_offset)
        return bytes(get_frame(file, header.frame, number_of_frames=header.frames))


def _by_pydicom(header: SliceHeader, cache: DatasetCache | None) -> Array:
    import pydicom.config
    from pydicom.pixels.processing import apply_color_lut
    from pydicom.pixels.utils import pixel_array

    path: Path = header.path
    try:
        with pydicom.config.disable_value_validation():
            data = cache.get(path) if cache is not None and header.frames > 1 else parse_file(path)
            if not header.transfer_syntax:
                # A file without a preamble has no transfer syntax; implicit little endian is DICOM's default.
                data.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
            index = header.frame if header.frames > 1 else None
            # pylibjpeg's RLE decoder panics on damaged data, and a panic is not an `Exception`.
            plugin = "pydicom" if header.transfer_syntax == _RLE else ""
            raw = not header.is_colour
            pixels = np.asarray(pixel_array(data, index=index, raw=raw, decoding_plugin=plugin))
            if header.photometric == "PALETTE COLOR":
                pixels = apply_color_lut(pixels, data)[..., :3]
                pixels = (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels
            return pixels
    except OSError as error:
        raise ReadError(f"{path} cannot be read: {reason_of(error)}") from None
    except damage() as error:
        refuse_own_fault(error)
        raise ReadError(
            f"the pixels of {path} cannot be decoded ({reason_of(error)}); export it again, uncompressed"
        ) from None


def apply_modality_lut(pixels: Array, header: SliceHeader, cache: DatasetCache | None = None) -> Array:
    """Stored values mapped by the file's Modality LUT Sequence, which replaces the slope (PS3.3 C.11.1).

    Raises:
        ReadError: for a damaged table.
    """
    import pydicom
    import pydicom.config
    from pydicom.pixels.processing import apply_modality_lut as by_pydicom

    try:
        with pydicom.config.disable_value_validation():
            if cache is not None and header.frames > 1:
                data = cache.get(header.path)
            else:
                data = pydicom.dcmread(header.path, force=True, stop_before_pixels=True)
            return np.asarray(by_pydicom(pixels, data))
    except OSError as error:
        raise ReadError(f"{header.path} cannot be read: {reason_of(error)}") from None
    except damage() as error:
        refuse_own_fault(error)
        raise ReadError(f"the Modality LUT of {header.path} cannot be applied ({reason_of(error)})") from None
