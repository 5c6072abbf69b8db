"""The names of pynetdicom that the bounds on memory and disk rely on are where the service uses them."""

from __future__ import annotations

import inspect
import socketserver

from pynetdicom import AE, _config, dimse_messages, service_class, transport
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dul import DULServiceProvider


def test_objects_can_be_received_into_files() -> None:
    assert isinstance(_config.STORE_RECV_CHUNKED_DATASET, bool)
    message = dimse_messages.C_STORE_RQ()
    assert message._data_set_file is None
    assert "_config.STORE_RECV_CHUNKED_DATASET" in inspect.getsource(dimse_messages)
    assert "_dataset_file" in inspect.getsource(service_class)


def test_an_association_has_the_parts_that_are_wrapped() -> None:
    link = Association(AE(), "requestor")
    assert isinstance(link.dimse, DIMSEServiceProvider) and isinstance(link.dul, DULServiceProvider)
    assert hasattr(link.dul, "to_user_queue") and hasattr(link.dul, "socket") and hasattr(link.dimse, "message")


def test_a_socket_reads_through_recv_and_can_be_closed() -> None:
    assert list(inspect.signature(transport.AssociationSocket.recv).parameters) == ["self", "nr_bytes"]
    assert "self.socket" in inspect.getsource(transport.AssociationSocket.close)
    assert ".recv(" in inspect.getsource(DULServiceProvider._read_pdu_data)


def test_the_server_asks_before_it_takes_a_connection() -> None:
    assert issubclass(transport.AssociationServer, socketserver.BaseServer)
    assert "verify_request" in inspect.getsource(socketserver.BaseServer._handle_request_noblock)
