"""Studies are fetched from an archive: only what was not seen, complete as the archive counts, late objects too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pydicom
import pytest
from archives import SEG, Archive, dicom_archive, web_archive
from service_fixtures import Service

from medseg.service.audit import Audit
from medseg.service.pull import Puller
from medseg.service.results import outgoing_files
from medseg.service.spool import Spool

Series = Callable[..., Path]


@pytest.fixture
def archive() -> Archive:
    return Archive()


@pytest.fixture(params=[dicom_archive, web_archive])
def source(request: pytest.FixtureRequest, archive: Archive, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The archive's entry in a site file, for each of the two ways."""
    monkeypatch.setattr("pynetdicom._config.STORE_RECV_CHUNKED_DATASET", True)
    with request.param(archive) as entry:
        yield entry


@pytest.fixture
def pulling(service: Service, source: dict[str, Any]) -> Iterator[Callable[[], int]]:
    """A service that takes studies from the archive alone, and a round of queries."""
    service.change(watch=None, quiet_s=86000, pull={"pacs": source})
    service.queue()
    service.now = 4e9
    incoming = service.places.pulling("pacs")
    spool = Spool(service.places, 0, incoming)
    puller = Puller("pacs", service.site.pull["pacs"], incoming, spool, service.queue(), Audit(service.places))

    def step() -> int:
        new = puller.step()
        assert not list(incoming.iterdir())
        return new

    yield step


def finished(service: Service) -> list[tuple[int, str]]:
    service.intake()
    service.work()
    return [(job.version, job.state) for job in service.queue().jobs()]


def test_a_study_is_fetched_once_and_complete_as_soon_as_all_of_it_is_there(
    service: Service, small_series: Series, archive: Archive, pulling: Callable[[], int]
) -> None:
    archive.put(small_series())
    assert pulling() == 6
    assert finished(service) == [(1, "done")]
    assert pulling() == 0 and len(archive.asked) == 3  # not before every_minutes are over
    service.now += 600
    assert pulling() == 0 and len(archive.asked) == 4  # only the question which studies there are
    assert len(archive.fetched) == 6
    first = (date.today() - timedelta(days=3)).strftime("%Y%m%d-")
    assert archive.asked[0].split()[-1] == archive.asked[-1].split()[-1] == first
    assert [line["hop"] for line in service.audit()][:3] == ["received", "pulled", "complete"]


def test_a_pull_that_is_killed_goes_on_where_it_was(
    service: Service, small_series: Series, archive: Archive, pulling: Callable[[], int]
) -> None:
    archive.put(small_series())
    service.killed_at("spool.after_rename", pulling)
    service.places.pulling("pacs")  # as the next process does, clears what was left
    assert finished(service) == []  # one object of six is no study
    assert pulling() == 5
    assert finished(service) == [(1, "done")]


def test_what_came_late_to_the_archive_is_fetched_alone_and_makes_a_new_version(
    service: Service, small_series: Series, archive: Archive, pulling: Callable[[], int]
) -> None:
    archive.put(small_series())
    late = archive.objects.pop()
    assert pulling() == 5
    finished(service)
    archive.objects.append(late)
    service.now += 600
    assert pulling() == 1 and len(archive.fetched) == 6
    assert finished(service)[-1] == (2, "done")


def test_what_others_sent_is_not_fetched_again(
    service: Service, small_series: Series, archive: Archive, pulling: Callable[[], int], tmp_path: Path
) -> None:
    folder = small_series()
    archive.put(folder)
    for path in sorted(folder.iterdir())[:4]:
        Spool(service.places).take(path, lambda study: service.queue().note_study(study, "CT1"))
    assert pulling() == 2 and len(archive.fetched) == 2
    assert finished(service) == [(1, "done")]


def test_results_that_are_stored_in_the_archive_are_not_fetched_and_start_nothing(
    service: Service, small_series: Series, archive: Archive, pulling: Callable[[], int]
) -> None:
    archive.put(small_series())
    pulling()
    finished(service)
    (job,) = service.queue().jobs()
    (mask,) = outgoing_files(service.places.results / job.folder)
    archive.objects.append(pydicom.dcmread(mask))
    assert archive.objects[-1].SOPClassUID == SEG
    service.now += 600
    assert pulling() == 0 and len(archive.fetched) == 6
    assert finished(service) == [(1, "done")]


def test_an_archive_without_counts_is_asked_for_all_objects_and_not_for_seen_ones(
    service: Service, small_series: Series, archive: Archive, pulling: Callable[[], int]
) -> None:
    archive.is_counting = False
    archive.put(small_series())
    assert pulling() == 6
    assert finished(service) == [(1, "done")]
    service.now += 600
    assert pulling() == 0 and len(archive.fetched) == 6


def test_an_archive_that_fails_is_reported_and_asked_again(
    service: Service, small_series: Series, archive: Archive, pulling: Callable[[], int]
) -> None:
    archive.put(small_series())
    archive.is_failing = True
    assert pulling() == 0
    assert service.audit()[-1]["hop"] == "pull_failed" and service.audit()[-1]["source"] == "pacs"
    archive.is_failing = False
    service.now += 600
    assert pulling() == 6
    assert finished(service) == [(1, "done")]


def test_an_object_that_does_not_come_holds_up_no_other_study_or_series_and_comes_later(
    service: Service, small_series: Series, archive: Archive, pulling: Callable[[], int]
) -> None:
    archive.put(small_series("a"))
    archive.put(small_series("b", SeriesInstanceUID="1.2.4"))
    archive.put(small_series("c", StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.5"))
    archive.broken = {str(archive.objects[0].SOPInstanceUID)}
    pulling()
    assert sum(1 for _ in service.places.spool.rglob("*.dcm")) >= 12
    assert "pull_failed" in [line["hop"] for line in service.audit()]
    service.now += 600
    pulling()
    assert sum(1 for _ in service.places.spool.rglob("*.dcm")) == 17
    archive.broken = set()
    service.now += 600
    pulling()
    assert sum(1 for _ in service.places.spool.rglob("*.dcm")) == 18


def test_patients_with_one_study_uid_in_the_archive_stay_two_studies(
    service: Service, small_series: Series, archive: Archive, pulling: Callable[[], int]
) -> None:
    archive.put(small_series("a", PatientID="p1"))
    archive.put(small_series("b", PatientID="p2", StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.4"))
    assert pulling() == 12
    finished(service)
    for job in service.queue().jobs():
        (mask,) = outgoing_files(service.places.results / job.folder)
        (original, *_) = (service.places.versions / job.case).iterdir()
        assert pydicom.dcmread(mask).PatientID == pydicom.dcmread(original).PatientID


def test_only_the_wanted_modalities_are_fetched(
    service: Service, small_series: Series, archive: Archive, source: dict[str, Any], pulling: Callable[[], int]
) -> None:
    service.change(pull={"pacs": {**source, "modalities": ["MR"]}})
    archive.put(small_series())
    incoming = service.places.pulling("mr")
    spool = Spool(service.places, 0, incoming)
    puller = Puller("mr", service.site.pull["pacs"], incoming, spool, service.queue(), Audit(service.places))
    assert puller.step() == 0 and not archive.fetched
