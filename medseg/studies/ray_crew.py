"""The workers on a Ray cluster and their cases: started, given cases, and replaced when they die."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.errors import ConfigError, MedsegError
from medseg.inference.load import load_by
from medseg.studies.case_work import CaseWork
from medseg.studies.chain import CaseChain
from medseg.studies.options import PredictOptions
from medseg.version import __version__

if TYPE_CHECKING:
    from medseg.io.dicom.deidentify.profile import Deidentifier

__all__ = ["RayCrew", "RayWorker"]

log = logging.getLogger(__name__)

CORES_PER_WORKER = 4
# One case is read or written while the network processes the other.
CASES_PER_WORKER = 2
# If this many workers have died over a case, the case is the cause.
ATTEMPTS = 3
_WAIT_SECONDS = 1.0
_ROOM_SECONDS = 60.0


class RayCrew:
    """The workers of a run and the cases they process."""

    def __init__(self, ray: Any, load: tuple[Any, ...], chain: CaseChain) -> None:
        self.ray = ray
        self.load = load
        self.chain = chain
        on_gpus = bool(ray.cluster_resources().get("GPU")) and not chain.options.device.startswith("cpu")
        kind = "GPU" if on_gpus else "CPU"
        of_nodes = [int(n["Resources"].get(kind, 0)) for n in ray.nodes() if n["Alive"]]
        share = 1 if on_gpus else max(1, min([CORES_PER_WORKER, *(n for n in of_nodes if n)]))
        self.places = max(1, sum(n // share for n in of_nodes))
        self.room = f"{share} {kind}"
        needs = {"num_gpus": share} if on_gpus else {"num_cpus": share}
        self.make = ray.remote(max_restarts=0, max_concurrency=CASES_PER_WORKER, **needs)(RayWorker)
        self.loading: dict[Any, Any] = {}
        self.running: dict[Any, tuple[Any, CaseWork]] = {}
        self.cases: dict[Any, int] = {}  # of each worker that has the model
        self.deaths: Counter[str] = Counter()
        # The first case chooses the engine for all, as in a run on one machine.
        self.engine = chain.model.engine_name

    def through(
        self, waiting: deque[CaseWork], begin: Callable[[CaseWork], bool], settle: Callable[[CaseWork], None]
    ) -> Iterator[CaseWork]:
        """See `RayEngine.through`."""
        for _ in range(min(self.places, len(waiting))):
            self._hire()
        last = time.monotonic()
        # A worker that still waits for resources, on a cluster that has lost a machine, must not delay the end.
        while waiting or self.running:
            while waiting and (worker := self._free(self._share_of(waiting[0]))) is not None:
                work = waiting.popleft()
                if work.source.case not in self.deaths and not begin(work):
                    yield work
                    continue
                self.running[worker.process.remote(work, self.engine)] = worker, work
                self.cases[worker] += self._share_of(work)
            if not waiting and not self.running:
                return
            done, _ = self.ray.wait([*self.loading, *self.running], timeout=_WAIT_SECONDS)
            for answer in done:
                last = time.monotonic()
                if answer in self.loading:
                    self._welcome(answer)
                elif (finished := self._take(answer, waiting)) is not None:
                    settle(finished)
                    yield finished
            if not self.cases and time.monotonic() - last > _ROOM_SECONDS:
                log.warning("waiting for room on the Ray cluster: a worker needs %s", self.room)
                last = time.monotonic()

    def dismiss(self) -> None:
        """End all workers."""
        for worker in {*self.loading.values(), *self.cases}:
            with contextlib.suppress(Exception):
                self.ray.kill(worker)

    def _hire(self) -> None:
        worker = self.make.remote()
        self.loading[worker.load.remote(*self.load)] = worker

    def _share_of(self, work: CaseWork) -> int:
        """The share of a worker that a case takes: all of it if the case may kill it, so that no other dies with it."""
        return CASES_PER_WORKER if work.source.case in self.deaths else 1

    def _free(self, share: int) -> Any:
        if self.running and not self.engine:
            return None
        worker = min(self.cases, key=lambda each: self.cases[each], default=None)
        return None if worker is None or self.cases[worker] + share > CASES_PER_WORKER else worker

    def _welcome(self, answer: Any) -> None:
        worker = self.loading.pop(answer)
        try:
            found = self._get(answer)
        except self.ray.exceptions.RayError as error:
            self._mourn(worker, "", error)
            return
        if found != (expected := (__version__, self.chain.model.model_hash)):
            raise ConfigError(
                f"a machine of the Ray cluster has medseg {found[0]} and model {found[1][:8]}, this one "
                f"{expected[0]} and {expected[1][:8]}; install the same on all, and put the model under the same path"
            )
        self.cases[worker] = 0

    def _take(self, answer: Any, waiting: deque[CaseWork]) -> CaseWork | None:
        worker, work = self.running.pop(answer)
        try:
            done: CaseWork = self._get(answer)
        except self.ray.exceptions.RayError as error:
            if self._mourn(worker, work.source.case, error) < ATTEMPTS:
                waiting.appendleft(work)
                return None
            text = (
                f"{work.source.paths[0]}: {ATTEMPTS} workers died over this case, most often because memory ran out; "
                "predict it alone on a larger machine"
            )
            self.chain.fail(work, MedsegError(text))
            self.chain.finish(work)
            return work
        self.cases[worker] -= self._share_of(work)
        if not self.engine and done.row is not None:
            self.engine = done.row.network_engine
        return done

    def _get(self, answer: Any) -> Any:
        try:
            return self.ray.get(answer)
        except self.ray.exceptions.RayTaskError as error:  # what the worker raised
            raise error.cause from None

    def _mourn(self, worker: Any, case: str, error: Exception) -> int:
        """Replace a dead worker; returns how many died over this case, or while loading the model ('')."""
        self.deaths[case] += 1
        if not case and self.deaths[case] >= ATTEMPTS:
            raise MedsegError(f"{ATTEMPTS} workers of the Ray cluster died while they loaded the model ({error})")
        log.warning("%s: its worker was lost (%s)", case or "loading the model", type(error).__name__)
        if not case or self.cases.pop(worker, None) is not None:
            with contextlib.suppress(Exception):
                self.ray.kill(worker)  # a worker that only was unreachable must not continue writing
            self._hire()
        return self.deaths[case]


class RayWorker:
    """The worker process on a machine of the cluster."""

    def load(
        self,
        here: Path,
        model: Path,
        folder: Path,
        options: PredictOptions,
        deidentifier: Deidentifier | None,
        images: int,
    ) -> tuple[str, str]:
        """Load the model once; returns the version of medseg and the hash of the model."""
        # Studies may be given relative to the caller's working directory.
        with contextlib.suppress(OSError):
            os.chdir(here)
        # The caller's permissions, whatever this machine's environment says.
        device = options.device.partition(":")[0]
        loaded = load_by(model, replace(options.loading, device=device))
        loaded = replace(loaded, engine=loaded.engine.for_images(images))
        self.chain = CaseChain(loaded, folder, options, deidentifier)
        self.network = threading.Lock()
        return __version__, loaded.model_hash

    def process(self, work: CaseWork, engine: str) -> CaseWork:
        """Process a case from its files to its mask."""
        self.chain.read(work)
        with self.network:
            self.chain.model.engine.keep(engine)
            self.chain.compute(work)
        self.chain.finish(work)
        return work
