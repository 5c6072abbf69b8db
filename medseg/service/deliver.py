"""Sends results to a destination: C-STORE or STOW-RS, again after 1, 5, 15 and 60 minutes, independent of the others.

What is sent are the files in `outgoing/`, whose UIDs and bytes do not change: an object that arrives twice is the same.
"""

from __future__ import annotations

import contextlib
import logging
import ssl
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medseg.config.site_network import ClientTlsConfig, DicomDestination, WebDestination
from medseg.errors import ConfigError, MedsegError, MissingPartError, ReadError
from medseg.service.audit import Audit
from medseg.service.fault_points import reached
from medseg.service.places import Places
from medseg.service.queue import Queue
from medseg.service.results import outgoing_files

__all__ = ["Deliverer", "RefusedError", "reach"]

log = logging.getLogger(__name__)
_UNCOMPRESSED = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
_VERIFICATION = "1.2.840.10008.1.1"
_CONNECT_SECONDS = 30.0
_ANSWER_SECONDS = 300.0


class RefusedError(MedsegError):
    """A destination that cannot be reached, or does not take an object."""


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
        with _web_client(destination) as client:
            _web(destination, lambda: client.search_for_studies(limit=1))
        return destination.url
    link = _associated(destination, [(_VERIFICATION, [ImplicitVRLittleEndian])])
    try:
        _check_status(link.send_c_echo(), "C-ECHO")
    finally:
        link.release()
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
        wanted[each.SOPClassUID, _UNCOMPRESSED] = None
    link = _associated(destination, [(kind, list(syntaxes)) for kind, syntaxes in wanted])
    try:
        for each in objects:
            _check_status(link.send_c_store(_as_accepted(each, link)), "C-STORE")
    except ValueError as error:  # no context for this class, or a connection that ended
        raise RefusedError(f"{destination.ae_title}: {error}") from None
    finally:
        link.release()


def _as_accepted(data: Dataset, link: Any) -> Dataset:
    accepted = {each.transfer_syntax[0] for each in link.accepted_contexts if each.abstract_syntax == data.SOPClassUID}
    if data.file_meta.TransferSyntaxUID.is_compressed and data.file_meta.TransferSyntaxUID not in accepted:
        data.decompress()
    return data


def _associated(destination: DicomDestination, contexts: Sequence[tuple[str, list[str]]]) -> Any:
    try:
        from pynetdicom import AE
    except ImportError:
        raise MissingPartError(
            "destinations need pynetdicom: in the folder of medseg, pip install -c constraints.txt '.[pacs]'"
        ) from None
    node = AE(ae_title=destination.calling)
    node.connection_timeout = node.acse_timeout = _CONNECT_SECONDS
    node.dimse_timeout = node.network_timeout = _ANSWER_SECONDS
    for kind, syntaxes in contexts:
        node.add_requested_context(kind, syntaxes)
    tls = None if destination.tls is None else (_tls(destination.tls), destination.host)
    link = node.associate(destination.host, destination.port, ae_title=destination.ae_title, tls_args=tls)
    if not link.is_established:
        why = "refuses this node" if link.is_rejected else "does not answer"
        raise RefusedError(
            f"{destination.ae_title} on {destination.host}, port {destination.port}, {why}; check that it is up and "
            f"knows {destination.calling}"
        )
    return link


def _check_status(answer: Dataset, what: str) -> None:
    """Accept success and the warnings of PS3.4, B.2.3: the object is stored."""
    status = answer.get("Status")
    if status is None:
        raise RefusedError(f"the connection ended before {what} was answered")
    if status != 0 and not (0xB000 <= status <= 0xBFFF):
        raise RefusedError(f"{what} was answered with status {status:04X}")


@contextlib.contextmanager
def _web_client(destination: WebDestination) -> Iterator[Any]:
    try:
        from dicomweb_client import DICOMwebClient
        from requests import Session
        from requests.adapters import HTTPAdapter
    except ImportError:
        raise MissingPartError(
            "destinations need dicomweb-client: in the folder of medseg, pip install -c constraints.txt '.[pacs]'"
        ) from None

    class Patient(HTTPAdapter):
        """Waits for an answer, but not forever."""

        def send(self, *arguments: Any, **options: Any) -> Any:
            options["timeout"] = (_CONNECT_SECONDS, _ANSWER_SECONDS)
            return super().send(*arguments, **options)

    session = Session()
    session.trust_env = False  # no proxy, password or authority but those of the site file
    for scheme in ("http://", "https://"):
        session.mount(scheme, Patient())
    if destination.token_file is not None:
        try:
            token = destination.token_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{destination.token_file}: the token cannot be read ({error})") from None
        session.headers["Authorization"] = f"Bearer {token}"
    if destination.tls is not None:
        if destination.tls.ca is not None:
            session.verify = str(destination.tls.ca)
        if destination.tls.certificate is not None:
            session.cert = (str(destination.tls.certificate), str(destination.tls.key))
    session.hooks["response"] = [_without_parameters]
    with session:
        client = DICOMwebClient(destination.url, session=session)
        client.set_http_retry_params(retry=False)  # retries are those of the queue
        yield client


def _without_parameters(response: Any, *_: object, **__: object) -> Any:
    """The library does not read an answer, nor the failures in it, whose type has a parameter such as the charset."""
    kind = response.headers.get("Content-Type", "")
    response.headers["Content-Type"] = kind.partition(";")[0].strip()
    return response


def _stow(destination: WebDestination, files: Sequence[Path]) -> None:
    with _web_client(destination) as client:
        answer = _web(destination, lambda: client.store_instances([pydicom.dcmread(path) for path in files]))
    failed = answer.get("FailedSOPSequence", ())  # PS3.18, 10.5.3
    if failed:
        reasons = sorted({f"{each.get('FailureReason', 0):04X}" for each in failed})
        raise RefusedError(f"{destination.url} did not store {len(failed)} object(s), reason {', '.join(reasons)}")


def _web(destination: WebDestination, call: Callable[[], Any]) -> Any:
    from requests.exceptions import RequestException

    try:
        return call()
    except RequestException as error:
        answer = getattr(error, "response", None)
        what = f"answered with status {answer.status_code}" if answer is not None else "does not answer"
        raise RefusedError(f"{destination.url} {what} ({type(error).__name__})") from None


def _tls(config: ClientTlsConfig) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=config.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if config.certificate is not None:
            context.load_cert_chain(config.certificate, config.key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"tls: {config.ca or config.certificate} cannot be used ({error})") from None
    return context
