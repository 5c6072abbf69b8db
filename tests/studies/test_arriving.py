"""A study that is still arriving: never a mask of a part, and the next call makes the whole one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selection_studies import write_series

import medseg
from medseg.disk import snapshot
from medseg.disk.snapshot import take_snapshot
from medseg.errors import ConfigError
from medseg.inference import load_model
from medseg.studies import PredictOptions, chain, find, predict_studies, run, sources
from medseg.volume import Volume

SLICES, THERE = 20, 9
# Where a run is when something happens to the study: what is called then, and where it is looked up.
MOMENTS = [
    (run, "find_sources"),
    (sources, "scan"),
    (find, "find_studies"),
    (run, "with_own_names"),
    (chain, "input_hash"),
    (chain, "read_channels"),
    (chain, "refuse_change"),
    (chain.Model, "predict"),
    (chain, "examine_case"),
    (chain, "preview_png"),
]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    array = np.random.default_rng(0).integers(0, 3, (6, 5, SLICES)).astype(np.int16)
    return write_series(tmp_path / "whole", 1, array=array)


def expected(model: Path, study: Path) -> np.ndarray:
    return load_model(model).predict(medseg.read(study)).array


def once_at(monkeypatch: pytest.MonkeyPatch, moment: tuple[Any, str], happens: Callable[[], None]) -> None:
    """Let something happen when the run comes to `moment`, the first time."""
    where, name = moment
    real, done = getattr(where, name), []

    def called(*arguments: Any, **options: Any) -> Any:
        if not done:
            done.append(True)
            happens()
        return real(*arguments, **options)

    monkeypatch.setattr(where, name, called)


def slices_of(study: Path) -> list[Path]:
    return sorted(study.iterdir())


def check_next_call(model: Path, arriving: Path, study: Path, out: Path, result: Any, damaged: bool = False) -> None:
    """The study failed by name (or as damaged), and the next call gives the mask of the whole one."""
    truth = expected(model, study)
    (failed,) = result.failed
    assert damaged or "is still being written" in failed.error, failed.error
    assert not (out / f"{failed.case}.nii.gz").exists()
    for path in study.iterdir():
        shutil.copy(path, arriving / path.name)
    again = predict_studies(model, [arriving], out)
    again.raise_for_failures()
    np.testing.assert_array_equal(medseg.read(out / "arriving.nii.gz").array, truth)
    last = json.loads((out / "ledger.jsonl").read_text().splitlines()[-1])
    assert last["case"] == "arriving" and last["state"] in ("done", "needs_review") and last["images"] == SLICES


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: moment[1])
@pytest.mark.parametrize("kind", ["come", "come one by one", "come under the names of others", "grow"])
def test_slices_that_come_while_a_run_is_on_are_noticed(threshold_bundle, study, tmp_path, monkeypatch, moment, kind):
    model, out, arriving = threshold_bundle(), tmp_path / "out", tmp_path / "arriving"
    arriving.mkdir()
    for path in slices_of(study)[:THERE]:
        shutil.copy2(path, arriving)
    if kind == "grow":
        last = arriving / slices_of(study)[THERE - 1].name
        last.write_bytes(last.read_bytes()[:-20])

    def happens() -> None:
        if kind == "grow":
            shutil.copy2(slices_of(study)[THERE - 1], arriving)
        elif kind == "come under the names of others":
            shutil.copy2(slices_of(study)[-1], arriving / ".new").replace(arriving / "000")
        else:
            for path in slices_of(study)[THERE:][: 1 if kind == "come one by one" else SLICES]:
                shutil.copy2(path, arriving)

    with monkeypatch.context() as patched:
        once_at(patched, moment, happens)
        result = predict_studies(model, [arriving], out)
    check_next_call(model, arriving, study, out, result, damaged=kind == "grow")


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: moment[1])
@pytest.mark.parametrize("there", ["above", "beside"])
def test_slices_that_come_into_a_folder_of_their_own_are_noticed(
    threshold_bundle, study, tmp_path, monkeypatch, moment, there
):
    model, out, arriving = threshold_bundle(), tmp_path / "out", tmp_path / "arriving"
    first = arriving if there == "above" else arriving / "part1"
    first.mkdir(parents=True)
    for path in slices_of(study)[:THERE]:
        shutil.copy2(path, first)

    def happens() -> None:
        (arriving / "part2").mkdir()
        for path in slices_of(study)[THERE:]:
            shutil.copy2(path, arriving / "part2")

    with monkeypatch.context() as patched:
        once_at(patched, moment, happens)
        result = predict_studies(model, [arriving], out)
    assert "is still being written" in result.failed[0].error and not list(out.glob("*.nii.gz"))
    predict_studies(model, [arriving], out).raise_for_failures()
    (mask,) = out.glob("*.nii.gz")
    np.testing.assert_array_equal(medseg.read(mask).array, expected(model, study))


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: moment[1])
@pytest.mark.parametrize("kind", ["go", "are replaced", "are cut short"])
def test_slices_that_change_or_go_while_a_run_is_on_are_noticed(
    threshold_bundle, study, tmp_path, monkeypatch, moment, kind
):
    model, out, arriving = threshold_bundle(), tmp_path / "out", tmp_path / "arriving"
    shutil.copytree(study, arriving)

    def happens() -> None:
        last = slices_of(arriving)[-1]
        if kind == "go":
            last.unlink()
        elif kind == "are cut short":
            last.write_bytes(last.read_bytes()[:-20])
        else:
            # Other pixels under the same name, size and time of writing.
            state, content = last.stat(), last.read_bytes()
            last.write_bytes(content[:-2] + bytes(255 - b for b in content[-2:]))
            os.utime(last, ns=(state.st_atime_ns, state.st_mtime_ns))

    with monkeypatch.context() as patched:
        once_at(patched, moment, happens)
        result = predict_studies(model, [arriving], out)
    check_next_call(model, arriving, study, out, result)


def test_a_study_that_has_lost_slices_since_an_earlier_run_is_refused(threshold_bundle, study, tmp_path):
    model, out = threshold_bundle(), tmp_path / "out"
    predict_studies(model, [study], out).raise_for_failures()
    before = (out / "1.nii.gz").read_bytes()
    kept = [path.rename(tmp_path / path.name) for path in slices_of(study)[THERE:]]
    for _ in range(2):
        result = predict_studies(model, [study], out)
        assert result.exit_code == 3 and f"contains {THERE} images" in result.failed[0].error
        assert f"found {SLICES}" in result.failed[0].error and (out / "1.nii.gz").read_bytes() == before
    for path in kept:
        path.rename(study / path.name)
    predict_studies(model, [study], out).raise_for_failures()
    assert (out / "1.nii.gz").read_bytes() == before
    for path in slices_of(study)[THERE:]:
        path.unlink()
    predict_studies(model, [study], out, PredictOptions(overwrite=True)).raise_for_failures()
    assert medseg.read(out / "1.nii.gz").shape[2] == THERE


def test_what_else_comes_into_the_folder_of_a_study_changes_nothing(threshold_bundle, study, tmp_path, monkeypatch):
    model, out = threshold_bundle(), study / "masks"

    def happens() -> None:
        (study / "notes.txt").write_text("x")
        (study / ".hidden").write_text("x")
        (study / "folder").mkdir()
        write_series(tmp_path, 2, StudyInstanceUID="1.2.3.4")
        for path in (tmp_path / "2").iterdir():
            path.rename(study / f"other-{path.name}")

    once_at(monkeypatch, (chain, "examine_case"), happens)
    predict_studies(model, [study], out).raise_for_failures()


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_image_files_that_are_still_being_written_are_noticed(threshold_bundle, tmp_path, monkeypatch, suffix):
    model, path = threshold_bundle(), tmp_path / "in" / f"ct{suffix}"
    path.parent.mkdir()
    volume = Volume(np.random.default_rng(0).random((8, 8, 8)).astype(np.float32), np.diag([-1.0, 1.0, 1.0, 1.0]))
    medseg.write(volume, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with monkeypatch.context() as patched:
        once_at(patched, (chain, "read_channels"), lambda: path.write_bytes(whole[: len(whole) * 3 // 4]) and None)
        failed = predict_studies(model, [path.parent], tmp_path / "out").failed
    assert "ct" in failed[0].error and "is still being written" in failed[0].error
    path.write_bytes(whole)
    predict_studies(model, [path.parent], tmp_path / "out").raise_for_failures()


def test_settle_waits_until_nothing_has_been_written_for_so_long(threshold_bundle, study, tmp_path):
    model, out, arriving = threshold_bundle(), tmp_path / "out", tmp_path / "arriving"
    arriving.mkdir()
    shutil.copy(slices_of(study)[0], arriving)

    def arrive() -> None:
        for path in slices_of(study)[1:]:
            shutil.copy(path, arriving)
            time.sleep(0.02)

    thread = threading.Thread(target=arrive)
    thread.start()
    predict_studies(model, [arriving], out, PredictOptions(settle=0.5)).raise_for_failures()
    thread.join()
    np.testing.assert_array_equal(medseg.read(out / "arriving.nii.gz").array, expected(model, study))


def test_writing_that_never_ends_is_not_waited_for_and_fails_by_name(tmp_path, monkeypatch):
    path = tmp_path / "in" / "ct.nii.gz"
    path.parent.mkdir()
    path.write_bytes(b"x")
    old = tmp_path / "in" / "old.nii.gz"
    old.write_bytes(b"x")
    real_sleep, writes = time.sleep, []

    def writes_on(seconds: float) -> None:
        real_sleep(0.01)
        writes.append(path.write_bytes(b"x" * len(writes)))

    monkeypatch.setattr(snapshot.time, "sleep", writes_on)
    found = take_snapshot([path.parent], tmp_path / "out", 0.1)
    assert 1 <= len(writes) <= 101
    assert not found.of([path], False).was_quiet
    assert "files were written when the run began" in found.of([path], False).change(len)


def test_a_clock_that_is_far_off_is_not_waited_for(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "ct.nii.gz").write_bytes(b"x")
    started = time.monotonic()
    ahead = snapshot.Snapshot({}, {}, {}, time.time_ns() + 3600 * 10**9, 5.0)
    assert not ahead.is_fresh(time.time_ns()) and time.monotonic() - started < 1


def test_a_settle_below_zero_is_refused():
    with pytest.raises(ConfigError, match="settle is -1"):
        PredictOptions(settle=-1)


@pytest.mark.slow
@pytest.mark.parametrize("started_after", np.linspace(0, 0.9, 10))
def test_a_run_that_starts_while_slices_arrive_makes_no_mask_of_a_part(unet_bundle, study, tmp_path, started_after):
    out, arriving = tmp_path / "out", tmp_path / "arriving"
    arriving.mkdir()
    command = [sys.executable, "-m", "medseg", "predict", str(unet_bundle), str(arriving), "-o", str(out)]
    pause = 0.4

    def arrive() -> None:
        for path in slices_of(study):
            shutil.copy2(path, arriving)
            time.sleep(pause)

    thread = threading.Thread(target=arrive)
    thread.start()
    time.sleep(started_after * pause * SLICES)
    first = subprocess.run(command, capture_output=True, text=True)
    thread.join()
    truth = expected(unet_bundle, study)
    if first.returncode == 0:
        np.testing.assert_array_equal(medseg.read(out / "arriving.nii.gz").array, truth)
    else:
        assert first.returncode == 3 and not list(out.glob("*.nii.gz")), first.stderr
    assert subprocess.run(command, capture_output=True).returncode == 0
    np.testing.assert_array_equal(medseg.read(out / "arriving.nii.gz").array, truth)
