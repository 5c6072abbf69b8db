"""Cases side by side, as many as the memory holds.

Threads, not processes: decompression, array work and KD-tree searches run outside the interpreter lock, and a script
that calls `evaluate` at its top level must not be run again by spawned workers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from medseg.errors import MedsegError
from medseg.evaluation.pairs import Pair
from medseg.evaluation.scoring import CaseScores, Scoring, score_pair
from medseg.io.formats import kind_of
from medseg.io.voxel_files.nifti_header import parse_nifti
from medseg.io.voxel_files.streams import is_gzip, read_start
from medseg.machine import available_cpus, free_memory

__all__ = ["case_bytes", "score_all"]

_MAX_WORKERS = 8
_SHARE_OF_FREE_MEMORY = 0.6
# Both masks and what the metrics make of them, per voxel; measured by benchmarks/evaluation.py.
_BYTES_PER_VOXEL = 8
# The image, distance maps and components of a task; probabilities come on top.
_TASK_BYTES_PER_VOXEL = 56
_PROBABILITY_BYTES_PER_VOXEL = 12


def case_bytes(pair: Pair, has_task: bool) -> int:
    """About how much memory a case takes at most, from the header of its reference alone.

    Args:
        pair: its files. What is not NIfTI counts by its size on disk, as if compressed eightfold.
        has_task: a task measures in the image, too.
    """
    per_voxel = _TASK_BYTES_PER_VOXEL if has_task else _BYTES_PER_VOXEL
    return _voxels(pair) * (
        per_voxel + (_PROBABILITY_BYTES_PER_VOXEL if pair.probabilities else 0) + (2 if pair.second else 0)
    )


def _voxels(pair: Pair) -> int:
    path = pair.ref
    try:
        if kind_of(path) == "nifti":
            return math.prod(parse_nifti(read_start(path, 540, "gzip" if is_gzip(path) else "raw"), path).shape)
        return 8 * path.stat().st_size
    except (MedsegError, OSError):
        return 0  # reading the case says what is wrong with it


def score_all(
    pairs: Sequence[Pair],
    scoring: Scoring,
    memory_gb: float | None,
    progress: Callable[[float, float, str], None],
) -> tuple[CaseScores, ...]:
    """Score every case, in the order of `pairs`.

    Args:
        pairs: the cases.
        scoring: how.
        memory_gb: cases start only while their estimates together stay below it, one always; None takes 60% of what
            is free.
        progress: called as `progress(done, total, case)`.

    Raises:
        ReadError, DatasetError, GeometryError: the first case that cannot be scored ends it all.
    """
    free = free_memory() or 8 << 30
    budget = int(memory_gb * 1e9) if memory_gb is not None else int(free * _SHARE_OF_FREE_MEMORY)
    workers = max(1, min(_MAX_WORKERS, available_cpus(), len(pairs)))
    scored: dict[str, CaseScores] = {}
    running: dict[Future[CaseScores], int] = {}
    # Large cases first, so that none is left over when the others are done.
    waiting = sorted(((case_bytes(p, scoring.task is not None), p) for p in pairs), key=lambda item: -item[0])
    with ThreadPoolExecutor(workers, thread_name_prefix="evaluate") as pool:
        try:
            while waiting or running:
                while (
                    waiting
                    and len(running) < workers
                    and (not running or sum(running.values()) + waiting[0][0] <= budget)
                ):
                    size, pair = waiting.pop(0)
                    running[pool.submit(score_pair, pair, scoring)] = size
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    del running[future]
                    result = future.result()
                    scored[result.case] = result
                    progress(len(scored), len(pairs), result.case)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return tuple(scored[pair.case] for pair in pairs)
