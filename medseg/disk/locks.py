"""Lock files that tell runs on one or several machines which cases of an output folder are being processed.

A lock is a small file that its run locks by `flock` and touches twice a minute. The kernel releases `flock` when the
run dies, even by `kill -9`; the time of the last touch informs runs on other machines whose file system does not share
`flock`. Ages are measured by the clock of the file system, so machines need not agree on the time.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
from pathlib import Path

from medseg.disk.atomic import write_error
from medseg.disk.file_lock import is_open_file, lives, try_lock

__all__ = ["FOLDER", "Locks"]

FOLDER = ".medseg-locks"
BEAT_SECONDS = 30.0
# A run on another machine that has not touched its lock for this long is dead.
STALE_SECONDS = 600.0
_RUN = "run-"
_HOST = socket.gethostname()


class Locks:
    """The locks of one run in an output folder; a context manager that releases all of them.

    Args:
        folder: the output folder; `.medseg-locks` is created in it, and removed with the last lock.

    Raises:
        WriteError: if permission is missing or the disk is full.

    Example:
        >>> with Locks(Path("masks")) as locks:
        ...     if locks.take("case_7"):
        ...         locks.give("case_7")
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER
        self._held: dict[str, int] = {}
        self._guard = threading.Lock()
        self._ended = threading.Event()
        self._name = f"{_RUN}{secrets.token_hex(8)}"

    def __enter__(self) -> Locks:
        while not self._take(self._name):
            pass  # a run that checks for dead ones holds it for a moment
        threading.Thread(target=self._beat, name="medseg-locks", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for name in list(self._held):
            self._give(name)
        with contextlib.suppress(OSError):
            self._folder.rmdir()

    def take(self, case: str) -> bool:
        """Lock a case; False if another living run works on it.

        Raises:
            WriteError: if permission is missing or the disk is full.
        """
        return self._take(f"case-{case}")

    def give(self, case: str) -> None:
        """Release a case; does nothing if it is not locked by this run."""
        self._give(f"case-{case}")

    def alone(self) -> bool:
        """Whether no other living run works in the folder; locks of dead runs are removed."""
        for path in self._folder.glob("*.lock"):
            name = path.name.removesuffix(".lock")
            if name in self._held:
                continue
            if self._take(name):
                self._give(name)
            elif name.startswith(_RUN):
                return False
        return True

    def _take(self, name: str) -> bool:
        path = self._folder / f"{name}.lock"
        try:
            while True:
                try:
                    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
                except FileNotFoundError:
                    # The first lock, or another run has just removed the empty folder.
                    self._folder.mkdir(parents=True, exist_ok=True)
                    continue
                held = try_lock(descriptor)
                if held is False:
                    os.close(descriptor)
                    return False
                if not is_open_file(descriptor, path):
                    os.close(descriptor)  # its holder has just released it
                    continue
                if not self._may_take_over(descriptor, known=held is True):
                    os.close(descriptor)
                    return False
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps({"host": _HOST, "pid": os.getpid()}).encode(), 0)
                with self._guard:
                    self._held[name] = descriptor
                return True
        except OSError as error:
            raise write_error(path, error) from error

    def _give(self, name: str) -> None:
        with self._guard:
            descriptor = self._held.pop(name, None)
        if descriptor is None:
            return
        path = self._folder / f"{name}.lock"
        with contextlib.suppress(OSError):
            if is_open_file(descriptor, path):
                path.unlink()
        os.close(descriptor)

    def _may_take_over(self, descriptor: int, known: bool) -> bool:
        """Whether the lock is free: not held by `flock`, which runs on this machine always use if it is available."""
        try:
            holder = json.loads(os.pread(descriptor, 4096, 0) or b"{}")
            host, pid = holder["host"], int(holder["pid"])
        except (ValueError, KeyError, TypeError):
            return True  # new, or its holder died before writing its name
        if host == _HOST:
            return known or not lives(pid)
        return self._now() - os.fstat(descriptor).st_mtime > STALE_SECONDS

    def _now(self) -> float:
        """The current time by the clock of the file system."""
        probe = self._folder / f"{self._name}.clock"
        try:
            probe.touch()
            return probe.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            with self._guard:
                for descriptor in self._held.values():
                    with contextlib.suppress(OSError):
                        os.utime(descriptor)
