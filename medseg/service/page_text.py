"""The status page as HTML: escaped, without scripts and without anything from elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from datetime import UTC, datetime
from html import escape

from medseg.config.site import SiteConfig
from medseg.service.health import health_of
from medseg.service.places import Places
from medseg.service.queue import Queue
from medseg.service.queue_records import Delivery, Job

__all__ = ["MOST_JOBS", "page_text"]

MOST_JOBS = 200
"""The latest jobs, which the page shows."""
_STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2rem; color: #1c2733; background: #fff; }
h1 { font-size: 1.3rem; margin: 0 0 .3rem; } h2 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
p { margin: .2rem 0; } .faint { color: #5b6875; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; padding: .25rem .8rem .25rem 0; }
th { border-bottom: 1px solid #9aa7b4; font-weight: 600; } td { border-bottom: 1px solid #e3e8ed; vertical-align: top; }
td.code { font-family: ui-monospace, monospace; font-size: .85rem; }
.good { color: #11652f; } .bad { color: #a11212; font-weight: 600; } .look { color: #8a5200; font-weight: 600; }
"""
_CLASSES = {"done": "good", "sent": "good", "dead": "bad", "failed": "look"}


def page_text(site: SiteConfig, places: Places) -> str:
    """The page: what is wrong, figures, and the latest jobs under the hashes of their studies.

    Raises:
        WriteError: if the queue cannot be read.
    """
    health = health_of(site, places)
    with contextlib.closing(Queue(places.queue)) as queue:
        totals = queue.totals()
        jobs = queue.latest_jobs(MOST_JOBS)
        ways: dict[int, list[Delivery]] = {}
        for each in queue.deliveries_since(jobs[-1].id if jobs else 0):
            ways.setdefault(each.job, []).append(each)
        now = queue.now()
    state = "".join(f'<p class="bad">{escape(fault)}</p>' for fault in health.faults) or '<p class="good">working</p>'
    counts = ", ".join(f"{count} {state}" for state, count in sorted(totals.jobs.items())) or "none yet"
    unsent = sum(count for (_, state), count in totals.deliveries.items() if state != "sent")
    processes = ", ".join(f"{role} {'runs' if runs else 'does not run'}" for role, runs in health.roles.items())
    heads = "".join(f"<th>{each}</th>" for each in ("job", "state", "changed", "study", "rule", "deliveries", "note"))
    rows = "".join(_row(job, ways.get(job.id, ())) for job in jobs)
    shown = f"the latest {MOST_JOBS} of {sum(totals.jobs.values())}" if sum(totals.jobs.values()) > MOST_JOBS else "all"
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="30">
<meta name="viewport" content="width=device-width"><title>medseg service</title><style>{_STYLE}</style></head><body>
<h1>medseg service</h1>{state}
<p>{totals.studies} studies came in. Jobs: {escape(counts)}. Deliveries that have not arrived: {unsent}.</p>
<p>{health.free_bytes / 1e9:.1f} GB are free. Processes: {escape(processes)}.</p>
<p class="faint">{_time(now)}. Research use only, not for diagnosis.
Who it is: medseg queue SITE.yaml show JOB --patient.</p>
<h2>Jobs, {shown}</h2>
<table><thead><tr>{heads}</tr></thead>
<tbody>{rows}</tbody></table></body></html>
"""


def _row(job: Job, ways: Iterable[Delivery]) -> str:
    state = (
        "look" if job.state == "done" and (not job.rule or job.note not in ("", "done")) else _CLASSES.get(job.state)
    )
    sent = "<br>".join(
        f'<span class="{_CLASSES.get(each.state, "")}">{escape(each.destination)} {escape(each.state)}</span>'
        for each in ways
    )
    return (
        f'<tr><td>{job.id}</td><td class="{state or ""}">{escape(job.state)}</td><td>{_time(job.changed)}</td>'
        f'<td class="code">{escape(job.study)} v{job.version}</td><td>{escape(job.rule) or "none"}</td><td>{sent}</td>'
        f"<td>{escape(job.note)}</td></tr>"
    )


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
