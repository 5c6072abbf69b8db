"""`/metrics`: figures of the service in the text format of Prometheus, read from the queue when they are asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, get_args

from medseg.config.site import SiteConfig
from medseg.errors import MissingPartError
from medseg.service.health import health_of
from medseg.service.places import Places
from medseg.service.queue import Queue
from medseg.service.queue_records import DeliveryState, JobState

__all__ = ["metrics_text"]


def metrics_text(site: SiteConfig, places: Places) -> bytes:
    """The figures; no identifier of a patient or study is among them.

    Raises:
        MissingPartError: if prometheus_client is not installed.
        WriteError: if the queue cannot be read.
    """
    try:
        from prometheus_client import CollectorRegistry, generate_latest
    except ImportError:
        raise MissingPartError(
            "the page needs prometheus_client: in the folder of medseg, pip install -c constraints.txt '.[pacs]'"
        ) from None

    class Figures:
        def collect(self) -> Iterator[Any]:
            yield from _figures(site, places)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Figures())
    return bytes(generate_latest(registry))


def _figures(site: SiteConfig, places: Places) -> Iterator[Any]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    health = health_of(site, places)
    yield GaugeMetricFamily("medseg_healthy", "1 if nothing is wrong", float(not health.faults))
    yield GaugeMetricFamily("medseg_disk_free_bytes", "Free space of the folder of the service", health.free_bytes)
    up = GaugeMetricFamily("medseg_process_up", "Whether a process of the service runs", labels=["process"])
    for role, runs in health.roles.items():
        up.add_metric([role], float(runs))
    yield up
    with contextlib.closing(Queue(places.queue)) as queue:
        totals = queue.totals()
        jobs = GaugeMetricFamily("medseg_jobs", "Jobs by state", labels=["state"])
        for state in get_args(JobState):
            jobs.add_metric([state], totals.jobs.get(state, 0))
        yield jobs
        ways = GaugeMetricFamily("medseg_deliveries", "Deliveries by state", labels=["destination", "state"])
        for name in {*site.destinations, *(name for name, _ in totals.deliveries)}:
            for state in get_args(DeliveryState):
                ways.add_metric([name, state], totals.deliveries.get((name, state), 0))
        yield ways
        yield GaugeMetricFamily("medseg_studies", "Studies that came in", totals.studies)
        yield GaugeMetricFamily(
            "medseg_oldest_waiting_seconds",
            "Age of the oldest job that is neither done nor dead",
            max(0.0, queue.now() - totals.oldest) if totals.oldest else 0.0,
        )
        yield CounterMetricFamily("medseg_job_seconds", "Seconds that all results took", totals.seconds)
