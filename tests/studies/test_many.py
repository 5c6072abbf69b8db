"""Many hostile files: the work grows with their number, not with its square. Calls are counted, not seconds."""

from __future__ import annotations

import collections
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import pytest

from medseg.disk.locks import Locks
from medseg.errors import ReadError
from medseg.inference import load_model
from medseg.io.dicom.series import scan
from medseg.phantoms import samples_folder
from medseg.studies import PredictOptions, predict_studies, run
from medseg.studies.case_work import CaseWork
from medseg.studies.chain import CaseChain
from medseg.studies.channel_files import group_by_kind
from medseg.studies.ledger import Ledger, LedgerRow
from medseg.studies.sources import Source, find_studies, input_hash

Make = Callable[[Path, int], None]


def damaged_folders(place: Path, count: int) -> None:
    for n in range(count):
        (place / f"{n}").mkdir()
        (place / f"{n}" / "1.dcm").write_bytes(b"nothing")


def damaged_files(place: Path, count: int) -> None:
    for n in range(count):
        (place / f"{n}.dcm").write_bytes(b"nothing")


def headers_alone(place: Path, count: int) -> None:
    for n in range(count):
        (place / f"{n}.mhd").write_text("ObjectType = Image\nNDims = 3\nDimSize = 9 9 9\nElementDataFile = gone.raw\n")


def turned_slices(place: Path, count: int) -> None:
    """Slices of one series, each turned against all others."""
    data = pydicom.dcmread(sorted((samples_folder() / "study").iterdir())[0])
    data.Rows, data.Columns, data.PixelData = 2, 2, bytes(8)
    for n in range(count):
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{n}"
        data.ImageOrientationPatient = [1, f"{0.002 * n:.3f}", 0, 0, 1, 0]
        data.save_as(place / f"{n}")


def calls(function: Callable[[], Any]) -> int:
    """How many Python functions are called, in all threads; comparisons and steps of generators among them."""
    counts: collections.Counter[int] = collections.Counter()

    def note(frame: object, event: str, argument: object) -> None:
        if event == "call":
            counts[threading.get_ident()] += 1

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return counts.total()


def check_grows_in_proportion(calls_for: Callable[[int], int], smallest: int) -> None:
    """Twice as many more cost twice as much more; where all are compared with all it is four times."""
    one, two, four = (calls_for(n * smallest) for n in (1, 2, 4))
    assert four - two < 2.6 * (two - one), (one, two, four)


@pytest.mark.parametrize("make", [damaged_folders, damaged_files, headers_alone])
def test_the_work_of_a_prediction_grows_in_proportion_to_the_damaged_files(unet_bundle, tmp_path, make: Make):
    model = load_model(unet_bundle, "cpu")

    def calls_for(count: int) -> int:
        place = tmp_path / f"in{count}"
        place.mkdir()
        make(place, count)
        shown: list[float] = []
        result: list[Any] = []

        def predict() -> None:
            out = tmp_path / f"out{count}"
            progress = lambda done, total, text: shown.append(done)  # noqa: E731
            result.append(predict_studies(model, [place], out, PredictOptions(), progress))

        number = calls(predict)
        cases = 1 if make is damaged_files else count
        assert len(result[0].failed) == cases and all(row.error for row in result[0].failed)
        assert shown == sorted(shown) and shown[-1] == cases
        return number

    check_grows_in_proportion(calls_for, 50)


def test_progress_is_shown_without_a_look_at_all_cases(unet_bundle, tmp_path, monkeypatch):
    chain = CaseChain(load_model(unet_bundle, "cpu"), tmp_path, PredictOptions())
    monkeypatch.setattr(run._Run, "_through", lambda self, works: iter(works))

    def calls_for(count: int) -> int:
        found = [Source(f"{n}", (tmp_path / f"{n}.dcm",), error="damaged") for n in range(count)]
        shown: list[float] = []
        ledger, locks = Ledger(tmp_path / "ledger.jsonl"), Locks(tmp_path)
        all_ = run._Run(chain, ledger, locks, found, lambda done, total, text: shown.append(done))
        number = calls(lambda: all_.work_on([CaseWork(source) for source in found]))
        # Every case weighs the same here, and one that comes again counts once.
        assert shown == pytest.approx(range(1, count + 1))
        all_.work_on([CaseWork(found[0])])
        assert shown[-1] == count
        return number

    check_grows_in_proportion(calls_for, 100)


def test_slices_that_all_lie_in_other_directions_are_scanned_in_proportion(tmp_path):
    def calls_for(count: int) -> int:
        place = tmp_path / f"{count}"
        place.mkdir()
        turned_slices(place, count)
        found = []
        number = calls(lambda: found.extend(scan(place).series))
        assert len(found) == count
        return number

    check_grows_in_proportion(calls_for, 50)


def test_files_named_by_channel_are_grouped_in_proportion():
    def calls_for(count: int) -> int:
        names = [f"{n:05d}_{kind}.nii.gz" for n in range(count) for kind in ("flair", "t1ce", "seg")]
        found = []
        number = calls(
            lambda: found.append(group_by_kind([Path("in") / name for name in names], Path("in"), ("FLAIR", "T1c")))
        )
        cases, others = found[0]
        assert len(cases) == count and not others
        assert all([p.name for p in each.left_out] == [f"{each.case}_seg.nii.gz"] for each in cases)
        return number

    check_grows_in_proportion(calls_for, 50)


def test_a_folder_is_listed_once_for_all_headers_in_it(tmp_path, monkeypatch):
    headers_alone(tmp_path, 20)
    (tmp_path / "3.raw").write_bytes(b"voxels")
    sources = find_studies(tmp_path)
    before = {source.case: input_hash(source) for source in sources}
    listed = []
    real = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: listed.append(self) or real(self))
    assert {source.case: input_hash(source) for source in sources} == before and len(listed) <= 1
    (tmp_path / "4.raw").write_bytes(b"voxels, too")
    changed = {source.case for source in sources if input_hash(source) != before[source.case]}
    assert changed == {"4"}


def test_failed_cases_rewrite_the_table_of_measurements_seldom(unet_bundle, tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    headers_alone(tmp_path / "in", 300)
    written = []
    real = run.write_measurements

    def slow(rows, folder):
        time.sleep(0.02)
        written.append(len(rows))
        real(rows, folder)

    monkeypatch.setattr(run, "write_measurements", slow)
    monkeypatch.setattr(run, "_SECONDS_BETWEEN_TABLES", 0.0)
    started = time.monotonic()
    predict_studies(unet_bundle, [tmp_path / "in"], tmp_path / "out")
    # The first, the last, and one in 51 times of what one takes.
    assert len(written) <= 2 + (time.monotonic() - started) / (51 * 0.02)
    assert written[-1] == 300 and (tmp_path / "out" / "measurements.csv").is_file()


def test_a_study_of_more_series_than_any_has_is_refused_without_a_list_of_them(tmp_path, monkeypatch):
    monkeypatch.setattr("medseg.studies.sources._MOST_SERIES", 5)
    turned_slices(tmp_path, 6)
    (source,) = find_studies(tmp_path)
    assert "6 series, more than any study" in source.error and not source.candidates and len(source.error) < 200


def test_a_folder_of_damaged_files_is_one_case_that_names_the_first_and_counts_the_rest(tmp_path):
    damaged_files(tmp_path, 3)
    (source,) = find_studies(tmp_path)
    assert source.paths == (tmp_path / "0.dcm",)
    assert "0.dcm" in source.error and "2 more damaged file(s)" in source.error


def test_what_is_known_to_be_damaged_is_not_hashed_and_errors_forget_their_way(unet_bundle, tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    damaged_folders(tmp_path / "in", 2)
    monkeypatch.setattr("medseg.studies.chain.input_hash", lambda source: pytest.fail("hashed"))
    result = predict_studies(unet_bundle, [tmp_path / "in"], tmp_path / "out")
    assert [row.input_hash for row in result.failed] == ["", ""]
    assert all(isinstance(e, ReadError) and e.__traceback__ is e.__context__ is None for e in result.errors)


def test_the_ledger_tells_the_engine_of_the_last_row_that_counts_and_shares_what_is_alike(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    row = LedgerRow("a", "done", model_hash="m", options={"fast": False}, network_engine="one", versions={"torch": "2"})
    ledger.append(row)
    assert ledger.engine_of("m", False) == "one" and ledger.engine_of("m", True) == ledger.engine_of("n", False) == ""
    ledger.append(replace(row, case="b\u2028", network_engine="two"))
    ledger.append(replace(row, case="c", network_engine=""))
    for each in (ledger, Ledger(ledger.path)):
        assert each.engine_of("m", False) == "two"
        assert [r.case for r in each.rows] == ["a", "b\u2028", "c"]
        assert each.rows[0].options is each.rows[2].options and each.rows[0].versions is each.rows[1].versions
    ledger.append(replace(row, case="b\u2028", state="failed", network_engine=""))
    assert ledger.engine_of("m", False) == "one"
    with ledger.path.open("a") as file:
        file.write('{"case": ["d"], "state": "done"}\n{"case": "e", "state": "done", "options": []}\n')
    assert len(Ledger(ledger.path).rows) == 3
