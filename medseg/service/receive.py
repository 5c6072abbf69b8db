"""The DICOM node: takes images by C-STORE into the spool; whatever a sender does, memory and disk stay bounded."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import threading
from typing import Any

from medseg.config.site_network import ReceiveConfig
from medseg.errors import MachineError, MissingPartError, ReadError, WriteError
from medseg.service.audit import Audit
from medseg.service.bounded import bound, clear_unfinished, receive_into_files
from medseg.service.places import Places
from medseg.service.queue import Queue
from medseg.service.spool import Spool
from medseg.service.tls import server_tls

__all__ = ["Receiver"]

log = logging.getLogger(__name__)
# Status codes of C-STORE (PS3.4, B.2.3).
_SUCCESS, _OUT_OF_RESOURCES, _CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xC000
_WAIT_SECONDS = 60.0
# A sender asks for an association as soon as it is connected; until then it takes up one.
_REQUEST_SECONDS = 10.0
# Connections above the number of associations that still get a proper refusal.
_WAITING_CONNECTIONS = 10
_MOST_REMEMBERED = 10_000


class Receiver:
    """A running DICOM node; `stop` ends it.

    Args:
        config: addresses, allowed AE titles, limits.
        places: of the service.
        spool: takes the objects.
        audit: gets a line for each new study, and a line with the number of refusals at each `report`.

    Raises:
        MissingPartError: if pynetdicom is not installed.
        MachineError: if the address cannot be listened on.
        ConfigError: if a certificate cannot be used.
    """

    def __init__(self, config: ReceiveConfig, places: Places, spool: Spool, audit: Audit) -> None:
        try:
            from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt
        except ImportError:
            raise MissingPartError(
                "receive needs pynetdicom: in the folder of medseg, pip install -c constraints.txt '.[pacs]'"
            ) from None
        receive_into_files()
        self._config = config
        self._places = places
        self._spool = spool
        self._audit = audit
        self._known: set[str] = set()
        self._refused = 0
        self._links: list[tuple[Any, socket.socket]] = []
        self._guard = threading.Lock()
        node = AE(ae_title=config.ae_title)
        node.require_called_aet = True
        node.require_calling_aet = list(config.calling)
        node.maximum_associations = config.most_associations
        node.acse_timeout = _REQUEST_SECONDS
        node.dimse_timeout = node.network_timeout = _WAIT_SECONDS
        node.add_supported_context("1.2.840.10008.1.1")  # Verification
        for each in AllStoragePresentationContexts:
            # Reports, segmentations and plans are not offered: they start nothing, and their sender should know.
            if each.abstract_syntax is not None and "Image Storage" in each.abstract_syntax.name:
                node.add_supported_context(each.abstract_syntax, ALL_TRANSFER_SYNTAXES)
        handlers: list[Any] = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_CONN_OPEN, self._limit),
            (evt.EVT_CONN_CLOSE, self._clear),
            (evt.EVT_REJECTED, self._count),
        ]
        most = config.most_associations + _WAITING_CONNECTIONS
        family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
        try:
            # The library leaves a socket open that it cannot listen on.
            socket.create_server((config.host, config.port), family=family).close()
            server = node.start_server(
                (config.host, config.port),
                block=False,
                evt_handlers=handlers,
                ssl_context=server_tls(config.tls, "receive.tls"),
            )
        except OSError as error:
            raise MachineError(
                f"receive cannot listen on {config.host}, port {config.port} ({error.strerror or error}); choose "
                "another port, or stop the program that has it"
            ) from None
        self._server: Any = server
        setattr(server, "verify_request", lambda *_: self._room(most))  # noqa: B010

    def report(self) -> None:
        """Write the number of refusals since the last call, if any, to the audit; to be called every second or so.

        Raises:
            WriteError: if the audit cannot be written.
        """
        self._close_dead()
        with self._guard:
            count, self._refused = self._refused, 0
        if count:
            log.warning("%d association(s) or object(s) were refused", count)
            self._audit.write("refused", reason="network", count=count)

    def stop(self) -> None:
        """Stop listening and end the associations; what was not answered is sent again."""
        self._server.shutdown()
        for association, _ in self._links:
            association.join(_REQUEST_SECONDS)
        self._close_dead()

    def _close_dead(self) -> None:
        """Close the sockets of ended associations, which the library leaves to the garbage collector."""
        with self._guard:
            # One that has not begun is not dead.
            dead = [each for each in self._links if each[0].ident is not None and not each[0].is_alive()]
            self._links = [each for each in self._links if each not in dead]
        for _, link in dead:
            link.close()

    def _store(self, event: Any) -> int:
        calling = str(event.assoc.requestor.ae_title).strip()
        try:
            taken = self._spool.take(event.dataset_path, lambda study: self._announce(study, calling))
            if not taken.study:
                self._audit.write("ignored", reason=taken.outcome)
        except WriteError as error:
            log.warning("%s", error)
            self._count(event)
            return _OUT_OF_RESOURCES
        except ReadError as error:
            # The path is that of a temporary file, and the rest quotes no value.
            log.warning("an object of %s was refused: %s", calling, str(error).replace(str(event.dataset_path), "it"))
            self._count(event)
            return _CANNOT_UNDERSTAND
        return _SUCCESS

    def _announce(self, study: str, calling: str) -> None:
        with self._guard:
            if study in self._known:
                return
            with contextlib.closing(Queue(self._places.queue)) as queue:
                if queue.note_study(study, calling):
                    self._audit.write("received", study)
            if len(self._known) >= _MOST_REMEMBERED:
                self._known.clear()
            self._known.add(study)

    def _room(self, most: int) -> bool:
        self._close_dead()
        has_room = len(self._links) < most
        if not has_room:
            self._count(None)
        return has_room

    def _count(self, event: Any) -> None:
        with self._guard:
            self._refused += 1

    def _limit(self, event: Any) -> None:
        """Called in the thread of a new connection, before anything is read from it."""
        link = event.assoc.dul.socket.socket
        with self._guard:
            self._links.append((event.assoc, link))
        bound(event.assoc, int(self._config.largest_object_gb * 1e9), self._spool)
        link.settimeout(_REQUEST_SECONDS)
        if isinstance(link, ssl.SSLSocket):
            try:
                link.do_handshake()
            except OSError as error:
                log.warning("a connection was closed: no TLS, or no certificate of the authority (%s)", error)
                self._count(event)
                link.close()
                event.assoc.dul.to_user_queue.put(None)  # nobody will ask for an association
                return
        # A sender that stops in the middle must not keep its place.
        link.settimeout(_WAIT_SECONDS)

    def _clear(self, event: Any) -> None:
        """Remove the file of an object whose connection ended before it was whole."""
        clear_unfinished(event.assoc)
