"""With `--anonymize` a patient leaves no trace in files, names, messages and logs, whatever fails."""

from __future__ import annotations

import itertools
import json
import shutil
import traceback
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import planted
import pydicom
import pytest
from selection_studies import write_series

from medseg.errors import MedsegError
from medseg.io.dicom.deidentify.profile import Deidentifier
from medseg.io.dicom.deidentify.site_key import site_key
from medseg.studies import PredictOptions, predict_studies

Search = Callable[..., list[str]]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def studies(tmp_path_factory) -> tuple[Path, set[str], set[str]]:
    """Folder, marks of the patients, and names of the cases that nothing is wrong with; nobody may change it."""
    root = tmp_path_factory.mktemp("planted") / "in"
    return root, *planted.studies(root)


@pytest.fixture
def some(studies, tmp_path) -> Callable[..., Path]:
    """A folder of copies of some of the studies."""

    def take(*names: str) -> Path:
        for name in names:
            shutil.copytree(studies[0] / name, tmp_path / "in" / name)
        return tmp_path / "in"

    return take


@pytest.fixture(autouse=True)
def config(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def search(studies, caplog, recwarn) -> Search:
    """Traces of the planted patients in a folder, in some texts, in the log and in warnings."""

    def look(folder: Path, *texts: str) -> list[str]:
        return planted.traces(studies[1], folder, *texts, caplog.text, *(str(each.message) for each in recwarn))

    return look


def ledger(out: Path) -> dict[str, dict[str, Any]]:
    return {row["case"]: row for row in map(json.loads, (out / "ledger.jsonl").read_text().splitlines())}


@pytest.mark.parametrize("kind", ["nifti", "dicom-seg", pytest.param("rtstruct", marks=pytest.mark.slow)])
def test_nothing_that_a_run_leaves_tells_the_patient(studies, unet_bundle, tmp_path, run, search, kind):
    root, out = studies[0], tmp_path / "out"
    options = ["--format", kind, "--anonymize", *["--json"] * (kind != "nifti")]
    code, stdout, stderr = run("predict", unet_bundle, root, "-o", out, *options, "--save-probabilities")
    rows = ledger(out)
    assert code == 4, stderr
    failed = {case for case, row in rows.items() if row["state"] == "failed"}
    assert len(failed) >= 17 and len(rows) - len(failed) >= len(studies[2])
    assert search(out, stdout, stderr) == []
    assert "SliceThickness is '(removed)'; expected numbers" in rows["wrong0_1"]["error"]
    assert "1 slice(s) missing" in rows["gap_1"]["error"]


def test_the_search_finds_what_a_run_leaves_without_anonymize(some, unet_bundle, tmp_path, run, search):
    out, source = tmp_path / "out", some("good", "wrong0", "alphabet1")
    _, stdout, stderr = run("predict", unet_bundle, source, "-o", out, "--format", "dicom-seg")
    found = " ".join(search(out, stdout, stderr))
    for mark in ("'19410729'", "'Zqxsmith' in", "ZQXWRONG", "1.3.6.1.4.1.99999.1.", "'Люксембург'"):
        assert mark in found
    for place in ("ledger.jsonl", "good_1.dcm", "text 0", "text 1"):
        assert f"in {place}" in found


def test_a_zip_and_a_dry_run_tell_no_more(some, studies, unet_bundle, tmp_path, run, search):
    out, packed, root = tmp_path / "out", tmp_path / "all.zip", some("good", "wrong1", "choice3")
    with zipfile.ZipFile(packed, "w") as archive:
        for path in (p for p in sorted(root.rglob("*")) if p.is_file()):
            archive.write(path, path.relative_to(root))
    _, stdout, stderr = run("predict", unet_bundle, packed, "-o", out, "--anonymize")
    assert search(out, stdout, stderr) == []
    failed = {case: row["state"] == "failed" for case, row in ledger(out).items()}
    assert failed == {"good_1": False, "wrong1_1": True, "choice3": True}
    for more in ([], ["--json"]):
        arguments = ["predict", unet_bundle, studies[0], "-o", tmp_path / "none", "--anonymize", "--dry-run", *more]
        _, stdout, stderr = run(*arguments)
        assert "would be refused" in stdout
        assert search(out, stdout, stderr) == []


def quoting(values: Iterator[str], kind: type[Exception]) -> Callable[..., Any]:
    """A function that fails as libraries do: with values of the header in its text."""

    def fail(*_: Any, **__: Any) -> Any:
        raise kind(f"bad values {', '.join(map(repr, itertools.islice(values, 5)))} and {next(values)}")

    return fail


@pytest.mark.parametrize(
    ("where", "kind"),
    [
        ("medseg.studies.chain.read_channels", MemoryError),
        ("medseg.studies.chain.read_channels", ValueError),
        ("medseg.studies.chain.write_mask", ValueError),
        ("medseg.studies.chain.write_mask", MedsegError),
        ("medseg.studies.chain.measure", AttributeError),
    ],
)
def test_no_stage_that_quotes_a_header_tells_it(some, unet_bundle, tmp_path, run, search, monkeypatch, where, kind):
    out, source = tmp_path / "out", some("good", "uuid", "weight", "charset", "few")
    texts = [*planted.TEXTS.values(), planted.NAME, "ZQXMEANING of a code", "ZQXNESTED^Name", "ZQXTITLE"]
    monkeypatch.setattr(where, quoting(itertools.cycle(texts), kind))
    code, stdout, stderr = run("predict", unet_bundle, source, "-o", out, "--anonymize", "--format", "dicom-seg")
    assert code == (3 if kind in (MemoryError, MedsegError) else 1)
    assert search(out, stdout, stderr) == []
    assert stdout.count("bad values '(removed)") == 5


@pytest.mark.parametrize(
    "extra", [("--time-limit", "0.0000001"), ("--series", "1.3.6.1.4.1.99999.1.498.77.1", "--overwrite")]
)
def test_neither_a_time_limit_nor_a_uid_asked_for_is_told(studies, unet_bundle, tmp_path, run, search, extra):
    out = tmp_path / "out"
    _, stdout, stderr = run("predict", unet_bundle, studies[0] / "good", "-o", out, "--anonymize", *extra)
    assert search(out, stdout, stderr) == []
    assert len(ledger(out)) == 1


def test_an_error_before_the_first_case_tells_nothing(studies, unet_bundle, tmp_path, run, search):
    for name in ("wrong0", "rows", "cut"):
        for path in sorted((studies[0] / name / "1").iterdir()):
            _, stdout, stderr = run("predict", unet_bundle, path, "-o", tmp_path / "out", "--anonymize", "--dry-run")
            assert search(tmp_path / "out", stdout, stderr) == []
    uid = "1.3.6.1.4.1.99999.1.498.77.5"
    code, stdout, stderr = run("predict", unet_bundle, studies[0], "-o", tmp_path, "--anonymize", "--series", uid)
    assert (code, uid in stderr) == (3, False)


def test_a_traceback_tells_nothing(studies, unet_bundle, tmp_path, monkeypatch, search):
    fail = quoting(itertools.cycle(planted.TEXTS.values()), KeyError)
    monkeypatch.setattr("medseg.studies.run.write_measurements", fail)
    options = PredictOptions(anonymize=True)
    with pytest.raises(RuntimeError, match="KeyError, whose text may quote") as caught:
        predict_studies(unet_bundle, [studies[0] / "good"], tmp_path / "out", options)
    assert search(tmp_path / "out", "".join(traceback.format_exception(caught.value))) == []
    with pytest.raises(MedsegError) as refused:
        predict_studies(unet_bundle, [studies[0] / "wrong0" / "1" / "004"], tmp_path / "out", options)
    assert search(tmp_path / "out", "".join(traceback.format_exception(refused.value))) == []


def test_ledger_and_messages_give_the_uids_that_the_objects_get(some, unet_bundle, tmp_path, run):
    out, source = tmp_path / "out", some("gap", "choose", "uuid")
    _, stdout, _ = run("predict", unet_bundle, source, "-o", out, "--anonymize", "--format", "dicom-seg")
    new = Deidentifier.with_key(site_key()).uid
    rows = ledger(out)
    lone, chosen, sound = rows["gap_1"], rows["choose"], rows["uuid_1"]
    assert new("1.3.6.1.4.1.99999.4.498.77.1") in lone["error"]
    assert lone["series_uid"] == new("1.3.6.1.4.1.99999.4.498.77.1")
    assert f"{new('1.3.6.1.4.1.99999.6.498.77.2')} (CT" in chosen["error"]
    assert all(row["error"] in stdout for row in (lone, chosen))
    made = pydicom.dcmread(out / "uuid_1.dcm")
    assert made.ReferencedSeriesSequence[0].SeriesInstanceUID == sound["series_uid"]


@pytest.mark.parametrize(
    "folder",
    ["Zqxsmith", "CT_zqxSMITH_follow-up", "zqx-mrn_73519264", "ZQXACC-81", "1.3.6.1.4.1.99999.1.498.77.1", "Müller-x"],
)
def test_a_case_whose_folder_names_the_patient_gets_a_pseudonym(unet_bundle, tmp_path, run, folder):
    marks: set[str] = set(planted.MARKS)
    place = tmp_path / "in" / folder
    planted.series(place, marks, 1, SpecificCharacterSet="ISO_IR 100", OtherPatientNames="Muller^X")
    planted.series(tmp_path / "in" / "plain", marks, 2)
    out = tmp_path / "out"
    for state in ("done", "skipped"):
        code, stdout, _ = run("predict", unet_bundle, tmp_path / "in", "-o", out, "--anonymize", "--json")
        assert (code, json.loads(stdout)["counts"]) == (0, {state: 2})
    cases = sorted(ledger(out))
    assert cases[1] == "plain_1" and cases[0].startswith("ANON-")
    assert not [name for name, _ in planted.contents(out) if folder.lower() in name.lower()]


def test_a_case_named_by_its_folder_keeps_its_name_without_anonymize(unet_bundle, tmp_path, run):
    planted.series(tmp_path / "in" / "Zqxsmith", set(), 1)
    run("predict", unet_bundle, tmp_path / "in", "-o", tmp_path / "out")
    assert list(ledger(tmp_path / "out")) == ["Zqxsmith_1"]


def test_copies_tell_nothing_either(some, studies, tmp_path, run, search):
    source = some("good", "uuid", "weight", *(f"alphabet{n}" for n in range(len(planted.ALPHABETS))))
    code, stdout, stderr = run("convert", source, tmp_path / "out", "--anonymize")
    assert (code, len(list((tmp_path / "out").rglob("*.dcm")))) == (0, 72)
    assert search(tmp_path / "out", stdout, stderr) == []
    for name in ("wrong0", "cut", "damaged", "charset"):
        _, stdout, stderr = run("convert", studies[0] / name, tmp_path / "more" / name, "--anonymize")
        assert search(tmp_path / "more", stdout, stderr) == []


def test_a_folder_named_by_a_uid_is_not_logged(some, unet_bundle, tmp_path, run, search, caplog):
    source = some("good")
    place = source / "1.3.6.1.4.1.99999.1.498.77.1"
    place.mkdir()
    (place / "packed.zip").write_bytes(b"PK")
    _, stdout, stderr = run("predict", unet_bundle, source, "-o", tmp_path / "out", "--anonymize")
    assert "1 archive(s) were ignored (2.25." in caplog.text
    assert search(tmp_path / "out", stdout, stderr) == []


def test_texts_are_left_alone_without_anonymize(unet_bundle, tmp_path, run):
    write_series(tmp_path, 1)
    _, stdout, _ = run("predict", unet_bundle, tmp_path / "1", "-o", tmp_path / "out", "--json", "--dry-run")
    assert json.loads(stdout)["reasons"] == {"1": "the only image series of the study (CT, axial, 1.0 mm, 12 slices)"}


def test_the_part_of_a_long_name_that_is_only_hashed_counts_too(unet_bundle, tmp_path, run):
    planted.series(tmp_path / "in" / f"{'long_' * 32}zqxsmith", set(), 1)
    run("predict", unet_bundle, tmp_path / "in", "-o", tmp_path / "out", "--anonymize")
    (case,) = ledger(tmp_path / "out")
    assert case.startswith("ANON-")


def test_the_way_to_a_file_of_a_failed_case_names_nobody(unet_bundle, tmp_path, run):
    place = planted.series(tmp_path / "in" / "CTLeeA 2", set(), 1, PatientName="Lee^Al")
    sorted(place.iterdir())[4].unlink()
    _, stdout, stderr = run("predict", unet_bundle, tmp_path / "in", "-o", tmp_path / "out", "--anonymize")
    (row,) = ledger(tmp_path / "out").values()
    assert "/in/(removed)/1 has 1 slice(s) missing" in row["error"]
    assert planted.traces({"LeeA"}, tmp_path / "out", stdout, stderr) == []
