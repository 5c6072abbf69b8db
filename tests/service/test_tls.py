"""Encrypted connections: both sides are checked, and one that does not prove itself gets nothing and gives nothing."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pydicom
import pytest
from certificates import Certificates
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, evt
from service_fixtures import Service, free_port

from medseg.config.site_network import DicomDestination, ReceiveConfig, ServerTlsConfig, WebDestination
from medseg.errors import ConfigError
from medseg.service.audit import Audit
from medseg.service.deliver import reach
from medseg.service.dicom_link import RefusedError, echo
from medseg.service.receive import Receiver
from medseg.service.spool import Spool
from medseg.service.tls import server_tls

Series = Callable[..., Path]
# Of an association that does not come about, the library leaves the socket to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::pytest.PytestUnhandledThreadExceptionWarning"
)


def client_context(certificates: Certificates, name: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=certificates["ca.pem"])
    if name is not None:
        context.load_cert_chain(certificates[f"{name}.pem"], certificates[f"{name}.key"])
    return context


@pytest.fixture
def receiver(service: Service, certificates: Certificates) -> Iterator[int]:
    """The port of a node that asks senders for a certificate of the authority."""
    service.queue()
    tls = {each: certificates[f"{name}.pem"] for each, name in (("certificate", "node"), ("ca", "ca"))}
    config = ReceiveConfig(calling=("SENDER",), port=free_port(), tls={**tls, "key": certificates["node.key"]})  # type: ignore[arg-type]
    there = Receiver(config, service.places, Spool(service.places), Audit(service.places))
    yield config.port
    there.stop()


def sent(port: int, study: Path, context: ssl.SSLContext | None) -> list[int]:
    """The status of each object, [] where no association came about or it ended."""
    node = AE(ae_title="SENDER")
    node.connection_timeout = node.acse_timeout = node.network_timeout = 3
    node.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    tls = None if context is None else (context, "127.0.0.1")
    link = node.associate("127.0.0.1", port, ae_title="MEDSEG", tls_args=tls)
    if not link.is_established:
        if link.dul.socket is not None and link.dul.socket.socket is not None:
            link.dul.socket.socket.close()
        return []
    try:
        return [link.send_c_store(pydicom.dcmread(path)).Status for path in sorted(study.iterdir())]
    finally:
        link.release()


def test_a_sender_with_a_certificate_of_the_authority_is_served(
    service: Service, small_series: Series, receiver: int, certificates: Certificates
) -> None:
    assert sent(receiver, small_series(), client_context(certificates, "client")) == [0] * 6
    assert len(list(service.places.spool.rglob("*.dcm"))) == 6


@pytest.mark.parametrize("who", [None, "stranger"])
def test_a_sender_without_a_certificate_of_the_authority_is_refused(
    service: Service, small_series: Series, receiver: int, certificates: Certificates, who: str | None
) -> None:
    assert sent(receiver, small_series(), client_context(certificates, who)) == []
    assert not list(service.places.spool.rglob("*.dcm"))


def test_a_sender_that_does_not_encrypt_is_refused_and_does_not_hold_up_others(
    service: Service, small_series: Series, receiver: int, certificates: Certificates
) -> None:
    with socket.create_connection(("127.0.0.1", receiver), 10):  # silent
        assert sent(receiver, small_series(), client_context(certificates, "client")) == [0] * 6
    assert sent(receiver, small_series("again"), None) == []
    assert len(list(service.places.spool.rglob("*.dcm"))) == 6


@pytest.fixture
def encrypted_archive(certificates: Certificates) -> Iterator[dict[str, Any]]:
    """The address of a node that asks for a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates["node.pem"], certificates["node.key"])
    context.load_verify_locations(certificates["ca.pem"])
    context.verify_mode = ssl.CERT_REQUIRED
    node = AE(ae_title="ARCHIVE")
    node.add_supported_context("1.2.840.10008.1.1")
    port = free_port()
    server = node.start_server(
        ("127.0.0.1", port), block=False, ssl_context=context, evt_handlers=[(evt.EVT_C_ECHO, lambda _: 0)]
    )
    yield {"host": "127.0.0.1", "port": port, "ae_title": "ARCHIVE"}
    server.shutdown()


@pytest.mark.parametrize(
    ("ca", "who", "works"),
    [
        ("ca", "client", True),
        ("other", "client", False),
        ("ca", "stranger", False),
        ("ca", None, False),
        ("", "", False),
    ],
)
def test_a_destination_is_reached_only_where_both_sides_prove_themselves(
    certificates: Certificates, encrypted_archive: dict[str, Any], ca: str, who: str | None, works: bool
) -> None:
    tls = {"ca": certificates[f"{ca}.pem"]} if ca else None
    if tls is not None and who:
        tls |= {"certificate": certificates[f"{who}.pem"], "key": certificates[f"{who}.key"]}
    destination = DicomDestination(**encrypted_archive, tls=tls)  # type: ignore[arg-type]
    if works:
        echo(destination)
    else:
        with pytest.raises(RefusedError, match=r"does not answer|ended"):
            echo(destination)


def test_a_destination_under_another_name_than_its_certificate_says_is_not_reached(
    certificates: Certificates, encrypted_archive: dict[str, Any]
) -> None:
    tls = {"ca": certificates["ca.pem"], "certificate": certificates["client.pem"], "key": certificates["client.key"]}
    with pytest.raises(RefusedError):
        echo(DicomDestination(**{**encrypted_archive, "host": "127.0.0.2"}, tls=tls))  # type: ignore[arg-type]


def test_a_certificate_that_cannot_be_used_is_named(service: Service, certificates: Certificates) -> None:
    broken = service.path.with_name("broken.pem")
    broken.write_text("nothing")
    config = ReceiveConfig(
        calling=("SENDER",),
        port=free_port(),
        tls={"certificate": broken, "key": certificates["node.key"]},  # type: ignore[arg-type]
    )
    with pytest.raises(ConfigError, match=r"broken\.pem"):
        Receiver(config, service.places, Spool(service.places), Audit(service.places))


class QuietServer(ThreadingHTTPServer):
    """Does not print that a client was refused."""

    def handle_error(self, request: object, client_address: object) -> None:
        pass


@pytest.fixture
def encrypted_web(certificates: Certificates) -> Iterator[str]:
    """URL of a DICOMweb service without studies that asks for a certificate."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/dicom+json")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"[]")

        def log_message(self, *_: object) -> None:
            pass

    context = server_tls(
        ServerTlsConfig(
            certificate=certificates.folder / "node.pem",
            key=certificates.folder / "node.key",
            ca=certificates.folder / "ca.pem",
        ),
        "page.tls",
    )
    assert context is not None
    with QuietServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"https://127.0.0.1:{server.server_port}/dicom-web"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("ca", "who", "works"),
    [("ca", "client", True), ("other", "client", False), ("ca", "stranger", False), ("ca", "", False)],
)
def test_a_web_destination_is_reached_only_where_both_sides_prove_themselves(
    certificates: Certificates, encrypted_web: str, ca: str, who: str, works: bool
) -> None:
    tls = {"ca": certificates[f"{ca}.pem"]}
    if who:
        tls |= {"certificate": certificates[f"{who}.pem"], "key": certificates[f"{who}.key"]}
    destination = WebDestination(url=encrypted_web, tls=tls)  # type: ignore[arg-type]
    if works:
        assert reach(destination) == encrypted_web
    else:
        with pytest.raises(RefusedError, match="does not answer"):
            reach(destination)
