"""The intake: takes studies from the watched folder, finds those that are complete, and gives them to a rule."""

from __future__ import annotations

import logging

from medseg.config.site import SiteConfig
from medseg.service.audit import Audit
from medseg.service.complete import Completer
from medseg.service.places import Places
from medseg.service.queue import Queue
from medseg.service.receive import Receiver
from medseg.service.report import patient_of
from medseg.service.retention import delete_old
from medseg.service.rules import match_study
from medseg.service.spool import NoReserveError, Spool
from medseg.service.watch import WatchedFolder

__all__ = ["Intake"]

log = logging.getLogger(__name__)
_CLEAN_SECONDS = 3600.0


class Intake:
    """Everything before the network.

    Args:
        site: the site file.
        places, queue, audit: of the service.
    """

    def __init__(self, site: SiteConfig, places: Places, queue: Queue, audit: Audit) -> None:
        self._site = site
        self._places = places
        self._queue = queue
        self._audit = audit
        self._clean_at = 0.0
        self._receiver: Receiver | None = None
        spool = Spool(places, int(site.reserve_gb * 1e9))
        self._watched = None if site.watch is None else WatchedFolder(site.watch, spool, queue, audit)
        if site.receive is not None:
            self._receiver = Receiver(site.receive, places, spool, audit)
        self._completer = Completer(places, queue, audit, site.quiet_s)

    def stop(self) -> None:
        """End what listens."""
        if self._receiver is not None:
            self._receiver.stop()

    def step(self) -> int:
        """Take what is there and match what is complete; returns the number of jobs that got a rule or none.

        Raises:
            WriteError: if the disk is full or permission is missing; the next step continues.
        """
        if self._watched is not None:
            try:
                self._watched.step()
            except NoReserveError as error:
                # What is in the spool already goes on, and its deletion later makes room.
                log.warning("%s", error)
        if self._receiver is not None:
            self._receiver.report()
        self._completer.step()
        if self._site.keep_days is not None and self._queue.now() >= self._clean_at:
            self._clean_at = self._queue.now() + _CLEAN_SECONDS
            delete_old(self._places, self._queue, self._audit, self._site.keep_days)
        received = self._queue.jobs("received")
        for job in received:
            study = self._queue.study(job.study)
            found = match_study(self._places.versions / job.case, study.calling_ae if study else "", self._site.rules)
            if found.rule:
                patient = patient_of(self._places, job)
                known = {
                    f"{name}_hash": self._places.hash(name, patient[keyword])
                    for name, keyword in (("patient", "PatientID"), ("accession", "AccessionNumber"))
                    if patient.get(keyword)
                }
                self._audit.write("matched", job.study, version=job.version, job=job.id, rule=found.rule, **known)
            else:
                log.warning("job %d: no rule fits: %s", job.id, "; ".join(found.reasons))
                self._audit.write("no_rule", job.study, version=job.version, job=job.id)
            self._queue.matched(job, found.rule, found.series, "; ".join(found.reasons))
        return len(received)
