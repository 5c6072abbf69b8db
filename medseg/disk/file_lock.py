"""Whether the process that locked a file is still alive: the kernel releases `flock` with it, even after `kill -9`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

__all__ = ["fcntl", "is_open_file", "lives", "try_lock"]


def try_lock(descriptor: int) -> bool | None:
    """Lock the file until the descriptor is closed; whether that worked, None if the file system has no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def is_open_file(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def lives(pid: int) -> bool:
    """Whether a process of this machine is alive; True if that cannot be determined."""
    if fcntl is None:
        return True  # on Windows asking would interrupt the process
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
