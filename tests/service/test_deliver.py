"""Results reach every destination that a rule names, once in effect, and never because of another destination."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless
from pynetdicom import AE, evt
from service_fixtures import Service, free_port

from medseg.config.site_network import DicomDestination
from medseg.errors import ConfigError
from medseg.service.audit import Audit
from medseg.service.deliver import Deliverer, _store, reach
from medseg.service.dicom_link import RefusedError
from medseg.service.queue_records import BACKOFF_MINUTES
from medseg.service.results import outgoing_files

Series = Callable[..., Path]
SEG = "1.2.840.10008.5.1.4.1.1.66.4"


class Archive:
    """A storage node of this machine that keeps what it gets, and answers with `status`."""

    def __init__(self, syntaxes: tuple[str, ...] = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)) -> None:
        self.status = 0
        self.objects: list[Dataset] = []
        node = AE(ae_title="ARCHIVE")
        node.require_called_aet = True
        node.add_supported_context("1.2.840.10008.1.1")
        node.add_supported_context(SEG, list(syntaxes))
        self.port = free_port()
        self.server = node.start_server(
            ("127.0.0.1", self.port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)]
        )

    def _store(self, event: Any) -> int:
        data = event.dataset_path and pydicom.dcmread(event.dataset_path, force=True)
        if not self.status:
            self.objects.append(data)
        return self.status


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch) -> Iterator[Archive]:
    monkeypatch.setattr("pynetdicom._config.STORE_RECV_CHUNKED_DATASET", True)
    there = Archive()
    yield there
    there.server.shutdown()


@pytest.fixture
def stow() -> Iterator[tuple[str, list[dict[str, Any]], dict[str, Any]]]:
    """URL of a service that takes STOW-RS, what it got, and the answer that it gives (`status`, `body`)."""
    got: list[dict[str, Any]] = []
    answer: dict[str, Any] = {"status": 200, "body": {}}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append({"path": self.path, "body": body, **dict(self.headers)})
            text = json.dumps(answer["body"]).encode()
            self.send_response(answer["status"])
            self.send_header("Content-Type", "application/dicom+json; charset=utf-8")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/dicom-web", got, answer
        server.shutdown()
        thread.join()


def send_to(service: Service, **destinations: dict[str, Any]) -> None:
    (rule,) = service.site.model_dump(mode="json")["rules"]
    service.change(destinations=destinations, rules=[{**rule, "send_to": list(destinations)}])


def deliver(service: Service, name: str) -> int:
    """All that waits for a destination, by a process that has just started."""
    deliverer = Deliverer(name, service.site.destinations[name], service.places, service.queue(), Audit(service.places))
    deliverer.recover()
    done = 0
    while deliverer.step():
        done += 1
    return done


def deliveries(service: Service) -> dict[str, str]:
    return {each.destination: each.state for each in service.queue().deliveries()}


def node(archive: Archive, **changes: Any) -> dict[str, Any]:
    return {"host": "127.0.0.1", "port": archive.port, "ae_title": "ARCHIVE", **changes}


def test_results_go_to_every_destination_of_the_rule_and_only_there(
    service: Service, small_series: Series, archive: Archive, stow: tuple[str, list[Any], Any]
) -> None:
    url, got, _ = stow
    (service.path.parent / "token").write_text("secret\n")
    send_to(service, pacs=node(archive), web={"url": url, "token_file": "token"})
    service.put(small_series())
    service.intake()
    service.work()
    assert deliver(service, "pacs") == deliver(service, "web") == 1
    assert deliveries(service) == {"pacs": "sent", "web": "sent"}
    (arrived,) = archive.objects
    assert arrived.SeriesDescription.startswith("RESEARCH") and arrived.PatientID == "p1"
    (request,) = got
    assert request["path"] == "/dicom-web/studies" and request["Authorization"] == "Bearer secret"
    assert arrived.SOPInstanceUID.encode() in request["body"]
    assert [line["destination"] for line in service.audit() if line["hop"] == "sent"] == ["pacs", "web"]
    assert deliver(service, "pacs") == 0


def test_several_formats_of_a_rule_are_sent_together_and_begin_with_the_prefix_of_the_site(
    service: Service, small_series: Series, stow: tuple[str, list[Any], Any]
) -> None:
    url, got, _ = stow
    send_to(service, web={"url": url})
    (rule,) = service.site.model_dump(mode="json")["rules"]
    rules = [{**rule, "formats": ["dicom-seg", "sr", "capture", "rtstruct"]}]
    service.change(rules=rules, destinations={"web": {"url": url}}, prefix="TRIAL 7")
    service.put(small_series())
    service.intake()
    service.work()
    deliver(service, "web")
    (job,) = service.queue().jobs()
    written = [pydicom.dcmread(path) for path in outgoing_files(service.places.results / job.folder)]
    assert sorted(each.Modality for each in written) == ["OT", "RTSTRUCT", "SEG", "SR"]
    assert all(each.SeriesDescription.startswith("TRIAL 7") for each in written)
    assert all(each.SOPInstanceUID.encode() in got[0]["body"] for each in written)
    assert deliveries(service) == {"web": "sent"} and service.queue().deliveries()[0].note == "4 object(s)"


def test_a_result_that_has_changed_since_it_was_written_is_not_sent(
    service: Service, small_series: Series, archive: Archive
) -> None:
    send_to(service, pacs=node(archive))
    service.put(small_series())
    service.intake()
    service.work()
    (path,) = service.places.results.rglob("*.dcm")
    path.write_bytes(path.read_bytes()[:-10])
    deliver(service, "pacs")
    assert deliveries(service) == {"pacs": "failed"} and not archive.objects


def test_without_send_to_nothing_is_sent(service: Service, small_series: Series, archive: Archive) -> None:
    service.change(destinations={"pacs": node(archive)})
    service.put(small_series())
    service.intake()
    service.work()
    assert deliver(service, "pacs") == 0 and not archive.objects


def test_a_destination_that_refuses_is_tried_again_and_does_not_hold_up_the_other(
    service: Service, small_series: Series, archive: Archive, stow: tuple[str, list[Any], Any]
) -> None:
    url, _, answer = stow
    answer["body"] = {"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [272]}}]}}
    send_to(service, pacs=node(archive), web={"url": url})
    service.put(small_series())
    service.intake()
    service.work()
    deliver(service, "web")
    deliver(service, "pacs")
    assert deliveries(service) == {"pacs": "sent", "web": "failed"}
    web = service.queue().deliveries()[1]
    assert "reason 0110" in web.note and web.due == service.now + 60
    answer["body"] = {}
    assert deliver(service, "web") == 0
    service.now = web.due
    assert deliver(service, "web") == 1
    assert deliveries(service)["web"] == "sent"


@pytest.mark.parametrize("status", [404, 500])
def test_web_errors_are_failures(
    service: Service, small_series: Series, stow: tuple[str, list[Any], Any], status: int
) -> None:
    url, _, answer = stow
    answer["status"] = status
    send_to(service, web={"url": url})
    service.put(small_series())
    service.intake()
    service.work()
    deliver(service, "web")
    (web,) = service.queue().deliveries()
    assert web.state == "failed" and str(status) in web.note


def test_a_pacs_that_is_down_gets_its_results_later_and_after_the_last_pause_by_hand(
    service: Service, small_series: Series, archive: Archive
) -> None:
    send_to(service, pacs=node(archive))
    service.put(small_series())
    service.intake()
    service.work()
    archive.status = 0xA700
    for _ in range(len(BACKOFF_MINUTES) + 1):
        assert deliver(service, "pacs") == 1
        service.now += 3600
    assert deliveries(service) == {"pacs": "dead"} and not archive.objects
    assert deliver(service, "pacs") == 0
    archive.status = 0
    (job,) = service.queue().jobs()
    assert service.queue().retry(job.id) and service.queue().jobs()[0].state == "done"
    assert deliver(service, "pacs") == 1
    assert deliveries(service) == {"pacs": "sent"} and len(archive.objects) == 1


def test_a_sender_killed_after_sending_sends_the_same_object_again(
    service: Service, small_series: Series, archive: Archive
) -> None:
    send_to(service, pacs=node(archive))
    service.put(small_series())
    service.intake()
    service.work()
    service.killed_at("deliver.sent", lambda: deliver(service, "pacs"))
    assert deliveries(service) == {"pacs": "sending"}
    deliver(service, "pacs")
    assert deliveries(service) == {"pacs": "sent"}
    first, second = archive.objects
    assert first == second


def test_a_compressed_object_is_sent_uncompressed_where_nothing_else_is_accepted(
    service: Service, small_series: Series, archive: Archive, tmp_path: Path
) -> None:
    data = pydicom.dcmread(next(small_series().iterdir()))
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = SEG
    pixels = data.pixel_array.copy()
    data.compress(RLELossless)
    data.save_as(tmp_path / "compressed.dcm")
    _store(DicomDestination(**node(archive)), [tmp_path / "compressed.dcm"])
    (arrived,) = archive.objects
    assert arrived.file_meta.TransferSyntaxUID in (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
    assert (arrived.pixel_array == pixels).all()


# Of an association that does not come about, the library leaves the socket to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_check_reports_whether_a_destination_answers(archive: Archive) -> None:
    assert "ARCHIVE" in reach(DicomDestination(**node(archive)))
    with pytest.raises(RefusedError, match="refuses this node"):
        reach(DicomDestination(**node(archive, ae_title="OTHER")))
    with pytest.raises(RefusedError, match="does not answer"):
        reach(DicomDestination(**node(archive, port=1)))


def test_only_dicom_objects_can_be_sent(service: Service, archive: Archive) -> None:
    (rule,) = service.site.model_dump(mode="json")["rules"]
    rules = [{**rule, "formats": ["nifti"], "send_to": ["pacs"]}]
    service.change(destinations={"pacs": node(archive)}, rules=rules)
    with pytest.raises(ConfigError, match="only DICOM objects can be sent"):
        _ = service.site
