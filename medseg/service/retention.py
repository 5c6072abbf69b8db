"""Deletes what the site file does not keep: studies whose jobs are long over, with their objects and results.

Files are deleted as any program deletes them; their content is not overwritten. Queue and audit keep their lines.
"""

from __future__ import annotations

import shutil

from medseg.service.audit import Audit
from medseg.service.places import Places
from medseg.service.queue import Queue
from medseg.service.queue_records import Study

__all__ = ["delete_old"]

_OVER, _SENT = ("done", "dead"), ("sent", "dead")
_DAY_SECONDS = 86400.0


def delete_old(places: Places, queue: Queue, audit: Audit, keep_days: float) -> int:
    """Delete the objects and results of studies of which everything is over for `keep_days`; returns how many.

    A study stays as long as one of its jobs or deliveries is not over, or its last objects have no version yet.

    Raises:
        WriteError: if the queue or the audit cannot be written.
    """
    before = queue.now() - keep_days * _DAY_SECONDS
    deleted = 0
    for study in queue.select(Study, "WHERE created < ?", (before,)):
        spool = places.spool / study.study
        if not spool.is_dir() or study.seen_ns != spool.stat().st_mtime_ns:
            continue
        jobs = queue.jobs_of(study.study)
        ways = [each for job in jobs for each in queue.deliveries(job.id)]
        over = all(job.state in _OVER and job.changed < before for job in jobs)
        if not over or not all(each.state in _SENT and each.changed < before for each in ways):
            continue
        audit.write("deleted", study.study, jobs=len(jobs))
        for job in jobs:
            shutil.rmtree(places.results / job.folder, ignore_errors=True)
            shutil.rmtree(places.versions / job.case, ignore_errors=True)
        # The spool last: a study that is still there is deleted again after a kill.
        shutil.rmtree(spool, ignore_errors=True)
        deleted += 1
    return deleted
