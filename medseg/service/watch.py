"""The watched folder: DICOM files that have settled are copied into the spool."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from medseg.config.site import WatchConfig
from medseg.disk.directory_walk import files_below, is_hidden
from medseg.errors import ReadError
from medseg.service.audit import Audit
from medseg.service.queue import Queue
from medseg.service.spool import Spool

__all__ = ["WatchedFolder"]

log = logging.getLogger(__name__)


class WatchedFolder:
    """Takes what a folder contains.

    Args:
        config: which folder, and when a file has settled.
        spool, queue, audit: of the service.
        now: seconds since 1970; tests give their own.
    """

    def __init__(
        self, config: WatchConfig, spool: Spool, queue: Queue, audit: Audit, now: Callable[[], float] = time.time
    ) -> None:
        self._config = config
        self._spool = spool
        self._queue = queue
        self._audit = audit
        self._now = now

    def step(self) -> int:
        """Take every new file that has settled; returns how many were new or changed.

        Raises:
            WriteError: if the disk is full or permission is missing; what was not taken is tried again.
        """
        if not self._config.folder.is_dir():
            log.warning("%s: the watched folder is missing", self._config.folder)
            return 0
        files, _ = files_below(self._config.folder)
        return sum(self._take(path) for path in sorted(files) if not is_hidden(path))

    def _take(self, path: Path) -> bool:
        try:
            status = path.stat()
        except FileNotFoundError:
            return False
        known = os.fsencode(path), status.st_size, status.st_mtime_ns
        if self._now() - status.st_mtime < self._config.settle_s or self._queue.was_taken(*known):
            return False
        try:
            taken = self._spool.take(path, self._announce)
        except ReadError as error:
            log.warning("%s", error)
            self._audit.write("refused", reason="not_dicom")
            self._queue.note_taken(*known)
            return False
        if not taken.study:
            self._audit.write("ignored", reason=taken.outcome)
        self._queue.note_taken(*known)
        if self._config.remove:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
        return taken.outcome in ("new", "replaced")

    def _announce(self, study: str) -> None:
        if self._queue.note_study(study, ""):
            self._audit.write("received", study)
