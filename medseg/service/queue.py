"""The queue: studies, jobs and deliveries in one SQLite file that all processes of a service share.

Every change is one transaction, on the disk before the call returns. A job is (study, version, rule), a delivery is
(job, destination); neither can exist twice.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from medseg.errors import WriteError
from medseg.service.queue_records import Delivery, Job, JobState, Study, Totals

__all__ = ["MOST_CRASHES", "Queue"]

# A job over which this many workers died is the cause of it.
MOST_CRASHES = 3
_BUSY_SECONDS = 60.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS studies (
    study TEXT PRIMARY KEY, calling_ae TEXT NOT NULL DEFAULT '', version INTEGER NOT NULL DEFAULT 0,
    signature TEXT NOT NULL DEFAULT '', seen_ns INTEGER NOT NULL DEFAULT 0,
    expected INTEGER NOT NULL DEFAULT 0, created REAL NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT, study TEXT NOT NULL, version INTEGER NOT NULL, rule TEXT NOT NULL DEFAULT '',
    state TEXT NOT NULL, series TEXT NOT NULL DEFAULT '', worker TEXT NOT NULL DEFAULT '',
    failures INTEGER NOT NULL DEFAULT 0, crashes INTEGER NOT NULL DEFAULT 0, due REAL NOT NULL DEFAULT 0,
    note TEXT NOT NULL DEFAULT '', model_hash TEXT NOT NULL DEFAULT '', seconds REAL NOT NULL DEFAULT 0,
    created REAL NOT NULL, changed REAL NOT NULL, UNIQUE (study, version, rule)
) STRICT;
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, due);
CREATE TABLE IF NOT EXISTS deliveries (
    id INTEGER PRIMARY KEY AUTOINCREMENT, job INTEGER NOT NULL REFERENCES jobs (id), destination TEXT NOT NULL,
    state TEXT NOT NULL, failures INTEGER NOT NULL DEFAULT 0, due REAL NOT NULL DEFAULT 0,
    note TEXT NOT NULL DEFAULT '', changed REAL NOT NULL, UNIQUE (job, destination)
) STRICT;
CREATE INDEX IF NOT EXISTS deliveries_by_state ON deliveries (destination, state, due);
CREATE TABLE IF NOT EXISTS watched (path BLOB PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS pulled (
    source TEXT NOT NULL, study TEXT NOT NULL, objects INTEGER NOT NULL, PRIMARY KEY (source, study)
) STRICT;
PRAGMA user_version = 1;
"""

Row = TypeVar("Row")


class Queue:
    """The queue of a service. Objects of this class are not shared between threads.

    Args:
        path: the SQLite file; created where missing.
        now: seconds since 1970; tests give their own.

    Raises:
        WriteError: if it cannot be opened or is not a queue.
    """

    def __init__(self, path: Path, now: Callable[[], float] = time.time) -> None:
        self.path = path
        self.now = now
        with self._readable_errors():
            self._db = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA journal_mode = WAL")
            # Every commit reaches the disk: an object that was acknowledged must not lose its study.
            self._db.execute("PRAGMA synchronous = FULL")
            if not self._db.execute("PRAGMA user_version").fetchone()[0]:
                self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextlib.contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of the block happens, or nothing.

        Raises:
            WriteError: if the disk is full, or another process blocks the queue for a minute.
        """
        with self._readable_errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                # A full disk has already ended the transaction.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def select(self, kind: type[Row], where: str = "", values: Sequence[Any] = ()) -> list[Row]:
        """Rows as `Study`, `Job` or `Delivery`; `where` continues the statement after the table.

        Raises:
            WriteError: if the queue cannot be read.
        """
        table = {"Study": "studies", "Job": "jobs", "Delivery": "deliveries"}[kind.__name__]
        names = ", ".join(each.name for each in fields(kind))  # type: ignore[arg-type]
        with self._readable_errors():
            return [kind(*row) for row in self._db.execute(f"SELECT {names} FROM {table} {where}", values)]

    # Studies

    def note_study(self, study: str, calling_ae: str) -> bool:
        """Record that objects of a study come in; whether it is a new one. The first sender counts."""
        with self.change() as db:
            added = db.execute(
                "INSERT OR IGNORE INTO studies (study, calling_ae, created) VALUES (?, ?, ?)",
                (study, calling_ae, self.now()),
            )
            return added.rowcount > 0

    def study(self, study: str) -> Study | None:
        """A study; None if it is unknown."""
        return next(iter(self.select(Study, "WHERE study = ?", (study,))), None)

    def examined(self, study: str, seen_ns: int) -> None:
        """Record that the objects of a study are those of its last version."""
        with self.change() as db:
            db.execute("UPDATE studies SET seen_ns = ? WHERE study = ?", (seen_ns, study))

    def add_version(self, study: str, version: int, signature: str, seen_ns: int) -> None:
        """Record a complete set of objects and its job, and give up older ones that nobody has begun."""
        now = self.now()
        with self.change() as db:
            db.execute(
                "UPDATE studies SET version = ?, signature = ?, seen_ns = ? WHERE study = ?",
                (version, signature, seen_ns, study),
            )
            db.execute(
                "UPDATE jobs SET state = 'dead', note = ?, changed = ? "
                "WHERE study = ? AND version < ? AND state IN ('received', 'ready', 'failed')",
                (f"version {version} of the study arrived before this one was segmented", now, study, version),
            )
            db.execute(
                "INSERT OR IGNORE INTO jobs (study, version, state, created, changed) VALUES (?, ?, 'received', ?, ?)",
                (study, version, now, now),
            )

    # Jobs

    def job(self, number: int) -> Job | None:
        """A job by its number; None if there is none."""
        return next(iter(self.select(Job, "WHERE id = ?", (number,))), None)

    def jobs(self, *states: JobState) -> list[Job]:
        """All jobs, or those in some states, by number."""
        where = f"WHERE state IN ({', '.join('?' * len(states))})" if states else ""
        return self.select(Job, f"{where} ORDER BY id", states)

    def jobs_of(self, study: str) -> list[Job]:
        """The jobs of a study, by number."""
        return self.select(Job, "WHERE study = ? ORDER BY id", (study,))

    def counts(self) -> dict[str, int]:
        """Number of jobs by state."""
        with self._readable_errors():
            return dict(self._db.execute("SELECT state, COUNT(*) FROM jobs GROUP BY state").fetchall())

    def latest_jobs(self, most: int) -> list[Job]:
        """The jobs with the highest numbers, the latest first."""
        return self.select(Job, "ORDER BY id DESC LIMIT ?", (most,))

    def totals(self) -> Totals:
        """Numbers over the whole queue."""
        with self._readable_errors():
            ways = self._db.execute("SELECT destination, state, COUNT(*) FROM deliveries GROUP BY destination, state")
            oldest = self._db.execute("SELECT MIN(created) FROM jobs WHERE state NOT IN ('done', 'dead')").fetchone()[0]
            return Totals(
                self._db.execute("SELECT COUNT(*) FROM studies").fetchone()[0],
                self.counts(),
                {(name, state): count for name, state, count in ways},
                oldest or 0.0,
                self._db.execute("SELECT TOTAL(seconds) FROM jobs").fetchone()[0],
            )

    def matched(self, job: Job, rule: str, series: Sequence[str], note: str) -> None:
        """Give a received job the rule that fits it, '' for none; the job of a study without a rule is done."""
        with self.change() as db:
            db.execute(
                "UPDATE jobs SET rule = ?, series = ?, state = ?, note = ?, changed = ? "
                "WHERE id = ? AND state = 'received'",
                (rule, " ".join(series), "ready" if rule else "done", note, self.now(), job.id),
            )

    def take(self, worker: str) -> Job | None:
        """The next job that is ready or due, now running; None if there is none."""
        now = self.now()
        with self.change() as db:
            row = db.execute(
                "UPDATE jobs SET state = 'running', worker = ?, changed = ? WHERE id = ("
                "SELECT id FROM jobs WHERE state = 'ready' OR (state = 'failed' AND due <= ?) ORDER BY id LIMIT 1"
                ") RETURNING id",
                (worker, now, now),
            ).fetchone()
        return None if row is None else self.job(row["id"])

    def give_back(self, worker: str) -> list[Job]:
        """Make the running job of a worker ready again: the worker stops."""
        with self.change() as db:
            rows = db.execute(
                "UPDATE jobs SET state = 'ready', worker = '', changed = ? WHERE state = 'running' AND worker = ? "
                "RETURNING id",
                (self.now(), worker),
            ).fetchall()
        return [job for row in rows if (job := self.job(row["id"])) is not None]

    def recover(self, worker: str) -> list[Job]:
        """After a worker died: its job is ready again, or dead if it has cost several workers."""
        with self.change() as db:
            rows = db.execute(
                "UPDATE jobs SET crashes = crashes + 1, worker = '', changed = :now, "
                "state = CASE WHEN crashes + 1 >= :most THEN 'dead' ELSE 'ready' END, "
                "note = CASE WHEN crashes + 1 >= :most THEN :note ELSE note END "
                "WHERE state = 'running' AND worker = :worker RETURNING id",
                {
                    "now": self.now(),
                    "most": MOST_CRASHES,
                    "note": f"{MOST_CRASHES} workers died over it, most often because memory ran out",
                    "worker": worker,
                },
            ).fetchall()
        return [job for row in rows if (job := self.job(row["id"])) is not None]

    def finish(self, job: Job, model_hash: str, seconds: float, note: str, send_to: Sequence[str] = ()) -> None:
        """A running job is done, and its results wait for their destinations."""
        with self.change() as db:
            db.execute(
                "UPDATE jobs SET state = 'done', worker = '', model_hash = ?, seconds = ?, note = ?, changed = ? "
                "WHERE id = ? AND state = 'running'",
                (model_hash, seconds, note, self.now(), job.id),
            )
            db.executemany(
                "INSERT OR IGNORE INTO deliveries (job, destination, state, changed) VALUES (?, ?, 'waiting', ?)",
                [(job.id, name, self.now()) for name in send_to],
            )

    def fail(self, job: Job, note: str, again: bool) -> None:
        """A running job failed; with `again` it is tried again after `job.pause_s`, if there is a pause left."""
        pause = job.pause_s if again else None
        now = self.now()
        with self.change() as db:
            db.execute(
                "UPDATE jobs SET state = ?, worker = '', failures = failures + 1, due = ?, note = ?, changed = ? "
                "WHERE id = ? AND state = 'running'",
                ("dead" if pause is None else "failed", now + (pause or 0), note, now, job.id),
            )

    def retry(self, number: int) -> bool:
        """Make a job that failed, died or matched no rule new again, or what of it was not sent; whether it was so."""
        with self.change() as db:
            again = db.execute(
                "UPDATE deliveries SET state = 'waiting', failures = 0, due = 0, changed = ? "
                "WHERE job = ? AND state IN ('failed', 'dead')",
                (self.now(), number),
            )
            done = db.execute(
                "UPDATE jobs SET state = CASE WHEN rule = '' THEN 'received' ELSE 'ready' END, failures = 0, "
                "crashes = 0, due = 0, note = 'retried by a person', changed = ? "
                "WHERE id = ? AND (state IN ('failed', 'dead') OR (state = 'done' AND rule = ''))",
                (self.now(), number),
            )
            return done.rowcount > 0 or again.rowcount > 0

    def cancel(self, number: int) -> bool:
        """Give up a job that nobody has begun, or what of it has not been sent; whether there was any."""
        with self.change() as db:
            unsent = db.execute(
                "UPDATE deliveries SET state = 'dead', note = 'cancelled by a person', changed = ? "
                "WHERE job = ? AND state IN ('waiting', 'failed')",
                (self.now(), number),
            )
            done = db.execute(
                "UPDATE jobs SET state = 'dead', note = 'cancelled by a person', changed = ? "
                "WHERE id = ? AND state IN ('received', 'ready', 'failed')",
                (self.now(), number),
            )
            return done.rowcount > 0 or unsent.rowcount > 0

    # Deliveries

    def deliveries(self, job: int | None = None) -> list[Delivery]:
        """All deliveries, or those of a job, by number."""
        if job is None:
            return self.select(Delivery, "ORDER BY id")
        return self.select(Delivery, "WHERE job = ? ORDER BY id", (job,))

    def deliveries_since(self, job: int) -> list[Delivery]:
        """The deliveries of a job and later ones, by number."""
        return self.select(Delivery, "WHERE job >= ? ORDER BY id", (job,))

    def take_delivery(self, destination: str) -> Delivery | None:
        """The next delivery to a destination that waits or is due, now being sent; None if there is none."""
        now = self.now()
        with self.change() as db:
            row = db.execute(
                "UPDATE deliveries SET state = 'sending', changed = ? WHERE id = (SELECT id FROM deliveries WHERE "
                "destination = ? AND (state = 'waiting' OR (state = 'failed' AND due <= ?)) ORDER BY id LIMIT 1) "
                "RETURNING id",
                (now, destination, now),
            ).fetchone()
        return None if row is None else self.select(Delivery, "WHERE id = ?", (row["id"],))[0]

    def recover_deliveries(self, destination: str) -> None:
        """After a sender died: what it was sending waits again; the same UIDs arrive twice at worst."""
        with self.change() as db:
            db.execute(
                "UPDATE deliveries SET state = 'waiting' WHERE state = 'sending' AND destination = ?", (destination,)
            )

    def sent(self, delivery: Delivery, note: str) -> None:
        """A delivery has arrived."""
        with self.change() as db:
            db.execute(
                "UPDATE deliveries SET state = 'sent', note = ?, changed = ? WHERE id = ? AND state = 'sending'",
                (note, self.now(), delivery.id),
            )

    def not_sent(self, delivery: Delivery, note: str) -> None:
        """A delivery failed; it is tried again after `delivery.pause_s`, if there is a pause left."""
        pause, now = delivery.pause_s, self.now()
        with self.change() as db:
            db.execute(
                "UPDATE deliveries SET state = ?, failures = failures + 1, due = ?, note = ?, changed = ? "
                "WHERE id = ? AND state = 'sending'",
                ("dead" if pause is None else "failed", now + (pause or 0), note, now, delivery.id),
            )

    # Files of a watched folder that stay where they are

    def was_taken(self, path: bytes, size: int, mtime_ns: int) -> bool:
        """Whether a watched file was taken as it is now."""
        with self._readable_errors():
            row = self._db.execute("SELECT size, mtime_ns FROM watched WHERE path = ?", (path,)).fetchone()
        return row is not None and tuple(row) == (size, mtime_ns)

    def note_taken(self, path: bytes, size: int, mtime_ns: int) -> None:
        """Remember a watched file that was taken."""
        with self.change() as db:
            db.execute("INSERT OR REPLACE INTO watched VALUES (?, ?, ?)", (path, size, mtime_ns))

    # Studies of an archive

    def pulled(self, source: str, study: str) -> int:
        """How many objects a source had of a study when all of them were fetched; 0 before."""
        with self._readable_errors():
            row = self._db.execute(
                "SELECT objects FROM pulled WHERE source = ? AND study = ?", (source, study)
            ).fetchone()
        return 0 if row is None else int(row[0])

    def note_pulled(self, source: str, study: str, objects: int) -> None:
        """Remember that everything a source has of a study was fetched."""
        with self.change() as db:
            db.execute("INSERT OR REPLACE INTO pulled VALUES (?, ?, ?)", (source, study, objects))

    def expect(self, study: str, objects: int) -> None:
        """A study is complete with so many objects in the spool."""
        with self.change() as db:
            db.execute("UPDATE studies SET expected = ? WHERE study = ?", (objects, study))

    @contextlib.contextmanager
    def _readable_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise WriteError(
                f"{self.path}: the queue cannot be used ({error}); check the disk and its free space"
            ) from None
