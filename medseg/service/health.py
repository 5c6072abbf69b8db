"""The state of a service for a program that watches it: is every process there, is there space, what waits?"""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass

from medseg.config.site import SiteConfig
from medseg.errors import MachineError, MedsegError
from medseg.service.places import Places, hold_role
from medseg.service.queue import Queue

__all__ = ["Health", "health_of", "role_names"]


@dataclass(frozen=True, slots=True)
class Health:
    """The state of a service.

    Args:
        roles: process -> whether it runs.
        free_bytes: on the disk of the service.
        faults: a sentence for each thing that is wrong; () if the service works.
    """

    roles: dict[str, bool]
    free_bytes: int
    faults: tuple[str, ...]


def health_of(site: SiteConfig, places: Places) -> Health:
    """Look at processes, disk and queue; changes nothing."""
    roles = {role: _is_held(places, role) for role in role_names(site)}
    free = shutil.disk_usage(places.root).free
    faults = [f"{role} does not run" for role, runs in roles.items() if not runs]
    if free < site.reserve_gb * 1e9:
        faults.append(f"{free / 1e9:.1f} GB are free, less than reserve_gb = {site.reserve_gb:g}: nothing is accepted")
    try:
        with contextlib.closing(Queue(places.queue)) as queue:
            queue.counts()
    except MedsegError as error:
        faults.append(str(error))
    return Health(roles, free, tuple(faults))


def role_names(site: SiteConfig) -> tuple[str, ...]:
    """The processes that a site file asks for, without the page itself."""
    used = {name for rule in site.rules for name in rule.send_to}
    return (
        "intake",
        *(f"worker-{number}" for number in range(len(site.devices))),
        *(f"pull-{name}" for name in site.pull),
        *(f"deliver-{name}" for name in site.destinations if name in used),
    )


def _is_held(places: Places, role: str) -> bool:
    """Whether a process has the lock of a role; a process that starts at this moment waits and gets it."""
    try:
        os.close(hold_role(places, role))
    except MachineError:
        return True
    return False
