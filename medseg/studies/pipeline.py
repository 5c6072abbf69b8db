"""A three-stage pipeline: the next item is read while this one is computed and the previous one is finished.

Reading ahead is limited by memory and by count; the order of the items is kept.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

from medseg.studies.memory import MemoryBudget

__all__ = ["overlapped"]

W = TypeVar("W")
# Items that may wait between two stages.
_WAITING = 2
_POLL_SECONDS = 0.2
_READER_ENDS_SECONDS = 10.0


def overlapped(
    works: Sequence[W],
    read: Callable[[W], None],
    compute: Callable[[W], None],
    finish: Callable[[W], None],
    cost: Callable[[W], int],
    limit: int | None,
) -> Iterator[W]:
    """Pass every item through three stages; the stages of different items run concurrently.

    Args:
        works: the items; each stage stores its result in the item.
        read: first stage, in a thread of its own.
        compute: second stage, in the caller's thread.
        finish: third stage, in a thread of its own; an item is never abandoned in the middle of it.
        cost: bytes that an item needs from the beginning of `read` to the end of `finish`.
        limit: bytes that all items in progress may need together; one alone may need more. None: no limit.

    Yields:
        The finished items, as soon as they are finished.

    Raises:
        BaseException: an exception in a stage ends everything; later items are not finished.
    """
    line = _Line[W](limit)
    readers = threading.Thread(target=line.guarded, args=(line.read_all, works, read, cost), daemon=True)
    writers = threading.Thread(target=line.guarded, args=(line.finish_all, finish, cost), daemon=True)
    readers.start()
    writers.start()
    ended = False
    try:
        while (work := line.next_of(line.ready)) is not None:
            compute(work)
            line.put(line.computed, work)
            line.raise_failure()
            yield from line.finished()
        line.put(line.computed, None)
        ended = True
        writers.join()
        line.raise_failure()
        yield from line.finished()
    finally:
        if not ended:
            line.stop.set()
        # Writing in progress is completed; a reader that hangs on a dead disk is abandoned.
        writers.join()
        line.stop.set()
        readers.join(_READER_ENDS_SECONDS)


class _Line(Generic[W]):
    """The queues between the stages; None ends a queue."""

    def __init__(self, limit: int | None) -> None:
        self.budget = MemoryBudget(limit)
        self.ready: queue.Queue[W | None] = queue.Queue(_WAITING)
        self.computed: queue.Queue[W | None] = queue.Queue(_WAITING)
        self.stop = threading.Event()
        self._done: queue.SimpleQueue[W] = queue.SimpleQueue()
        self._failure: list[BaseException] = []

    def guarded(self, stage: Callable[..., None], *args: object) -> None:
        try:
            stage(*args)
        except BaseException as error:  # passed on to the caller's thread
            self._failure.append(error)
            self.stop.set()

    def read_all(self, works: Sequence[W], read: Callable[[W], None], cost: Callable[[W], int]) -> None:
        for work in works:
            if not self.budget.take(cost(work), self.stop.is_set):
                return
            read(work)
            self.put(self.ready, work)
        self.put(self.ready, None)

    def finish_all(self, finish: Callable[[W], None], cost: Callable[[W], int]) -> None:
        while (work := self._get(self.computed)) is not None:
            finish(work)
            self._done.put(work)
            self.budget.give(cost(work))

    def next_of(self, waiting: queue.Queue[W | None]) -> W | None:
        work = self._get(waiting)
        self.raise_failure()
        return work

    def put(self, waiting: queue.Queue[W | None], work: W | None) -> None:
        while not self.stop.is_set():
            with contextlib.suppress(queue.Full):
                waiting.put(work, timeout=_POLL_SECONDS)
                return

    def finished(self) -> Iterator[W]:
        while not self._done.empty():
            yield self._done.get()

    def raise_failure(self) -> None:
        if self._failure:
            raise self._failure[0]

    def _get(self, waiting: queue.Queue[W | None]) -> W | None:
        while not self.stop.is_set():
            with contextlib.suppress(queue.Empty):
                return waiting.get(timeout=_POLL_SECONDS)
        return None
