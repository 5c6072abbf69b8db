"""The memory of one layer is handed to the next, where the C library gives it back to the system in between."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock

__all__ = ["layer_memory_kept"]

# mallopt(3) of glibc: parameters, what is set while a network runs (32 maps of 128^3 with malloc's own header; tensors
# up to 1 GB: no faster, 200 MB more holes), and what glibc settles on by itself in a long run.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT = {_MMAP_THRESHOLD: 2**28 + 2**20, _TRIM_THRESHOLD: 2**31 - 1}
_USUAL = {_MMAP_THRESHOLD: 2**25, _TRIM_THRESHOLD: 2**26}

_holding = Lock()
_holders: list[None] = []


@contextmanager
def layer_memory_kept() -> Iterator[None]:
    """While a network runs on a CPU, freed tensors of up to 256 MB stay with the process; at the end all goes back.

    glibc maps each tensor above 32 MB anew, and the system clears its pages one by one: up to a third of the time of a
    3D U-Net on 96^3 windows. Only allocations of the main thread gain; without glibc nothing changes. Of several blocks
    at a time, as within a stream of frames, the last to end gives the memory back.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    with _holding:
        _holders.append(None)
        for parameter, value in _KEPT.items():
            libc.mallopt(parameter, value)
    try:
        yield
    finally:
        with _holding:
            _holders.pop()
            if not _holders:
                for parameter, value in _USUAL.items():
                    libc.mallopt(parameter, value)
                libc.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
