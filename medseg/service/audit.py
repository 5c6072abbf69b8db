"""The audit: a JSON line for each hop of a study, with keyed hashes in place of every identifier."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal

from medseg.disk.shared_lines import shared_lines
from medseg.service.places import Places

__all__ = ["Audit", "Hop"]

Hop = Literal[
    "received", "ignored", "refused", "complete", "matched", "no_rule", "started", "returned", "done", "failed", "dead",
    "sent", "send_failed", "send_dead", "retried", "cancelled", "deleted", "pulled", "pull_failed",
]  # fmt: skip


class Audit:
    """Appends to a file for each day (UTC), so that old ones can be archived or removed by name.

    Args:
        places: of the service.
        now: the time; tests give their own.
    """

    def __init__(self, places: Places, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._places = places
        self._now = now

    def write(self, hop: Hop, study: str = "", **values: str | int | float) -> None:
        """Append a line and flush it to the disk.

        Args:
            hop: what happened.
            study: its keyed hash.
            values: hashes, numbers and names of rules and destinations; never free text of a header or a message.

        Raises:
            WriteError: if the disk is full or permission is missing.
        """
        now = self._now()
        record = {"format_version": 1, "time": now.isoformat(timespec="milliseconds"), "hop": hop, "study": study}
        with shared_lines(self._places.audit / f"audit-{now:%Y-%m-%d}.jsonl") as lines:
            lines.append([{**record, **values}])
