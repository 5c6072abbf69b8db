"""Prediction on a Ray cluster: one warm worker per GPU or per few cores; the ledger stays with the caller.

Workers read the studies and write the masks themselves, so model, studies and output folder must have the same paths on
every machine. A case whose worker or machine dies is given to another one.
"""

from __future__ import annotations

import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from medseg.errors import ConfigError, MissingPartError
from medseg.studies.case_work import CaseWork
from medseg.studies.chain import CaseChain
from medseg.studies.ray_crew import RayCrew

__all__ = ["RayEngine"]

_ANSWER_SECONDS = 5.0
# Only works and rows pass through Ray's shared memory; voxels do not.
_SHARED_BYTES = 80 * 2**20


class RayEngine:
    """Processes cases on a Ray cluster.

    Args:
        model: path of the bundle.
        chain: the caller's; workers build the same from the same bundle, folder and options.
        images: number of cases of the run, see `NetworkEngine`.

    Raises:
        MissingPartError: if Ray is not installed.
    """

    def __init__(self, model: Path, chain: CaseChain, images: int) -> None:
        # A hospital's machines must not send usage statistics.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            self._ray: Any = import_module("ray")
        except ImportError:
            raise MissingPartError(
                "--engine ray needs Ray: in the folder of medseg, pip install -c constraints.txt '.[ray]'"
            ) from None
        self._chain = chain
        # Not the chain itself, which contains the networks.
        order = (chain.options, chain.deidentifier, images)
        self._load = (Path.cwd(), model.absolute(), chain.folder.absolute(), *order)

    def through(
        self,
        works: Sequence[CaseWork],
        begin: Callable[[CaseWork], bool],
        settle: Callable[[CaseWork], None],
    ) -> Iterator[CaseWork]:
        """Process the works; at most two per worker are in progress at a time.

        Args:
            works: in the order in which they are started.
            begin: called before a case is sent; False if nothing is left to do.
            settle: called once with each case that comes back.

        Yields:
            Each work that came back or did not have to be sent.

        Raises:
            MissingPartError: if Ray does not start on this machine, or does not join the cluster.
            ConfigError: if no cluster answers, or machines have another model or version of medseg.
            MedsegError: for errors that affect every case: a full disk, workers that die while they load the model.
        """
        started_here = self._connect()
        crew = RayCrew(self._ray, self._load, self._chain)
        try:
            yield from crew.through(deque(works), begin, settle)
        finally:
            crew.dismiss()
            if started_here:
                self._ray.shutdown()

    def _connect(self) -> bool:
        """Connect; whether this call had to, because a caller that is connected already stays connected."""
        if self._ray.is_initialized():
            return False
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        address = self._chain.options.ray_address
        if address is None:
            try:
                self._ray.init("local", include_dashboard=False, object_store_memory=_SHARED_BYTES, **quiet)
            except Exception as error:  # Ray raises Exception itself where its processes do not start
                raise MissingPartError(
                    f"Ray does not start on this machine ({_first_line(error)}); see the logs of its session, or "
                    "predict without --engine ray"
                ) from None
            return True
        host, _, port = address.rpartition(":")
        try:
            # Ray itself would retry for minutes.
            socket.create_connection((host, int(port)), _ANSWER_SECONDS).close()
            self._ray.init(address, **quiet)
        except (OSError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"no Ray cluster answers at {address!r} ({_first_line(error)}); give the HOST:PORT that "
                "`ray start --head` shows, or leave --ray-address out to use the cores of this machine"
            ) from None
        except Exception as error:  # as above; the cluster answers
            raise MissingPartError(
                f"Ray does not join the cluster at {address!r} ({_first_line(error)}); install the same Ray and Python "
                "on all machines, and see the logs of its session"
            ) from None
        return True


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0][:100]
