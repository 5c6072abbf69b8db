"""Files of JSON lines that several runs append to: locked while they are written, complete lines only."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from medseg.disk.atomic import write_error
from medseg.disk.file_lock import fcntl

__all__ = ["SharedLines", "shared_lines"]


class SharedLines:
    """An open file of JSON lines that no other run can write to; see `shared_lines`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self) -> list[bytes]:
        """All lines, without line ends."""
        size = os.fstat(self._descriptor).st_size
        return os.pread(self._descriptor, size, 0).splitlines()

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Append a line per record and flush them to the disk.

        Raises:
            OSError: if the disk is full.
        """
        text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        # File names may contain bytes that are not valid text.
        content = text.encode(errors="backslashreplace")
        if os.write(self._descriptor, content) < len(content):
            raise OSError(errno.ENOSPC, "the line was cut short")
        os.fsync(self._descriptor)


@contextlib.contextmanager
def shared_lines(path: Path) -> Iterator[SharedLines]:
    """Open the file, creating it if missing, for this run alone, as far as the file system supports locks.

    An incomplete last line, left by a run that died while writing, is removed.

    Raises:
        WriteError: if the disk is full or permission is missing.

    Example:
        >>> with shared_lines(Path("ledger.jsonl")) as lines:
        ...     lines.append([{"case": "ann"}])
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            with _exclusive(descriptor):
                _drop_torn_line(descriptor)
                yield SharedLines(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise write_error(path, error) from error


@contextlib.contextmanager
def _exclusive(descriptor: int) -> Iterator[None]:
    """Wait until no other run writes to the file, as far as the file system supports locks."""
    if fcntl is not None:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if fcntl is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)


def _drop_torn_line(descriptor: int) -> None:
    size = os.fstat(descriptor).st_size
    if not size or os.pread(descriptor, 1, size - 1) == b"\n":
        return
    end = size
    while end:
        start = max(0, end - 65536)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            os.ftruncate(descriptor, start + found + 1)
            return
        end = start
    os.ftruncate(descriptor, 0)
