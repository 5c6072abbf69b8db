"""The rows of the queue: a study, a job, a delivery."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["BACKOFF_MINUTES", "Delivery", "DeliveryState", "Job", "JobState", "Study", "Totals"]

JobState = Literal["received", "ready", "running", "done", "failed", "dead"]
DeliveryState = Literal["waiting", "sending", "sent", "failed", "dead"]
# After each failure, until there is none left; then the job or delivery is dead, until a person retries it.
BACKOFF_MINUTES = (1, 5, 15, 60)


@dataclass(frozen=True, slots=True)
class Study:
    """A study in the spool.

    Args:
        study: keyed hash of patient and study.
        calling_ae: the AE title that sent its first object, '' for a folder.
        version: of the last complete set of objects, 0 before.
        signature: of that set.
        seen_ns: modification time of the spool folder when it was last examined.
        expected: number of objects in the spool with which it is complete, as an archive counts; 0 if that is unknown.
        created: seconds since 1970.
    """

    study: str
    calling_ae: str
    version: int
    signature: str
    seen_ns: int
    expected: int
    created: float


@dataclass(frozen=True, slots=True)
class Job:
    """One version of a study, given to the model of one rule.

    Args:
        id: number of the job.
        study, version: of the study.
        rule: name of the rule, '' before one is found and where none fits.
        state: 'received' (no rule looked for yet), 'ready', 'running', 'done', 'failed' (retried when due) or 'dead'.
        series: keys of the series to use, separated by spaces; '' for the model's own choice.
        worker: which worker has it.
        failures: failed attempts since it was added or retried by a person.
        crashes: workers that died over it.
        due: seconds since 1970 at which a failed one is tried again.
        note: why it is in this state, for a person.
        model_hash: of the model that was used.
        seconds: that the result took.
        created, changed: seconds since 1970.
    """

    id: int
    study: str
    version: int
    rule: str
    state: JobState
    series: str
    worker: str
    failures: int
    crashes: int
    due: float
    note: str
    model_hash: str
    seconds: float
    created: float
    changed: float

    @property
    def case(self) -> str:
        """Name of the version's folder, and with it of the case and its results."""
        return f"{self.study}-v{self.version}"

    @property
    def folder(self) -> str:
        """Name of the folder with its results."""
        return f"{self.case}-{self.rule}"

    @property
    def pause_s(self) -> float | None:
        """Seconds to wait after the next failure; None once all pauses are used."""
        return _pause_s(self.failures)


@dataclass(frozen=True, slots=True)
class Delivery:
    """The results of one job on their way to one destination.

    Args:
        id: number of the delivery.
        job: number of the job.
        destination: name in the site file.
        state: 'waiting', 'sending', 'sent', 'failed' (tried again when due) or 'dead'.
        failures, due, note, changed: as of a `Job`.
    """

    id: int
    job: int
    destination: str
    state: DeliveryState
    failures: int
    due: float
    note: str
    changed: float

    @property
    def pause_s(self) -> float | None:
        """Seconds to wait after the next failure; None once all pauses are used."""
        return _pause_s(self.failures)


@dataclass(frozen=True, slots=True)
class Totals:
    """Numbers over the whole queue.

    Args:
        studies: that came in.
        jobs: state -> number.
        deliveries: (destination, state) -> number.
        oldest: when the oldest job came in that is neither done nor dead, in seconds since 1970; 0 if there is none.
        seconds: that all results took.
    """

    studies: int
    jobs: dict[str, int]
    deliveries: dict[tuple[str, str], int]
    oldest: float
    seconds: float


def _pause_s(failures: int) -> float | None:
    return 60.0 * BACKOFF_MINUTES[failures] if failures < len(BACKOFF_MINUTES) else None
