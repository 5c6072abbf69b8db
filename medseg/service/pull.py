"""Fetches studies from an archive every few minutes: only what was not seen, into the same spool."""

from __future__ import annotations

import logging
from pathlib import Path

from medseg.config.site_network import DicomSource, WebSource
from medseg.errors import ConfigError, MedsegError, ReadError, WriteError
from medseg.service.archive import Archive, Found
from medseg.service.archive_dicom import DicomArchive
from medseg.service.archive_web import WebArchive
from medseg.service.audit import Audit
from medseg.service.dicom_link import RefusedError
from medseg.service.queue import Queue
from medseg.service.spool import Spool

__all__ = ["Puller"]

log = logging.getLogger(__name__)


class Puller:
    """Fetches from one archive.

    Args:
        name: of the archive in the site file.
        source: its address, and what is asked for.
        incoming: folder for an object while it is taken.
        spool, queue, audit: of the service.
    """

    def __init__(
        self, name: str, source: DicomSource | WebSource, incoming: Path, spool: Spool, queue: Queue, audit: Audit
    ) -> None:
        self._name = name
        self._pause_s = 60 * source.every_minutes
        self._spool = spool
        self._queue = queue
        self._audit = audit
        self._due = 0.0
        self._archive: Archive = (
            WebArchive(source, incoming) if isinstance(source, WebSource) else DicomArchive(source, spool)
        )

    def step(self) -> int:
        """Ask the archive if it is time, and fetch what was not seen; returns the number of objects that are new.

        Raises:
            WriteError: if the disk is full, the queue or the audit cannot be written; the next step tries again.
            MissingPartError: if pynetdicom or dicomweb-client is not installed.
        """
        if self._queue.now() < self._due:
            return 0
        fetched = 0
        try:
            with self._archive.open():
                for found in list(self._archive.studies()):
                    fetched += self._examine(found)
        except (RefusedError, ConfigError) as error:  # a token or certificate that is missing may come back too
            log.warning("%s: %s", self._name, error)
            self._audit.write("pull_failed", source=self._name, error=type(error).__name__)
        self._due = self._queue.now() + self._pause_s
        return fetched

    def _examine(self, found: Found) -> int:
        study = self._spool.study(found.patient_id, found.study_uid)
        if found.objects is not None and found.objects == self._queue.pulled(self._name, study):
            return 0
        try:
            return self._fetch(found, study)
        except WriteError:
            raise
        except MedsegError as error:  # the others are fetched all the same, and this one is tried again
            log.warning("%s: a study was not fetched: %s", self._name, error)
            self._audit.write("pull_failed", study, source=self._name, error=type(error).__name__)
            return 0

    def _fetch(self, found: Found, study: str) -> int:
        series = self._archive.series(found.study_uid)
        count = found.objects or sum(len(each.objects) for each in series)
        if not count or count == self._queue.pulled(self._name, study):
            return 0
        taken: list[str] = []
        failed: list[RefusedError] = []
        new = refused = 0

        def take(path: Path) -> None:
            nonlocal new, refused
            try:
                answer = self._spool.take(path, self._announce)
            except ReadError as error:
                refused += 1
                log.warning("%s: an object was refused: %s", self._name, str(error).replace(str(path), "it"))
                self._audit.write("refused", source=self._name, reason="not_dicom")
                return
            taken.append(answer.study)
            new += answer.outcome in ("new", "replaced")
            if not answer.study:
                self._audit.write("ignored", source=self._name, reason=answer.outcome)

        for each in series:
            missing = [uid for uid in each.objects if not self._spool.has(study, uid)]
            before = len(taken) + refused
            try:
                if missing:
                    self._archive.fetch(found.study_uid, each, missing, take)
            except RefusedError as error:  # the other series are fetched all the same
                failed.append(error)
            came = len(taken) + refused - before
            if came < len(missing):
                failed.append(RefusedError(f"{came} of {len(missing)} objects of a series came"))
        if new:
            self._audit.write("pulled", study, source=self._name, objects=new)
        if failed:
            raise failed[0]
        if not refused:
            for each_study in {study, *filter(None, taken)}:
                self._queue.expect(each_study, self._spool.count(each_study))
        self._queue.note_pulled(self._name, study, count)
        return new

    def _announce(self, study: str) -> None:
        if self._queue.note_study(study, self._archive.calling_ae):
            self._audit.write("received", study)
