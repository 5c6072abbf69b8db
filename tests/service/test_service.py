"""From a watched folder to results: complete studies, rules, versions, and what is not done."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from service_fixtures import Service

from medseg.config.site import load_site
from medseg.errors import ConfigError, MachineError
from medseg.service.places import hold_role
from medseg.service.queue import MOST_CRASHES
from medseg.service.queue_records import BACKOFF_MINUTES
from medseg.service.results import outgoing_files
from medseg.service.worker import Worker

Series = Callable[..., Path]


def states(service: Service) -> list[tuple[int, str, str]]:
    return [(job.version, job.rule, job.state) for job in service.queue().jobs()]


def test_a_study_in_the_watched_folder_becomes_a_mask_marked_as_research(
    service: Service, small_series: Series
) -> None:
    service.put(small_series())
    assert service.intake() == 1
    assert service.work() == 1
    assert states(service) == [(1, "spots", "done")]
    (job,) = service.queue().jobs()
    (outgoing,) = outgoing_files(service.places.results / job.folder)
    mask = pydicom.dcmread(outgoing)
    assert mask.Modality == "SEG" and mask.SeriesDescription.startswith("RESEARCH") and mask.PatientID == "p1"
    assert service.intake() == 0 and service.work() == 0  # nothing is done twice


def test_files_of_the_service_are_for_its_user_alone(service: Service, small_series: Series) -> None:
    before = os.umask(0o077)
    try:
        service.put(small_series())
        service.intake()
        service.work()
    finally:
        os.umask(before)
    paths = [service.places.root, *service.places.root.rglob("*")]
    assert len(paths) > 20
    assert not [path for path in paths if path.stat().st_mode & 0o077]


def test_a_late_slice_makes_a_new_version_and_the_unbegun_one_is_given_up(
    service: Service, small_series: Series
) -> None:
    there = service.put(small_series())
    late = sorted(there.iterdir())[-1]
    kept = late.read_bytes()
    late.unlink()
    service.intake()
    late.write_bytes(kept)
    service.intake()
    assert states(service) == [(1, "spots", "dead"), (2, "spots", "ready")]
    service.work()
    assert states(service) == [(1, "spots", "dead"), (2, "spots", "done")]
    assert len(list((service.places.versions / service.queue().jobs()[1].case).iterdir())) == 6


def test_a_study_is_not_complete_before_it_is_quiet(service: Service, small_series: Series) -> None:
    service.change(quiet_s=3600)
    service.put(small_series())
    service.intake()
    assert states(service) == []


def test_a_study_sent_twice_is_one_job(service: Service, small_series: Series) -> None:
    service.put(small_series())
    service.intake()
    shutil.copytree(service.inbox / "one", service.inbox / "two")
    service.intake()
    service.work()
    assert states(service) == [(1, "spots", "done")]


def test_patients_of_one_name_and_study_uid_stay_two_studies(service: Service, small_series: Series) -> None:
    service.put(small_series("a", PatientID="p1"), "a")
    service.put(small_series("b", PatientID="p2"), "b")
    service.intake()
    service.work()
    jobs = service.queue().jobs()
    assert [job.state for job in jobs] == ["done", "done"] and len({job.study for job in jobs}) == 2
    for job in jobs:
        (mask,) = (service.places.results / job.folder).glob("*.dcm")
        (source, *_) = (service.places.versions / job.case).iterdir()
        assert pydicom.dcmread(mask).PatientID == pydicom.dcmread(source).PatientID


def test_own_objects_and_reports_never_trigger_a_job(service: Service, small_series: Series) -> None:
    service.put(small_series())
    service.intake()
    service.work()
    (job,) = service.queue().jobs()
    shutil.copytree(service.places.results / job.folder, service.inbox / "back")
    service.put(small_series("secondary", Manufacturer="medseg", StudyInstanceUID="1.2.3"), "secondary")
    assert service.intake() == 0
    assert len(service.queue().jobs()) == 1
    assert {line["reason"] for line in service.audit() if line["hop"] == "ignored"} == {"own"}


@pytest.mark.parametrize(
    ("match", "fits"),
    [
        ({"modality": "CT"}, True),
        ({"modality": "MR"}, False),
        ({"min_slices": 7}, False),
        ({"description": "^thorax"}, True),
        ({"body_part": "HEAD"}, False),
        ({"calling_ae": "CT_.*"}, False),
    ],
)
def test_a_study_that_no_rule_fits_is_kept_and_reported(
    service: Service, small_series: Series, match: dict[str, object], fits: bool
) -> None:
    (rule,) = service.site.model_dump(mode="json")["rules"]
    service.change(rules=[{**rule, "match": match}])
    service.put(small_series(SeriesDescription="Thorax native", BodyPartExamined="CHEST"))
    service.intake()
    (job,) = service.queue().jobs()
    assert (job.rule, job.state) == (("spots", "ready") if fits else ("", "done"))
    assert len(list((service.places.spool / job.study).iterdir())) == 6
    assert ("no_rule" in [line["hop"] for line in service.audit()]) is not fits
    assert "Thorax" not in job.note


def test_rules_are_tried_in_order_and_name_the_series_that_fit(service: Service, small_series: Series) -> None:
    (rule,) = service.site.model_dump(mode="json")["rules"]
    service.change(rules=[{**rule, "name": "abdomen", "match": {"description": "abdomen"}}, rule])
    service.put(small_series("a", SeriesDescription="abdomen"), "a")
    service.put(small_series("b", SeriesDescription="thorax", SeriesInstanceUID="1.2.3.4"), "b")
    service.intake()
    service.work()
    (job,) = service.queue().jobs()
    assert (job.rule, job.state) == ("abdomen", "done")
    (mask,) = (service.places.results / job.folder).glob("*.dcm")
    assert pydicom.dcmread(mask).ReferencedSeriesSequence[0].SeriesInstanceUID == job.series != "1.2.3.4"


def test_a_study_that_cannot_be_segmented_is_dead_with_its_reason_and_can_be_retried(
    service: Service, small_series: Series
) -> None:
    service.put(small_series("a"), "a")
    service.put(small_series("b", SeriesInstanceUID="1.2.3.4"), "b")
    service.intake()
    service.work()
    (job,) = service.queue().jobs()
    assert job.state == "dead" and "none of 2 series fits the model" in job.note
    assert service.queue().retry(job.id)
    assert service.work() == 1
    assert [line["hop"] for line in service.audit()][-2:] == ["started", "dead"]


def test_errors_of_the_machine_are_retried_after_1_5_15_and_60_minutes(
    service: Service, small_series: Series, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise MachineError("too little memory")

    monkeypatch.setattr("medseg.service.worker.predict_studies", full)
    service.put(small_series())
    service.intake()
    for minutes in BACKOFF_MINUTES:
        assert service.work() == 1
        (job,) = service.queue().jobs()
        assert job.state == "failed" and job.due == service.now + 60 * minutes
        service.now = job.due - 1
        assert service.work() == 0
        service.now = job.due
    assert service.work() == 1
    assert service.queue().jobs()[0].state == "dead"


def test_another_model_than_the_allowed_one_is_not_run(service: Service, small_series: Series) -> None:
    (rule,) = service.site.model_dump(mode="json")["rules"]
    service.change(rules=[{**rule, "model_hash": "0" * 64}])
    service.put(small_series())
    service.intake()
    service.work()
    (job,) = service.queue().jobs()
    assert job.state == "dead" and "allows 0000" in job.note
    assert not service.results()


def test_a_stop_signal_makes_the_running_job_ready_again(
    service: Service, small_series: Series, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    service.put(small_series())
    service.intake()
    with monkeypatch.context() as patch:
        patch.setattr("medseg.service.worker.predict_studies", stopped)
        with pytest.raises(KeyboardInterrupt):
            service.work()
    (job,) = service.queue().jobs()
    assert (job.state, job.crashes) == ("ready", 0)
    assert service.audit()[-1]["hop"] == "returned"
    service.work()
    assert states(service) == [(1, "spots", "done")]


def test_two_services_cannot_have_one_folder(service: Service) -> None:
    descriptor = hold_role(service.places, "service")
    try:
        with pytest.raises(MachineError, match="another service works on"):
            hold_role(service.places, "service")
    finally:
        os.close(descriptor)
    os.close(hold_role(service.places, "service"))


@pytest.mark.parametrize("place", ["spool.before_rename", "spool.after_rename", "complete.before_queue"])
def test_an_intake_killed_anywhere_loses_nothing(service: Service, small_series: Series, place: str) -> None:
    service.put(small_series())
    service.killed_at(place, service.intake)
    service.intake()
    assert [job.state for job in service.queue().jobs() if job.state != "dead"] == ["ready"]
    (job,) = [job for job in service.queue().jobs() if job.state == "ready"]
    assert len(list((service.places.versions / job.case).iterdir())) == 6


@pytest.mark.parametrize("place", ["worker.taken", "worker.predicted", "worker.audited"])
def test_a_worker_killed_anywhere_leaves_no_partial_mask_and_its_job_is_done_with_the_same_bytes(
    service: Service, small_series: Series, place: str
) -> None:
    service.put(small_series())
    service.intake()
    service.killed_at(place, service.work)
    assert states(service) == [(1, "spots", "running")]
    partial = service.results()
    for path in service.places.results.rglob("*.dcm"):
        pydicom.dcmread(path)
    service.work()
    assert states(service) == [(1, "spots", "done")]
    done = service.results()
    assert {name: done[name] for name in partial} == partial and len(done) == 1
    assert "done" in [line["hop"] for line in service.audit()]


def test_a_job_over_which_several_workers_died_is_dead(service: Service, small_series: Series) -> None:
    service.put(small_series())
    service.intake()
    for _ in range(MOST_CRASHES):
        service.killed_at("worker.taken", service.work)
    assert service.work() == 0
    (job,) = service.queue().jobs()
    assert job.state == "dead" and "workers died" in job.note
    assert service.audit()[-1]["hop"] == "dead"


def test_the_audit_contains_no_identifier_and_no_accession_number_can_be_recovered(
    service: Service, small_series: Series
) -> None:
    import hashlib

    service.put(small_series(PatientID="4711", AccessionNumber="0815", PatientName="Doe^Jane"))
    service.intake()
    service.work()
    text = " ".join(path.read_text() for path in service.places.audit.iterdir())
    assert "accession_hash" in text and "patient_hash" in text
    for plain in ("4711", "Doe", "Jane", "1.2.826"):
        assert plain not in text.replace(service.queue().jobs()[0].study, "")
    tried = {
        getattr(hashlib, name)(f"{n:04d}".encode()).hexdigest()[:24]
        for n in range(10_000)
        for name in ("sha256", "md5")
    }
    hashes = {line["accession_hash"] for line in service.audit() if "accession_hash" in line}
    assert len(hashes) == 1 and not hashes & tried


def test_old_studies_are_deleted_once_everything_is_over(service: Service, small_series: Series) -> None:
    service.change(keep_days=2)
    service.put(small_series("a", PatientID="a"), "a")
    service.intake()
    service.work()
    service.put(small_series("b", PatientID="b"), "b")
    service.now += 1.9 * 86400
    service.intake()
    first, second = service.queue().jobs()
    assert (service.places.spool / first.study).is_dir()
    service.now += 0.2 * 86400
    service.intake()
    left = {
        path.name for folder in ("spool", "versions", "results") for path in (service.places.root / folder).iterdir()
    }
    assert left == {second.study, second.case}
    assert [line["study"] for line in service.audit() if line["hop"] == "deleted"] == [first.study]
    assert service.intake() == 0  # what stays in the watched folder does not come back
    service.now += 90 * 86400
    service.intake()
    assert (service.places.spool / second.study).is_dir()  # nobody has worked on it yet


def test_an_object_that_comes_while_its_study_is_deleted_brings_the_study_back(
    service: Service, small_series: Series
) -> None:
    service.change(keep_days=2)
    there = service.put(small_series())
    late = sorted(there.iterdir())[-1]
    kept = late.read_bytes()
    late.unlink()
    service.intake()
    service.work()
    (job,) = service.queue().jobs()
    service.now += 3 * 86400
    service.killed_at("retention.aside", service.intake)
    aside = service.places.versions / f".aside-{job.study}"
    (aside / "late.dcm").write_bytes(kept)  # what a receiver does that had the folder open
    service.intake()
    assert len(list((service.places.spool / job.study).iterdir())) == 6
    service.intake()
    assert states(service)[-1] == (2, "spots", "ready")


def test_a_deletion_that_was_killed_is_finished_and_leaves_no_part_of_a_study(
    service: Service, small_series: Series
) -> None:
    service.change(keep_days=2)
    service.put(small_series())
    service.intake()
    service.work()
    service.now += 3 * 86400
    service.killed_at("retention.aside", service.intake)
    service.intake()
    assert not list(service.places.spool.iterdir()) and not list(service.places.versions.iterdir())
    assert len(service.queue().jobs()) == 1


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"quiet": 3}, "did you mean 'quiet_s'"),
        ({"rules": [{"name": "a b", "model": "m"}]}, "rules.0.name"),
        ({"rules": [{"name": "a", "model": "m"}, {"name": "a", "model": "m"}]}, "two rules are called 'a'"),
        ({"rules": [{"name": "a", "model": "m", "send_to": ["pacs"]}]}, "not a destination"),
        ({"rules": [{"name": "a", "model": "m", "formats": ["dicom-sge"]}]}, "dicom-seg"),
        ({"rules": [{"name": "a", "model": "m", "match": {"modalty": "CT"}}]}, "did you mean 'modality'"),
        ({"keep_days": 0}, "keep_days"),
        ({"prefix": "a\\b"}, "prefix"),
        ({"pull": {"pacs": {"url": "ftp://pacs"}}}, "url"),
        ({"page": {"host": "192.168.0.1"}}, "token_file"),
    ],
)
def test_a_wrong_site_file_is_refused_by_key(service: Service, values: dict[str, object], named: str) -> None:
    service.change(**values)
    with pytest.raises(ConfigError, match=named):
        load_site(service.path)


def test_a_rule_that_names_no_hash_says_which_one_to_enter(service: Service) -> None:
    (rule,) = service.site.model_dump(mode="json")["rules"]
    service.change(rules=[{**rule, "model_hash": None}])
    worker = Worker(service.site, service.places, service.queue(), None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=rule["model_hash"]):
        worker.check_models()
