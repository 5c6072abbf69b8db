"""Voxels from a file, compressed or not, read directly into the final array, and never more than the header claims.

Headers are read first; their claims are checked against the file size and the free memory before anything is
allocated, so a damaged or malicious header costs nothing, and a decompression bomb is stopped at the claimed size.
"""

from __future__ import annotations

import bz2
import contextlib
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medseg.errors import ReadError
from medseg.machine import free_memory

__all__ = ["Encoding", "VoxelBlock", "check_promise", "is_gzip", "read_block", "read_start"]

Encoding = Literal["raw", "gzip", "zlib", "bzip2", "text"]
# Deflate expands a byte to at most 1032 (RFC 1951: 258 bytes for 2 bits); a small file still has its headers.
_DEFLATE_RATIO = 1032
_PIECE = 1 << 24
_BUFFER = 1 << 18
# How far to read past the voxels, to reach the checksum.
_SURPLUS = 1 << 20
_TEXT_LIMIT = 1 << 26


@dataclass(frozen=True, slots=True)
class VoxelBlock:
    """The position of voxels in a file.

    Args:
        path: the file that contains them.
        dtype: as stored, including byte order.
        count: number of voxels according to the header.
        encoding: how the file is compressed from `offset` on.
        offset: bytes in the file before the (compressed) voxels.
        skip: bytes to skip after decompression.
    """

    path: Path
    dtype: np.dtype[Any]
    count: int
    encoding: Encoding = "raw"
    offset: int = 0
    skip: int = 0


def is_gzip(path: Path) -> bool:
    """Whether the file begins with the magic number of gzip, whatever its name.

    Raises:
        ReadError: if the file cannot be opened.
    """
    return read_start(path, 2, "raw") == b"\x1f\x8b"


def read_start(path: Path, size: int, encoding: Encoding) -> bytes:
    """The first `size` bytes of a file after decompression, fewer if it is shorter.

    Raises:
        ReadError: if the file cannot be opened or decompressed.
    """
    start = bytearray(size)
    with _opened(path, encoding, 0) as stream:
        return bytes(start[: _fill(stream, memoryview(start))])


def check_promise(path: Path, promised: int, encoding: Encoding = "raw", before: int = 0) -> None:
    """Refuse a header that claims more than its file or the memory can contain.

    Args:
        path: the file that contains the voxels.
        promised: bytes of voxels after decompression, according to the header.
        encoding: how they are compressed.
        before: bytes of the file that are not voxels.

    Raises:
        ReadError: if the file is truncated, its header damaged, or the memory too small.
    """
    try:
        there = max(path.stat().st_size - before, 0)
    except OSError as error:
        raise ReadError(f"{path} cannot be read: {error.strerror or error}") from None
    if encoding == "raw" and there < promised:
        raise ReadError(
            f"{path} is cut short: its header promises {promised} bytes of voxels, {there} are there; copy or download "
            "it again"
        )
    if encoding in ("gzip", "zlib") and promised > there * _DEFLATE_RATIO + 4096:
        raise ReadError(
            f"{path} is cut short: its header promises {promised} bytes of voxels, more than {there} compressed bytes "
            "can hold; copy or download it again"
        )
    free = free_memory()
    if free is not None and promised > free:
        raise ReadError(
            f"{path} needs {promised / 1e9:.1f} GB for its voxels, {free / 1e9:.1f} GB of memory are free; crop it or "
            "use a larger machine"
        )


def read_block(block: VoxelBlock) -> tuple[NDArray[Any], bool]:
    """The voxels as a new flat array in native byte order, and whether the file has more than the header claims.

    Raises:
        ReadError: if the voxels are truncated, damaged, or do not fit into memory.
    """
    if block.encoding == "text":
        return _read_text(block)
    promised = block.count * block.dtype.itemsize
    check_promise(block.path, promised + block.skip, block.encoding, block.offset)
    try:
        flat = np.empty(block.count, block.dtype)
    except (MemoryError, ValueError, OverflowError):
        raise _too_large(block.path, promised) from None
    with _opened(block.path, block.encoding, block.offset) as stream:
        _drop(stream, block.skip)
        room: Any = flat.view(np.uint8)
        there = _fill(stream, memoryview(room))
        surplus = _drop(stream, _SURPLUS) > 0
    if there < promised:
        raise ReadError(
            f"{block.path} is cut short: its header promises {promised} bytes of voxels, {there} are there; copy or "
            "download it again"
        )
    if not flat.dtype.isnative:
        flat = flat.byteswap(inplace=True).view(flat.dtype.newbyteorder("="))
    return flat, surplus


def _too_large(path: Path, promised: int) -> ReadError:
    return ReadError(
        f"{path} needs {promised / 1e9:.1f} GB for its voxels, more than the memory can take; crop it or use a larger "
        "machine"
    )


def _read_text(block: VoxelBlock) -> tuple[NDArray[Any], bool]:
    check_promise(block.path, block.count, "raw", block.offset)
    try:
        if block.path.stat().st_size > _TEXT_LIMIT:
            raise ReadError(f"{block.path} stores its voxels as long text; convert it to a compressed file first")
        with block.path.open("rb") as file:
            file.seek(block.offset)
            words = file.read().split()
        whole = block.dtype.kind in "iu"
        values = np.array([int(w) if whole else float(w) for w in words[: block.count]])
        flat = values.astype(block.dtype.newbyteorder("="))
    except OSError as error:
        raise ReadError(f"{block.path} cannot be read: {error.strerror or error}") from None
    except (ValueError, OverflowError) as error:
        raise ReadError(f"{block.path} is damaged: its voxels are not numbers ({str(error)[:80]})") from None
    if len(words) < block.count or not (np.array_equal(flat, values) or not whole):
        raise ReadError(
            f"{block.path} is damaged: its header promises {block.count} numbers of type {block.dtype.name}, "
            f"{len(words)} are there; copy or download it again"
        )
    return flat, len(words) > block.count


def _fill(stream: io.RawIOBase | io.BufferedIOBase, room: memoryview) -> int:
    """Read until the buffer is full or the stream ends; returns the number of bytes read."""
    done = 0
    while done < len(room):
        count = stream.readinto(room[done : done + _PIECE])
        if not count:
            break
        done += count
    return done


def _drop(stream: io.RawIOBase | io.BufferedIOBase, size: int) -> int:
    room = memoryview(bytearray(min(size, _BUFFER)))
    done = 0
    while done < size:
        count = _fill(stream, room[: size - done])
        done += count
        if not count:
            break
    return done


@contextlib.contextmanager
def _opened(path: Path, encoding: Encoding, offset: int) -> Iterator[io.RawIOBase | io.BufferedIOBase]:
    """The decompressed bytes of a file from `offset` on; errors in the block become a ReadError."""
    from isal import igzip, isal_zlib

    damaged: Any = (EOFError, isal_zlib.error, igzip.BadGzipFile, zlib.error)
    stream: Any
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(offset)
            if encoding == "gzip":
                make_reader: Any = igzip._IGzipReader
                stream = make_reader(file, _BUFFER)
            elif encoding == "zlib":
                stream = _Inflated(file, isal_zlib.decompressobj())
            elif encoding == "bzip2":
                stream = bz2.BZ2File(file)
            else:
                stream = file
            yield stream
    except damaged as error:
        raise ReadError(f"{path} is damaged or cut short ({error}); copy or download it again") from None
    except ReadError:
        raise
    except OSError as error:
        raise ReadError(f"{path} cannot be read: {error.strerror or error}; copy or download it again") from None
    except MemoryError:
        raise ReadError(f"{path} does not fit into the memory; crop it or use a larger machine") from None


class _Inflated(io.RawIOBase):
    """A zlib stream (RFC 1950) as a file."""

    def __init__(self, file: io.FileIO, inflate: Any) -> None:
        self._file, self._inflate = file, inflate

    def readable(self) -> bool:
        return True

    def readinto(self, room: Any) -> int:
        while not self._inflate.eof:
            waiting = self._inflate.unconsumed_tail or self._file.read(_BUFFER)
            data = self._inflate.decompress(waiting, min(len(room), _PIECE))
            if data:
                room[: len(data)] = data
                return len(data)
            if not waiting:
                raise EOFError("the compressed data end too early")
        return 0
