"""The DICOM node: what is acknowledged is in the spool; unknown, excessive and hostile senders get nowhere."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEG2000Lossless
from pynetdicom import AE, StoragePresentationContexts
from service_fixtures import Service, free_port

from medseg.config.site_network import ReceiveConfig
from medseg.errors import MachineError
from medseg.service.audit import Audit
from medseg.service.receive import Receiver
from medseg.service.spool import Spool

Series = Callable[..., Path]


class Node:
    """A receiver on a free port of this machine, and a sender for it."""

    def __init__(self, service: Service, reserve: int = 0, **config: object) -> None:
        self.config = ReceiveConfig(**{"calling": ("SENDER",), "port": free_port(), **config})  # type: ignore[arg-type]
        service.queue()
        self.receiver = Receiver(self.config, service.places, Spool(service.places, reserve), Audit(service.places))

    def send(self, objects: list[Dataset], calling: str = "SENDER", called: str = "MEDSEG") -> list[int]:
        """The status of each object; [] where the association was refused."""
        sender = AE(ae_title=calling)
        for each in objects:
            syntax = each.file_meta.TransferSyntaxUID
            if (each.SOPClassUID, [syntax]) not in [
                (known.abstract_syntax, known.transfer_syntax) for known in sender.requested_contexts
            ]:
                sender.add_requested_context(each.SOPClassUID, syntax)
        link = sender.associate("127.0.0.1", self.config.port, ae_title=called)
        if not link.is_established:
            return []
        try:
            return [link.send_c_store(each).Status if link.is_established else -1 for each in objects]
        finally:
            link.release()


@pytest.fixture
def node(service: Service) -> Iterator[Callable[..., Node]]:
    started: list[Node] = []

    def start(**config: object) -> Node:
        started.append(Node(service, **config))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for each in started:
        each.receiver.stop()


def objects_of(folder: Path) -> list[Dataset]:
    return [pydicom.dcmread(path) for path in sorted(folder.iterdir())]


def spooled(service: Service) -> list[Path]:
    return sorted(service.places.spool.rglob("*.dcm"))


def test_an_acknowledged_study_is_in_the_spool_and_becomes_a_mask(
    service: Service, small_series: Series, node: Callable[..., Node]
) -> None:
    there = node()
    (rule,) = service.site.model_dump(mode="json")["rules"]
    service.change(rules=[{**rule, "match": {"calling_ae": "sen.*"}}])
    assert there.send(objects_of(small_series())) == [0] * 6
    assert len(spooled(service)) == 6
    service.intake()
    service.work()
    (job,) = service.queue().jobs()
    assert (job.rule, job.state) == ("spots", "done")


def test_objects_keep_the_transfer_syntax_in_which_they_come(
    service: Service, small_series: Series, node: Callable[..., Node]
) -> None:
    data = objects_of(small_series())[0]
    data.file_meta.TransferSyntaxUID = JPEG2000Lossless
    data.PixelData = pydicom.encaps.encapsulate([b"\xff\x4f\xff\x51" + bytes(20)])
    data["PixelData"].VR = "OB"
    assert node().send([data]) == [0]
    (kept,) = spooled(service)
    assert pydicom.dcmread(kept).file_meta.TransferSyntaxUID == JPEG2000Lossless


@pytest.mark.parametrize("who", [{"calling": "STRANGER"}, {"called": "OTHER"}])
def test_unknown_and_wrongly_addressed_senders_are_refused_and_counted(
    service: Service, small_series: Series, node: Callable[..., Node], who: dict[str, str]
) -> None:
    there = node()
    assert there.send(objects_of(small_series()), **who) == []
    there.receiver.report()
    assert not spooled(service)
    assert [(line["hop"], line["count"]) for line in service.audit()] == [("refused", 1)]


def test_echo_is_answered_and_reports_are_not_offered(node: Callable[..., Node]) -> None:
    sender = AE(ae_title="SENDER")
    sender.add_requested_context("1.2.840.10008.1.1")
    sender.add_requested_context("1.2.840.10008.5.1.4.1.1.88.33")  # Comprehensive SR
    link = sender.associate("127.0.0.1", node().config.port, ae_title="MEDSEG")
    assert link.send_c_echo().Status == 0
    assert len(link.accepted_contexts) == 1
    link.release()


def test_below_the_reserve_an_object_gets_a700_and_leaves_nothing(
    service: Service, small_series: Series, node: Callable[..., Node]
) -> None:
    assert node(reserve=1 << 60).send(objects_of(small_series())[:1]) == [0xA700]
    assert not spooled(service) and not list(service.places.incoming.iterdir())


@pytest.mark.parametrize("uid", ["../../../etc/passwd", "1.2\\3", "1.2/3", "1" * 65])
def test_uids_with_the_characters_of_paths_are_refused(
    service: Service, small_series: Series, node: Callable[..., Node], uid: str
) -> None:
    data = objects_of(small_series())[0]
    with pydicom.config.disable_value_validation():
        data.StudyInstanceUID = uid
        assert node().send([data]) == [0xC000]
    assert not spooled(service)


def test_an_object_above_the_limit_ends_the_connection_and_its_file(
    service: Service, small_series: Series, node: Callable[..., Node], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "parts").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "parts"))
    data = objects_of(small_series())[0]
    data.Rows = data.Columns = 1024
    data.PixelData = bytes(2 << 20)
    there = node(largest_object_gb=0.001)
    sender = AE(ae_title="SENDER")
    sender.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    link = sender.associate("127.0.0.1", there.config.port, ae_title="MEDSEG")
    raw = link.dul.socket.socket
    assert "Status" not in link.send_c_store(data)
    raw.close()
    for _ in range(50):
        if not list((tmp_path / "parts").iterdir()):
            break
        time.sleep(0.1)
    assert not list((tmp_path / "parts").iterdir()) and not spooled(service)
    assert there.send(objects_of(small_series("small"))[:1]) == [0]  # others are still served


def test_a_stated_length_of_4_gb_closes_the_connection_at_once(node: Callable[..., Node]) -> None:
    there = node()
    with socket.create_connection(("127.0.0.1", there.config.port), 10) as link:
        link.sendall(struct.pack(">BBL", 1, 0, 0xFFFFFFFF) + bytes(1000))
        link.settimeout(10)
        assert link.recv(100) == b""


def test_connections_beyond_the_limit_are_closed_and_later_ones_are_served(
    service: Service, small_series: Series, node: Callable[..., Node]
) -> None:
    there = node(most_associations=1)
    links = [socket.create_connection(("127.0.0.1", there.config.port), 10) for _ in range(40)]
    try:
        time.sleep(0.5)
        closed = 0
        for link in links:
            link.settimeout(0.01)
            try:
                closed += link.recv(1) == b""
            except TimeoutError:
                pass
            except OSError:
                closed += 1
        assert closed >= 40 - 2 * 11  # a few more come in while the first ones are being counted
    finally:
        for link in links:
            link.close()
    for _ in range(30):
        if there.send(objects_of(small_series())) == [0] * 6:
            break
        time.sleep(0.2)
    assert len(spooled(service)) == 6


def test_an_address_in_use_is_an_error_of_the_machine(service: Service, node: Callable[..., Node]) -> None:
    there = node()
    with pytest.raises(MachineError, match="cannot listen"):
        Node(service, port=there.config.port)


def test_a_request_with_all_contexts_is_answered(node: Callable[..., Node]) -> None:
    sender = AE(ae_title="SENDER")
    sender.requested_contexts = StoragePresentationContexts[:128]
    link = sender.associate("127.0.0.1", node().config.port, ae_title="MEDSEG")
    assert link.is_established
    link.release()
