"""Deletes what the site file does not keep: studies whose jobs are long over, with their objects and results.

Files are deleted as any program deletes them; their content is not overwritten. Queue and audit keep their lines.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from medseg.disk.atomic import write_error
from medseg.service.audit import Audit
from medseg.service.fault_points import reached
from medseg.service.places import Places
from medseg.service.queue import Queue
from medseg.service.queue_records import Study

__all__ = ["delete_old"]

_OVER, _SENT = ("done", "dead"), ("sent", "dead")
_DAY_SECONDS = 86400.0
_GONE = ".gone-"


def delete_old(places: Places, queue: Queue, audit: Audit, keep_days: float) -> int:
    """Delete the objects and results of studies of which everything is over for `keep_days`; returns how many.

    A study stays as long as one of its jobs or deliveries is not over, or its last objects have no version yet.

    Raises:
        WriteError: if a folder, the queue or the audit cannot be written.
    """
    try:
        for path in places.versions.glob(f"{_GONE}*"):
            shutil.rmtree(path, ignore_errors=True)
        return sum(_delete(places, queue, audit, study, keep_days) for study in queue.select(Study))
    except OSError as error:
        raise write_error(places.root, error) from error


def _delete(places: Places, queue: Queue, audit: Audit, study: Study, keep_days: float) -> bool:
    before = queue.now() - keep_days * _DAY_SECONDS
    spool, aside = places.spool / study.study, places.versions / f".aside-{study.study}"
    _decide(aside, spool, study)  # of a run that died
    if study.created >= before or not spool.is_dir() or study.seen_ns != spool.stat().st_mtime_ns:
        return False
    jobs = queue.jobs_of(study.study)
    ways = [each for job in jobs for each in queue.deliveries(job.id)]
    over = all(job.state in _OVER and job.changed < before for job in jobs)
    if not over or not all(each.state in _SENT and each.changed < before for each in ways):
        return False
    audit.write("deleted", study.study, jobs=len(jobs))
    for job in jobs:
        shutil.rmtree(places.results / job.folder, ignore_errors=True)
        shutil.rmtree(places.versions / job.case, ignore_errors=True)
    # The spool last: a study that is still there is deleted again after a kill.
    spool.rename(aside)
    reached("retention.aside")
    _decide(aside, spool, study)
    return True


def _decide(aside: Path, spool: Path, study: Study) -> None:
    """Delete the objects that were set aside, unless one came in at the last moment: then all of them come back."""
    if not aside.is_dir():
        return
    if aside.stat().st_mtime_ns == study.seen_ns:
        gone = aside.with_name(f"{_GONE}{study.study}")
        shutil.rmtree(gone, ignore_errors=True)
        aside.rename(gone)  # after this, what is left of it after a kill is never taken for a study
        shutil.rmtree(gone, ignore_errors=True)
        return
    spool.mkdir(mode=0o700, exist_ok=True)
    for path in aside.iterdir():
        if not (spool / path.name).exists():
            path.rename(spool / path.name)
    shutil.rmtree(aside, ignore_errors=True)
