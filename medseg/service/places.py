"""The folder of a service: where everything is, created for its user alone; the site's key and its hashes."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from medseg.disk.atomic import write_error
from medseg.disk.file_lock import try_lock
from medseg.errors import MachineError
from medseg.io.dicom.deidentify.site_key import site_key

__all__ = ["Places", "hold_role"]

_DIGITS = 24


@dataclass(frozen=True, slots=True)
class Places:
    """Paths in the folder of a service.

    Args:
        root: the folder; `make` creates it with mode 0700.
    """

    root: Path

    @property
    def incoming(self) -> Path:
        """Objects that are being received; what a killed receiver left here was never acknowledged."""
        return self.root / "incoming"

    def pulling(self, name: str) -> Path:
        """Objects that are being fetched from an archive; created where missing, emptied where a killed one left some.

        Raises:
            WriteError: if permission is missing or the disk is full.
        """
        folder = self.root / "pulling" / name
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(folder, error) from error
        return folder

    @property
    def spool(self) -> Path:
        """A folder for each study, named by its hash, with a file for each object, named by its hash."""
        return self.root / "spool"

    @property
    def versions(self) -> Path:
        """A folder for each version of a study: hard links to the objects that were there when it was complete."""
        return self.root / "versions"

    @property
    def results(self) -> Path:
        """A folder for each job, written by `predict`."""
        return self.root / "results"

    @property
    def queue(self) -> Path:
        """The SQLite file of studies, jobs and deliveries."""
        return self.root / "queue.sqlite"

    @property
    def ledger(self) -> Path:
        """The ledger rows of all jobs, for `medseg drift`."""
        return self.root / "ledger.jsonl"

    @property
    def audit(self) -> Path:
        """A file of JSON lines for each day (UTC)."""
        return self.root / "audit"

    def make(self) -> Places:
        """Create the folders that are missing, for this user alone.

        Raises:
            WriteError: if permission is missing or the disk is full.
        """
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in (self.incoming, self.spool, self.versions, self.results, self.audit):
                folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise write_error(self.root, error) from error
        return self

    def hash(self, kind: str, *parts: str) -> str:
        """A keyed hash of identifiers, 24 hexadecimal digits; it cannot be reversed without `site.key`.

        A dictionary of all accession numbers does not help (HMAC-SHA256, RFC 2104).
        """
        text = json.dumps([kind, *parts]).encode(errors="backslashreplace")
        return hmac.new(site_key(self.root / "site.key"), text, hashlib.sha256).hexdigest()[:_DIGITS]


def hold_role(places: Places, role: str) -> int:
    """Lock a role of the service, such as 'worker-0', for this process; the kernel frees it when the process ends.

    Returns:
        The descriptor, to be kept open.

    Raises:
        MachineError: if another process has the role, or the file system has no locks.
    """
    path = places.root / f".{role}.lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise write_error(path, error) from error
    locked = try_lock(descriptor)
    if locked:
        return descriptor
    os.close(descriptor)
    if locked is None:
        raise MachineError(f"{places.root} is on a file system without locks; choose a folder on a local disk")
    raise MachineError(f"another service works on {places.root} ({role}); stop it, or give this site another folder")
