"""Sends results to a destination: C-STORE or STOW-RS, again after 1, 5, 15 and 60 minutes, independent of the others.

What is sent are the DICOM objects that `predict` wrote, as its ledger knows them; one that arrives twice is the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset

from medseg.config.site_network import DicomDestination, WebDestination
from medseg.errors import MedsegError, ReadError
from medseg.service.audit import Audit
from medseg.service.dicom_link import UNCOMPRESSED, RefusedError, associated, check_status, echo
from medseg.service.fault_points import reached
from medseg.service.places import Places
from medseg.service.queue import Queue
from medseg.service.results import outgoing_files
from medseg.service.web_link import answered, web_client

__all__ = ["Deliverer", "reach"]

log = logging.getLogger(__name__)


class Deliverer:
    """Sends the results that wait for one destination.

    Args:
        name: of the destination.
        destination: its address.
        places, queue, audit: of the service.
    """

    def __init__(
        self, name: str, destination: DicomDestination | WebDestination, places: Places, queue: Queue, audit: Audit
    ) -> None:
        self._name = name
        self._places = places
        self._queue = queue
        self._audit = audit
        self._send = _sender(destination)

    def recover(self) -> None:
        """Take up what a sender that died was sending; to be called once, before the first step.

        Raises:
            WriteError: if the queue cannot be written.
        """
        self._queue.recover_deliveries(self._name)

    def step(self) -> bool:
        """Send the next results; False if there are none.

        Raises:
            WriteError: if the queue or the audit cannot be written.
        """
        delivery = self._queue.take_delivery(self._name)
        if delivery is None:
            return False
        job = self._queue.job(delivery.job)
        where: dict[str, str | int | float] = {"job": delivery.job, "destination": self._name}
        study = job.study if job is not None else ""
        try:
            files = outgoing_files(self._places.results / job.folder) if job is not None else ()
            if not files:
                raise ReadError("the results of this job are not there any more")
            self._send(files)
            reached("deliver.sent")
        except MedsegError as error:
            again = delivery.pause_s is not None
            log.warning("job %d is not at %s%s: %s", delivery.job, self._name, ", tried again" if again else "", error)
            self._audit.write("send_failed" if again else "send_dead", study, **where)
            self._queue.not_sent(delivery, str(error))
            return True
        self._audit.write("sent", study, **where, objects=len(files))
        self._queue.sent(delivery, f"{len(files)} object(s)")
        return True


def reach(destination: DicomDestination | WebDestination) -> str:
    """Ask a destination whether it is there, by C-ECHO or a query for no more than one study; nothing is sent.

    Returns:
        What it is, for a person.

    Raises:
        RefusedError: if it is not.
        ConfigError: if a certificate or token cannot be used.
        MissingPartError: if pynetdicom or dicomweb-client is not installed.
    """
    if isinstance(destination, WebDestination):
        with web_client(destination) as client:
            answered(destination, lambda: client.search_for_studies(limit=1))
        return destination.url
    echo(destination)
    return f"{destination.ae_title} on {destination.host}, port {destination.port}"


def _sender(destination: DicomDestination | WebDestination) -> Callable[[Sequence[Path]], None]:
    if isinstance(destination, WebDestination):
        return lambda files: _stow(destination, files)
    return lambda files: _store(destination, files)


def _store(destination: DicomDestination, files: Sequence[Path]) -> None:
    objects = [pydicom.dcmread(path) for path in files]
    wanted: dict[tuple[str, tuple[str, ...]], None] = {}
    for each in objects:
        syntax = each.file_meta.TransferSyntaxUID
        # What it is stored in, and for a node that cannot read that, uncompressed.
        if syntax.is_compressed:
            wanted[each.SOPClassUID, (syntax,)] = None
        wanted[each.SOPClassUID, UNCOMPRESSED] = None
    link = associated(destination, [(kind, list(syntaxes)) for kind, syntaxes in wanted])
    try:
        for each in objects:
            check_status(link.send_c_store(_as_accepted(each, link)), "C-STORE")
    except ValueError as error:  # no context for this class, or a connection that ended
        raise RefusedError(f"{destination.ae_title}: {error}") from None
    finally:
        link.release()


def _as_accepted(data: Dataset, link: Any) -> Dataset:
    accepted = {each.transfer_syntax[0] for each in link.accepted_contexts if each.abstract_syntax == data.SOPClassUID}
    if data.file_meta.TransferSyntaxUID.is_compressed and data.file_meta.TransferSyntaxUID not in accepted:
        data.decompress()
    return data


def _stow(destination: WebDestination, files: Sequence[Path]) -> None:
    with web_client(destination) as client:
        answer = answered(destination, lambda: client.store_instances([pydicom.dcmread(path) for path in files]))
    failed = answer.get("FailedSOPSequence", ())  # PS3.18, 10.5.3
    if failed:
        reasons = sorted({f"{each.get('FailureReason', 0):04X}" for each in failed})
        raise RefusedError(f"{destination.url} did not store {len(failed)} object(s), reason {', '.join(reasons)}")
