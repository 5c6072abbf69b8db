"""Links to DICOM nodes: an association with the contexts that are needed, encrypted where the site file says so."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medseg.config.site_network import ClientTlsConfig, DicomDestination
from medseg.errors import ConfigError, MedsegError, MissingPartError

__all__ = ["ANSWER_SECONDS", "CONNECT_SECONDS", "UNCOMPRESSED", "RefusedError", "associated", "check_status", "echo"]

UNCOMPRESSED = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
"""Transfer syntaxes that every node reads."""
CONNECT_SECONDS = 30.0
ANSWER_SECONDS = 300.0
_VERIFICATION = "1.2.840.10008.1.1"


class RefusedError(MedsegError):
    """A node that cannot be reached, refuses something, or answers with something else than was asked for."""


def associated(
    peer: DicomDestination,
    contexts: Sequence[tuple[str, Sequence[str]]],
    to_get: Sequence[tuple[str, Sequence[str]]] = (),
    handlers: Sequence[Any] = (),
) -> Any:
    """An association of pynetdicom; its `release` ends it.

    Args:
        peer: the node.
        contexts: SOP class and transfer syntaxes of each presentation context.
        to_get: those in which the node is to send objects over this association (C-GET).
        handlers: of events, as pynetdicom takes them.

    Raises:
        RefusedError: if the node does not answer or refuses the association.
        ConfigError: if a certificate cannot be used.
        MissingPartError: if pynetdicom is not installed.
    """
    try:
        from pynetdicom import AE, build_role
    except ImportError:
        raise MissingPartError(
            "DICOM nodes need pynetdicom: in the folder of medseg, pip install -c constraints.txt '.[pacs]'"
        ) from None
    node = AE(ae_title=peer.calling)
    node.connection_timeout = node.acse_timeout = CONNECT_SECONDS
    node.dimse_timeout = node.network_timeout = ANSWER_SECONDS
    for kind, syntaxes in (*contexts, *to_get):
        node.add_requested_context(kind, list(syntaxes))
    link = node.associate(
        peer.host,
        peer.port,
        ae_title=peer.ae_title,
        ext_neg=[build_role(kind, scp_role=True) for kind in dict.fromkeys(kind for kind, _ in to_get)],
        evt_handlers=list(handlers),
        tls_args=None if peer.tls is None else (_tls(peer.tls), peer.host),
    )
    if not link.is_established:
        if link.dul.socket is not None and link.dul.socket.socket is not None:
            link.dul.socket.socket.close()  # the library leaves that to the garbage collector
        why = "refuses this node" if link.is_rejected else "does not answer"
        raise RefusedError(
            f"{peer.ae_title} on {peer.host}, port {peer.port}, {why}; check that it is up and knows {peer.calling}"
        )
    return link


def check_status(answer: Dataset, what: str) -> None:
    """Accept success and the warnings of PS3.4, B.2.3: the object is stored.

    Raises:
        RefusedError: for another status or none.
    """
    status = answer.get("Status")
    if status is None:
        raise RefusedError(f"the connection ended before {what} was answered")
    if status != 0 and not (0xB000 <= status <= 0xBFFF):
        raise RefusedError(f"{what} was answered with status {status:04X}")


def echo(peer: DicomDestination) -> None:
    """Ask a node whether it is there, by C-ECHO.

    Raises:
        RefusedError: if it is not.
    """
    link = associated(peer, [(_VERIFICATION, [ImplicitVRLittleEndian])])
    try:
        check_status(link.send_c_echo(), "C-ECHO")
    finally:
        link.release()


def _tls(config: ClientTlsConfig) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=config.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if config.certificate is not None:
            context.load_cert_chain(config.certificate, config.key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"tls: {config.ca or config.certificate} cannot be used ({error})") from None
    return context
