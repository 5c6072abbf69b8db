"""Temporary folders: gone after use, gone after `kill -9` with the next run, and never anybody else's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from medseg.disk import temporary
from medseg.disk.temporary import remove_dead_folders, temporary_folder

HOLD = """
import time
from medseg.disk.temporary import temporary_folder
with temporary_folder() as folder:
    (folder / "patient").mkdir()
    (folder / "patient" / "ct.dcm").write_text("Roe^Richard")
    print(folder, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def made(place: Path, owner: str, age: float = 0.0) -> Path:
    """A folder as a run leaves it."""
    root = place / "medseg-abcd"
    (root / "files").mkdir(parents=True)
    (root / "files" / "ct.dcm").write_text("x")
    (root / "owner").write_text(owner)
    then = time.time() - age
    os.utime(root / "owner", (then, then))
    return root


def test_a_folder_is_private_and_gone_after_the_block(place):
    with temporary_folder() as folder:
        assert list(folder.iterdir()) == []
        assert folder.parent.stat().st_mode & 0o077 == 0
        (folder / "a").write_text("x")
    with pytest.raises(KeyError), temporary_folder():
        raise KeyError
    assert list(place.iterdir()) == []


def test_a_folder_of_this_process_is_in_use(place):
    with temporary_folder() as folder:
        (folder / "a").write_text("x")
        remove_dead_folders()
        assert (folder / "a").read_text() == "x"


def test_a_living_run_keeps_its_folder_and_a_killed_one_does_not(place):
    environment = {**os.environ, "TMPDIR": str(place)}
    with subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        remove_dead_folders()
        assert (folder / "patient" / "ct.dcm").exists()
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (folder / "patient" / "ct.dcm").exists()
    remove_dead_folders()
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(("age", "left"), [(60, True), (100_000, False)])
def test_a_folder_of_another_machine_is_left_alone_for_a_day(place, age, left):
    root = made(place, json.dumps({"host": "elsewhere", "pid": 1}), age)
    remove_dead_folders()
    assert root.exists() is left


@pytest.mark.parametrize(("alive", "age", "left"), [(True, 100_000, True), (False, 100_000, False), (False, 9, True)])
def test_without_locks_the_process_must_be_dead_and_the_folder_a_day_old(place, monkeypatch, alive, age, left):
    monkeypatch.setattr(temporary, "try_lock", lambda descriptor: None)
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    root = made(place, json.dumps({"host": temporary._HOST, "pid": os.getpid() if alive else ended.pid}), age)
    remove_dead_folders()
    assert root.exists() is left


def test_what_others_named_alike_stays(place, tmp_path):
    mine = json.dumps({"host": temporary._HOST, "pid": 1})
    (place / "medseg-file").write_text("x")
    (place / "medseg-folder").mkdir()
    (place / "medseg-results").mkdir()
    (place / "medseg-results" / "owner").write_text("Jane")
    shared = made(place, mine)
    (shared / "notes.txt").write_text("not ours")
    away = tmp_path / "away"
    away.mkdir()
    (away / "owner").write_text(mine)
    (place / "medseg-link").symlink_to(away)
    before = sorted(place.rglob("*"))
    remove_dead_folders()
    assert sorted(place.rglob("*")) == before


def test_links_inside_are_removed_and_not_followed(place):
    (place / "precious").mkdir()
    (place / "precious" / "a").write_text("x")
    root = made(place, json.dumps({"host": temporary._HOST, "pid": 1}))
    (root / "files" / "link").symlink_to(place / "precious")
    remove_dead_folders()
    assert not root.exists() and (place / "precious" / "a").exists()


def test_a_folder_whose_maker_has_not_named_itself_yet_stays(place):
    root = made(place, "")
    remove_dead_folders()
    assert root.exists()
