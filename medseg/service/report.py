"""`medseg queue`: what is in the queue, for a person; identifiers only where they are asked for."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pydicom

from medseg.errors import ConfigError
from medseg.service.audit import Audit
from medseg.service.places import Places
from medseg.service.queue import Queue
from medseg.service.queue_records import Job

__all__ = ["changed_text", "job_text", "list_text", "patient_of", "site_queue"]

_NAMED = ("PatientName", "PatientID", "AccessionNumber", "StudyDate", "StudyInstanceUID")
_LONGEST_NOTE = 70


def list_text(queue: Queue, as_json: bool) -> str:
    """All jobs, a line each with what was sent, and their number by state; or as JSON.

    Raises:
        WriteError: if the queue cannot be read.
    """
    jobs, sent = queue.jobs(), queue.deliveries()
    if as_json:
        records = {"jobs": [asdict(job) for job in jobs], "deliveries": [asdict(each) for each in sent]}
        return json.dumps({"format_version": 1, "counts": queue.counts(), **records}, indent=2)
    ways: dict[int, list[str]] = {}
    for each in sent:
        ways.setdefault(each.job, []).append(f"{each.destination} {each.state}")
    lines = []
    for job in jobs:
        words = (f"{job.id:>6}", f"{job.state:<8}", _time(job.changed), job.case, job.rule or "-", _short(job.note))
        lines.append("  ".join([*words, *ways.get(job.id, ())]).rstrip())
    counts = ", ".join(f"{count} {state}" for state, count in sorted(queue.counts().items()))
    return "\n".join([*lines, counts or "no jobs"])


def job_text(queue: Queue, places: Places, number: int, with_patient: bool, as_json: bool = False) -> str:
    """Everything about one job.

    Args:
        queue, places: of the service.
        number: of the job.
        with_patient: also who the patient is, read from the spool.
        as_json: for programs.

    Raises:
        ConfigError: if there is no such job.
        WriteError: if the queue cannot be read.
    """
    job = queue.job(number)
    if job is None:
        raise ConfigError(f"there is no job {number}; medseg queue SITE.yaml list shows all")
    values: dict[str, object] = asdict(job)
    values |= {name: _time(getattr(job, name)) for name in ("created", "changed")}
    values["due"] = _time(job.due) if job.state == "failed" else "-"
    values["results"] = places.results / job.folder if job.rule else "-"
    if with_patient:
        values |= patient_of(places, job)
    for each in queue.deliveries(number):
        due = f", again at {_time(each.due)}" if each.state == "failed" else ""
        values[f"to {each.destination}"] = f"{each.state}{due}{each.note and f': {each.note}'}"
    if as_json:
        return json.dumps({"format_version": 1, **values}, indent=2, default=str)
    width = max(map(len, values))
    return "\n".join(f"{name:<{width}}  {value if value != '' else '-'}" for name, value in values.items())


def changed_text(queue: Queue, places: Places, number: int, action: Literal["retry", "cancel"]) -> str:
    """Try a job again or give it up, and say what it is now.

    Raises:
        ConfigError: if there is no such job, or its state does not allow that.
        WriteError: if the queue or the audit cannot be written.
    """
    job = queue.job(number)
    if job is None:
        raise ConfigError(f"there is no job {number}; medseg queue SITE.yaml list shows all")
    if not (queue.retry if action == "retry" else queue.cancel)(number):
        allowed = "failed or dead, or matched no rule" if action == "retry" else "has not begun"
        raise ConfigError(
            f"job {number} is {job.state}; {action} is for one that {'is ' * (action == 'retry')}{allowed}"
        )
    Audit(places).write("retried" if action == "retry" else "cancelled", job.study, version=job.version, job=job.id)
    after = queue.job(number)
    return f"job {number} is {after.state if after else 'gone'} now"


def patient_of(places: Places, job: Job) -> dict[str, str]:
    """Name, numbers and date of the study of a job, from the first of its objects; {} once these are deleted."""
    folder = places.versions / job.case
    for path in sorted(folder.glob("*.dcm")) if folder.is_dir() else ():
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_NAMED))
        return {name: str(header.get(name, "")) for name in _NAMED}
    return {}


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _short(note: str) -> str:
    return note if len(note) <= _LONGEST_NOTE else f"{note[: _LONGEST_NOTE - 3]}..."


def site_queue(folder: Path) -> tuple[Places, Queue]:
    """The queue in the folder of a service.

    Raises:
        ConfigError: if the service has never been started there.
        WriteError: if the queue cannot be read.
    """
    places = Places(folder)
    if not places.queue.is_file():
        raise ConfigError(f"{folder} contains no queue; start the service first: medseg serve SITE.yaml")
    return places, Queue(places.queue)
