"""Locks of cases: one holder, free again when it dies, whatever machine it died on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medseg.disk import locks
from medseg.disk.locks import FOLDER, STALE_SECONDS, Locks

HOLD = """
import sys, time
from pathlib import Path
from medseg.disk.locks import Locks
locks = Locks(Path(sys.argv[1]))
locks.__enter__()
print(locks.take("a"), flush=True)
time.sleep(60)
"""


def test_a_case_has_one_holder_and_no_lock_stays_behind(tmp_path):
    with Locks(tmp_path) as one, Locks(tmp_path) as two:
        assert one.take("a") and not two.take("a") and two.take("b")
        one.give("a")
        assert two.take("a")
        assert not one.alone()
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_killed_run_is_free_at_once(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other, Locks(tmp_path) as mine:
        assert other.stdout is not None and other.stdout.readline() == "True\n"
        assert not mine.take("a") and not mine.alone()
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert mine.alone() and mine.take("a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("age", "free"), [(0.0, False), (STALE_SECONDS + 60, True)])
def test_a_lock_of_another_machine_is_free_when_it_was_not_touched_for_long(tmp_path, age, free):
    path = tmp_path / FOLDER / "case-a.lock"
    path.parent.mkdir()
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1}))
    then = time.time() - age
    os.utime(path, (then, then))
    with Locks(tmp_path) as mine:
        assert mine.take("a") is free
        assert mine.take("b")


def test_without_flock_a_living_process_of_this_machine_keeps_its_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "try_lock", lambda descriptor: None)
    with Locks(tmp_path) as one, Locks(tmp_path) as two:
        assert one.take("a") and not two.take("a")
        path = tmp_path / FOLDER / "case-b.lock"
        with subprocess.Popen([sys.executable, "-c", ""]) as ended:
            ended.wait()
        path.write_text(json.dumps({"host": locks._HOST, "pid": ended.pid}))
        assert two.take("b")


def test_a_lock_whose_holder_died_before_writing_its_name_is_free(tmp_path):
    path = tmp_path / FOLDER / "case-a.lock"
    path.parent.mkdir()
    path.touch()
    with Locks(Path(tmp_path)) as mine:
        assert mine.take("a")
