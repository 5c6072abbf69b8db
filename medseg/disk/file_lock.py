"""Whether the holder of a file still lives: the kernel drops `flock` with the process, `kill -9` included."""

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
    """Whether the file is ours now, until the descriptor is closed; None where the file system cannot tell."""
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
    """Whether a process of this machine is alive; yes where nobody can tell."""
    if fcntl is None:
        return True  # on Windows the question itself would interrupt the process
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
