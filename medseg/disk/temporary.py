"""Temporary folders that are removed by the next run if their own run is killed.

A folder contains a file `owner`, which its process keeps locked while it lives, and `files`, the actual working folder.
Only folders of this form that belong to the current user are ever removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from medseg.disk.atomic import write_error
from medseg.disk.file_lock import lives, try_lock

__all__ = ["remove_dead_folders", "temporary_folder"]

_PREFIX = "medseg-"
_OWNER, _FILES = "owner", "files"
_HOST = socket.gethostname()
# If locks are not available (another machine, a file system without locks), a folder is kept this long.
_STALE_SECONDS = 86400.0


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """An empty folder in the system's temporary directory, readable by this user only, for the duration of the block.

    Raises:
        WriteError: if the disk is full or permission is missing.

    Example:
        >>> with temporary_folder() as folder:
        ...     _ = (folder / "slice.txt").write_text("1")
        >>> folder.exists()
        False
    """
    root = Path("temporary files")
    try:
        root = Path(tempfile.mkdtemp(prefix=_PREFIX))
        descriptor = os.open(root / _OWNER, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        with contextlib.suppress(OSError):
            root.rmdir()
        raise write_error(root, error) from error
    try:
        try:
            # Locked before its owner is written: a file without an owner is never removed.
            try_lock(descriptor)
            os.pwrite(descriptor, json.dumps({"host": _HOST, "pid": os.getpid()}).encode(), 0)
            (root / _FILES).mkdir()
        except OSError as error:
            raise write_error(root, error) from error
        yield root / _FILES
    finally:
        _remove(root)
        os.close(descriptor)


def remove_dead_folders() -> None:
    """Remove the temporary folders of killed runs; those of living runs and of other users stay."""
    try:
        found = [Path(each.path) for each in os.scandir(tempfile.gettempdir()) if each.name.startswith(_PREFIX)]
    except OSError:
        return
    for root in found:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            _remove_if_dead(root)


def _remove_if_dead(root: Path) -> None:
    state = root.lstat()
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != getattr(os, "geteuid", lambda: state.st_uid)():
        return
    descriptor = os.open(root / _OWNER, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    try:
        locked = try_lock(descriptor)
        owner = json.loads(os.pread(descriptor, 4096, 0))
        host, pid = str(owner["host"]), int(owner["pid"])
        here = host == _HOST
        is_old = time.time() - os.fstat(descriptor).st_mtime > _STALE_SECONDS
        dead = locked if here and locked is not None else is_old and not (here and lives(pid))
        if locked is not False and dead and {each.name for each in root.iterdir()} <= {_OWNER, _FILES}:
            _remove(root)
    finally:
        os.close(descriptor)


def _remove(root: Path) -> None:
    """Remove a folder, its contents first: if the removal itself is interrupted, the next run completes it."""
    shutil.rmtree(root / _FILES, ignore_errors=True)
    with contextlib.suppress(OSError):
        if not (root / _FILES).exists():
            (root / _OWNER).unlink()
            root.rmdir()
