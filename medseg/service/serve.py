"""`medseg serve`: the processes of the service, started again when they die, and ended together."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType

from medseg.config.site import SiteConfig, load_site
from medseg.errors import ConfigError, MachineError, MedsegError, WriteError
from medseg.service.audit import Audit
from medseg.service.places import Places, hold_role
from medseg.service.queue import Queue
from medseg.service.spool import Spool

__all__ = ["NOTHING_COMES_IN", "serve"]

log = logging.getLogger(__name__)
NOTHING_COMES_IN = "nothing comes in: give watch: {folder: ...}, receive: {calling: [...]} or pull: {NAME: {...}}"
_POLL_SECONDS = 0.5
# Before a process that died is started again, and before one with a full disk tries again.
_PAUSE_SECONDS = 10.0
# A job stops between two windows of the network, or when a file is written.
_END_SECONDS = 60.0
# Wait for the processes of a service that was killed a moment ago: they end by themselves.
_PREDECESSOR_SECONDS = 60.0


def serve(path: Path) -> None:
    """Run the service of a site file until SIGTERM or Ctrl-C; the running job is then ready again for the next start.

    Raises:
        ConfigError: for a site file that cannot be used.
        CheckpointError: if a model cannot be used, or is not the one that its rule allows.
        MachineError: if another service works on the same folder.
        WriteError: if the folder cannot be written.
    """
    os.umask(0o077)
    site = load_site(path)
    if not site.takes_studies:
        raise ConfigError(f"{path}: {NOTHING_COMES_IN}")
    places = Places(site.folder).make()
    lock = hold_role(places, "service")
    roles: dict[str, tuple[Callable[..., None], tuple[object, ...]]] = {"intake": (_intake, (path,))}
    for number, device in enumerate(site.devices):
        roles[f"worker-{number}"] = (_worker, (path, number, device))
    roles |= {f"pull-{name}": (_puller, (path, name)) for name in site.pull}
    used = {name for rule in site.rules for name in rule.send_to}
    roles |= {f"deliver-{name}": (_deliverer, (path, name)) for name in site.destinations if name in used}
    if site.page is not None:
        roles["page"] = (_page, (path,))
    try:
        _keep_running(roles)
    finally:
        os.close(lock)


def _keep_running(roles: dict[str, tuple[Callable[..., None], tuple[object, ...]]]) -> None:
    """Start the processes and start them again, until a signal, or until one refuses its configuration."""
    context = multiprocessing.get_context("spawn")
    stop = threading.Event()
    handlers = {each: signal.signal(each, lambda *_: stop.set()) for each in (signal.SIGTERM, signal.SIGINT)}
    running: dict[str, BaseProcess] = {}
    due = dict.fromkeys(roles, 0.0)
    try:
        while not stop.is_set():
            for name, (target, arguments) in roles.items():
                process = running.get(name)
                if process is not None and process.exitcode is not None:
                    _refuse_fault(name, process.exitcode)
                    log.warning("%s ended (%s) and is started again", name, process.exitcode)
                    due[name] = time.monotonic() + _PAUSE_SECONDS
                    del running[name]
                elif process is None and time.monotonic() >= due[name]:
                    running[name] = context.Process(target=target, args=arguments, name=name)
                    running[name].start()
            stop.wait(_POLL_SECONDS)
    finally:
        _end(list(running.values()))
        for each, handler in handlers.items():
            signal.signal(each, handler)


def _refuse_fault(name: str, code: int) -> None:
    """A process that refused the site file, a model or the machine said why; starting it again changes nothing."""
    errors = {2: ConfigError, 5: _ModelError, 6: MachineError}
    if code in errors:
        raise errors[code](f"{name} could not start; its reason is in the line above")


class _ModelError(MedsegError):
    exit_code = 5


def _end(processes: list[BaseProcess]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(_END_SECONDS)
        if process.exitcode is None:
            process.kill()
            process.join()


def _hold(role: str, places: Places) -> int:
    """Lock a role; the processes of a service that was just killed are given a moment to end."""
    until = time.monotonic() + _PREDECESSOR_SECONDS
    while True:
        try:
            return hold_role(places, role)
        except MachineError:
            if time.monotonic() >= until:
                raise
            time.sleep(_POLL_SECONDS)


class _Role:
    """What the processes share: signals, logging, the end with the parent."""

    def __init__(self, path: Path, name: str) -> None:
        os.umask(0o077)
        logging.basicConfig(level=logging.INFO, format=f"{name}: %(message)s", stream=sys.stderr)
        logging.getLogger().handlers[0].addFilter(logging.Filter("medseg"))
        # A terminal sends Ctrl-C to all processes; only the parent decides.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, _raise)
        threading.Thread(target=_end_with_parent, daemon=True).start()
        self.site: SiteConfig = load_site(path)
        self.places = Places(self.site.folder)
        self.lock = _hold(name, self.places)
        self.queue = Queue(self.places.queue)
        self.audit = Audit(self.places)

    def loop(self, step: Callable[[], object], after_error: Callable[[], object] = lambda: None) -> None:
        """Repeat a step until SIGTERM; a full disk is waited for."""
        while not _stopped.is_set():
            try:
                if not step():
                    time.sleep(_POLL_SECONDS)
            except WriteError as error:
                log.warning("%s", error)
                time.sleep(_PAUSE_SECONDS)
                try:
                    after_error()
                except WriteError:
                    continue


# Where the exception is lost, as in a destructor, the loop ends after its step.
_stopped = threading.Event()


def _raise(number: int, frame: FrameType | None) -> None:
    _stopped.set()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not disturb the giving back
    raise KeyboardInterrupt(signal.Signals(number))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_END_SECONDS)
        os._exit(1)


def _ended(role: Callable[[], None]) -> None:
    """Run a role; its end is an exit code for the parent and a line for the log."""
    try:
        role()
    except KeyboardInterrupt:
        sys.exit(0)
    except MedsegError as error:
        log.warning("%s", error)
        sys.exit(error.exit_code)


def _intake(path: Path) -> None:
    def run() -> None:
        from medseg.service.intake import Intake

        role = _Role(path, "intake")
        Spool(role.places).clear_incoming()
        # Objects that are being received are patient data as well, and stay on the disk of the service.
        tempfile.tempdir = str(role.places.incoming)
        intake = Intake(role.site, role.places, role.queue, role.audit)
        try:
            role.loop(intake.step)
        finally:
            intake.stop()

    _ended(run)


def _worker(path: Path, number: int, device: str) -> None:
    def run() -> None:
        from medseg.service.worker import Worker

        name = f"worker-{number}"
        role = _Role(path, name)
        worker = Worker(role.site, role.places, role.queue, role.audit, name, device)
        worker.check_models()
        worker.recover()
        log.warning("ready: %d rule(s)", len(role.site.rules))
        role.loop(worker.step, worker.give_back)

    _ended(run)


def _deliverer(path: Path, name: str) -> None:
    def run() -> None:
        from medseg.service.deliver import Deliverer

        role = _Role(path, f"deliver-{name}")
        deliverer = Deliverer(name, role.site.destinations[name], role.places, role.queue, role.audit)
        deliverer.recover()
        role.loop(deliverer.step, deliverer.recover)

    _ended(run)


def _puller(path: Path, name: str) -> None:
    def run() -> None:
        from medseg.service.pull import Puller

        role = _Role(path, f"pull-{name}")
        incoming = role.places.pulling(name)
        tempfile.tempdir = str(incoming)
        spool = Spool(role.places, int(role.site.reserve_gb * 1e9), incoming)
        puller = Puller(name, role.site.pull[name], incoming, spool, role.queue, role.audit)
        role.loop(puller.step)

    _ended(run)


def _page(path: Path) -> None:
    def run() -> None:
        from medseg.service.page import run_page

        role = _Role(path, "page")
        role.queue.close()
        if role.site.page is not None:
            run_page(role.site, role.places, role.site.page)

    _ended(run)
