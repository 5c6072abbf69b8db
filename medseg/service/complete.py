"""Complete studies: when nothing was added for a while, or all of an archive is there, objects become a version.

A version is a folder of hard links, so that what arrives later neither changes nor delays the job that works on it.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from medseg.disk.atomic import write_error
from medseg.service.audit import Audit
from medseg.service.fault_points import reached
from medseg.service.places import Places
from medseg.service.queue import Queue

__all__ = ["Completer"]


class Completer:
    """Finds complete studies in the spool.

    Args:
        places, queue, audit: of the service.
        quiet_s: seconds without a new object after which a study is complete, whatever an archive has of it.
        now: seconds since 1970; tests give their own.
    """

    def __init__(
        self, places: Places, queue: Queue, audit: Audit, quiet_s: float, now: Callable[[], float] = time.time
    ) -> None:
        self._places = places
        self._queue = queue
        self._audit = audit
        self._quiet_s = quiet_s
        self._now = now
        # Studies that have not changed need no look into the queue.
        self._seen: dict[str, int] = {}

    def step(self) -> int:
        """Add a version and its job for every study that has become complete; returns how many.

        Raises:
            WriteError: if the disk is full; what was not added is tried again.
        """
        try:
            with os.scandir(self._places.spool) as entries:
                folders = {each.name: each.stat().st_mtime_ns for each in entries if each.is_dir()}
        except OSError as error:
            raise write_error(self._places.spool, error) from error
        self._seen = {name: seen for name, seen in self._seen.items() if name in folders}
        return sum(
            self._examine(study, changed)
            for study, changed in sorted(folders.items(), key=lambda item: item[1])
            if self._seen.get(study) != changed
            and (self._now() - changed / 1e9 >= self._quiet_s or self._is_counted(study))
        )

    def _is_counted(self, study: str) -> bool:
        """Whether exactly what an archive has of a study is there; with more, others send it as well."""
        known = self._queue.study(study)
        return known is not None and 0 < known.expected == len(_objects(self._places.spool / study))

    def _examine(self, study: str, changed: int) -> bool:
        known = self._queue.study(study)
        if known is None:  # its queue was lost or restored from a backup
            self._queue.note_study(study, "")
            known = self._queue.study(study)
        if known is None or known.seen_ns == changed:
            self._seen[study] = changed
            return False
        objects = _objects(self._places.spool / study)
        signature = _signature(objects)
        added = bool(objects) and signature != known.signature
        if added:
            version = known.version + 1
            self._freeze(objects, self._places.versions / f"{study}-v{version}")
            # The audit before the queue, here and elsewhere: a line may appear twice after a kill, but none is missing.
            self._audit.write("complete", study, version=version, objects=len(objects))
            reached("complete.before_queue")
            self._queue.add_version(study, version, signature, changed)
        else:
            self._queue.examined(study, changed)
        self._seen[study] = changed
        return added

    def _freeze(self, objects: list[Path], target: Path) -> None:
        """Link the objects into the version's folder, which appears complete or not at all."""
        fresh = target.with_name(f".{secrets.token_hex(8)}")
        try:
            fresh.mkdir(mode=0o700)
            for path in objects:
                os.link(path, fresh / path.name)
            # Left by a run that died before the queue knew of it.
            shutil.rmtree(target, ignore_errors=True)
            fresh.rename(target)
        except OSError as error:
            shutil.rmtree(fresh, ignore_errors=True)
            raise write_error(target, error) from error


def _objects(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix == ".dcm")


def _signature(objects: list[Path]) -> str:
    """A hash that changes with the set of objects and with each of them."""
    digest = hashlib.sha256()
    for path in objects:
        status = path.stat()
        digest.update(f"{path.name} {status.st_size} {status.st_ino} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
