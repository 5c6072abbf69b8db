"""One function over many cases: in this thread, in threads, or in processes, whichever pays."""

from __future__ import annotations

import concurrent.futures as futures
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from medseg.errors import MedsegError, PartialFailure

__all__ = ["run_over_cases"]

Item = TypeVar("Item")
Result = TypeVar("Result")
# Starting a process costs two seconds and more; below this much input, threads (decompression and numpy release the
# interpreter lock) are done sooner.
PROCESSES_FROM_BYTES = 4e9


def run_over_cases(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int,
    processes: bool,
    on_done: Callable[[Item, Result | MedsegError], None],
) -> None:
    """Call `function` on every item and hand each result, or the `MedsegError` it raised, to `on_done` as it comes.

    Args:
        function: module-level, so that a spawned process finds it.
        items: its arguments, picklable when `processes`.
        workers: at most so many at a time; 1 stays in this thread.
        processes: processes instead of threads.
        on_done: called in this thread; an error it raises stops the rest.

    Raises:
        PartialFailure: if a worker process died; what was handed to `on_done` before stays done.
    """
    workers = min(workers, len(items))
    if workers <= 1:
        for item in items:
            on_done(item, _attempt(function, item))
        return
    pool: futures.Executor
    if processes:
        pool = futures.ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    else:
        pool = futures.ThreadPoolExecutor(workers, thread_name_prefix="medseg-prepare")
    done = 0
    try:
        waiting = {pool.submit(_attempt, function, item): item for item in items}
        for future in futures.as_completed(waiting):
            on_done(waiting[future], future.result())
            done += 1
    except BrokenProcessPool:
        raise PartialFailure(
            f"a worker process died after {done} of {len(items)} cases, most often because memory ran out; what is "
            "done is kept: run again, with fewer workers (or put the call of a script under if __name__ == '__main__')"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _attempt(function: Callable[[Item], Result], item: Item) -> Result | MedsegError:
    try:
        return function(item)
    except MedsegError as error:
        return error
