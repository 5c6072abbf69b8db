"""The status page: to read only, escaped, complete in itself, for this machine alone or with a token."""

from __future__ import annotations

import base64
import http.client
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from service_fixtures import Service, free_port

from medseg.errors import ConfigError
from medseg.service.page import application
from medseg.service.page_text import MOST_JOBS, page_text

Series = Callable[..., Path]
Ask = Callable[..., tuple[int, dict[str, str], str]]
TOKEN = "a-token-of-some-length"


@pytest.fixture
def page(service: Service) -> Iterator[Callable[..., Ask]]:
    """Starts the page of the site and returns a function that asks it: path, host, headers -> status, headers, text."""
    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(**config: Any) -> Ask:
        service.change(page={"port": free_port(), **config})
        settings = service.site.page
        assert settings is not None
        service.queue()
        app = application(service.site, service.places, settings)
        server = uvicorn.Server(uvicorn.Config(app, port=settings.port, lifespan="off", ws="none", log_config=None))
        thread = threading.Thread(target=server.run)
        thread.start()
        running.append((server, thread))
        while not server.started:
            time.sleep(0.01)

        def ask(path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], str]:
            link = http.client.HTTPConnection("127.0.0.1", settings.port, timeout=10)
            link.request(method, path, headers=headers)
            answer = link.getresponse()
            text = answer.read().decode()
            link.close()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, text

        return ask

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join()


def with_token(service: Service) -> dict[str, str]:
    (service.path.parent / "token").write_text(f"{TOKEN}\n")
    return {"token_file": "token"}


def test_the_page_shows_each_job_under_the_hash_of_its_study_and_names_nobody(
    service: Service, small_series: Series, page: Callable[..., Ask]
) -> None:
    service.put(small_series(PatientID="4711", PatientName="Doe^Jane", AccessionNumber="0815"))
    service.intake()
    service.work()
    status, headers, text = page()("/")
    (job,) = service.queue().jobs()
    assert status == 200 and f"{job.study} v1" in text and "spots" in text and "1 done" in text
    assert not re.search("4711|Doe|Jane|0815|1\\.2\\.826", text)
    assert "default-src 'none'" in headers["content-security-policy"] and headers["cache-control"] == "no-store"
    assert not re.search(r"(?:src|href|action)\s*=|<script|@import|url\(", text)


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "&lt;"])
def test_what_a_header_says_is_no_markup_on_the_page(service: Service, small_series: Series, text: str) -> None:
    service.put(small_series("a", SeriesDescription=text, SeriesInstanceUID="1.2.3.4"), "a")
    service.put(small_series("b", SeriesDescription=text, SeriesInstanceUID="1.2.3.5"), "b")
    service.intake()
    service.work()  # refused, as two series fit; the note says so
    with service.queue().change() as db:
        db.execute("UPDATE jobs SET note = note || ?", (text,))
    assert text not in page_text(service.site, service.places)


def test_without_the_token_nothing_is_shown(service: Service, page: Callable[..., Ask]) -> None:
    ask = page(**with_token(service))
    basic = base64.b64encode(f"anybody:{TOKEN}".encode()).decode()
    wrong = base64.b64encode(b"anybody:wrong").decode()
    for path in ("/", "/healthz", "/metrics"):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {wrong}"}):
            status, given, text = ask(path, **headers)
            assert status == 401 and text == "a token is needed\n" and "www-authenticate" in given
        for header in (f"Bearer {TOKEN}", f"Basic {basic}"):
            assert ask(path, Authorization=header)[0] in (200, 503)
        for header in ("Basic !", "Basic /w==", "Basic", "", f"Digest {TOKEN}"):
            assert ask(path, Authorization=header)[0] == 401


def test_a_page_that_others_can_reach_needs_a_token(service: Service) -> None:
    service.change(page={"host": "0.0.0.0"})
    with pytest.raises(ConfigError, match="token_file"):
        _ = service.site
    service.change(page={"host": "0.0.0.0", **with_token(service)})
    assert service.site.page is not None


def test_a_short_token_is_refused(service: Service) -> None:
    (service.path.parent / "token").write_text("short")
    service.change(page={"token_file": "token"})
    settings = service.site.page
    assert settings is not None
    with pytest.raises(ConfigError, match="5 characters"):
        application(service.site, service.places, settings)


def test_a_page_without_token_answers_to_names_of_this_machine_alone(page: Callable[..., Ask]) -> None:
    ask = page()
    assert ask("/", Host="attacker.example")[0] == 421
    assert [ask("/", Host=each)[0] for each in ("localhost", "127.0.0.1:8412", "[::1]:8412")] == [200] * 3


def test_the_page_cannot_change_anything(page: Callable[..., Ask]) -> None:
    ask = page()
    assert {ask("/", method)[0] for method in ("POST", "PUT", "DELETE", "PATCH")} == {405}


def test_health_names_what_does_not_run_and_is_well_where_all_does(
    service: Service, page: Callable[..., Ask], monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = page()
    status, _, text = ask("/healthz")
    assert status == 503 and json.loads(text)["faults"] == ["intake does not run", "worker-0 does not run"]
    monkeypatch.setattr("medseg.service.health._is_held", lambda *_: True)
    assert ask("/healthz")[0] == 200
    service.change(reserve_gb=1e9)
    assert "reserve_gb" in page()("/healthz")[2]


def test_metrics_are_read_by_prometheus_and_agree_with_the_queue(
    service: Service, small_series: Series, page: Callable[..., Ask]
) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    service.put(small_series())
    service.intake()
    service.work()
    status, headers, text = page()("/metrics")
    assert status == 200 and headers["content-type"].startswith("text/plain")
    found = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert found["medseg_jobs", "done"] == 1 and found["medseg_jobs", "dead"] == 0 and found["medseg_studies",] == 1
    assert found["medseg_process_up", "worker-0"] == 0 and found["medseg_job_seconds_total",] > 0


def test_the_page_of_many_jobs_shows_the_latest(service: Service) -> None:
    with service.queue().change() as db:
        db.executemany(
            "INSERT INTO jobs (study, version, state, created, changed) VALUES (?, 1, 'done', 0, 0)",
            [(f"study{n}",) for n in range(MOST_JOBS + 50)],
        )
    text = page_text(service.site, service.places)
    assert text.count("<tr>") == MOST_JOBS + 1
    assert f"the latest {MOST_JOBS} of {MOST_JOBS + 50}" in text and f"study{MOST_JOBS + 49} v1" in text
